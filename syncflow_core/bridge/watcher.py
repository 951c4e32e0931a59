"""Keep one PostgreSQL server running for as long as any process uses it, then stop it.

This file is run by its path, in a process of its own (``python -I -S watcher.py JSON``): standard
library only. The kernel does the book-keeping: every user holds a shared lock on ``users.lock``
for as long as it lives, however it dies; whoever can lock it exclusively knows that nobody is left.

Belongs here: being the server's parent: start, restart after a crash, stop.
Does not belong here: making the data folder, choosing settings, handing out addresses (``embedded``).

Source: design.md, "Fixed interfaces", SYNCFLOW_HOME; decision 0004.
"""

import ctypes
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from time import monotonic, sleep  # noqa: TID251  # what another process does is waited for

TICK_S = 0.1  # how often the watcher looks for users; two system calls each time
READY_S = 120.0  # crash recovery of a server with max_wal_size 4 GB stays well below this
STARTS = 5  # starts in a row that end before "ready" until the watcher gives up
STOP_S = 60.0  # a fast shutdown writes at most the shared buffers
NOBODY_PID = 2**22 + 1  # above Linux's largest pid: no such process, ever
PR_SET_PDEATHSIG = 1


def main(argument: str) -> int:
    """Detach, hold ``watcher.lock`` and keep the server until its last user has gone.

    Args:
        argument: JSON object: ``folder`` (of the locks, the state and the log), ``data``,
            ``command`` (the server's, without its port) and ``linger_s``.

    Returns:
        0 as soon as the watcher is on its own, or another one holds the lock already.
    """
    task = json.loads(argument)
    folder = Path(task["folder"])
    lock = os.open(folder / "watcher.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return 0
    if os.fork():
        return 0  # the child shares the lock and goes on; no user has a child to bury
    watch(folder, Path(task["data"]), list(task["command"]), float(task["linger_s"]))
    return 0


def watch(folder: Path, data: Path, command: list[str], linger_s: float) -> None:
    """Run the server until nobody has held ``users.lock`` for *linger_s* seconds.

    A server that dies is started again at the same port, so that its users' addresses stay good.
    The exclusive lock is held while the server stops: who comes in that moment waits and starts anew.
    """
    users = os.open(folder / "users.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # the server follows: PDEATHSIG
    server = _start(folder, data, command)
    last_used = monotonic()
    while server is not None:
        sleep(TICK_S)
        if server.poll() is not None:
            server = _start(folder, data, command)
            continue
        try:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            last_used = monotonic()
            continue
        if monotonic() - last_used >= linger_s:
            _stop(folder, server)
            return
        fcntl.flock(users, fcntl.LOCK_UN)


def write_state(folder: Path, **state: object) -> None:
    """Replace ``server.json`` in one step."""
    fresh = folder / f"server.json.{os.getpid()}"
    fresh.write_text(json.dumps(state))
    fresh.replace(folder / "server.json")


def read_port(folder: Path) -> int | None:
    """The port that the server had last, or None."""
    try:
        port = json.loads((folder / "server.json").read_text()).get("port")
    except (OSError, ValueError):
        return None
    return port if isinstance(port, int) else None


def free_port(preferred: int | None) -> int:
    """The preferred port where it is free, else any free one."""
    for port in (preferred, 0):
        if port is None:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise OSError("no free port on 127.0.0.1")


def _start(folder: Path, data: Path, command: list[str]) -> "subprocess.Popen[bytes] | None":
    """The running server, ready; None after :data:`STARTS` vain attempts."""
    port = read_port(folder)
    for _attempt in range(STARTS):
        _outlive(data)
        port = free_port(port)
        write_state(folder, port=port, ready=False, watcher=os.getpid())
        with (folder / "server.log").open("ab") as log:
            server = subprocess.Popen(  # noqa: S603  # the command is SyncFlow's own
                [*command, "-c", f"port={port}"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                preexec_fn=_die_with_parent,  # noqa: PLW1509  # this process has one thread
            )
        end = monotonic() + READY_S
        while server.poll() is None and monotonic() < end:
            if _is_ready(data, server.pid):
                write_state(
                    folder, port=port, ready=True, watcher=os.getpid(), postmaster=server.pid
                )
                return server
            sleep(0.01)
        if server.poll() is None:
            _stop(folder, server)
        port = None  # taken by another in between, perhaps
        sleep(0.3)  # backends of a killed server need a moment to notice
    write_state(folder, port=None, ready=False, watcher=os.getpid())
    return None


def _stop(folder: Path, server: "subprocess.Popen[bytes]") -> None:
    write_state(folder, port=read_port(folder), ready=False, watcher=os.getpid())
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):  # fast, immediate, at last
        server.send_signal(number)
        try:
            server.wait(STOP_S)
        except subprocess.TimeoutExpired:
            continue
        return


def _die_with_parent() -> None:
    """Let the kernel ask for a fast shutdown when this watcher is killed (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGINT, 0, 0, 0)


def _is_ready(data: Path, pid: int) -> bool:
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
    except OSError:
        return False
    status_line = 7  # see PostgreSQL's src/include/utils/pidfile.h, counted from 0
    return len(lines) > status_line and lines[0] == str(pid) and lines[7].strip() == "ready"


def _outlive(data: Path) -> None:
    """Wait until the server of an earlier watcher has ended, and disarm a pid that went to another.

    The file itself stays: it names the shared memory by which PostgreSQL finds out whether
    backends of a killed server still run, and without which two servers could share one folder.
    """
    path = data / "postmaster.pid"
    end = monotonic() + STOP_S
    while True:
        try:
            first, _, rest = path.read_text().partition("\n")
            pid = int(first)
            os.kill(pid, 0)
            name = Path(f"/proc/{pid}/comm").read_text().strip()
        except PermissionError:
            name = ""
        except (OSError, ValueError):
            return  # no file, no such process, or no /proc: PostgreSQL's own check must do
        if name != "postgres":
            path.write_text(f"{NOBODY_PID}\n{rest}")
            return
        if monotonic() > end:
            os.kill(pid, signal.SIGINT)
            end = monotonic() + STOP_S
        sleep(0.05)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
