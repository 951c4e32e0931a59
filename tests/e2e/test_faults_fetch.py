"""The fault matrix, fetching: each fault is made by the source itself, in the middle of a scan of two pages."""

import functools
import itertools
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from place import Place
from tables import effects, faults, hits, hub, table

from syncflow_core.bridge.batches import Batch
from syncflow_core.bridge.failed import open_failed
from syncflow_core.entity import Brake, Entity
from syncflow_core.sandbox.store import Row
from syncflow_core.scan import scan
from syncflow_core.stages import reading

COLUMNS = {"ID": "NUMBER(9)", "NAME": "VARCHAR2(20)"}
PAGE_ROWS = 1_000
ROWS = 1_050
"""Two pages: what a fault does to one it does to one of ten thousand rows too."""
EXECUTE = {"path": "/runtime/flt/execute"}
ROUNDS = itertools.count()


def source(place: Place, *, generation: int) -> None:
    """One row is gone against the first load, another one is new in each generation, and one changes."""
    rows: list[Row] = [{"ID": n, "NAME": "a"} for n in range(1, ROWS)]
    rows[0] = {"ID": 1, "NAME": f"b{generation}"}
    table(place, "flt", COLUMNS, [*rows, {"ID": ROWS + generation, "NAME": "n"}])


@pytest.fixture(scope="module")
def first(shared_place: Place) -> Iterator[Place]:
    """The table as it was synced first; an answer may take a second or two."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("SYNCFLOW_SILENCE_S", "1")
        patched.setenv("SYNCFLOW_ANSWER_S", "2")
        patched.setattr(reading, "PAGE_LIMIT", PAGE_ROWS)
        patched.setattr(reading, "scan", functools.partial(scan, page_size=PAGE_ROWS))
        yield synced(shared_place)


def synced(shared_place: Place) -> Place:
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
    "XF04 a hang": {"hang": True},
    "XF05 a slow drip": {"drip_s": 0.3},
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
    times = 1 if fault.startswith(("XF04", "XF05", "XF12", "XF21", "XF23")) else 2

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
    "XF13 the same page for ever": ({"repeat": True}, "the answer is for offset"),
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


def test_XN03_a_row_that_turns_bad_keeps_its_old_version_in_the_hub(loaded: Place) -> None:
    columns = {"ID": "NUMBER(9)", "QTY": "NUMBER(9)"}
    loaded.apply([Entity(name="flt"), Entity(name="bad", brake=Brake(rows=1, share=0))])
    table(loaded, "bad", columns, [{"ID": n, "QTY": n} for n in range(20)])
    loaded.sync("bad")
    before = hub(loaded, "bad")
    table(loaded, "bad", columns, [{"ID": n, "QTY": "12,34,5" if n < 5 else n} for n in range(20)])

    batch = loaded.sync("bad").batches[0]
    again = loaded.sync("bad").batches[0]

    assert (batch.status, batch.counts.rejected, batch.counts.unchanged) == ("partial", 5, 15)
    assert again.counts == batch.counts
    assert hub(loaded, "bad") == before
    with loaded.database.begin() as connection:
        letters = open_failed(connection, "bad")
    assert set(letters["column"]) == {"QTY"}
    assert set(letters["value"]) == {"12,34,5"}


def test_XN02_rows_that_are_all_bad_stop_the_entity_and_delete_nothing(loaded: Place) -> None:
    columns = {"ID": "NUMBER(9)", "DUE": "DATE"}
    loaded.apply([Entity(name="flt"), Entity(name="due")])
    table(loaded, "due", columns, [{"ID": n, "DUE": "2025-12-08"} for n in range(1_200)])
    loaded.sync("due")
    before = effects(loaded)
    table(loaded, "due", columns, [{"ID": n, "DUE": "8th of December"} for n in range(1_100)])

    batch = loaded.sync("due").batches[0]

    assert batch.status == "failed"
    assert "most were rejected in due (1,100 of 1,100)" in str(batch.error)
    assert effects(loaded) == before


def test_XF27_values_that_come_in_another_type_send_nothing(loaded: Place) -> None:
    columns = {"ID": "NUMBER(9)", "QTY": "NUMBER(12,3)", "DUE": "DATE"}
    loaded.apply([Entity(name="flt"), Entity(name="flp")])
    table(loaded, "flp", columns, [{"ID": 1, "QTY": 10.5, "DUE": "2025-12-08T00:00:00"}])
    loaded.sync("flp")
    before = effects(loaded)
    flipped: list[Row] = [{"ID": "1", "QTY": "10.500", "DUE": 1_765_152_000_000}]
    table(loaded, "flp", columns, flipped)

    batch = loaded.sync("flp").batches[0]

    assert (batch.status, batch.counts.unchanged) == ("completed", 1), hub(loaded, "flp")
    assert effects(loaded) == before


def test_XT06_leap_days_year_ends_and_open_ends_arrive_as_they_are(loaded: Place) -> None:
    columns = {"ID": "NUMBER(9)", "AT": "TIMESTAMP"}
    loaded.apply([Entity(name="flt"), Entity(name="tim")])
    moments = [
        "2024-02-29T00:00:00",
        "2025-12-31T23:59:59.999999999",
        "9999-12-31T00:00:00",
        "0001-01-01T00:00:00",
        "1582-10-10T00:00:00",
    ]
    table(loaded, "tim", columns, [{"ID": n, "AT": at} for n, at in enumerate(moments)])

    batch = loaded.sync("tim").batches[0]

    assert (batch.status, batch.counts.inserted) == ("completed", len(moments))
    held = [json.loads(hub(loaded, "tim")[f"id={n}"])["at"] for n in range(len(moments))]
    assert held == moments
