"""What tests ask of this machine: a port that nobody has, the processes of a home, and patience."""

import contextlib
import random
import socket
import time
from collections.abc import Callable
from pathlib import Path

ANY = random.SystemRandom()


def free_port() -> int:
    """A port on which nobody listens, and which the system gives to nobody who asks for any."""
    given = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii")
    while True:
        port = ANY.choice(range(10_000, int(given.split()[0])) or range(1))
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])


def until(
    condition: Callable[[], bool],
    otherwise: Callable[[], str] = lambda: "it did not come true in time",
    timeout_s: float = 120,
) -> None:
    """Wait for it to come true; *otherwise* says what there is instead."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, otherwise()
        time.sleep(0.02)


def until_stopped(pid: int) -> None:
    """Wait for a process to be stopped as by SIGSTOP."""
    stat = Path(f"/proc/{pid}/stat")
    until(lambda: stat.read_text(encoding="ascii").rpartition(")")[2].split()[0] == "T")


def processes_of(home: Path) -> list[int]:
    """The processes whose command names the home."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue  # it ended meanwhile
        if str(home) in command:
            found.append(int(folder.name))
    return found
