"""The night window: the schedule that sweeps every entity, and the guard that ends what outstays its night.

Belongs here: which slices are asked for at a tick, and the runs that do them.
Does not belong here: when a window is open, what is due (``syncflow_core.window``), what a slice reads.

A tick looks at what is: slices that were seen, runs that go on or have failed tonight. However often it
comes, and whatever it missed, each slice is asked for once.

Source: product.md 7; dagster.md 4.
"""

import datetime as dt
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import dagster as dg
import sqlalchemy as sa

from syncflow_core.bridge import schedules, sweeps
from syncflow_core.bridge.entities import load_entities
from syncflow_core.bridge.schedules import Night
from syncflow_core.settings import Settings, read_settings
from syncflow_core.window import Window, slices_due
from syncflow_dagster.checks import own_checks
from syncflow_dagster.clock import utc_now
from syncflow_dagster.partitions import range_tags
from syncflow_dagster.session import bridge
from syncflow_dagster.statuses import LIVE
from syncflow_dagster.tags import BY_CLOCK, MAX_RUNTIME_TAG, NIGHT_TAG, SWEEP_FIRST, UNTIL_TAG

JOB: Final = "night"
EVERY: Final = "*/15 * * * *"
TRIES: Final = 3
"""How often a slice is begun in one night."""
GRACE: Final = dt.timedelta(minutes=5)
"""What a run has, after its night, to finish what is in flight, before it is ended."""
GUARD_S: Final = 30


@dataclass(frozen=True)
class Share:
    """Neighbouring slices of one entity that are due."""

    entity: str
    slices: tuple[int, ...]
    evening: dt.date
    closes: dt.datetime


def build_night_schedule() -> dg.ScheduleDefinition:
    """``night_window``: every 15 minutes it asks for what is due in the windows that are open."""

    def tick(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        now = context.scheduled_execution_time.astimezone(dt.UTC)
        settings = read_settings()
        with bridge(settings) as connection:
            shares = due_shares(connection, now, settings)
        busy, failed = _tonight(context.instance, shares)
        requests = _requests(
            [s for s in shares if s.entity not in busy and failed[s.entity] < TRIES], now
        )
        yield from requests
        if not requests:
            yield dg.SkipReason("nothing is due in a window that is open")

    return dg.ScheduleDefinition(
        name="night_window",
        job_name=JOB,
        cron_schedule=EVERY,
        execution_timezone="UTC",
        execution_fn=tick,
        description="Tonight's slices of every entity whose window is open, and those of missed nights.",
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )


def due_shares(connection: sa.Connection, now: dt.datetime, settings: Settings) -> list[Share]:
    """What is due now, parents and children alike, the first neighbouring slices of each entity.

    Saves when each entity's next slice is due.
    """
    shares = []
    for night, window in _swept(connection, settings):
        schedules.save_next_run(connection, night.entity, window.next_opening(now))
        evening = window.night(now)
        if evening is None:
            continue
        due = _due(connection, night, evening, settings.slices)
        if due:
            shares.append(Share(night.entity, due, evening, window.bounds(evening)[1]))
    return shares


def missed_shares(connection: sa.Connection, now: dt.datetime, settings: Settings) -> list[Share]:
    """What is left of what each entity owed by the end of the night that closed last.

    Before and between two sweeps it owes the first slices of the next one, unless something of it
    was read since that night began.
    """
    shares = []
    for night, window in _swept(connection, settings):
        evening = window.last_night(now)
        opened, closed = window.bounds(evening)
        begun = night.progress.sweep_night
        if begun is None:
            owes = schedules.was_left_alone(connection, night.entity, opened)
        else:
            owes = begun <= evening
        if owes and (due := _due(connection, night, evening, settings.slices)):
            shares.append(Share(night.entity, due, evening, closed))
    return shares


def _swept(connection: sa.Connection, settings: Settings) -> Iterator[tuple[Night, Window]]:
    """The nights of every enabled entity that has any, with their window."""
    enabled = {entity.name for entity in load_entities(connection)}
    for night in schedules.load_nights(connection):
        if night.enabled and night.entity in enabled:
            yield night, schedules.window_of(night, settings.time_zone)


def _due(connection: sa.Connection, night: Night, evening: dt.date, slices: int) -> tuple[int, ...]:
    progress = night.progress
    if progress.sweep_night is None and progress.last_night == evening:
        return ()  # a sweep has ended tonight: the next one begins tomorrow
    begun = progress.sweep_night or evening
    seen = {
        item.slice
        for item in sweeps.load_slices(connection, night.entity)
        if item.complete and item.slices == slices
    }
    elapsed = max(0, (evening - begun).days)
    left = [n for n in slices_due(slices, night.nights, 0, elapsed) if n not in seen]
    return tuple(n for n in left if n - left[0] == left.index(n))


def _tonight(
    instance: dg.DagsterInstance, shares: Sequence[Share]
) -> tuple[set[str], Counter[str]]:
    """Entities that a night's run is syncing, and how often each has failed tonight."""
    evenings = {str(share.evening) for share in shares}
    busy: set[str] = set()
    failed: Counter[str] = Counter()
    for run in instance.get_runs(dg.RunsFilter(job_name=JOB, statuses=LIVE)):
        busy |= {key.to_user_string() for key in run.asset_selection or ()}
    for evening in evenings:
        ended = dg.RunsFilter(
            job_name=JOB, statuses=[dg.DagsterRunStatus.FAILURE], tags={NIGHT_TAG: evening}
        )
        for run in instance.get_runs(ended):
            failed.update(key.to_user_string() for key in run.asset_selection or ())
    return busy, failed


def _requests(shares: Sequence[Share], now: dt.datetime) -> list[dg.RunRequest]:
    """A run for all entities that have the same slices due in the same night: parents before children."""
    alike: dict[tuple[tuple[int, ...], dt.date, dt.datetime], list[str]] = {}
    for share in shares:
        alike.setdefault((share.slices, share.evening, share.closes), []).append(share.entity)
    return [
        dg.RunRequest(
            run_key=f"{evening} {slices[0]}-{slices[-1]} {closes.isoformat()}",
            asset_selection=[dg.AssetKey([name]) for name in names],
            asset_check_keys=own_checks(names),
            tags={
                **range_tags(slices),
                **BY_CLOCK,
                **SWEEP_FIRST,
                NIGHT_TAG: str(evening),
                UNTIL_TAG: closes.isoformat(),
                MAX_RUNTIME_TAG: str(int((closes - now + 2 * GRACE).total_seconds())),
            },
        )
        for (slices, evening, closes), names in alike.items()
    ]


def build_window_guard(now: Callable[[], dt.datetime] = utc_now) -> dg.SensorDefinition:
    """``window_guard``: ends runs that their night has long left, which stop by themselves else."""

    def look(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        ended: list[str] = []
        left: list[str] = []
        for run in context.instance.get_runs(dg.RunsFilter(job_name=JOB, statuses=LIVE)):
            until = run.tags.get(UNTIL_TAG)
            if until is None or now() < dt.datetime.fromisoformat(until) + GRACE:
                continue
            if run.status is dg.DagsterRunStatus.QUEUED:
                done = context.instance.run_coordinator.cancel_run(run.run_id)
            else:
                done = context.instance.run_launcher.terminate(run.run_id)
            (ended if done else left).append(run.run_id)
        if left:
            context.log.warning("the night is over, and these runs cannot be ended: %s", left)
        return dg.SkipReason(
            f"ended {', '.join(ended)}: the night is over" if ended else "no run outstays its night"
        )

    return dg.SensorDefinition(
        name="window_guard",
        evaluation_fn=look,
        job_name=JOB,
        minimum_interval_seconds=GUARD_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Ends runs of the night window that go on after it.",
    )
