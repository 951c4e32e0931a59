"""``syncflow up``: everything on this machine, in one terminal, until Ctrl-C.

Belongs here: which processes, in which order, and that none is left behind.
Does not belong here: what they do.

Source: product.md 10.
"""

import ctypes
import json
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType

import httpx
from rich.console import Console

from syncflow_core.bridge import migrate
from syncflow_core.bridge.database import Database
from syncflow_core.errors import ConfigError, SyncFlowError, UnavailableError
from syncflow_core.private import make_file
from syncflow_core.sandbox import Sandbox
from syncflow_core.sandbox.process import LOOPBACK
from syncflow_core.settings import Settings, read_settings
from syncflow_dagster.cli.sandbox import declare, start
from syncflow_dagster.home import prepare
from syncflow_dagster.logs import is_json, log_to_stderr
from syncflow_dagster.partitions import LOCATION
from syncflow_dagster.ports import check_ports
from syncflow_dagster.sandbox import environment
from syncflow_dagster.terminal import console

PR_SET_PDEATHSIG = 1  # prctl(2)
START_S = 60.0
DAGSTER = [sys.executable, "-m", "dagster"]
STOP_S = 15.0
LOOK_S = 5.0
MISSES = 2
"""Looks at the code location without an answer after which it is taken for dead."""
APISMITH_PORT, SCHEDULEHUB_PORT = 8007, 5180
SOCKET_BYTES = 104  # of a path, the end included: sys/un.h, BSD's


def run(*, ui_port: int, api_port: int, rows: int) -> int:
    """Start everything, wait, end everything; 0 after Ctrl-C, 143 after SIGTERM."""
    settings = read_settings()
    log_to_stderr(settings)
    given = [settings.apismith_url, settings.schedulehub_url]
    if (given[0] is None) != (given[1] is None):
        raise ConfigError("set both SYNCFLOW_APISMITH_URL and SYNCFLOW_SCHEDULEHUB_URL, or neither")
    own_sandbox = given == [None, None]
    check_ports(
        LOOPBACK,
        [ui_port, api_port, *([APISMITH_PORT, SCHEDULEHUB_PORT] if own_sandbox else [])],
        "--ui-port and --api-port choose others; the sandbox's are 8007 and 5180",
    )
    prepare(settings)
    screen = console()
    asked: list[int] = []

    def interrupt(number: int, _frame: FrameType | None) -> None:
        asked.append(number)
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, interrupt)
    processes: list[subprocess.Popen[bytes]] = []
    sandbox: Sandbox | None = None
    with Database.open(settings) as database, _socket(settings.home_path) as socket_path:
        try:
            migrate.upgrade(database.url)
            screen.print(f"database     {database.place}")
            if own_sandbox:
                sandbox = _sandbox(database, rows)
                os.environ.update(environment(sandbox))
                screen.print(f"APISmith     {sandbox.apismith_url} (sandbox)")
                screen.print(f"ScheduleHub  {sandbox.schedulehub_url} (sandbox)")
                screen.print("in another terminal, for syncflow sync and the others:")
                for name, value in environment(sandbox).items():
                    screen.print(f"  export {name}={value}", markup=False, soft_wrap=True)
            os.environ.setdefault("SYNCFLOW_API_URL", f"http://127.0.0.1:{api_port}")
            # what they say goes to a file
            lines = "json" if is_json(settings, server=True, terminal=False) else "colored"
            form = ["--log-format", lines]
            processes = [_process(settings, [*_code_server(socket_path), *form])]
            _until(partial(_serves, socket_path), processes[0], "the code location")
            ui = f"http://127.0.0.1:{ui_port}"
            processes += [
                _process(settings, command)
                for command in _servers(socket_path, ui_port, api_port, form)
            ]
            _until(partial(_answers, f"{ui}/server_info"), processes[1], "the Dagster UI")
            screen.print(f"Dagster UI   {ui}", style="bold")
            api = f"http://127.0.0.1:{api_port}/api/v1"
            _until(partial(_answers, f"{api}/health"), processes[3], "the REST API")
            screen.print(f"REST API     {api} (syncflow token NAME)")
            screen.print("Ctrl-C ends all")
            return _wait(processes, CodeLocation(socket_path, ui, screen))
        except KeyboardInterrupt:
            screen.print("ending")
            return 143 if signal.SIGTERM in asked else 0
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)  # the end itself is not interrupted
            _end(processes)
            if sandbox is not None:
                sandbox.stop()


def _sandbox(database: Database, rows: int) -> Sandbox:
    """The sandbox as the demo left it, or a new one; its entities where none is declared."""
    declare(database)
    with database.begin() as connection:
        seeded = connection.exec_driver_sql(
            "SELECT to_regclass('erp.state') IS NOT NULL"
        ).scalar_one()
    return start(
        database,
        rows=None if seeded else rows,
        seed=1,
        apismith_port=APISMITH_PORT,
        schedulehub_port=SCHEDULEHUB_PORT,
    )


@contextmanager
def _socket(home: Path) -> Iterator[Path]:
    """The code server's socket: Dagster knows schedules and sensors by its path, so it stays the same.

    It is in the home, unless that leaves too little of what a socket's path may have.

    Raises:
        ConfigError: Another one serves there.
    """
    with TemporaryDirectory(prefix="syncflow-") as folder:
        path = home / "code.sock"
        if len(os.fsencode(path)) >= SOCKET_BYTES:
            path = Path(folder) / path.name
        elif path.exists() and _serves(path):
            raise ConfigError(f"another syncflow up runs over {home}: end it, or set SYNCFLOW_HOME")
        path.unlink(missing_ok=True)  # of one that was killed
        yield path


def _code_server(socket_path: Path) -> list[str]:
    """One code server for webserver and daemon: what it loads anew, both see; runs go on in the old one."""
    location = ["-m", "syncflow_dagster.definitions", "--location-name", LOCATION]
    return [*DAGSTER, "code-server", "start", "-s", str(socket_path), *location]


def _servers(
    socket_path: Path, ui_port: int, api_port: int, form: Sequence[str]
) -> list[list[str]]:
    """Dagster's webserver and daemon over the code server, and the REST API."""
    server = {"grpc_server": {"socket": str(socket_path), "location_name": LOCATION}}
    workspace = socket_path.with_name("workspace.yaml")
    workspace.write_text(json.dumps({"load_from": [server]}), encoding="utf-8")  # YAML, too
    python = [sys.executable, "-m"]
    return [
        [
            *[*python, "dagster_webserver", "-h", "127.0.0.1", "-p", str(ui_port)],
            *["-w", str(workspace), *form],
        ],
        [*python, "dagster._daemon", "run", "-w", str(workspace), *form],
        [
            *[sys.executable, "-c", "from syncflow_dagster.cli import main; main()", "api"],
            *["--port", str(api_port), "--dagster-url", f"http://127.0.0.1:{ui_port}"],
        ],
    ]


def _process(settings: Settings, command: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start it in a group of its own; what it says goes to ``up.log``."""
    log = settings.home_path / "up.log"
    if not log.exists():
        make_file(log)
    with log.open("ab") as said:
        return subprocess.Popen(  # noqa: S603  # this interpreter, Dagster's modules and our own
            command,
            cwd=os.environ["DAGSTER_HOME"],
            stdout=said,
            stderr=said,
            start_new_session=True,
            preexec_fn=_end_with_parent,  # noqa: PLW1509  # one prctl; no thread holds a lock here
        )


def _end_with_parent() -> None:
    """Have the kernel end this process when ``syncflow up`` dies, however it dies."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _until(ready: Callable[[], bool], process: subprocess.Popen[bytes], what: str) -> None:
    """Return when it is ready."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        if ready():
            return
        time.sleep(0.2)
    raise UnavailableError(f"{what} did not start; see up.log in the home", system="dagster")


def _answers(url: str) -> bool:
    # asked several times a second: the machine's certificates take longer to read than the answer
    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        return httpx.get(url, timeout=2, trust_env=False, verify=trust).is_success
    except httpx.TransportError:
        return False  # not up yet


def _serves(socket_path: Path) -> bool:
    from dagster._core.errors import DagsterUserCodeUnreachableError
    from dagster._grpc.client import DagsterGrpcClient

    try:
        DagsterGrpcClient(socket=str(socket_path)).ping("")
    except DagsterUserCodeUnreachableError:
        return False
    return True


@dataclass
class CodeLocation:
    """Looks whether the code location still answers: Dagster does not start it again when its process is killed."""

    socket_path: Path
    ui: str
    screen: Console
    _missed: int = 0
    _due: float = field(default_factory=lambda: time.monotonic() + LOOK_S)

    def look(self) -> None:
        """Every few seconds; have it loaded anew when it has not answered twice."""
        if time.monotonic() < self._due:
            return
        if not _serves(self.socket_path):
            self._missed += 1
            if self._missed == MISSES:
                self.screen.print(
                    "the code location does not answer: it is loaded anew (see up.log)"
                )
            if self._missed >= MISSES:
                self._load()
        else:
            if self._missed >= MISSES:
                self.screen.print("the code location answers again")
            self._missed = 0
        self._due = time.monotonic() + LOOK_S

    def _load(self) -> None:
        from syncflow_dagster.api.gateway import DagsterGateway

        gateway = DagsterGateway(self.ui)
        # what it answers is of the moment before: the next look tells
        with closing(gateway), suppress(SyncFlowError):
            gateway.reload()


def _wait(processes: Sequence[subprocess.Popen[bytes]], code_location: CodeLocation) -> int:
    while all(process.poll() is None for process in processes):
        time.sleep(0.5)
        code_location.look()
    raise UnavailableError("one of the processes ended; see up.log in the home", system="dagster")


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """End the processes and whatever they started: code servers, run workers."""
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + STOP_S
        while time.monotonic() < deadline and _signal_groups(processes, number):
            time.sleep(0.2)


def _signal_groups(processes: Sequence[subprocess.Popen[bytes]], number: int) -> bool:
    """Signal each process's group; whether any of them has a member left."""
    left = False
    for process in processes:
        try:
            os.killpg(process.pid, number)
            left = True
        except ProcessLookupError:
            pass  # the group is empty
    return left
