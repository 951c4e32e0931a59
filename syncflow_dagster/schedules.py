"""What Dagster starts by the clock.

Belongs here: when, and with which configuration.
Does not belong here: what is started (``reconciling``).

Source: product.md 13: a sample daily, the whole weekly. Both lie in the default night window.
"""

import dagster as dg

SAMPLE = 1_000
"""Records of each entity that the daily sample compares."""
DAILY = "30 5 * * *"
WEEKLY = "0 3 * * 0"


def build_schedules(job: dg.JobDefinition, time_zone: str) -> list[dg.ScheduleDefinition]:
    """``reconcile_daily`` and ``reconcile_weekly``.

    Args:
        job: ``reconcile``.
        time_zone: The installation's.
    """
    return [
        dg.ScheduleDefinition(
            name="reconcile_daily",
            job=job,
            cron_schedule=DAILY,
            execution_timezone=time_zone,
            run_config={"ops": {"compare": {"config": {"sample": SAMPLE}}}},
            description=f"{SAMPLE:,} records of each entity, drawn by chance, compared by content.",
            default_status=dg.DefaultScheduleStatus.RUNNING,
        ),
        dg.ScheduleDefinition(
            name="reconcile_weekly",
            job=job,
            cron_schedule=WEEKLY,
            execution_timezone=time_zone,
            run_config={"ops": {"compare": {"config": {"sample": 0}}}},
            description="Every record compared with hub and source; the plan of what differs is kept.",
            default_status=dg.DefaultScheduleStatus.RUNNING,
        ),
    ]
