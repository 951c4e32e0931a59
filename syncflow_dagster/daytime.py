"""The schedule ``by_day``: incremental syncs at each entity's own interval.

Belongs here: which entities are due at a tick, and the run that does them.
Does not belong here: the sweep (``nights``), what an incremental sync reads.

A tick looks at what is: when each entity was last read, what goes on. What was missed is made up for
once, for an incremental sync reads everything since the last.

Source: product.md 7.
"""

import datetime as dt
from collections.abc import Iterator
from typing import Final

import dagster as dg
import sqlalchemy as sa

from syncflow_core.bridge import schedules
from syncflow_core.bridge.entities import load_entities
from syncflow_core.bridge.leases import held_entities
from syncflow_core.settings import Settings, read_settings
from syncflow_dagster.checks import own_checks
from syncflow_dagster.partitions import range_tags
from syncflow_dagster.session import bridge
from syncflow_dagster.statuses import LIVE
from syncflow_dagster.tags import BEHIND_THE_SWEEP, BY_CLOCK

JOB: Final = "incremental"
EVERY: Final = "* * * * *"
SLACK: Final = dt.timedelta(seconds=30)
"""A tick that comes a little early is not a whole tick early."""


def build_day_schedule(slices: int) -> dg.ScheduleDefinition:
    """``by_day``: each minute, one run for all entities whose interval has passed."""

    def tick(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        now = context.scheduled_execution_time.astimezone(dt.UTC)
        settings = read_settings()
        with bridge(settings) as connection:
            due = due_entities(connection, now, settings)
        live = context.instance.get_runs(dg.RunsFilter(job_name=JOB, statuses=LIVE))
        busy = {key.to_user_string() for run in live for key in run.asset_selection or ()}
        names = [name for name in due if name not in busy]
        if not names:
            yield dg.SkipReason("no entity is due")
            return
        config = {"config": {"mode": "incremental", "wait_s": 0.0}}
        yield dg.RunRequest(
            asset_selection=[dg.AssetKey([name]) for name in names],
            asset_check_keys=own_checks(names),
            run_config={"ops": {name: {"ops": {"fetch": config}} for name in names}},
            tags={**range_tags([1, slices]), **BY_CLOCK, **BEHIND_THE_SWEEP},
        )

    return dg.ScheduleDefinition(
        name="by_day",
        job_name=JOB,
        cron_schedule=EVERY,
        execution_timezone="UTC",
        execution_fn=tick,
        description="Incremental syncs of entities whose interval (incremental_minutes) has passed.",
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )


def due_entities(connection: sa.Connection, now: dt.datetime, settings: Settings) -> list[str]:
    """Entities that were not read since their interval began, and that nobody syncs now.

    One without a watermark is read whole by an incremental sync: that is for the night, and once.
    """
    last = schedules.load_last_reads(connection)
    nights = {night.entity: night for night in schedules.load_nights(connection)}
    held = held_entities(connection)
    due = []
    for entity in load_entities(connection):
        minutes, read = entity.schedule.incremental_minutes, last[entity.name]
        if minutes is None or entity.name in held:
            continue
        if read.watermark is None:
            at_night = (
                schedules.window_of(nights[entity.name], settings.time_zone).night(now) is not None
            )
            if read.whole or not at_night:
                continue
        if read.at is None or now - read.at >= dt.timedelta(minutes=minutes) - SLACK:
            due.append(entity.name)
    return due
