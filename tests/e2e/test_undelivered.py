"""What was not delivered is tried by the next sync that a person starts, also by an incremental one."""

from typing import Any

import httpx
import pytest
from place import Place, outcome
from tables import hub, link, references, table

from syncflow_core.bridge.failed import open_failed
from syncflow_core.bridge.leases import Lease
from syncflow_core.entity import Entity, Field
from syncflow_core.sandbox.store import Row

pytestmark = pytest.mark.e2e

COLUMNS = {"ID": "VARCHAR2(9)", "QTY": "VARCHAR2(9)", "UP": "VARCHAR2(9)", "RV": "NUMBER(9)"}
STRICT = Field(source="QTY", type="integer")


def faults(place: Place, *rules: dict[str, Any]) -> None:
    httpx.post(
        f"{place.sandbox.schedulehub_url}/sandbox/faults", json=list(rules), trust_env=False
    ).raise_for_status()


def rows(count: int, **quantities: str) -> list[Row]:
    return [
        {"ID": f"I{n}", "QTY": quantities.get(f"I{n}", "1"), "UP": None, "RV": 1_000 * n}
        for n in range(count)
    ]


def entity(*fields: Field) -> Entity:
    return Entity(name="und", delta="rowversion", fields=list(fields))


def letters(place: Place, name: str) -> int:
    with place.database.begin() as connection:
        return open_failed(connection, name).height


@pytest.fixture
def rejected(place: Place) -> Place:
    table(place, "und", COLUMNS, rows(10, I3="1.234", I4="2.345"))
    place.apply([entity(STRICT)])
    place.sync()
    assert letters(place, "und") == 2
    return place


GROUPED = Field(source="QTY", type="integer", decimal_separator=",")


def test_rows_under_a_mended_declaration_come_with_an_incremental_sync(rejected: Place) -> None:
    rejected.apply([entity(GROUPED)])

    run = rejected.sync(mode="incremental")

    found = outcome(run, "und")
    assert (found["inserted"], letters(rejected, "und")) == (2, 0)
    assert found["fetched"] == 3, "the last row, within the overlap, and the two"
    assert '"qty":1234' in hub(rejected, "und")["id=I3"]


def test_after_a_change_of_the_declaration_everything_is_read_once(rejected: Place) -> None:
    rejected.apply([entity(GROUPED)])

    first = rejected.sync(mode="auto")
    second = rejected.sync(mode="auto")

    assert [run.batches[0].kind for run in (first, second)] == ["full", "incremental"]
    assert any("declaration has changed" in text for text in first.batches[0].proof["notes"])  # type: ignore[index]
    assert outcome(first, "und")["inserted"] == 2


def test_a_dead_letter_that_is_still_wrong_is_rejected_once_a_sync(rejected: Place) -> None:
    table(rejected, "und", COLUMNS, rows(10, I3="1.234", I4="7"))

    run = rejected.sync(mode="incremental")

    found = outcome(run, "und")
    assert (found["rejected"], found["inserted"], found["fetched"]) == (1, 1, 3)
    assert letters(rejected, "und") == 1


def test_a_row_that_changed_and_failed_before_is_read_once(rejected: Place) -> None:
    mended = rows(10, I4="2.345")
    mended[3] = {**mended[3], "RV": 50_000}
    table(rejected, "und", COLUMNS, mended)

    run = rejected.sync(mode="incremental")

    found = outcome(run, "und")
    assert (found["fetched"], found["inserted"], found["rejected"]) == (3, 1, 1)


@pytest.fixture
def family(place: Place) -> Place:
    table(place, "par", {"ID": "VARCHAR2(9)"}, [])
    table(
        place,
        "chi",
        COLUMNS,
        [{"ID": "C", "QTY": "1", "UP": "P", "RV": 1}, {"ID": "Z", "RV": 9000}],
    )
    references(place, ("chi", "up", "par"))
    place.apply(
        [
            Entity(name="par"),
            Entity(name="chi", delta="rowversion", parents={"up": link("par", "up")}),
        ]
    )
    place.sync()
    table(place, "par", {"ID": "VARCHAR2(9)"}, [{"ID": "P"}])
    return place


def test_a_child_that_was_refused_when_it_was_released_is_tried_again(family: Place) -> None:
    refusing = {"match": {"path": "/chi"}, "action": {"status": 422}}
    faults(family, refusing)
    family.sync("par")
    faults(family)
    assert (letters(family, "chi"), len(hub(family, "chi"))) == (1, 1)

    run = family.sync("chi", mode="incremental")

    assert outcome(run, "chi")["inserted"] == 1
    assert (letters(family, "chi"), sorted(hub(family, "chi"))) == (0, ["id=C", "id=Z"])


def test_a_child_whose_parent_landed_while_it_was_held_goes_with_its_own_sync(
    family: Place,
) -> None:
    with Lease.acquire(family.database, "chi", wait_s=0):
        family.sync("par")
    assert sorted(hub(family, "chi")) == ["id=Z"]

    run = family.sync("chi", mode="incremental")

    assert sorted(hub(family, "chi")) == ["id=C", "id=Z"]
    assert [batch.counts.retried for batch in run.batches] == [0, 1]
    assert letters(family, "chi") == 0
