"""``syncflow up``: everything on this machine, in one terminal, until Ctrl-C.

Belongs here: which processes, in which order, and that none is left behind.
Does not belong here: what they do.

Source: product.md 10.
"""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import httpx

from syncflow_core.bridge import schema
from syncflow_core.bridge.database import Database
from syncflow_core.bridge.entities import apply_entities, load_entities
from syncflow_core.errors import ConfigError, UnavailableError
from syncflow_core.sandbox import Sandbox
from syncflow_core.settings import Settings, read_settings
from syncflow_dagster.cli.demo import demo_entities
from syncflow_dagster.cli.sandbox import environment, start
from syncflow_dagster.cli.show import console
from syncflow_dagster.home import prepare, shipped

PR_SET_PDEATHSIG = 1  # prctl(2)
START_S = 60.0
STOP_S = 15.0
APISMITH_PORT, SCHEDULEHUB_PORT = 8007, 5180


def run(*, ui_port: int, api_port: int, rows: int) -> int:
    """Start everything, wait, end everything; 0 after Ctrl-C, 143 after SIGTERM."""
    settings = read_settings()
    given = [settings.apismith_url, settings.schedulehub_url]
    if (given[0] is None) != (given[1] is None):
        raise ConfigError("set both SYNCFLOW_APISMITH_URL and SYNCFLOW_SCHEDULEHUB_URL, or neither")
    own_sandbox = given == [None, None]
    _check_ports([ui_port, api_port, *([APISMITH_PORT, SCHEDULEHUB_PORT] if own_sandbox else [])])
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
    with Database.open(settings) as database:
        try:
            schema.upgrade(database.url)
            screen.print(f"database     {database.place}")
            if own_sandbox:
                sandbox = _sandbox(database, rows)
                os.environ.update(environment(sandbox))
                screen.print(f"APISmith     {sandbox.apismith_url} (sandbox)")
                screen.print(f"ScheduleHub  {sandbox.schedulehub_url} (sandbox)")
            processes = _start(settings, ui_port, api_port)
            _await(f"http://127.0.0.1:{ui_port}/server_info", processes[0], "the Dagster UI")
            screen.print(f"Dagster UI   http://127.0.0.1:{ui_port}", style="bold")
            _await(f"http://127.0.0.1:{api_port}/api/v1/health", processes[2], "the REST API")
            screen.print(f"REST API     http://127.0.0.1:{api_port}/api/v1 (syncflow token NAME)")
            screen.print("Ctrl-C ends all")
            return _wait(processes)
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
    with database.begin() as connection:
        if not load_entities(connection, enabled=None):
            apply_entities(connection, demo_entities())
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


def _start(settings: Settings, ui_port: int, api_port: int) -> list[subprocess.Popen[bytes]]:
    """Dagster's webserver and daemon, over one code location that both load, and the REST API."""
    folder = Path(os.environ["DAGSTER_HOME"])
    workspace = str(shipped("workspace.yaml"))
    log = (settings.home_path / "up.log").open("ab")
    python = [sys.executable, "-m"]
    commands = [
        [*python, "dagster_webserver", "-h", "127.0.0.1", "-p", str(ui_port), "-w", workspace],
        [*python, "dagster._daemon", "run", "-w", workspace],
        [
            *[sys.executable, "-c", "from syncflow_dagster.cli import main; main()", "api"],
            *["--port", str(api_port), "--dagster-url", f"http://127.0.0.1:{ui_port}"],
        ],
    ]
    return [
        subprocess.Popen(  # noqa: S603  # this interpreter, Dagster's modules
            command,
            cwd=folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=_end_with_parent,  # noqa: PLW1509  # one prctl; no thread holds a lock here
        )
        for command in commands
    ]


def _end_with_parent() -> None:
    """Have the kernel end this process when ``syncflow up`` dies, however it dies."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _check_ports(ports: Sequence[int]) -> None:
    taken = []
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                taken.append(str(port))
    if taken:
        raise ConfigError(
            f"port {', '.join(taken)} is taken: is another syncflow up or sandbox running? "
            "(--ui-port and --api-port choose others; the sandbox's are 8007 and 5180)"
        )


def _await(url: str, process: subprocess.Popen[bytes], what: str) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            if httpx.get(url, timeout=2, trust_env=False).is_success:
                return
        except httpx.TransportError:
            pass  # not up yet
        time.sleep(0.2)
    raise UnavailableError(f"{what} did not start; see up.log in the home", system="dagster")


def _wait(processes: Sequence[subprocess.Popen[bytes]]) -> int:
    while all(process.poll() is None for process in processes):
        time.sleep(0.5)
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
