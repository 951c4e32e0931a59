"""An entity that goes to another collection of the hub: the new one is filled, the old one left alone."""

import pytest
from place import Place, outcome
from tables import effects, hub, link, references, table

from syncflow_core.bridge import plans
from syncflow_core.entity import Brake, Entity
from syncflow_core.sandbox.store import Row

COLUMNS = {"ID": "VARCHAR2(9)", "NAME": "VARCHAR2(9)", "RV": "NUMBER(9)"}
ITEM = Entity(name="col", delta="rowversion", brake=Brake(rows=2, share=0.1))
MOVED = ITEM.model_copy(update={"collection": "elsewhere"})


def items(count: int) -> list[Row]:
    return [{"ID": f"I{n}", "NAME": "a", "RV": 100 + n} for n in range(count)]


@pytest.fixture
def synced(place: Place) -> Place:
    table(place, "col", COLUMNS, items(10))
    place.apply([ITEM])
    place.sync()
    return place


def test_another_collection_is_filled_whatever_the_watermark_and_the_old_one_stays(
    synced: Place,
) -> None:
    synced.apply([MOVED])

    run = synced.sync(mode="auto")
    quiet = synced.sync(mode="full")

    assert outcome(run, "col")["inserted"] == 10
    (note,) = [item for item in (run.batches[0].proof or {})["notes"] if "collection" in item]
    assert "the collection is elsewhere now, it was col" in note
    assert len(hub(synced, "elsewhere")) == len(hub(synced, "col")) == 10
    assert outcome(quiet, "col")["unchanged"] == 10


def test_back_in_the_first_collection_only_what_changed_since_is_sent(synced: Place) -> None:
    synced.apply([MOVED])
    synced.sync()
    synced.apply([ITEM])
    table(synced, "col", COLUMNS, [{"ID": "I0", "NAME": "b", "RV": 200}, *items(10)[1:]])
    before = effects(synced)

    run = synced.sync()

    assert (outcome(run, "col")["updated"], outcome(run, "col")["unchanged"]) == (1, 9)
    assert effects(synced) == before + 1


def test_what_was_withheld_of_the_old_collection_is_not_asked_of_the_new_one(
    synced: Place,
) -> None:
    table(synced, "col", COLUMNS, items(5))
    synced.sync()
    synced.apply([MOVED])

    run = synced.sync()

    assert outcome(run, "col")["inserted"] == 5
    assert run.batches[0].status == "completed"
    with synced.database.begin() as connection:
        assert plans.list_plans(connection, entity="col") == []
    assert len(hub(synced, "col")) == 10


def test_a_child_that_waits_goes_to_the_new_collection_with_its_own_batch(place: Place) -> None:
    ids = {"ID": "VARCHAR2(9)"}
    child = Entity(name="chi", parents={"up": link("par", "up")})
    table(place, "par", ids, [])
    table(place, "chi", {**ids, "UP": "VARCHAR2(9)"}, [{"ID": "C", "UP": "P"}])
    references(place, ("chi", "up", "par"), ("kids", "up", "par"))
    place.apply([Entity(name="par"), child])
    place.sync()
    place.apply([child.model_copy(update={"collection": "kids"})])
    table(place, "par", ids, [{"ID": "P"}])

    place.sync("par")
    early = dict(hub(place, "chi"))
    run = place.sync("chi")

    assert early == {}
    assert outcome(run, "chi")["inserted"] == 1
    assert list(hub(place, "kids")) == ["id=C"]
