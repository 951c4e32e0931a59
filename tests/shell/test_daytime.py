"""What the schedule ``by_day`` asks for, minute by minute, on a real database."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test

from syncflow_core.bridge import batches, state
from syncflow_core.bridge.batches import Counts
from syncflow_core.bridge.database import Database
from syncflow_core.bridge.entities import apply_entities
from syncflow_core.entity import Entity, Schedule
from syncflow_dagster.daytime import JOB
from syncflow_dagster.definitions import build
from syncflow_dagster.tags import PRIORITY_TAG

NOON = datetime(2026, 3, 27, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


class Days:
    """A SyncFlow whose ticks come at chosen moments."""

    def __init__(self, database: Database, instance: dg.DagsterInstance) -> None:
        self.database, self.instance = database, instance

    def declare(self, **minutes: int | None) -> None:
        entities = [
            Entity(name=name, schedule=Schedule(incremental_minutes=every))
            for name, every in minutes.items()
        ]
        with self.database.begin() as connection:
            apply_entities(connection, entities)
        self.repository = build(entities, 7).get_repository_def()

    def read(self, name: str, at: datetime, *, watermark: str | None = "5") -> None:
        """What a whole sync leaves behind."""
        with self.database.begin() as connection:
            uid = batches.open_batch(connection, entity=name, entity_version=1, kind="full", now=at)
            batches.close_batch(connection, uid, "completed", Counts(), now=at)
            before = state.load_state(connection, name, name)
            state.save_state(
                connection,
                name,
                name,
                state.State(
                    **{
                        **vars(before),
                        "watermark": watermark,
                        "last_full_scan_at": at,
                        "last_batch": uid,
                    }
                ),
                at,
            )

    def tick(self, at: datetime) -> list[set[str]]:
        context = dg.build_schedule_context(
            instance=self.instance, scheduled_execution_time=at, repository_def=self.repository
        )
        self.requests = (
            self.repository.get_schedule_def("by_day").evaluate_tick(context).run_requests or []
        )
        return [
            {key.to_user_string() for key in request.asset_selection or ()}
            for request in self.requests
        ]


@pytest.fixture
def days(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Days]:
    monkeypatch.setenv("SYNCFLOW_DATABASE_URL", database.url)
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield Days(database, instance)


def test_each_entity_is_read_at_its_own_interval_and_those_due_together_in_one_run(
    days: Days,
) -> None:
    days.declare(often=5, seldom=60, never=None)
    for name in ("often", "seldom", "never"):
        days.read(name, NOON)

    early, five = days.tick(NOON + 4 * MINUTE), days.tick(NOON + 5 * MINUTE)
    hour = days.tick(NOON + 60 * MINUTE)

    assert (early, five, hour) == ([], [{"often"}], [{"often", "seldom"}])


def test_a_tick_asks_for_what_has_changed_and_stands_behind_the_sweep(days: Days) -> None:
    days.declare(often=5)
    days.read("often", NOON)

    days.tick(NOON + 5 * MINUTE)

    (request,) = days.requests
    config = request.run_config["ops"]["often"]["ops"]["fetch"]["config"]
    assert config["mode"] == "incremental"
    assert int(request.tags[PRIORITY_TAG]) < 0
    assert dg.validate_run_config(
        days.repository.get_job(JOB).get_subset(asset_selection={dg.AssetKey(["often"])}),
        request.run_config,
    )


def test_what_was_missed_is_made_up_for_once_and_never_two_at_once(days: Days) -> None:
    days.declare(often=5)
    days.read("often", NOON)
    later = NOON + timedelta(days=2)

    missed = days.tick(later)
    create_run_for_test(
        days.instance,
        job_name=JOB,
        status=dg.DagsterRunStatus.STARTED,
        asset_selection={dg.AssetKey(["often"])},
    )
    meanwhile = days.tick(later + 10 * MINUTE)

    assert (missed, meanwhile) == ([{"often"}], [])


def test_an_entity_without_a_watermark_is_read_whole_at_night_and_once(days: Days) -> None:
    days.declare(fresh=5)

    by_day, at_night = days.tick(NOON), days.tick(NOON + timedelta(hours=8))
    days.read("fresh", NOON + timedelta(hours=8), watermark=None)
    again = days.tick(NOON + timedelta(hours=9))

    assert (by_day, at_night, again) == ([], [{"fresh"}], [])
