"""What a run of the night window leaves behind: the sweep's progress, or the rest for the next night."""

from datetime import UTC, date, datetime, timedelta

import dagster as dg
import pytest
from dagster._core.definitions.reconstruct import ReconstructableRepository
from place import Place
from tables import effects, hub, table

from syncflow_core.bridge.batches import Batch, history
from syncflow_core.bridge.schedules import Progress, load_nights
from syncflow_core.entity import Entity
from syncflow_core.stages import push
from syncflow_dagster.partitions import range_tags
from syncflow_dagster.tags import NIGHT_TAG, UNTIL_TAG

EVENING = date(2026, 3, 27)
COLUMNS = {"ID": "NUMBER(9)", "NAME": "VARCHAR2(9)"}


def run_night(place: Place, slices: list[int], until: datetime) -> Batch:
    """A run as the night window launches it; its batch."""
    job = ReconstructableRepository.for_module(
        "syncflow_dagster.definitions", "defs", working_directory=str(place.home)
    ).get_reconstructable_job("night")
    tags = {**range_tags(slices), NIGHT_TAG: str(EVENING), UNTIL_TAG: until.isoformat()}
    (place.home / "dagster").mkdir(exist_ok=True)
    with dg.DagsterInstance.local_temp(str(place.home / "dagster")) as instance:
        run = dg.execute_job(job, instance, tags=tags, asset_selection=[dg.AssetKey(["ngw"])])
    with place.database.begin() as connection:
        return history(connection, dagster_run_id=run.run_id, kinds=["slice", "full"])[0]


def progress(place: Place) -> Progress:
    with place.database.begin() as connection:
        return load_nights(connection, ["ngw"])[0].progress


def test_a_nights_run_saves_how_far_the_sweep_has_come(place: Place) -> None:
    place.cut_into(7)
    table(place, "ngw", COLUMNS, [{"ID": n, "NAME": "a"} for n in range(70_000)])
    place.apply([Entity(name="ngw")])
    tomorrow = datetime.now(tz=UTC) + timedelta(days=1)

    first = run_night(place, [1, 2], tomorrow)
    after_two = progress(place)
    last = run_night(place, [3, 4, 5, 6, 7], tomorrow)

    assert (first.status, first.kind, last.status) == ("completed", "slice", "completed")
    assert (after_two.last_slice, after_two.last_night) == (2, EVENING)
    assert after_two.sweep_night == EVENING
    assert 20_000 <= after_two.current_offset < 25_000
    assert len(hub(place, "ngw")) == 70_000
    ended = progress(place)
    assert (ended.sweep_number, ended.sweep_night, ended.current_offset) == (1, None, 0)


def test_a_run_that_begins_after_its_night_does_nothing_and_says_so(place: Place) -> None:
    table(place, "ngw", COLUMNS, [{"ID": n, "NAME": "a"} for n in range(100)])
    place.apply([Entity(name="ngw")])

    batch = run_night(place, [1], datetime.now(tz=UTC) - timedelta(minutes=1))

    assert batch.status == "stopped"
    assert "the night window has closed" in str(batch.error)
    assert (batch.proof or {})["asked_to_stop"] is False
    assert effects(place) == 0
    assert progress(place).last_slice is None


def test_a_night_that_ends_during_the_push_keeps_what_was_sent_and_leaves_the_rest(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.cut_into(7)
    table(place, "ngw", COLUMNS, [{"ID": n, "NAME": "a"} for n in range(25_000)])
    place.apply([Entity(name="ngw")])
    until = datetime.now(tz=UTC) + timedelta(hours=1)
    prepared = push.prepared

    def slow(*arguments: object, **named: object) -> object:
        for number, group in enumerate(prepared(*arguments, **named)):  # type: ignore[arg-type]
            if number == 2:
                monkeypatch.setattr(push, "within_night", closed)
            yield group

    def closed(order: push.Staged, now: datetime) -> None:
        real(order, now + timedelta(hours=2))  # type: ignore[arg-type]

    real = push.within_night
    monkeypatch.setattr(push, "prepared", slow)
    batch = run_night(place, list(range(1, 8)), until)
    monkeypatch.undo()
    sent = effects(place)
    monkeypatch.setenv("SYNCFLOW_HOME", str(place.home / "home"))

    rest = place.sync("ngw").batches[0]

    assert (batch.status, sent) == ("stopped", 20_000)
    assert rest.counts.inserted == 5_000
    assert effects(place) == 25_000
