"""How a program of this folder speaks with ``compare``: ready, a task, an answer, each one line.

Belongs here: the task, and the two lines that each program says.
Does not belong here: what the programs do; the other end of the pipe (``compare``).

A program says that it is ready once everything is imported, so that no time of the interpreter's start
is counted: SyncFlow's sync beside it runs in a process that has begun already.
"""

import contextlib
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Task:
    """One sync."""

    apismith_url: str
    schedulehub_url: str
    username: str
    password: str
    database_url: str
    """As libpq reads it."""
    home: str
    """A folder that is there from the first load to the last sync."""
    collection: str
    """Of the hub, this program's own."""
    rows: int | None
    """Only rows whose ID is at most this; None is all."""
    incremental: bool
    """Only rows whose rowversion is not older than the newest one seen; else all."""

    def line(self) -> str:
        """What ``compare`` writes to the program."""
        return json.dumps(asdict(self)) + "\n"


def serve(work: Callable[[Task], Mapping[str, object]]) -> None:
    """Say that all is ready, do the task that comes, say what came of it."""
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    task = Task(**json.loads(sys.stdin.readline()))
    with contextlib.redirect_stdout(sys.stderr):  # the last line is the answer's alone
        done = work(task)
    sys.stdout.write(json.dumps(done) + "\n")
    sys.stdout.flush()
    sys.stdin.read()  # until its memory has been looked at
