"""What tests ask of this machine: a port that nobody has, the processes of a home, and patience."""

import socket
import time
from collections.abc import Callable
from pathlib import Path


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
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
