"""The fault matrix, hierarchy and concurrency: parents that are refused, gone or new, and syncs beside each other."""

import itertools
import json
import os
import signal
from collections.abc import Iterator

import pytest
from forked import Failpoint
from local import LOCAL
from machine import until_stopped
from place import Place, lines, outcome
from tables import effects, hub, link, references, table

from syncflow_core.bridge.failed import open_failed
from syncflow_core.bridge.pending import open_keys
from syncflow_core.entity import Brake, Entity, Field
from syncflow_core.sandbox import database

LOOSE = Brake(rows=100_000, share=1)
PARENT = {"ID": "VARCHAR2(20)", "NAME": "VARCHAR2(20)"}
CHILD = {"ID": "VARCHAR2(20)", "UP": "VARCHAR2(20)"}
NUMBERS = itertools.count(1)


@pytest.fixture(scope="module")
def declared(shared_place: Place) -> Place:
    references(shared_place, ("kid", "up", "top"))
    shared_place.apply(
        [
            Entity(name="top", brake=LOOSE),
            Entity(name="kid", brake=LOOSE, parents={"up": link("top", "up")}),
        ]
    )
    return shared_place


@pytest.fixture
def family(declared: Place) -> Iterator[Place]:
    """Parents A and B with a child each; at the end nothing waits, failed, or is sent again."""
    parents(declared, "A", "B")
    children(declared, a="A", b="B")
    declared.sync()
    assert (names(declared, "top"), names(declared, "kid")) == ({"A", "B"}, {"a", "b"})
    yield declared
    declared.sync()
    before = effects(declared)
    quiet = declared.sync()
    assert quiet.succeeded
    assert effects(declared) == before
    for name in ("top", "kid"):
        with declared.database.begin() as connection:
            assert open_failed(connection, name).is_empty()
            assert open_keys(connection, name).is_empty()


def parents(place: Place, *ids: str, name: str = "a") -> None:
    table(place, "top", PARENT, [{"ID": key, "NAME": name} for key in ids])


def children(place: Place, **of: str) -> None:
    table(place, "kid", CHILD, [{"ID": key, "UP": up} for key, up in of.items()])


def names(place: Place, collection: str) -> set[str]:
    return {reference.removeprefix("id=") for reference in hub(place, collection)}


def reject(place: Place, *rules: dict[str, object]) -> None:
    LOCAL.post(
        f"{place.sandbox.schedulehub_url}/sandbox/switches",
        json={"reject": list(rules)},
    ).raise_for_status()


def test_XH02_children_of_a_refused_parent_wait_and_go_when_it_is_repaired(family: Place) -> None:
    parents(family, "A", "B", "C")
    children(family, a="A", b="B", c="C")
    reject(family, {"collection": "top", "field": "id", "value": "C"})
    refused = family.sync()
    reject(family)

    repaired = family.sync()

    assert (outcome(refused, "top")["failed"], outcome(refused, "kid")["pending"]) == (1, 1)
    assert repaired.succeeded
    assert names(family, "kid") == {"a", "b", "c"}


def test_XH03_a_child_whose_parent_was_deleted_while_it_waited_leaves_no_orphan(
    family: Place,
) -> None:
    children(family, a="A", b="B", c="C")
    assert outcome(family.sync(), "kid")["pending"] == 1
    parents(family, "A")
    children(family, a="A", c="C")  # B has gone with its child; C never came

    run = family.sync()
    children(family, a="A")

    assert outcome(run, "kid")["pending"] == 1
    assert (names(family, "top"), names(family, "kid")) == ({"A"}, {"a"})


def test_a_delete_that_waits_tells_which_children_it_waits_for(family: Place) -> None:
    parents(family, "B")
    family.sync("top")

    told = family.command("trace", "top", "A").stdout
    children(family, b="B")
    family.sync()

    assert "it is to be deleted, and waits for its children to go: 1 of kid" in told
    assert "unchanged since" not in told
    assert names(family, "top") == {"B"}


def test_a_child_that_waits_tells_for_which_parent(family: Place) -> None:
    children(family, a="A", b="B", c="C")
    family.sync()

    told = family.command("trace", "kid", "c").stdout
    wrong = family.command("trace", "kid", "name=c")
    children(family, a="A", b="B")
    family.sync()

    assert "waits (waiting) for up: top id=C" in told
    assert wrong.returncode == 2
    assert "write id=..." in wrong.stderr


def test_XH07_a_parent_that_was_deleted_and_made_anew_has_its_children_again(
    family: Place,
) -> None:
    parents(family, "A")
    children(family, a="A")
    family.sync()
    assert names(family, "top") == {"A"}
    parents(family, "A", "B", name="anew")
    children(family, a="A", b="B")

    family.sync()

    assert (names(family, "top"), names(family, "kid")) == ({"A", "B"}, {"a", "b"})
    assert json.loads(hub(family, "top")["id=B"])["name"] == "anew"


def test_children_whose_parent_others_have_deleted_in_the_hub_are_tried_five_times_and_told(
    family: Place,
) -> None:
    with family.database.begin() as connection:
        query = (
            "SELECT hub_uid FROM bridge.synced_records WHERE entity = 'top' AND reference = 'id=B'"
        )
        uid = connection.exec_driver_sql(query).scalar_one()
    with database.connect(family.url) as hub_side:
        hub_side.execute("UPDATE hub.records SET deleted = true WHERE uid = %s", [str(uid)])
    children(family, a="A", b="B", late="B")
    runs = [family.sync("kid") for _ in range(6)]
    with family.database.begin() as connection:
        letters = open_failed(connection, "kid")

    parents(family, "A", "B", name="seen")
    family.sync("top")

    assert [outcome(run, "kid")["pending"] for run in runs] == [1] * 6
    assert letters["rule"].to_list() == ["parent_missing"]
    assert letters["attempts"].to_list() == [1], "told once"
    assert names(family, "kid") == {"a", "b", "late"}


def test_XC01_of_two_syncs_of_one_entity_the_second_waits_for_the_first(family: Place) -> None:
    parents(family, "A", "B", name=f"n{next(NUMBERS)}")
    before = effects(family)
    both = [family.process("sync", "top", "--full", "--json") for _ in range(2)]

    said = [process.communicate(timeout=60) for process in both]

    assert [process.returncode for process in both] == [0, 0], said
    counts = [lines(out)[0]["counts"] for out, _ in said]
    assert sorted(count["updated"] for count in counts) == [0, 2]
    assert effects(family) == before + 2


def test_XC03_a_childs_sync_beside_its_parents_loses_and_doubles_nothing(family: Place) -> None:
    many = [f"P{n}" for n in range(300)]
    parents(family, "A", "B", *many)
    children(family, a="A", b="B", **{f"k{n}": f"P{n}" for n in range(300)})
    before = effects(family)
    both = [family.process("sync", name, "--full") for name in ("kid", "top")]
    for process in both:
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0, said

    family.sync()

    assert len(names(family, "kid")) == 302
    assert effects(family) == before + 600


def test_XC04_two_syncs_that_follow_a_dead_one_do_the_rest_once(family: Place) -> None:
    parents(family, "A", "B", *(f"D{n}" for n in range(50)))
    before = effects(family)
    point = Failpoint("syncflow_core.stages.sender.Sender._save")
    dying = family.process("sync", "top", "--full", at=point)
    dying.communicate(timeout=60)
    both = [family.process("sync", "top", "--full", "--json") for _ in range(2)]

    said = [process.communicate(timeout=60) for process in both]

    assert dying.returncode == -signal.SIGKILL
    assert [process.returncode for process in both] == [0, 0], said
    assert effects(family) == before + 50


def test_XC05_a_sync_keeps_to_the_declaration_that_it_began_with(family: Place) -> None:
    parents(family, "A", "B", name="changed")
    point = Failpoint("syncflow_dagster.ops.normalize_rows", signal=signal.SIGSTOP)
    running = family.process("sync", "top", "--full", at=point)
    until_stopped(running.pid)
    upper = Field.model_validate({"source": "NAME", "target": "name", "transform": ["upper"]})
    family.apply(
        [
            Entity(name="top", brake=LOOSE, fields=[upper]),
            Entity(name="kid", brake=LOOSE, parents={"up": link("top", "up")}),
        ]
    )
    os.kill(running.pid, signal.SIGCONT)
    _, said = running.communicate(timeout=60)
    first = hub(family, "top")["id=A"]

    family.sync("top")

    assert running.returncode == 0, said
    assert json.loads(first)["name"] == "changed"
    assert json.loads(hub(family, "top")["id=A"])["name"] == "CHANGED"
