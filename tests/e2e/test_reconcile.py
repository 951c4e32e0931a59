"""Comparing with hub and source, whole and by a sample, and the plan that repairs."""

import json
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa
from local import LOCAL
from place import Place, lines, outcome
from tables import effects, hub, link, table

from syncflow_core.bridge.entities import load_entities
from syncflow_core.bridge.leases import Lease
from syncflow_core.bridge.reconciliations import last_reconciliation
from syncflow_core.entity import Brake, Entity, Field
from syncflow_core.sandbox.store import Row
from syncflow_dagster.definitions import build
from syncflow_dagster.reconciling import RECONCILED

COLUMNS = {"ID": "VARCHAR2(9)", "NAME": "VARCHAR2(9)"}


def items(count: int, **changed: str) -> list[Row]:
    return [{"ID": f"I{n}", "NAME": changed.get(f"I{n}", "a")} for n in range(count)]


@pytest.fixture
def synced(place: Place) -> Place:
    table(place, "rec", COLUMNS, items(40))
    place.apply([Entity(name="rec", brake=Brake(rows=100, share=1))])
    place.sync()
    return place


def reconciled(place: Place, *arguments: str, status: int = 0) -> dict[str, Any]:
    ended = place.command("reconcile", "rec", "--json", *arguments)
    assert ended.returncode == status, ended.stderr + ended.stdout
    return lines(ended.stdout)[0]


def counted(found: dict[str, Any]) -> dict[str, int]:
    return {name: number for name, number in found["counts"].items() if number}


def spoil_hub(place: Place) -> None:
    """Somebody works in the hub behind SyncFlow's back."""
    with place.database.begin() as connection:
        for statement in (
            "DELETE FROM hub.records WHERE doc::json ->> 'erp_ref_str' = 'id=I1'",
            (
                "UPDATE hub.records SET data_hash = '00' || left(data_hash, 62), "
                'doc = replace(doc, \'"name":"a"\', \'"name":"z"\') '
                "WHERE doc::json ->> 'erp_ref_str' = 'id=I2'"
            ),
            "DELETE FROM bridge.synced_records WHERE reference = 'id=I3'",
        ):
            assert connection.execute(sa.text(statement)).rowcount == 1


def test_equal_sides_reconcile_without_a_difference(synced: Place) -> None:
    whole = reconciled(synced)
    sample = reconciled(synced, "--sample", "30")

    assert (counted(whole), whole["compared"], whole["accuracy"]) == ({}, 40, 1.0)
    assert (counted(sample), sample["compared"], sample["accuracy"]) == ({}, 30, 1.0)
    assert sample["accuracy_at_least"] == pytest.approx(0.05 ** (1 / 30))
    assert "no plan is open" in synced.command("plan").stdout


def test_XP18_what_the_hub_lost_changed_or_gained_is_named_and_repaired_through_a_plan(
    synced: Place,
) -> None:
    spoil_hub(synced)
    table(synced, "rec", COLUMNS, [*items(39, I5="new")[1:], {"ID": "N", "NAME": "n"}])

    found = reconciled(synced, status=1)
    repaired = reconciled(synced, "--repair", status=1)
    overtaking = synced.sync("rec")  # does all that the plan says before it is applied
    before = effects(synced)
    applied = synced.command("apply", repaired["plan"])
    again = reconciled(synced)

    expected = {"hub_missing": 1, "hub_extra": 1, "hub_different": 1}
    assert counted(found) == expected | {
        "source_missing": 2,  # N, and I3, which the bridge does not know
        "source_different": 1,
        "source_extra": 2,
    }
    named = {(row["side"], row["kind"], row["record"]) for row in found["samples"]}
    assert named >= {
        ("hub", "missing", "id=I1"),
        ("hub", "extra", "id=I3"),
        ("hub", "different", "id=I2"),
        ("source", "missing", "id=N"),
        ("source", "extra", "id=I0"),
    }
    assert repaired["repaired"]
    assert outcome(overtaking, "rec")["inserted"] == 2  # I1 and N
    assert outcome(overtaking, "rec")["updated"] == 2  # I2 and I5
    assert (applied.returncode, effects(synced)) == (0, before), applied.stdout
    assert counted(again) == {}
    assert json.loads(hub(synced, "rec")["id=I2"])["name"] == "a"


def test_a_record_of_which_several_fields_differ_is_listed_once(place: Place) -> None:
    columns = {**COLUMNS, "CITY": "VARCHAR2(9)"}
    table(place, "rec", columns, [{"ID": "I1", "NAME": "a", "CITY": "b"}])
    place.apply([Entity(name="rec")])
    place.sync()
    table(place, "rec", columns, [{"ID": "I1", "NAME": "x", "CITY": "y"}])

    found = reconciled(place, status=1)

    assert counted(found) == {"source_different": 1}
    assert found["samples"] == [{"side": "source", "kind": "different", "record": "id=I1"}]


def test_the_plan_of_a_repair_sets_the_hub_right(synced: Place) -> None:
    spoil_hub(synced)
    plan = reconciled(synced, "--repair", status=1)["plan"]

    applied = synced.command("apply", plan, "--json")

    assert applied.returncode == 0, applied.stderr
    counts = lines(applied.stdout)[0]["counts"]
    assert (counts["inserted"], counts["updated"], counts["deleted"]) == (1, 1, 0)
    assert counted(reconciled(synced)) == {}
    assert len(hub(synced, "rec")) == 40


def test_a_sample_sees_what_was_changed_behind_its_hash(synced: Place) -> None:
    with synced.database.begin() as connection:
        connection.execute(
            sa.text('UPDATE hub.records SET doc = replace(doc, \'"name":"a"\', \'"name":"z"\')')
        )

    sample = reconciled(synced, "--sample", "40", status=1)

    assert counted(sample) == {"source_different": 40}
    assert (sample["accuracy"], sample["accuracy_at_least"]) == (0.0, 0.0)


def test_what_was_changed_behind_its_hash_is_repaired_through_a_sample(synced: Place) -> None:
    with synced.database.begin() as connection:
        for number in (3, 4):
            connection.execute(
                sa.text(
                    'UPDATE hub.records SET doc = replace(doc, \'"name":"a"\', \'"name":"z"\') '
                    "WHERE doc::json ->> 'erp_ref_str' = :reference"
                ),
                {"reference": f"id=I{number}"},
            )
        connection.execute(
            sa.text("DELETE FROM hub.records WHERE doc::json ->> 'erp_ref_str' = 'id=I5'")
        )

    found = reconciled(synced, "--sample", "40", "--repair", status=1)
    applied = synced.command("apply", found["plan"], "--json")
    again = reconciled(synced, "--sample", "40")

    assert counted(found) == {"source_different": 2, "hub_missing": 1}
    counts = lines(applied.stdout)[0]["counts"]
    assert (counts["updated"], counts["inserted"], counts["unchanged"]) == (2, 1, 37)
    assert counted(again) == {}
    assert json.loads(hub(synced, "rec")["id=I3"])["name"] == "a"


@pytest.mark.parametrize("how", [("--sample", "5"), ()])
def test_a_comparison_keeps_to_the_schema_contract(synced: Place, how: tuple[str, ...]) -> None:
    table(synced, "rec", {"ID": "VARCHAR2(9)"}, [{"ID": f"I{n}"} for n in range(40)])

    found = reconciled(synced, *how, status=1)

    assert (found["status"], found["accuracy"]) == ("failed", None)
    assert "NAME (VARCHAR2(9)) is gone" in found["error"]


def test_nothing_in_the_hub_is_no_accuracy(place: Place) -> None:
    table(place, "rec", COLUMNS, items(20))
    place.apply([Entity(name="rec")])

    found = reconciled(place, status=1)

    assert (found["accuracy"], found["compared"]) == (0.0, 20)
    assert counted(found) == {"source_missing": 20}


def test_differences_beyond_those_that_are_listed_are_counted(place: Place) -> None:
    table(place, "rec", COLUMNS, items(23))
    place.apply([Entity(name="rec")])

    told = place.command("reconcile", "rec").stdout

    assert "source missing 23" in told
    assert told.count("id=I") == 20
    assert "and 3 more\n" in told


def test_the_asset_check_compares_a_sample(synced: Place) -> None:
    with synced.database.begin() as connection:
        defs = build(load_entities(connection), 7)
    key = dg.AssetCheckKey(dg.AssetKey(["rec"]), RECONCILED)
    job = defs.resolve_implicit_global_asset_job_def().get_subset(
        asset_selection=set(), asset_check_selection={key}
    )

    result = job.execute_in_process(instance=synced.instance)

    (evaluation,) = result.get_asset_check_evaluations()
    assert evaluation.passed
    assert evaluation.metadata["compared"].value == 40
    with synced.database.begin() as connection:
        found = last_reconciliation(connection, "rec", "sample")
    assert found is not None
    assert (found.compared, found.dagster_run_id) == (40, result.run_id)


def test_an_emptied_hub_with_parents_and_children_is_repaired_through_plans(place: Place) -> None:
    children: list[Row] = [
        {"ID": "A", "UP": "I0", "N": 1},
        {"ID": "B", "UP": "none", "N": 1},
        {"ID": "C", "UP": "I1", "N": "bad"},
        {"ID": "D", "UP": "I2", "N": 1},
    ]
    table(place, "rec", COLUMNS, items(5))
    table(place, "chi", {"ID": "VARCHAR2(9)", "UP": "VARCHAR2(9)", "N": "NUMBER(9)"}, children)
    place.apply([Entity(name="rec"), Entity(name="chi", parents={"up": link("rec", "up")})])
    place.sync()
    equal = place.command("reconcile", "--json", "--sample", "1000")
    LOCAL.post(f"{place.sandbox.schedulehub_url}/sandbox/reset", timeout=30).raise_for_status()

    found = place.command("reconcile", "--json", "--repair")
    plans = [line["plan"] for line in lines(found.stdout)]
    applied = place.command("apply", *plans)
    again = place.command("reconcile", "--json")

    assert equal.returncode == 0, equal.stdout
    assert [line["counts"]["hub_missing"] for line in lines(found.stdout)] == [5, 2]
    assert applied.returncode == 1, applied.stdout  # the seeded bad row makes it partial
    assert (len(hub(place, "rec")), len(hub(place, "chi"))) == (5, 2)
    assert again.returncode == 0, again.stdout
    assert [line["counts"]["pending"] for line in lines(again.stdout)] == [0, 1]


@pytest.mark.parametrize("how", [("--sample", "5"), ()])
def test_an_entity_that_could_not_be_compared_has_its_line_and_its_status(
    synced: Place, how: tuple[str, ...]
) -> None:
    away = synced.command(
        "reconcile", "rec", "--json", *how, SYNCFLOW_APISMITH_URL="http://127.0.0.1:9"
    )
    with Lease.acquire(synced.database, "rec", wait_s=0):
        held = synced.command("reconcile", "rec", "--json", *how, "--wait", "0")
        planned = synced.command("plan", "rec", "--json", "--wait", "0")
    table(synced, "rec", {"ID": "VARCHAR2(9)"}, [{"ID": "I1"}])
    broken = synced.command("reconcile", "rec", "--json", *how)

    assert [run.returncode for run in (away, held, planned)] == [4, 1, 1]
    for run, words in ((away, "apismith"), (held, "being synced"), (planned, "being synced")):
        (line,) = lines(run.stdout)
        assert (line["entity"], line["status"], line["plan"]) == ("rec", "failed", None)
        assert words in str(line.get("error") or line.get("reason"))
    assert broken.returncode == 1, broken.stderr


def test_what_is_not_to_be_deleted_is_no_difference(place: Place) -> None:
    table(place, "rec", COLUMNS, items(10))
    place.apply([Entity(name="rec", deletes="ignore")])
    place.sync()
    table(place, "rec", COLUMNS, items(9))

    assert counted(reconciled(place, "--sample", "10")) == {}
    assert counted(reconciled(place)) == {}


def test_a_key_that_the_source_spells_otherwise_by_now_is_found(place: Place) -> None:
    rec = Entity(name="rec", fields=[Field(source="ID", type="integer")])
    table(place, "rec", COLUMNS, [{"ID": f"0{n}", "NAME": "a"} for n in range(1, 9)])
    place.apply([rec])
    place.sync()
    table(place, "rec", COLUMNS, [{"ID": f"{n}", "NAME": "a"} for n in range(1, 9)])

    assert counted(reconciled(place, "--sample", "8")) == {}


def test_extras_are_seen_beside_a_row_without_a_readable_key(synced: Place) -> None:
    table(synced, "rec", COLUMNS, [*items(38), {"ID": "\ufffd", "NAME": "a"}])

    found = reconciled(synced, status=1)

    assert counted(found) == {"source_extra": 2, "rejected": 1}
    assert {row["record"] for row in found["samples"]} == {"id=I38", "id=I39"}
    assert len(hub(synced, "rec")) == 40


def test_a_sample_compares_of_several_rows_of_one_key_the_one_that_a_sync_takes(
    place: Place,
) -> None:
    columns = {**COLUMNS, "RV": "NUMBER(9)"}
    rows: list[Row] = [
        {"ID": f"I{n}", "NAME": name, "RV": version}
        for n in range(20)
        for name, version in (("new", 10), ("old", 9))
    ]
    table(place, "rec", columns, rows)
    place.apply([Entity(name="rec")])
    place.sync()

    sample = reconciled(place, "--sample", "20")

    assert (counted(sample), sample["compared"]) == ({}, 20)
