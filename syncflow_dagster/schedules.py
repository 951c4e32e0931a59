"""What Dagster starts by the clock.

Belongs here: when, and with which configuration.
Does not belong here: what is started (``reconciling``, ``tidying``).

Source: product.md 13: a sample daily, the whole weekly. Both lie in the default night window.
faults.md XT04: what was missed is made up for once.
"""

import datetime as dt
from collections.abc import Callable, Mapping

import dagster as dg
from dagster._utils.schedules import schedule_execution_time_iterator

from syncflow_dagster.clock import utc_now
from syncflow_dagster.op_jobs import RECONCILE

DAILY_SAMPLE = 1_000
"""Records of each entity that the daily sample compares."""
DAILY = "30 5 * * *"
WEEKLY = "0 3 * * 0"
TIDY = "30 7 * * *"
"""After the night window."""


def build_schedules(
    reconcile: dg.JobDefinition,
    tidy: dg.JobDefinition,
    time_zone: str,
    *,
    now: Callable[[], dt.datetime] = utc_now,
) -> list[dg.ScheduleDefinition]:
    """``reconcile_daily``, ``reconcile_weekly`` and ``tidy_daily``.

    Args:
        reconcile: The job.
        tidy: The job.
        time_zone: The installation's.
        now: The time.
    """
    compare = RECONCILE.configured({"sample": DAILY_SAMPLE})
    whole = RECONCILE.configured({"sample": 0})
    return [
        _schedule(
            "reconcile_daily",
            reconcile,
            DAILY,
            time_zone,
            compare,
            f"{DAILY_SAMPLE:,} records of each entity, drawn by chance, compared by content.",
            now,
        ),
        _schedule(
            "reconcile_weekly",
            reconcile,
            WEEKLY,
            time_zone,
            whole,
            "Every record compared with hub and source; the plan of what differs is kept.",
            now,
        ),
        _schedule(
            "tidy_daily",
            tidy,
            TIDY,
            time_zone,
            {},
            "Keeps the bridge database and the staged frames from growing for ever.",
            now,
        ),
    ]


def _schedule(  # what a schedule consists of
    name: str,
    job: dg.JobDefinition,
    cron: str,
    time_zone: str,
    config: Mapping[str, object],
    description: str,
    now: Callable[[], dt.datetime],
) -> dg.ScheduleDefinition:
    """A schedule that makes up once for all that it missed: Dagster would, up to five times."""

    def evaluate(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        due = context.scheduled_execution_time
        later = schedule_execution_time_iterator(
            due.timestamp() + 1, cron, time_zone, ascending=True
        )
        if (newer := next(later)) <= now():
            return dg.SkipReason(f"missed; the one of {newer:%Y-%m-%d %H:%M} makes up for it")
        return dg.RunRequest(run_config=config)

    return dg.ScheduleDefinition(
        name=name,
        job=job,
        cron_schedule=cron,
        execution_timezone=time_zone,
        execution_fn=evaluate,
        description=description,
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
