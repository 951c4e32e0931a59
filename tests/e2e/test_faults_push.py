"""The fault matrix, pushing: each fault is made by the hub itself, in the middle of inserts, updates and deletes."""

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from local import LOCAL
from place import Place
from tables import effects, faults, hits, hub, table

from syncflow_core.bridge.batches import Batch
from syncflow_core.bridge.failed import open_failed
from syncflow_core.entity import Brake, Entity
from syncflow_core.sandbox.store import Row

COLUMNS = {"ID": "NUMBER(9)", "NAME": "VARCHAR2(20)"}
CHANGED, NEW = 100, 1_200
ROUNDS = itertools.count(1)
WRITES = {"method": "POST", "path": "/flp/batch/(insert|update|delete)"}


def source(place: Place, generation: int) -> None:
    """Some rows that change in each generation, and a block of its own that is gone in the next."""
    kept: list[Row] = [{"ID": n, "NAME": f"g{generation}"} for n in range(CHANGED)]
    block: list[Row] = [{"ID": generation * 10_000 + n, "NAME": "n"} for n in range(NEW)]
    table(place, "flp", COLUMNS, [*kept, *block])


@pytest.fixture(scope="module")
def first(shared_place: Place) -> Place:
    """The table as it was synced first."""
    shared_place.apply([Entity(name="flp", brake=Brake(rows=100_000, share=1))])
    source(shared_place, next(ROUNDS))
    shared_place.sync("flp")
    return shared_place


@pytest.fixture
def loaded(first: Place) -> Iterator[Place]:
    """The same as it was synced last; afterwards no fault is left, and the hub is equal and quiet."""
    yield first
    faults(first.sandbox.schedulehub_url)
    with first.database.begin() as connection:
        refused = not open_failed(connection, "flp").is_empty()
    if refused:
        first.sync("flp")
    before = effects(first)
    quiet = first.sync("flp").batches[0]
    assert (quiet.status, quiet.counts.unchanged) == ("completed", CHANGED + NEW)
    assert effects(first) == before
    assert len(hub(first, "flp")) == CHANGED + NEW
    with first.database.begin() as connection:
        assert open_failed(connection, "flp").is_empty()


def struck(place: Place, *rules: dict[str, Any]) -> tuple[Batch, int]:
    """A sync of another generation under the rules: its batch, and how many effects the hub logged."""
    source(place, next(ROUNDS))
    before = effects(place)
    faults(place.sandbox.schedulehub_url, *rules)
    batch = place.sync("flp").batches[0]
    assert hits(place.sandbox.schedulehub_url) > 0, "the fault was never reached"
    return batch, effects(place) - before


PASSING: dict[str, dict[str, Any]] = {
    "XP01 XP02 the answer is lost after the commit": {"drop": "after"},
    "the request is lost": {"drop": "before"},
    "XP04 a proxy delivers it twice": {"twice": True},
    "XP06 results are missing": {"cut": {"results": 3}},
    "XP11 too large": {"status": 413, "body": '{"detail": "too large"}'},
    "XP12 slow down": {"status": 429, "headers": {"Retry-After": "1"}},
    "500, and the hub is healthy": {"status": 500},
    "XP15 200 with an error": {"body": '{"error": "no"}'},
    "XF21 the token expires": {"expire_tokens": "access"},
}


@pytest.mark.parametrize("op", ["insert", "update", "delete"])
@pytest.mark.parametrize("fault", PASSING)
def test_a_fault_of_one_call_has_one_effect_for_each_record(
    loaded: Place, fault: str, op: str
) -> None:
    match = {"method": "POST", "path": f"/flp/batch/{op}", "times": 1}

    batch, written = struck(loaded, {"match": match, "action": PASSING[fault]})

    counts = batch.counts
    assert batch.status == "completed", batch.error
    if fault.startswith("XP04"):  # what comes twice finds its own work done, or does the same again
        assert counts.inserted + counts.unchanged == NEW
        return
    assert (counts.inserted, counts.updated, counts.deleted) == (NEW, CHANGED, NEW)
    assert written == NEW + CHANGED + NEW, "each record once"


def test_XP14_what_a_slow_hub_does_after_all_has_one_effect(
    loaded: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYNCFLOW_SILENCE_S", "0.5")
    slow = {"match": {**WRITES, "times": 2}, "action": {"delay_s": 1.5}}

    batch, written = struck(loaded, slow)

    assert batch.status == "completed", batch.error
    assert written == NEW + CHANGED + NEW, "each record once"


def test_XP05_rows_that_fail_beside_others_fail_alone(loaded: Place) -> None:
    switch(loaded, reject=[{"collection": "flp", "field": "id", "value": n} for n in (3, 7, 11)])
    batch, written = changed(loaded)
    switch(loaded, reject=[])

    counts = batch.counts
    assert (batch.status, counts.failed, counts.updated) == ("partial", 3, CHANGED - 3)
    assert (counts.inserted, counts.deleted, written) == (NEW, NEW, 2 * NEW + CHANGED - 3)
    with loaded.database.begin() as connection:
        letters = open_failed(connection, "flp")
    assert sorted(letters["#reference"]) == ["id=11", "id=3", "id=7"]
    assert set(letters["rule"]) == {"hub_422"}


def test_XP09_an_update_refused_for_its_version_is_told_and_tried_with_the_next_sync(
    loaded: Place,
) -> None:
    conflict = {"status": 412, "body": '{"detail": "changed by others"}'}
    refused = {"match": {"path": "/flp/batch/update"}, "action": conflict}

    batch, written = struck(loaded, refused)

    assert (batch.status, batch.counts.failed, written) == ("partial", CHANGED, 2 * NEW)
    with loaded.database.begin() as connection:
        letters = open_failed(connection, "flp")
    assert set(letters["rule"]) == {"hub_412"}
    assert letters["message"].str.contains("changed by others").all()


def test_XP08_a_record_that_is_in_the_hub_already_is_taken_over(loaded: Place) -> None:
    with loaded.database.begin() as connection:
        lost = connection.exec_driver_sql(
            "DELETE FROM bridge.synced_records WHERE ctid IN "
            "(SELECT ctid FROM bridge.synced_records WHERE entity = 'flp' AND NOT deleted LIMIT 3)"
        ).rowcount
    before = effects(loaded)

    batch = loaded.sync("flp").batches[0]

    assert lost == 3
    assert (batch.status, batch.counts.inserted) == ("completed", 0)
    assert batch.counts.unchanged == CHANGED + NEW
    assert effects(loaded) == before


def test_XP10_records_that_others_deleted_are_inserted_again_or_done(loaded: Place) -> None:
    held = hub(loaded, "flp")
    gone = [name for name in held if len(name) > len("id=99")][:2]
    for reference in ("id=1", *gone):
        remove(loaded, reference)
    before = effects(loaded)

    batch, written = changed(loaded)

    assert batch.status == "completed", batch.error
    assert (batch.counts.updated, batch.counts.deleted) == (CHANGED - 1, NEW)
    assert batch.counts.inserted == NEW + 1
    assert written == NEW + CHANGED + NEW - len(gone)
    assert effects(loaded) == before + written


def test_XP16_after_nights_without_the_hub_only_the_newest_versions_go(
    loaded: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYNCFLOW_OUTAGE_S", "0")
    before = effects(loaded)
    for _ in range(3):
        batch, written = struck(loaded, {"match": {}, "action": {"drop": "before"}})
        assert (batch.status, written) == ("failed", 0)
    faults(loaded.sandbox.schedulehub_url)

    batch = loaded.sync("flp").batches[0]

    assert batch.status == "completed", batch.error
    assert effects(loaded) == before + NEW + CHANGED + NEW


@pytest.mark.parametrize("missing", [404, 501])
def test_a_hub_without_batch_calls_is_written_to_row_by_row(loaded: Place, missing: int) -> None:
    loaded.apply(
        [
            Entity(name="flp", brake=Brake(rows=100_000, share=1)),
            Entity(name="sgl", brake=Brake(rows=100, share=1)),
        ]
    )
    switch(loaded, batch_missing=missing)
    counted = []
    for name, numbers in (("a", range(30)), ("b", range(10, 40))):
        table(loaded, "sgl", COLUMNS, [{"ID": n, "NAME": f"{name}{missing}"} for n in numbers])
        counts = loaded.sync("sgl").batches[0].counts
        counted.append((counts.inserted, counts.updated, counts.deleted))
    switch(loaded, batch_missing=0)

    assert counted[1] == (10, 20, 10)
    assert len(hub(loaded, "sgl")) == 30


def changed(place: Place) -> tuple[Batch, int]:
    """A sync of another generation: its batch, and how many effects the hub logged."""
    source(place, next(ROUNDS))
    before = effects(place)
    batch = place.sync("flp").batches[0]
    return batch, effects(place) - before


def switch(place: Place, **switches: object) -> None:
    answer = LOCAL.post(f"{place.sandbox.schedulehub_url}/sandbox/switches", json=switches)
    answer.raise_for_status()


def remove(place: Place, reference: str) -> None:
    """Delete a record as another user of the hub would."""
    with place.database.begin() as connection:
        query = sa.text("SELECT hub_uid FROM bridge.synced_records WHERE reference = :reference")
        uid = connection.scalar(query, {"reference": reference})
    url = f"{place.sandbox.schedulehub_url}/api/v1"
    login = {"username": "syncflow", "password": place.sandbox.password}
    token = LOCAL.post(f"{url}/auth/login", json=login).json()["access_token"]
    headers = {"Authorization": f"Bearer {token}"}
    LOCAL.delete(f"{url}/flp/{uid}", headers=headers).raise_for_status()
