"""What was true when it began to wait and is not any more: older versions, deletes, mappings, counters."""

import json

import pytest
from place import Place, outcome
from tables import effects, hub, link, references, table

from syncflow_core.bridge.pending import open_pending
from syncflow_core.entity import Brake, Entity, Field, Rowversion

TEXT = "VARCHAR2(9)"
PARENT = {"ID": TEXT}
CHILD = {"ID": TEXT, "UP": TEXT, "NAME": TEXT}
LOOSE = Brake(rows=100_000, share=1)


def family(place: Place, parents: str, children: dict[str, tuple[str, str]]) -> None:
    """Parents by their letters; children by name, each with its parent and its content."""
    table(place, "par", PARENT, [{"ID": name} for name in parents])
    table(
        place,
        "chi",
        CHILD,
        [{"ID": no, "UP": up, "NAME": say} for no, (up, say) in children.items()],
    )


@pytest.fixture
def related(place: Place) -> Place:
    family(place, "PQ", {"C": ("P", "a"), "D": ("Q", "a")})
    references(place, ("chi", "up", "par"))
    place.apply(
        [
            Entity(name="par", brake=LOOSE),
            Entity(name="chi", brake=LOOSE, parents={"up": link("par", "up")}),
        ]
    )
    place.sync()
    return place


def test_XP17_a_parked_version_that_was_taken_back_never_follows(related: Place) -> None:
    family(related, "PQ", {"C": ("Z", "b"), "D": ("Q", "a")})
    assert outcome(related.sync(), "chi")["pending"] == 1
    family(related, "PQ", {"C": ("P", "a"), "D": ("Q", "a")})
    related.sync()
    with related.database.begin() as connection:
        assert open_pending(connection, "chi").is_empty()
    before = effects(related)
    table(related, "par", PARENT, [{"ID": name} for name in "PQZ"])
    related.sync("par")
    assert effects(related) == before + 1  # Z itself
    assert json.loads(hub(related, "chi")["id=C"])["name"] == "a"


def test_a_delete_that_waits_asks_again_before_it_goes(related: Place) -> None:
    family(related, "Q", {"C": ("P", "a"), "D": ("Q", "a")})
    related.sync("par")
    family(related, "PQ", {"D": ("Q", "a")})
    related.sync("chi")
    assert sorted(hub(related, "par")) == ["id=P", "id=Q"]


def test_XH06_a_child_that_moves_away_frees_its_parents_delete(related: Place) -> None:
    family(related, "Q", {"C": ("Q", "a"), "D": ("Q", "a")})
    related.sync()
    assert sorted(hub(related, "par")) == ["id=Q"]
    before = effects(related)
    related.sync()
    assert effects(related) == before


def test_a_mapping_whose_updates_were_withheld_is_not_forgotten(place: Place) -> None:
    table(
        place,
        "itm",
        {"ID": TEXT, "QTY": "NUMBER(9)"},
        [{"ID": f"I{n}", "QTY": n} for n in range(9)],
    )
    entity = Entity(name="itm", brake=Brake(rows=2, share=0.1))
    place.apply([entity])
    place.sync()
    text = Field(source="QTY", target="qty", type="text")
    place.apply([entity.model_copy(update={"fields": [text]})])
    assert outcome(place.sync(), "itm")["withheld"] == 9
    assert outcome(place.sync(), "itm")["withheld"] == 9


def test_a_source_restored_with_lower_counters_is_followed_after_a_whole_scan(place: Place) -> None:
    columns = {"ID": TEXT, "NAME": TEXT, "RV": "NUMBER(9)"}
    counter = Rowversion(column="RV", kind="integer", overlap_s=1)

    def rows(first: int, changed: str = "a") -> None:
        lines = [{"ID": f"I{n}", "NAME": "a", "RV": first + n} for n in range(9)]
        lines[4] |= {"NAME": changed, "RV": first + (90 if changed != "a" else 4)}
        table(place, "itm", columns, lines)

    rows(1000)
    place.apply([Entity(name="itm", delta="rowversion", brake=LOOSE, rowversion=counter)])
    place.sync()
    rows(10)
    place.sync()
    rows(10, changed="b")
    place.sync(mode="auto")
    assert json.loads(hub(place, "itm")["id=I4"])["name"] == "b"


def test_reconcile_says_that_an_emptied_source_has_nothing(place: Place) -> None:
    table(place, "itm", PARENT, [{"ID": f"I{n}"} for n in range(9)])
    place.apply([Entity(name="itm")])
    place.sync()
    table(place, "itm", PARENT, [])
    ended = place.command("reconcile", "itm", "--json")
    assert ended.returncode == 1
    assert json.loads(ended.stdout)["counts"]["source_extra"] == 9
