"""Runs of the command line whose process is gone: Dagster would show them as running for ever.

Belongs here: naming the process that executes a run, and ending the runs of those that died.
Does not belong here: runs that Dagster launched (its run monitoring), batches (``bridge.leases``).

Source: faults.md XW10 and XW14.
"""

import os
import socket
from pathlib import Path
from typing import Final

import dagster as dg

PROCESS_TAG: Final = "syncflow/process"
STARTED_BY_TAG: Final = "syncflow/started_by"
COMMAND_LINE: Final = "command line"
_GOING_ON: Final = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def process_tags() -> dict[str, str]:
    """The tags of a run that this process executes."""
    return {STARTED_BY_TAG: COMMAND_LINE, PROCESS_TAG: _name(os.getpid())}


def end_abandoned(instance: dg.DagsterInstance) -> None:
    """End the runs of the command line on this machine whose process has ended without ending them."""
    filters = dg.RunsFilter(statuses=_GOING_ON, tags={STARTED_BY_TAG: COMMAND_LINE})
    for run in instance.get_runs(filters):
        host, pid, *_ = [*run.tags.get(PROCESS_TAG, "").split(" "), "", ""]
        if host == socket.gethostname() and _name(int(pid)) != run.tags[PROCESS_TAG]:
            instance.report_run_failed(run, "its process died")


def _name(pid: int) -> str:
    """Host, number and birth of a process: numbers are used again."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
        born = stat.rpartition(")")[2].split()[19]
    except OSError:
        born = "gone"
    return f"{socket.gethostname()} {pid} {born}"
