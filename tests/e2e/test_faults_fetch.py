"""The fault matrix, fetching: each fault is made by the source itself, in the middle of a scan of two pages."""

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from place import Place
from tables import effects, faults, hits, hub, table

from syncflow_core.bridge.batches import Batch
from syncflow_core.entity import Entity
from syncflow_core.sandbox.store import Row

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("faults of fetching")]

COLUMNS = {"ID": "NUMBER(9)", "NAME": "VARCHAR2(20)"}
ROWS = 10_500
EXECUTE = {"path": "/runtime/flt/execute"}
ROUNDS = itertools.count()


def source(place: Place, *, generation: int) -> None:
    """One row is gone against the first load, another one is new in each generation, and one changes."""
    rows: list[Row] = [{"ID": n, "NAME": "a"} for n in range(1, ROWS)]
    rows[0] = {"ID": 1, "NAME": f"b{generation}"}
    table(place, "flt", COLUMNS, [*rows, {"ID": ROWS + generation, "NAME": "n"}])


@pytest.fixture(scope="module")
def first(shared_place: Place) -> Place:
    """The table as it was synced first."""
    shared_place.apply([Entity(name="flt")])
    source(shared_place, generation=next(ROUNDS))
    shared_place.sync("flt")
    return shared_place


@pytest.fixture
def loaded(first: Place) -> Iterator[Place]:
    """The same as it was synced last; afterwards no fault is left, and the hub becomes equal."""
    yield first
    faults(first.sandbox.apismith_url)
    recovered = first.sync("flt").batches[0]
    assert (recovered.status, recovered.counts.fetched) == ("completed", ROWS)
    assert len(hub(first, "flt")) == ROWS


def struck(place: Place, *rules: dict[str, Any]) -> tuple[Batch, int]:
    """A sync of another generation under the rules: its batch, and how much was written."""
    source(place, generation=next(ROUNDS))
    before = effects(place)
    faults(place.sandbox.apismith_url, *rules)
    batch = place.sync("flt").batches[0]
    assert hits(place.sandbox.apismith_url) > 0, "the fault was never reached"
    return batch, effects(place) - before


def soon() -> str:
    return format_datetime(datetime.now(tz=UTC) + timedelta(seconds=2), usegmt=True)


PASSING: dict[str, dict[str, Any]] = {
    "XF01 500 twice, then well": {"status": 500},
    "XF06 reset in the body": {"truncate": 0.5},
    "XF07 an answer that never comes": {"drop": "after"},
    "XF08 broken once": {"status": 200, "body": '{"success": true, "data": [{"ID": 1'},
    "XF12 a short page": {"cut": {"data": 37}},
    "XF21 the token expires": {"expire_tokens": "access"},
    "XF23 seconds": {"status": 429, "headers": {"Retry-After": "1"}},
    "XF23 a date": {"status": 503, "headers": {"Retry-After": "SOON"}},
    "XF23 garbage": {"status": 429, "headers": {"Retry-After": "later"}},
}


@pytest.mark.parametrize("fault", PASSING)
def test_a_fault_that_passes_changes_nothing_of_the_result(loaded: Place, fault: str) -> None:
    action = dict(PASSING[fault])
    if action.get("headers", {}).get("Retry-After") == "SOON":
        action["headers"] = {"Retry-After": soon()}
    times = 1 if fault.startswith(("XF12", "XF21", "XF23")) else 2

    batch, written = struck(loaded, {"match": {**EXECUTE, "times": times}, "action": action})

    assert batch.status == "completed", batch.error
    assert (batch.counts.inserted, batch.counts.updated, batch.counts.deleted) == (1, 1, 1)
    assert (batch.counts.fetched, written) == (ROWS, 3)


LASTING: dict[str, tuple[dict[str, Any], str]] = {
    "XF02 500 for good": ({"status": 500}, "answered 500"),
    "XF08 broken for good": ({"status": 200, "body": "[[["}, "flt"),
    "XF10 a login page with 200": (
        {
            "status": 200,
            "body": "<html>log in</html>",
            "headers": {"Content-Type": "text/html"},
        },
        "text/html",
    ),
    "XF13 the same page for ever": ({"repeat": True}, "the answer is for offset 0"),
    "XF22 403": ({"status": 403}, "403"),
    "XF23 a day": ({"status": 429, "headers": {"Retry-After": "86400"}}, "429"),
    "XF24 a redirect": (
        {"status": 302, "headers": {"Location": "http://127.0.0.1:9/elsewhere"}},
        "redirects are not followed",
    ),
}


@pytest.mark.parametrize("fault", LASTING)
def test_a_fault_that_lasts_fails_the_batch_and_writes_nothing(loaded: Place, fault: str) -> None:
    action, words = LASTING[fault]

    nth = {"nth": 2} if "repeat" in action else {}  # there must be an answer to repeat
    batch, written = struck(loaded, {"match": {**EXECUTE, **nth}, "action": action})

    assert (batch.status, written) == ("failed", 0)
    assert words in str(batch.error)


def test_XF17_a_total_that_no_page_fills_deletes_nothing_and_says_so(loaded: Place) -> None:
    lie = {"put": {"metadata.total_rows": ROWS + 100}}

    batch, written = struck(loaded, {"match": EXECUTE, "action": lie})

    assert (batch.counts.inserted, batch.counts.updated, batch.counts.deleted) == (1, 1, 0)
    assert written == 2
    notes = " ".join((batch.proof or {})["notes"])
    assert "1 records were not seen, but the scan is not proven complete: none is deleted" in notes
    assert f"{ROWS:,} rows came, {ROWS + 100:,} were declared" in notes
