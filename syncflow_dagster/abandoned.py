"""Runs whose process is gone: Dagster would show them as running for ever, and hold their pool.

Belongs here: naming the process that executes a run, and ending the runs of those that died.
Does not belong here: batches (``bridge.leases``), what is done again (Dagster's ``run_retries``).

Dagster looks after run workers from the code server that started them: a worker that dies with its
code server, or with the whole machine, and a command that is killed, are looked after by nobody.

Source: faults.md XW10, XW14 and XW15; dagster.md T3.
"""

import os
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import dagster as dg

from syncflow_dagster.statuses import BEGUN

PROCESS_TAG: Final = "syncflow/process"
STARTED_BY_TAG: Final = "syncflow/started_by"
COMMAND_LINE: Final = "command line"
MOST: Final = 100
"""Runs that are looked at in one go."""


def mark(instance: dg.DagsterInstance, run_id: str) -> None:
    """Write down, as a tag of the run, that this process executes it."""
    instance.add_run_tags(run_id, {PROCESS_TAG: _name(os.getpid(), run_id)})


def end_abandoned(instance: dg.DagsterInstance, without_lease: Iterable[str] = ()) -> list[str]:
    """End the runs whose process has ended without ending them; their ids.

    A run of another machine is told by its lease alone; one of this machine by its process, which may live
    on without its lease's session: a database that was started anew ended that.

    Args:
        instance: Dagster's.
        without_lease: Runs that had an entity and died with it (``leases.runs_of_the_dead``).
    """
    dead = set(without_lease)
    ended = []
    for run in instance.get_runs(dg.RunsFilter(statuses=BEGUN), limit=MOST):
        lives = process_of(run.tags, run.run_id) is not None
        if (run.run_id in dead and not lives) or has_died(run):
            instance.report_run_failed(run, "its process died; what it had begun is settled next")
            ended.append(run.run_id)
    return ended


def process_of(tags: Mapping[str, str], run_id: str) -> int | None:
    """The process of this machine that executes the run now; None where it is none of it, or has ended."""
    host, pid, *_, owner = tags.get(PROCESS_TAG, "- 0 - -").split(" ")
    if host != socket.gethostname() or owner != run_id:
        return None
    return int(pid) if _name(int(pid), owner) == tags[PROCESS_TAG] else None


def has_died(run: dg.DagsterRun) -> bool:
    """Whether the run's process was one of this machine, and is gone."""
    host, *_, owner = run.tags.get(PROCESS_TAG, "- 0 - -").split(" ")
    # a run that takes up another one has its tags until it says that it runs
    here = host == socket.gethostname() and owner == run.run_id
    return here and process_of(run.tags, run.run_id) is None


def _name(pid: int, run_id: str) -> str:
    """Host, number and birth of a process, for numbers are used again, and the run that it executes."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
        born = stat.rpartition(")")[2].split()[19]
    except OSError:
        born = "gone"
    return f"{socket.gethostname()} {pid} {born} {run_id}"
