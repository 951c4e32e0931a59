"""The fault matrix, pushing: each fault is made by the hub itself, in the middle of inserts, updates and deletes."""

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from place import Place
from tables import effects, faults, hits, hub, table

from syncflow_core.bridge.batches import Batch
from syncflow_core.bridge.failed import open_failed
from syncflow_core.entity import Brake, Entity
from syncflow_core.sandbox.store import Row

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("faults of pushing")]

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
