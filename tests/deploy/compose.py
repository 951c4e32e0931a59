"""docker-compose.yml as Compose reads it, and its services as plain processes of this machine."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker-compose.yml"
CONTAINER_HOME = "/var/lib/syncflow"
SECRETS = {
    "SYNCFLOW_DATABASE_PASSWORD": "of-the-superuser",
    "SYNCFLOW_OWNER_PASSWORD": "of-the-owner",
    "SYNCFLOW_APP_PASSWORD": "of-the-app",
    "SYNCFLOW_API_SECRET": "a-secret-of-at-least-thirty-two-bytes",
    "SYNCFLOW_PII_SECRET": "of-digests",
    "SYNCFLOW_APISMITH_PASSWORD": "of-the-sandbox",
    "SYNCFLOW_SCHEDULEHUB_PASSWORD": "of-the-sandbox",
}
VARIABLES = {
    **SECRETS,
    "SYNCFLOW_APISMITH_URL": "http://sandbox:8007",
    "SYNCFLOW_APISMITH_USERNAME": "syncflow",
    "SYNCFLOW_SCHEDULEHUB_URL": "http://sandbox:5180",
    "SYNCFLOW_SCHEDULEHUB_USERNAME": "syncflow",
    "SYNCFLOW_SANDBOX_ROWS": "1000",
}
"""All that the file asks for."""

_VARIABLE = re.compile(r"\$(?:(\$)|\{([A-Z_]+)(?:(:[-?])([^}]*))?\})")


class MissingError(Exception):
    """A variable that the file asks for is not set; the words are the file's."""


def interpolated(text: str, variables: Mapping[str, str]) -> str:
    """With ``${NAME}``, ``${NAME:-default}`` and ``${NAME:?words}`` replaced, and ``$$`` for ``$``."""

    def replaced(found: re.Match[str]) -> str:
        dollar, name, mark, words = found.groups()
        if dollar:
            return "$"
        value = variables.get(name, "")
        if value or mark is None:
            return value
        if mark == ":?":
            raise MissingError(f"{name}: {words}")
        return str(words)

    return _VARIABLE.sub(replaced, text)


def seconds(value: object) -> float:
    parts = re.fullmatch(r"(\d+)s", str(value))
    assert parts is not None, value
    return float(parts[1])


Seconds = Annotated[float, BeforeValidator(seconds)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class HealthCheck(Strict):
    test: list[str]
    interval: Seconds
    timeout: Seconds
    retries: int
    start_period: Seconds


class Dependency(Strict):
    condition: Literal["service_started", "service_healthy", "service_completed_successfully"]


class Build(Strict):
    context: str
    args: dict[str, str]


class Logging(Strict):
    driver: str
    options: dict[str, str]


class Service(Strict):
    image: str
    build: Build | None = None
    command: list[str] | None = None
    environment: dict[str, str | None] = {}
    profiles: list[str] = []
    depends_on: dict[str, Dependency] = {}
    healthcheck: HealthCheck | None = None
    volumes: list[str] = []
    tmpfs: list[str] = []
    networks: list[str]
    ports: list[str] = []
    secrets: list[str] = []
    restart: Literal["no", "unless-stopped"]
    init: bool = False
    read_only: bool = False
    cap_drop: list[str] = []
    security_opt: list[str] = []
    stop_grace_period: Seconds = 10.0
    shm_size: str | None = None
    logging: Logging

    def mounts(self) -> dict[str, str]:
        """What is mounted, by its place in the container."""
        pairs = [volume.split(":") for volume in self.volumes]
        return {inside: outside for outside, inside, *_ in pairs}


class Compose(Strict):
    name: str
    services: dict[str, Service]
    networks: dict[str, dict[str, bool] | None]
    volumes: dict[str, None]
    secrets: dict[str, dict[str, str]]


def read(variables: Mapping[str, str]) -> Compose:
    """The file with these variables, values in it interpolated as Compose does: after parsing."""

    def walk(value: Any) -> Any:
        if isinstance(value, str):
            return interpolated(value, variables)
        if isinstance(value, list):
            return [walk(item) for item in value]
        if isinstance(value, dict):
            return {name: walk(item) for name, item in value.items() if name[:2] != "x-"}
        return value

    return Compose.model_validate(walk(yaml.safe_load(FILE.read_text("utf-8"))))


def image_environment() -> dict[str, str]:
    """What the last stage of the Dockerfile sets."""
    stage = (ROOT / "Dockerfile").read_text("utf-8").rpartition("\nFROM ")[2]
    (block,) = re.findall(r"^ENV ((?:.*\\\n)*.*)$", stage, re.MULTILINE)
    return dict(pair.split("=", 1) for pair in block.replace("\\\n", " ").split())


class Machine:
    """Runs services of the file here: their commands, environments and health checks, word for word.

    Only what a container would give is put in its place: other services' names and every address to
    listen on become 127.0.0.1, ports free ones, mounted files and the home's volume those of this
    machine.

    Args:
        compose: The file.
        home: Stands for the volume.
        ports: For each port of a container, one of this machine.
        database: The name of the database.
        programs: Folders of programs.
    """

    def __init__(
        self,
        compose: Compose,
        home: Path,
        ports: Mapping[int, int],
        database: str,
        programs: Sequence[Path],
    ) -> None:
        self.compose = compose
        self.home = home
        self.ready: set[str] = set()
        self._ports = ports
        self._database = database
        self._programs = programs
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def here(self, name: str, text: str) -> str:
        """A word of the service's, as it is on this machine."""
        names = "|".join(self.compose.services)
        text = re.sub(rf"(?<![\w.-])(?:{names})(?=:\d)|0\.0\.0\.0", "127.0.0.1", text)
        text = re.sub(r"\b\d{4}\b", lambda m: str(self._ports.get(int(m[0]), m[0])), text)
        text = re.sub(r"(?<=@127\.0\.0\.1)(:\d+)/syncflow$", rf"\1/{self._database}", text)
        for inside, outside in self.compose.services[name].mounts().items():
            place = self.home if inside == CONTAINER_HOME else ROOT / outside
            text = text.replace(inside, str(place))
        return text

    def environment(self, name: str) -> dict[str, str]:
        service = self.compose.services[name]
        given = {key: value for key, value in service.environment.items() if value is not None}
        hosts = {key: "127.0.0.1" for key, value in given.items() if value in self.compose.services}
        whole = {**image_environment(), **given, **hosts}
        del whole["PYTHONDONTWRITEBYTECODE"]  # the image's packages are compiled, these may not be
        path = os.pathsep.join(map(str, self._programs)) + ":/usr/bin:/bin"
        return {**{key: self.here(name, value) for key, value in whole.items()}, "PATH": path}

    def spawn(self, name: str, command: Sequence[str]) -> "subprocess.Popen[bytes]":
        """A command in the service's container, as a process group of its own; it says it in a log."""
        with (self.home.parent / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                [self.here(name, word) for word in command],
                env=self.environment(name),
                cwd=self.home,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def start(self, name: str) -> None:
        """Started, and healthy, or ended well where it is a task; what it depends on is before it."""
        service = self.compose.services[name]
        for other, dependency in service.depends_on.items():
            assert other in self.ready, f"{name} was started before {other}"
            task = self.compose.services[other].healthcheck is None
            assert task == (dependency.condition == "service_completed_successfully"), other
        assert service.command is not None
        process = self.running[name] = self.spawn(name, service.command)
        if service.healthcheck is None:
            assert process.wait(60) == 0, self.said(name)
        else:
            self.await_health(name, service.healthcheck)
        self.ready.add(name)

    def await_health(self, name: str, check: HealthCheck) -> None:
        deadline = time.monotonic() + check.start_period + check.interval * check.retries
        while True:
            assert self.running[name].poll() is None, f"{name} ended: {self.said(name)}"
            if self.is_healthy(name, check):
                return
            assert time.monotonic() < deadline, f"{name} is not healthy: {self.said(name)}"
            time.sleep(0.5)  # a check may cost more than what it waits for

    def is_healthy(self, name: str, check: HealthCheck) -> bool:
        kind, *command = check.test
        assert kind == "CMD"
        return self.spawn(name, command).wait(check.timeout) == 0

    def said(self, name: str) -> str:
        return (self.home.parent / f"{name}.log").read_text("utf-8", errors="replace")[-3000:]

    def stop(self, name: str) -> int | None:
        """The status with which it ended after SIGTERM, in the time that the file gives; None: it did not."""
        process = self.running[name]
        process.terminate()
        try:
            return process.wait(self.compose.services[name].stop_grace_period)
        except subprocess.TimeoutExpired:
            return None

    def left(self) -> list[str]:
        """The services of which a process is still there, its own or one that it started."""
        return [name for name, process in self.running.items() if _has_members(process.pid)]

    def kill(self) -> None:
        for process in self.running.values():
            if _has_members(process.pid):
                os.killpg(process.pid, 9)
            process.wait()


def _has_members(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


PROGRAMS = Path(sys.executable).parent
