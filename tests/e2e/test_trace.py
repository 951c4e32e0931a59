"""One record's story: of a delivered, a rejected and a waiting one."""

import json

import pytest
from place import Place
from tables import lost, table

from syncflow_core.apismith import Source
from syncflow_core.bridge.failed import open_failed
from syncflow_core.bridge.pending import open_pending
from syncflow_core.entity import Brake, Entity
from syncflow_core.errors import ConfigError
from syncflow_core.sandbox import erp, store
from syncflow_core.settings import read_settings
from syncflow_core.trace import Story, trace
from syncflow_dagster.sandbox import demo_entities

COLUMNS = {"ID": "NUMBER(9)", "NAME": "VARCHAR2(9)"}
NUMBERED = Entity(name="num", brake=Brake(rows=2, share=0.1))


def numbers(place: Place, *found: int, name: str = "a") -> None:
    table(place, "num", COLUMNS, [{"ID": n, "NAME": name} for n in found])


@pytest.fixture(scope="module")
def synced(shared_place: Place) -> Place:
    """Everything once, for whoever only looks at it."""
    with shared_place.tables.connection() as connection:
        erp.seed_erp(connection, rows=2_000, seed=3)
    numbers(shared_place, *range(20))
    shared_place.apply([*demo_entities(), NUMBERED])
    shared_place.sync()
    return shared_place


def tell(place: Place, entity: str, key: str) -> Story:
    with Source.open(read_settings()) as source:
        return trace(place.database, source, entity, key)


def test_a_delivered_record_tells_its_insert_and_its_layers(synced: Place) -> None:
    story = tell(synced, "sites", "S0000")

    assert [event.event for event in story.events] == ["inserted"]
    assert story.known is not None
    assert story.reference == "site_code=S0000"
    assert story.row is not None
    assert {step.layer for step in story.steps} == {1, 2, 3, 4, 5}
    assert tell(synced, "sites", story.key_hash.hex()).row == story.row


def test_a_rejected_record_tells_the_rule_and_the_value(synced: Place) -> None:
    with synced.database.begin() as connection:
        letter = open_failed(connection, "stock").row(0, named=True)

    story = tell(synced, "stock", letter["#reference"])

    assert story.known is None
    assert story.failed is not None
    refused = [step for step in story.steps if step.message]
    assert [(step.rule, step.before) for step in refused] == [(letter["rule"], letter["value"])]


def test_a_waiting_record_tells_for_whom(synced: Place) -> None:
    with synced.database.begin() as connection:
        waiting = open_pending(connection, "order_lines").row(0, named=True)

    story = tell(synced, "order_lines", waiting["#reference"])

    assert [line["parent_entity"] for line in story.pending] == ["orders"]
    assert story.reference == waiting["#reference"]
    assert [event.event for event in story.events] == ["parked"]


def test_a_key_that_names_other_fields_is_refused_with_the_right_form(synced: Place) -> None:
    with pytest.raises(ConfigError, match=r"write order_no=\.\.\.\|line_no=\.\.\."):
        tell(synced, "order_lines", "order=WO1")


def test_the_command_prints_the_story_and_its_json(synced: Place) -> None:
    shown = synced.command("trace", "sites", "S0000")
    told = synced.command("trace", "sites", "S0000", "--json")

    assert shown.returncode == 0, shown.stderr
    assert "inserted" in shown.stdout
    assert json.loads(told.stdout)["reference"] == "site_code=S0000"


def test_a_rejected_row_that_left_the_source_still_tells_its_layers(synced: Place) -> None:
    with synced.database.begin() as connection:
        letter = open_failed(connection, "stock").row(0, named=True)

    with lost(synced, "stock", "true"):
        story = tell(synced, "stock", (letter["#key_hash"] or letter["raw_digest"]).hex())

    assert story.kept
    assert letter["rule"] in {step.rule for step in story.steps}


def test_a_key_that_looks_like_a_hash_is_found_by_its_value(place: Place) -> None:
    guid = "0f" * 16
    with place.tables.connection() as connection:
        store.load_table(
            connection,
            store.Table(
                name="guids",
                columns=[{"name": "ID", "data_type": "RAW(16)"}],
                business_key=["ID"],
                key_fields=["id"],
            ),
            [{"ID": guid}],
        )
    place.apply([Entity(name="guids")])
    place.sync()

    story = tell(place, "guids", guid)

    assert [event.event for event in story.events] == ["inserted"]
    assert tell(place, "guids", story.key_hash.hex()).known == story.known


def test_a_row_without_a_usable_key_is_found_by_its_digest(place: Place) -> None:
    with place.tables.connection() as connection:
        store.load_table(
            connection,
            store.Table(
                name="keyless",
                columns=[{"name": "ID", "data_type": "VARCHAR2(9)"}],
                business_key=["ID"],
                key_fields=["id"],
            ),
            [{"ID": " "}],
        )
    place.apply([Entity(name="keyless")])
    place.sync()
    with place.database.begin() as connection:
        letter = open_failed(connection, "keyless").row(0, named=True)

    story = tell(place, "keyless", letter["raw_digest"].hex())

    assert story.failed is not None
    assert (story.failed["rule"], story.kept) == ("null_key", True)
    assert [step.rule for step in story.steps if step.message] == ["null_key"]


@pytest.fixture
def numbered(place: Place) -> Place:
    numbers(place, *range(20))
    place.apply([NUMBERED])
    place.sync()
    return place


@pytest.mark.parametrize("key", ["7", "07", "7.0", "id=07", "ID=7", " 7"])
def test_a_key_may_be_written_as_the_source_or_the_hub_spells_it(synced: Place, key: str) -> None:
    story = tell(synced, "num", key)

    assert story.reference == "id=7"
    assert story.row == {"ID": "7", "NAME": "a"}


def test_a_row_that_was_never_synced_is_found_in_the_source(numbered: Place) -> None:
    numbers(numbered, 99, name="n")

    story = tell(numbered, "num", "099")

    assert (story.known, story.row) == (None, {"ID": "99", "NAME": "n"})


@pytest.mark.parametrize(
    ("key", "words"),
    [("abc", "no record of num has such a key: id 'abc'"), ("1.5", "has such a key"), ("", "key")],
)
def test_a_value_that_can_be_no_key_is_refused_by_the_entitys_own_rules(
    synced: Place, key: str, words: str
) -> None:
    ended = synced.command("trace", "num", key)

    assert (ended.returncode, ended.stdout) == (2, "")
    assert words in ended.stderr
    assert "422" not in ended.stderr


def test_with_the_source_away_the_history_is_told(synced: Place) -> None:
    away = {"SYNCFLOW_APISMITH_URL": "http://127.0.0.1:9"}

    shown = synced.command("trace", "num", "7", **away)
    told = synced.command("trace", "num", "id=7", "--json", **away)

    assert shown.returncode == 0, shown.stderr
    assert "the source was not asked" in shown.stdout
    story = json.loads(told.stdout)
    assert [event["event"] for event in story["events"]] == ["inserted"]
    assert "apismith" in story["away"]


def test_what_is_withheld_or_gone_is_not_said_to_be_unchanged(numbered: Place) -> None:
    numbers(numbered, *range(15))
    numbered.sync()

    withheld = numbered.command("trace", "num", "17").stdout
    numbered.apply([Entity(name="num")])
    numbered.sync()
    gone = numbered.command("trace", "num", "17").stdout
    there = numbered.command("trace", "num", "3").stdout

    assert "unchanged since" not in withheld
    assert "last read" in withheld
    assert "gone since" in gone
    assert "unchanged since" in there


def test_a_record_that_nobody_ever_met_is_said_to_be_strange(synced: Place) -> None:
    shown = synced.command("trace", "num", "4711")

    assert shown.returncode == 0
    assert "SyncFlow has never met such a record" in shown.stdout
    assert "last read" not in shown.stdout
