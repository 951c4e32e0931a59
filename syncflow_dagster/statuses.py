"""What Dagster's statuses of a run mean.

Belongs here: sets of them.
Does not belong here: asking for runs, a batch's own status (``syncflow_core.bridge.batches``).
"""

from typing import Final

from dagster import DagsterRunStatus

BEGUN: Final = [
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]
"""A process has the run, or is about to."""
LIVE: Final = [DagsterRunStatus.QUEUED, *BEGUN]
"""It has not ended."""
CANCELED: Final = frozenset({DagsterRunStatus.CANCELED, DagsterRunStatus.CANCELING})
"""Somebody ended it."""
