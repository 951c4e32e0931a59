"""What the night window asks for, tick by tick, on a real database: each slice once, whatever happens."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from dagster._core.test_utils import create_run_for_test

from syncflow_core.bridge import batches, schedules, sweeps
from syncflow_core.bridge.database import Database
from syncflow_core.bridge.entities import apply_entities
from syncflow_core.bridge.sweeps import Slice
from syncflow_core.entity import Background, Entity, ParentRef, Schedule
from syncflow_core.settings import read_settings
from syncflow_dagster.definitions import build
from syncflow_dagster.nights import JOB, build_window_guard, missed_shares
from syncflow_dagster.partitions import RANGE_END, RANGE_START, range_tags
from syncflow_dagster.tags import NIGHT_TAG, UNTIL_TAG

KEYS = pl.Series("#key_hash", [bytes(16)], dtype=pl.Binary)
TICK = timedelta(minutes=15)


def entity(name: str, **background: object) -> Entity:
    night = Background.model_validate({"time_zone": "Europe/Berlin", **background})
    return Entity(name=name, schedule=Schedule(background=night))


class Nights:
    """A SyncFlow whose ticks come at chosen moments, and whose runs do what they are asked."""

    def __init__(self, database: Database, instance: dg.DagsterInstance) -> None:
        self.database, self.instance = database, instance
        self.entities: list[Entity] = []

    def declare(self, *entities: Entity) -> None:
        self.entities = list(entities)
        with self.database.begin() as connection:
            apply_entities(connection, entities)
        self.repository = build(self.entities, 7).get_repository_def()

    def tick(self, at: datetime) -> list[dg.RunRequest]:
        context = dg.build_schedule_context(
            instance=self.instance, scheduled_execution_time=at, repository_def=self.repository
        )
        return list(
            self.repository.get_schedule_def("night_window").evaluate_tick(context).run_requests
            or []
        )

    def do(self, request: dg.RunRequest, at: datetime) -> None:
        """What the run leaves behind when it has done its slices."""
        first, last = (
            int(request.tags[tag].removeprefix("slice-")) for tag in (RANGE_START, RANGE_END)
        )
        for key in request.asset_selection or ():
            for number in range(first, last + 1):
                self.see(
                    key.to_user_string(), number, date.fromisoformat(request.tags[NIGHT_TAG]), at
                )

    def see(self, name: str, number: int, night: date, at: datetime) -> None:
        with self.database.begin() as connection:
            uid = batches.open_batch(
                connection, entity=name, entity_version=1, kind="slice", now=at
            )
            sweeps.save_slice(
                connection,
                name,
                Slice(number, 7, uid, 10, complete=True, unkeyed=0, head=(), tail=()),
                KEYS,
                at,
            )
            ends = len(sweeps.load_slices(connection, name)) == 7
            if ends:
                sweeps.end_sweep(connection, name, at)
            schedules.note_slice(connection, name, number, night=night, ends=ends, now=at)

    def progress(self, name: str) -> schedules.Progress:
        with self.database.begin() as connection:
            return schedules.load_nights(connection, [name])[0].progress


@pytest.fixture
def nights(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nights]:
    monkeypatch.setenv("SYNCFLOW_DATABASE_URL", database.url)
    monkeypatch.setenv("SYNCFLOW_SLICES", "7")
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield Nights(database, instance)


def asked(requests: list[dg.RunRequest]) -> list[tuple[set[str], str, str]]:
    return [
        (
            {key.to_user_string() for key in request.asset_selection or ()},
            request.tags[RANGE_START],
            request.tags[RANGE_END],
        )
        for request in requests
    ]


EVENING = datetime(
    2026, 3, 27, 18, 0, tzinfo=UTC
)  # 19:00 in Berlin; the next night is an hour short


def test_tonights_slice_is_asked_for_once_and_by_day_nothing_is(nights: Nights) -> None:
    nights.declare(entity("orders"))

    before = nights.tick(EVENING - TICK)
    (request,) = nights.tick(EVENING)
    nights.do(request, EVENING)
    after = [nights.tick(EVENING + TICK * number) for number in (*range(1, 4), 40, 43, 44, 48)]

    assert (before, [tick for tick in after if tick]) == ([], [])
    assert asked([request]) == [({"orders"}, "slice-1", "slice-1")]
    assert request.tags[NIGHT_TAG] == "2026-03-27"
    assert request.tags[UNTIL_TAG] == "2026-03-28T06:00:00+00:00"
    assert nights.progress("orders").next_run_at == datetime(2026, 3, 28, 18, 0, tzinfo=UTC)


def test_two_sweeps_over_fourteen_nights_ask_for_every_slice_twice(nights: Nights) -> None:
    nights.declare(entity("orders"), entity("stock", nights=3))
    done: list[tuple[set[str], str, str]] = []
    moment = EVENING
    while moment < EVENING + timedelta(days=14):
        for request in nights.tick(moment):
            done += asked([request])
            nights.do(request, moment)
        moment += timedelta(hours=6)

    slices = [f"slice-{number}" for number in range(1, 8)]
    assert [first for names, first, _ in done if "orders" in names] == slices * 2
    assert nights.progress("orders").sweep_number == 2
    stock = [(first, last) for names, first, last in done if "stock" in names]
    assert stock[:3] == [("slice-1", "slice-3"), ("slice-4", "slice-5"), ("slice-6", "slice-7")]
    assert nights.progress("stock").sweep_number == 4


def test_a_night_that_was_missed_is_made_up_for_in_the_next(nights: Nights) -> None:
    nights.declare(entity("orders"))
    (request,) = nights.tick(EVENING)
    nights.do(request, EVENING)

    (late,) = nights.tick(EVENING + timedelta(days=3, hours=5))
    nights.do(late, EVENING + timedelta(days=3, hours=5))

    assert asked([late]) == [({"orders"}, "slice-2", "slice-4")]
    assert nights.progress("orders").last_slice == 4


def test_slices_that_a_person_did_by_day_are_not_done_again(nights: Nights) -> None:
    nights.declare(entity("orders"))
    for number in (1, 3):
        nights.see("orders", number, EVENING.date(), EVENING - TICK)

    (request,) = nights.tick(EVENING + timedelta(days=3))

    assert asked([request]) == [({"orders"}, "slice-2", "slice-2")]


def test_parents_and_children_with_the_same_slices_due_go_in_one_run(nights: Nights) -> None:
    child = entity("lines").model_copy(
        update={"parents": {"order": ParentRef(entity="orders", key={"id": "order_id"})}}
    )
    nights.declare(
        entity("orders"),
        child,
        entity("other", time_zone="America/New_York"),
        entity("off", enabled=False),
    )

    assert asked(nights.tick(EVENING)) == [({"orders", "lines"}, "slice-1", "slice-1")]


def test_an_entity_whose_run_goes_on_or_failed_too_often_is_left_alone(nights: Nights) -> None:
    nights.declare(entity("orders"), entity("stock"))
    tags = {**range_tags([1]), NIGHT_TAG: "2026-03-27"}

    def run(name: str, status: dg.DagsterRunStatus) -> None:
        create_run_for_test(
            nights.instance,
            job_name=JOB,
            status=status,
            tags=tags,
            asset_selection=frozenset({dg.AssetKey([name])}),
        )

    run("orders", dg.DagsterRunStatus.STARTED)
    for _ in range(2):
        run("stock", dg.DagsterRunStatus.FAILURE)
    twice = asked(nights.tick(EVENING))
    run("stock", dg.DagsterRunStatus.FAILURE)
    thrice = asked(nights.tick(EVENING))
    tomorrow = asked(nights.tick(EVENING + timedelta(days=1)))

    assert twice == [({"stock"}, "slice-1", "slice-1")]
    assert thrice == []
    assert tomorrow == [({"stock"}, "slice-1", "slice-1")]


def test_the_guard_looks_for_runs_that_outstay_their_night_alone(nights: Nights) -> None:
    nights.declare(entity("orders"))
    closes = datetime(2026, 3, 28, 6, 0, tzinfo=UTC)
    create_run_for_test(
        nights.instance,
        job_name=JOB,
        status=dg.DagsterRunStatus.STARTED,
        tags={UNTIL_TAG: closes.isoformat()},
    )
    tried: list[str] = []
    nights.instance.run_launcher.terminate = lambda run_id: bool(tried.append(run_id)) or True  # type: ignore[method-assign]
    said = []
    for now in (closes, closes + timedelta(minutes=6)):
        guard = build_window_guard(lambda now=now: now)  # type: ignore[misc]
        context = dg.build_sensor_context(instance=nights.instance)
        said.append(guard.evaluate_tick(context).skip_message)

    assert len(tried) == 1
    assert said == ["no run outstays its night", f"ended {tried[0]}: the night is over"]


def test_a_night_without_a_run_is_missed_until_its_slices_are_done(nights: Nights) -> None:
    nights.declare(entity("orders"), entity("whole", nights=1), entity("off", enabled=False))

    def missed(at: datetime) -> dict[str, tuple[int, ...]]:
        with nights.database.begin() as connection:
            shares = missed_shares(connection, at, read_settings())
        return {share.entity: share.slices for share in shares}

    with nights.database.begin() as connection:
        connection.exec_driver_sql("UPDATE bridge.entities SET created_at = %s", (EVENING,))
    morning, next_evening = EVENING + timedelta(hours=13), EVENING + timedelta(days=1)
    declared_at_night = missed(morning - timedelta(days=1))
    never_run = missed(morning)
    at_night = missed(next_evening + TICK)
    for request in nights.tick(next_evening + TICK):
        nights.do(request, next_evening + TICK)
    made_up = missed(next_evening + 2 * TICK)
    kept = missed(next_evening + timedelta(hours=13))
    again = missed(next_evening + timedelta(days=1, hours=13))

    first = {"orders": (1,), "whole": tuple(range(1, 8))}
    assert (declared_at_night, never_run, at_night) == ({}, first, first)
    assert (made_up, kept) == ({}, {})
    assert again == {"orders": (2,), "whole": tuple(range(1, 8))}


def test_a_sweep_that_a_person_began_by_day_owes_the_night_before_nothing(nights: Nights) -> None:
    nights.declare(entity("orders"))
    noon = EVENING + timedelta(hours=18)
    nights.see("orders", 2, noon.date(), noon)

    with nights.database.begin() as connection:
        assert missed_shares(connection, noon + TICK, read_settings()) == []
