"""The job ``tidy``: the past goes after ``SYNCFLOW_KEEP_DAYS``, and what dead runs staged.

Belongs here: what a person reads of it.
Does not belong here: when (``schedules``), what is past (``bridge.history``), what is left behind (``syncflow_core.frames``).

Source: product.md 1 and 8; faults.md XD11.
"""

from datetime import datetime, timedelta
from typing import Final

import dagster as dg

from syncflow_core.bridge import batches
from syncflow_core.bridge.history import forget_past
from syncflow_core.settings import read_settings
from syncflow_dagster.clock import utc_now
from syncflow_dagster.failures import told_to_dagster
from syncflow_dagster.ops import RESOURCES, connections_of

RUNS_AT_ONCE: Final = 2_000
"""Of Dagster's runs, how many are removed in one go."""
ENDED: Final = [
    dg.DagsterRunStatus.SUCCESS,
    dg.DagsterRunStatus.FAILURE,
    dg.DagsterRunStatus.CANCELED,
]
LEFT_BEHIND_DAYS: Final = 2
"""A failed run is taken up again within this time, or its frames are gone."""


@dg.op(
    name="forget",
    description="Forget what is past, Dagster's runs too, and frames that dead runs left behind.",
    required_resource_keys=RESOURCES,
)
@told_to_dagster()
def forget_op(context: dg.OpExecutionContext) -> None:
    """Remove it all, and say how much it was."""
    connections, now = connections_of(context), utc_now()
    with connections.database.begin() as connection:
        gone = forget_past(connection, now - timedelta(days=read_settings().keep_days))
        running = batches.history(connection, statuses=["pending", "running"], limit=10_000)
    left = connections.frames.forget_older(
        (now - timedelta(days=LEFT_BEHIND_DAYS)).timestamp(), {str(item.uid) for item in running}
    )
    runs = forget_runs(context.instance, now - timedelta(days=read_settings().keep_days))
    context.add_output_metadata({**gone, "frames": left, "runs": runs})


def forget_runs(instance: dg.DagsterInstance, before: datetime) -> int:
    """Remove Dagster's runs that ended before, with their events, the oldest first; how many.

    What an asset's newest materialization was stays known.
    """
    filters = dg.RunsFilter(statuses=ENDED, updated_before=before)
    old = instance.get_run_records(filters, limit=RUNS_AT_ONCE, ascending=True)
    for record in old:
        instance.delete_run(record.dagster_run.run_id)
    return len(old)


def build_tidy_job() -> dg.JobDefinition:
    """``tidy``."""

    @dg.job(name="tidy", description="Forget what is past, and frames that dead runs left behind.")
    def tidy_job() -> None:
        forget_op()

    return tidy_job
