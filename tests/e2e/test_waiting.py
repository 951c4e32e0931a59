"""Children without a parent: attempts, the dead letter at their end, and the late parent after it."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import polars as pl
import pytest
from place import Place, outcome
from tables import effects, hub, link, references, table

from syncflow_core.backoff import ATTEMPTS
from syncflow_core.bridge import events
from syncflow_core.bridge.failed import open_failed
from syncflow_core.bridge.pending import open_pending
from syncflow_core.entity import Entity
from syncflow_core.sandbox.store import Row

ORDERS = {"NO": "VARCHAR2(9)", "SITE": "VARCHAR2(9)"}
LINES = {"ID": "VARCHAR2(9)", "NO": "VARCHAR2(9)", "SITE": "VARCHAR2(9)"}
ENTITIES = [
    Entity(name="hdr", business_key=["NO", "SITE"]),
    Entity(
        name="pos",
        parents={"header": {"entity": "hdr", "key": {"no": "no", "site": "site"}}},  # type: ignore[dict-item]  # as in YAML
    ),
]


def orders(place: Place, *numbers: str) -> None:
    rows: list[Row] = [{"NO": no, "SITE": "S"} for no in ("0", *numbers)]
    table(place, "hdr", ORDERS, rows, keys=["NO", "SITE"])


@pytest.fixture
def orphaned(place: Place) -> Place:
    """One line of an order that is there, two of orders that are not."""
    orders(place)
    rows: list[Row] = [{"ID": f"L{no}", "NO": no, "SITE": "S"} for no in ("0", "1|x", "2")]
    table(place, "pos", LINES, rows)
    references(place, ("pos", "header", "hdr"))
    place.apply(ENTITIES)
    place.sync()
    return place


def waiting(place: Place) -> pl.DataFrame:
    with place.database.begin() as connection:
        return open_pending(connection, "pos").sort("#reference")


def letters(place: Place) -> pl.DataFrame:
    with place.database.begin() as connection:
        return open_failed(connection, "pos").sort("#reference")


def test_each_sync_that_misses_the_parent_is_an_attempt_and_the_delay_grows(
    orphaned: Place,
) -> None:
    delays = []
    for attempt in range(1, ATTEMPTS):
        rows = waiting(orphaned)
        assert rows.select("attempts", "state").rows() == [(attempt, "waiting")] * 2
        delays.append(rows["due_at"][0] - datetime.now(tz=UTC))
        orphaned.sync("pos")

    grown = [later > 2 * earlier for earlier, later in pairwise(delays)]
    assert grown == [True] * (ATTEMPTS - 2)
    assert delays[0] < timedelta(minutes=2)


def test_XH04_after_the_last_attempt_a_person_is_told_once_and_nothing_more_is_tried(
    orphaned: Place,
) -> None:
    for _ in range(ATTEMPTS - 1):
        assert letters(orphaned).is_empty()
        orphaned.sync("pos")
    first = letters(orphaned)
    pushed = effects(orphaned)
    run = orphaned.sync("pos")
    orphaned.sync("pos")

    assert first.select("stage", "rule", "column", "value").rows() == [
        ("resolve", "parent_missing", "header", "no=1\\|x|site=S"),
        ("resolve", "parent_missing", "header", "no=2|site=S"),
    ]
    assert "waits for hdr no=2|site=S, which was not there in 5 attempts" in first["message"][1]
    assert (
        waiting(orphaned).select("attempts", "state", "due_at").rows()
        == [(ATTEMPTS, "dead", None)] * 2
    )
    assert letters(orphaned)["attempts"].to_list() == [1, 1]
    assert outcome(run, "pos") == {"fetched": 3, "normalized": 3, "unchanged": 1, "pending": 2}
    assert run.batches[0].status == "completed"
    assert effects(orphaned) == pushed


def test_a_parent_that_comes_after_the_last_attempt_still_brings_its_child(
    orphaned: Place,
) -> None:
    for _ in range(ATTEMPTS):
        orphaned.sync("pos")
    orders(orphaned, "2")

    run = orphaned.sync("hdr")

    assert [(batch.entity, batch.counts.retried) for batch in run.batches[1:]] == [("pos", 1)]
    assert sorted(hub(orphaned, "pos")) == ["id=L0", "id=L2"]
    assert letters(orphaned)["#reference"].to_list() == ["id=L1|x".replace("|", "\\|")]
    assert waiting(orphaned).height == 1


def test_a_child_that_is_moved_to_another_missing_parent_begins_anew(orphaned: Place) -> None:
    for _ in range(ATTEMPTS):
        orphaned.sync("pos")
    rows: list[Row] = [
        {"ID": f"L{no}", "NO": to, "SITE": "S"} for no, to in (("0", "0"), ("1|x", "9"), ("2", "2"))
    ]
    table(orphaned, "pos", LINES, rows)

    orphaned.sync("pos")

    assert waiting(orphaned).select("attempts", "state").rows() == [
        (1, "waiting"),
        (ATTEMPTS, "dead"),
    ]


def test_a_child_that_goes_on_waiting_has_one_line_of_history(orphaned: Place) -> None:
    orphaned.sync("pos")
    orphaned.sync("pos")

    key = waiting(orphaned)["#key_hash"][0]
    with orphaned.database.begin() as connection:
        told = [event.event for event in events.story(connection, "pos", key)]
    assert told == ["parked"]


def test_an_orphan_that_leaves_the_source_waits_no_more(orphaned: Place) -> None:
    for _ in range(ATTEMPTS):
        orphaned.sync("pos")
    table(orphaned, "pos", LINES, [{"ID": "L0", "NO": "0", "SITE": "S"}])

    orphaned.sync("pos")

    assert waiting(orphaned).is_empty()
    assert letters(orphaned).is_empty()


def test_a_reference_that_never_comes_is_told_too(place: Place) -> None:
    columns = {"ID": "VARCHAR2(9)", "UP": "VARCHAR2(9)"}
    table(place, "emp", columns, [{"ID": "E", "UP": "D"}])
    table(place, "dep", columns, [{"ID": "X", "UP": "E"}])
    references(place, ("emp", "dept", "dep"), ("dep", "head", "emp"))
    place.apply(
        [
            Entity(name="emp", parents={"dept": link("dep", "up")}),
            Entity(name="dep", parents={"head": link("emp", "up")}),
        ]
    )
    for _ in range(ATTEMPTS):
        place.sync()

    # dep.head is the reference that the cycle is cut at: its record goes without it
    assert (list(hub(place, "emp")), list(hub(place, "dep"))) == ([], ["id=X"])
    with place.database.begin() as connection:
        found = [open_failed(connection, name)["value"].to_list() for name in ("emp", "dep")]
    assert found == [["id=D"], ["id=E"]]
