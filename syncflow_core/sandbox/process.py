"""The running sandbox: its two server processes, started and stopped as one.

Belongs here: the life of the processes, and what a caller needs to reach them.
Does not belong here: the servers themselves (``server``).

Source: product.md 11.
"""

import contextlib
import json
import secrets
import ssl
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from time import sleep  # noqa: TID251  # what another process does is waited for
from types import TracebackType
from typing import IO, Self

import httpx

from syncflow_core.sandbox import database, erp, tables

USERNAME = "syncflow"
LOOPBACK = "127.0.0.1"
EVERYWHERE = "0.0.0.0"  # noqa: S104  # nosec B104  # listens there with a password of its own
START_S = 30.0
STOP_S = 5.0
LOOK_S = 0.25
"""How often it is looked whether a server has ended, in seconds."""


class SandboxError(Exception):
    """A server did not come up; the message holds what it said."""


@dataclass
class Sandbox:
    """Both servers, running. Ends with the ``with`` block, with ``stop``, or with this process."""

    apismith_url: str
    schedulehub_url: str
    username: str
    password: str
    database_url: str
    _processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @classmethod
    def start(  # noqa: PLR0913  # every argument is one option of the command
        cls,
        database_url: str,
        apismith_port: int = 0,
        schedulehub_port: int = 0,
        *,
        host: str = LOOPBACK,
        rows: int | None = None,
        seed: int = 1,
        password: str | None = None,
        one_process: bool = False,
        spawn: Callable[[list[str]], subprocess.Popen[bytes]] | None = None,
    ) -> "Sandbox":
        """Both servers answer ``/api/v1/health``, and the hub knows the ERP's references.

        Args:
            database_url: PostgreSQL; the schemas ``erp`` and ``hub`` are made where they are missing.
            apismith_port: 0 takes a free one.
            schedulehub_port: 0 takes a free one.
            host: The address to listen on; with a password of your own where it is not loopback.
            rows: Seed the ERP with so many rows, unless it was seeded with this number and seed before
                (then its days stay); None seeds nothing.
            seed: Of the ERP.
            password: Of ``syncflow``, for both servers; one made up where None.
            one_process: Whether both share a process: it starts in half the time, and serves slower.
            spawn: Starts a process of ``sandbox.server`` with these arguments, its standard input and
                output piped; a new interpreter where None.

        Raises:
            SandboxError: A server ended or did not answer in 30 s.
        """
        database.prepare(database_url)
        password = password or secrets.token_urlsafe()
        account = {"username": USERNAME, "password": password, "database_url": database_url}
        with contextlib.ExitStack() as undo:
            started = []
            wanted = (
                ((("apismith", "schedulehub"), 0),)
                if one_process
                else ((("apismith",), apismith_port), (("schedulehub",), schedulehub_port))
            )
            for names, port in wanted:
                arguments = [*names, "--host", host, "--port", str(port)]
                started.append((spawn or _spawn)(arguments))
                undo.callback(_end, started[-1])
                _tell(started[-1], account)
            if rows is not None:
                _seed(database_url, rows, seed)
            speaking = started * 2 if one_process else started
            near = LOOPBACK if host == EVERYWHERE else host
            urls = [f"http://{near}:{_port(process)}" for process in speaking]
            for url in urls:
                _check_health(url)
            _send_references(urls[1])
            undo.pop_all()
        return cls(urls[0], urls[1], USERNAME, password, database_url, started)

    @property
    def pids(self) -> list[int]:
        """The process ids: APISmith's, ScheduleHub's."""
        return [process.pid for process in self._processes]

    def stop(self) -> None:
        """Neither server runs any more; a second call does nothing."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            _end(process)
        self._processes = []

    def wait(self) -> int:
        """Wait until one of the servers ends; answers its status."""
        while True:
            for process in self._processes:
                if (status := process.poll()) is not None:
                    return status
            sleep(LOOK_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


def _spawn(arguments: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603  # this interpreter, our own module
        [sys.executable, "-m", "syncflow_core.sandbox.server", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # a terminal's SIGINT ends the supervisor, which ends them
    )


def _tell(process: subprocess.Popen[bytes], account: dict[str, str]) -> None:
    _pipe(process.stdin).write(json.dumps(account).encode() + b"\n")
    _pipe(process.stdin).flush()


def _seed(database_url: str, rows: int, seed: int) -> None:
    with database.connect(database_url) as connection:
        known = erp.state(connection)
        if (known.get("rows"), known.get("seed")) != (rows, seed):
            erp.seed_erp(connection, rows=rows, seed=seed)


def _port(process: subprocess.Popen[bytes]) -> int:
    line = _pipe(process.stdout).readline()
    if not line:
        raise SandboxError(f"a server ended with status {process.wait()} before it had a port")
    return int(json.loads(line)["port"])


def _check_health(url: str) -> None:
    """The port is bound already, so the request waits in the backlog until the server is up."""
    try:
        _call("GET", f"{url}/api/v1/health")
    except httpx.HTTPError as error:
        raise SandboxError(f"{url} does not answer: {error}") from error


def _send_references(url: str) -> None:
    references = [
        {"collection": model.name, "name": name, "parent": parent["entity"]}
        for model in tables.MODELS.values()
        for name, parent in model.parents.items()
    ]
    _call("POST", f"{url}/sandbox/references", json=references)


def _call(method: str, url: str, json: object = None) -> None:
    """A request on loopback: it needs none of the machine's certificates, which take long to read."""
    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    httpx.request(
        method, url, json=json, timeout=START_S, trust_env=False, verify=trust
    ).raise_for_status()


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):
            _pipe(pipe).close()


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None  # noqa: S101  # both are opened in _spawn
    return pipe
