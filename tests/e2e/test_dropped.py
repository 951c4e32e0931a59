"""Waiting children of which a newer version, or a whole sweep, says that they wait no longer."""

import json

import pytest
from place import Place
from tables import hub, link, references, table

from syncflow_core.bridge.failed import open_failed
from syncflow_core.bridge.pending import open_pending
from syncflow_core.entity import Entity, Rowversion

TEXT = "VARCHAR2(9)"
PARENT = {"ID": TEXT}
LINE = {"ID": TEXT, "ORD": TEXT, "PART": TEXT, "RV": "NUMBER(9)"}
ORDER = {"ID": TEXT, "PART": TEXT}


def parents(place: Place, name: str, letters: str) -> None:
    table(place, name, PARENT, [{"ID": letter} for letter in letters])


@pytest.fixture
def narrowed(place: Place) -> Place:
    """A line that waited for its order O and its part P, and whose newer version waits for O alone."""
    parents(place, "ordr", "Z")
    parents(place, "part", "Z")
    table(place, "lin", LINE, [{"ID": "A", "ORD": "O", "PART": "P", "RV": 9}])
    references(place, ("lin", "order", "ordr"), ("lin", "part", "part"))
    line = Entity(
        name="lin",
        delta="rowversion",
        rowversion=Rowversion(column="RV", overlap_s=0),
        parents={"order": link("ordr", "ord"), "part": link("part", "part")},
    )
    place.apply([Entity(name="ordr"), Entity(name="part"), line])
    place.sync()
    newer = [{"ID": "A", "ORD": "O", "PART": "Z", "RV": 10}, {"ID": "B", "RV": 11}]
    table(place, "lin", LINE, newer)
    place.sync(mode="auto")
    return place


def test_a_reference_that_the_newer_version_dropped_is_waited_for_no_longer(
    narrowed: Place,
) -> None:
    with narrowed.database.begin() as connection:
        assert open_pending(connection, "lin")["reference_name"].to_list() == ["order"]
    parents(narrowed, "ordr", "ZO")
    narrowed.sync("ordr")
    assert json.loads(hub(narrowed, "lin")["id=A"])["part"] == "Z"


def test_XP17_the_older_version_is_never_sent_for_the_newer_one(narrowed: Place) -> None:
    parents(narrowed, "part", "ZP")
    narrowed.sync("part")
    assert "id=A" not in hub(narrowed, "lin")
    parents(narrowed, "ordr", "ZO")
    narrowed.sync("ordr")
    assert json.loads(hub(narrowed, "lin")["id=A"])["part"] == "Z"


@pytest.fixture
def ordered(place: Place) -> Place:
    parents(place, "part", "X")
    table(place, "ordr", ORDER, [{"ID": "A", "PART": "X"}, {"ID": "B", "PART": "X"}])
    references(place, ("ordr", "part", "part"))
    place.apply([Entity(name="part"), Entity(name="ordr", parents={"part": link("part", "part")})])
    place.sync()
    return place


def test_what_a_sweep_found_gone_does_not_come_back_with_its_parent(ordered: Place) -> None:
    table(ordered, "ordr", ORDER, [{"ID": "A", "PART": "Q"}, {"ID": "B", "PART": "X"}])
    ordered.sync()
    table(ordered, "ordr", ORDER, [{"ID": "B", "PART": "X"}])
    ordered.sweep("ordr", slices=2)
    assert list(hub(ordered, "ordr")) == ["id=B"]
    parents(ordered, "part", "XQ")
    ordered.sync("part")
    assert list(hub(ordered, "ordr")) == ["id=B"]


@pytest.mark.parametrize("swept", [True, False])
def test_a_child_that_left_while_it_waited_is_never_sent(ordered: Place, *, swept: bool) -> None:
    there = [{"ID": "A", "PART": "X"}, {"ID": "B", "PART": "X"}]
    table(ordered, "ordr", ORDER, [*there, {"ID": "C", "PART": "Q"}])
    ordered.sync()
    table(ordered, "ordr", ORDER, there)
    if swept:
        ordered.sweep("ordr", slices=2)
    else:
        ordered.sync("ordr")
    parents(ordered, "part", "XQ")
    ordered.sync("part")
    assert sorted(hub(ordered, "ordr")) == ["id=A", "id=B"]


@pytest.mark.parametrize("bad", [{"ID": "C", "PART": "\ufffd"}, {"ID": " ", "PART": "X"}])
def test_a_dead_letter_of_a_row_that_left_closes_with_the_sweep(
    ordered: Place, bad: dict[str, str]
) -> None:
    there = [{"ID": "A", "PART": "X"}, {"ID": "B", "PART": "X"}]
    table(ordered, "ordr", ORDER, [*there, bad])
    ordered.sync()
    ordered.sweep("ordr", slices=2)
    with ordered.database.begin() as connection:
        before = open_failed(connection, "ordr").height
    table(ordered, "ordr", ORDER, there)
    ordered.sweep("ordr", slices=2)
    with ordered.database.begin() as connection:
        assert (before, open_failed(connection, "ordr").height) == (1, 0)
