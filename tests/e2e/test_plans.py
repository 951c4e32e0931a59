"""Plans and approvals: what is shown before, what is applied, what has changed since."""

import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from forked import Failpoint
from machine import until, until_stopped
from place import Place, lines, outcome
from tables import effects, hub, link, references, table

from syncflow_core.bridge import events, plans
from syncflow_core.bridge.entities import disable_entity
from syncflow_core.bridge.plans import Plan
from syncflow_core.bridge.records import load_known
from syncflow_core.entity import Brake, Entity, Field
from syncflow_core.errors import ConfigError
from syncflow_core.sandbox.store import Row
from syncflow_dagster.clock import utc_now

COLUMNS = {"ID": "VARCHAR2(9)", "NAME": "VARCHAR2(9)", "QTY": "NUMBER(9)"}
ITEM = Entity(name="itm", brake=Brake(rows=2, share=0.1), fields=[Field(source="NAME", pii="mask")])


def items(count: int, **changed: str) -> list[Row]:
    return [{"ID": f"I{n}", "NAME": changed.get(f"I{n}", "a"), "QTY": n} for n in range(count)]


def open_plans(place: Place, entity: str) -> list[Plan]:
    with place.database.begin() as connection:
        return plans.list_plans(connection, entity=entity)


def synced(place: Place) -> None:
    """Ten items are in the hub."""
    table(place, "itm", COLUMNS, items(10))
    place.apply([ITEM])
    place.sync()


def withheld(place: Place) -> Plan:
    """Four of the ten are gone from the source, which is too many: the plan of their deletes."""
    synced(place)
    table(place, "itm", COLUMNS, items(6))
    place.sync()
    (plan,) = open_plans(place, "itm")
    return plan


def planned(place: Place, *arguments: str) -> dict[str, Any]:
    ended = place.command("plan", *arguments, "--json")
    assert ended.returncode == 0, ended.stderr
    return lines(ended.stdout)[0]


def test_a_plan_shows_old_and_new_values_and_pushes_nothing(place: Place) -> None:
    synced(place)
    before = effects(place)
    rows = [*items(11, I3="b")[1:]]
    rows[1] = {**rows[1], "QTY": 77}
    table(place, "itm", COLUMNS, rows)

    plan = planned(place, "itm")

    wanted = {"inserts": 1, "updates": 2, "deletes": 1, "unchanged": 7, "fetched": 10, "known": 10}
    assert {name: number for name, number in plan["counts"].items() if number} == wanted
    assert plan["samples"] == [
        {"op": "insert", "record": "id=I10"},
        {"op": "delete", "record": "id=I0"},
        {"op": "update", "record": "id=I2", "field": "qty", "old": "2", "new": "77"},
        {"op": "update", "record": "id=I3", "field": "name", "old": "***", "new": "***"},
    ]
    assert effects(place) == before

    ended = place.command("apply", plan["plan"], "--json")

    assert ended.returncode == 0, ended.stderr
    counts = lines(ended.stdout)[0]["counts"]
    assert (counts["inserted"], counts["updated"], counts["deleted"]) == (1, 2, 1)
    assert effects(place) == before + 4
    assert outcome(place.sync(), "itm")["unchanged"] == 10
    nothing = place.command("plan", "itm", "--full")
    assert nothing.returncode == 0
    assert "nothing to do, unchanged 10" in nothing.stdout
    assert "syncflow apply" not in nothing.stdout


def test_a_plan_that_does_not_fit_any_more_is_refused_whole_and_says_what_changed(
    place: Place,
) -> None:
    synced(place)
    table(place, "itm", COLUMNS, items(10, I3="b"))
    plan = planned(place, "itm")
    before = effects(place)
    table(place, "itm", COLUMNS, items(10, I3="b", I4="c"))

    refused = place.command("apply", plan["plan"])
    again = place.command("apply", plan["plan"])

    assert refused.returncode == 1
    assert "1 updates were not planned, none were" in refused.stdout
    assert "the update of id=I4" in refused.stdout
    assert effects(place) == before
    assert again.returncode == 2
    assert "out of date" in again.stderr


def test_a_plan_of_an_entity_that_is_disabled_meanwhile_is_no_success(place: Place) -> None:
    for name in ("itm", "other"):
        table(place, name, COLUMNS, items(1))
    place.apply([ITEM, Entity(name="other")])
    plan = planned(place, "itm")
    with place.database.begin() as connection:
        disable_entity(connection, "itm")

    ended = place.command("apply", plan["plan"])

    assert ended.returncode == 2
    assert "itm is disabled" in ended.stderr
    with place.database.begin() as connection:
        assert plans.load_plan(connection, UUID(plan["plan"])).status == "open"


def test_what_the_brake_withholds_is_a_plan_that_an_approval_lets_through(place: Place) -> None:
    synced(place)
    table(place, "itm", COLUMNS, [*items(6, I1="b"), {"ID": "N", "NAME": "n", "QTY": 1}])

    run = place.sync()

    assert outcome(run, "itm") == {
        "fetched": 7,
        "normalized": 7,
        "inserted": 1,
        "updated": 1,
        "unchanged": 5,
        "withheld_deletes": 4,
    }
    (plan,) = open_plans(place, "itm")
    assert (plan.kind, plan.counts["deletes"], plan.counts["updates"]) == ("withheld", 4, 0)
    assert "4 of 10 known records would be deleted" in str(plan.reason)

    ended = place.command("apply", str(plan.uid), "--json")

    assert ended.returncode == 0, ended.stderr
    assert lines(ended.stdout)[0]["counts"]["deleted"] == 4
    assert len(hub(place, "itm")) == 7
    assert open_plans(place, "itm") == []


def test_an_approval_is_a_ceiling(place: Place) -> None:
    plan = withheld(place)
    table(place, "itm", COLUMNS, items(5))

    ended = place.command("apply", str(plan.uid), "--json")

    assert ended.returncode == 3
    assert len(hub(place, "itm")) == 10
    assert "approved were 0 updates and 4 deletes" in ended.stderr
    (anew,) = [item for item in open_plans(place, "itm") if item.status == "open"]
    assert anew.counts["deletes"] == 5


def test_a_withheld_plan_that_has_not_grown_keeps_its_id_and_its_history(place: Place) -> None:
    synced(place)
    table(place, "itm", COLUMNS, items(6))
    place.sync()
    (first,) = open_plans(place, "itm")
    place.sync()
    (second,) = open_plans(place, "itm")
    table(place, "itm", COLUMNS, items(10))
    place.sync()

    assert second.uid == first.uid
    assert open_plans(place, "itm") == []
    known = load_known(place.database, "itm")
    withheld = 0
    with place.database.begin() as connection:
        for key in known["#key_hash"]:
            story = events.story(connection, "itm", key)
            withheld += [event.event for event in story].count("withheld")
    assert withheld == 4


def test_updates_are_withheld_too_and_the_rest_goes_on(place: Place) -> None:
    synced(place)
    changed = items(10, I1="b", I2="b", I3="b")
    table(place, "itm", COLUMNS, [*changed, {"ID": "N", "NAME": "n", "QTY": 1}])

    run = place.sync()

    assert outcome(run, "itm")["withheld"] == 3
    assert outcome(run, "itm")["inserted"] == 1
    assert run.batches[0].counts.unaccounted == 0
    (plan,) = open_plans(place, "itm")
    assert plan.samples == [
        {"op": "update", "record": f"id=I{n}", "field": "name", "old": "***", "new": "***"}
        for n in (1, 2, 3)
    ]
    assert place.command("apply", str(plan.uid)).returncode == 0
    assert '"name":"b"' in hub(place, "itm")["id=I1"]


def test_a_long_plan_says_how_much_it_does_not_show(place: Place) -> None:
    table(place, "itm", COLUMNS, items(30))
    place.apply([ITEM])

    shown = place.command("plan", "itm")

    assert shown.returncode == 0, shown.stderr
    assert "and 10 more inserts" in shown.stdout


def test_XF19_an_empty_source_never_deletes_not_even_when_approved(place: Place) -> None:
    synced(place)
    table(place, "itm", COLUMNS, [])
    run = place.sync()
    (plan,) = open_plans(place, "itm")

    ended = place.command("apply", str(plan.uid))

    assert run.batches[0].status == "withheld"
    assert ended.returncode == 3
    assert len(hub(place, "itm")) == 10
    assert planned(place, "itm")["counts"]["deletes"] == 0


def test_a_plan_of_parents_and_children_counts_the_parents_that_it_would_insert(
    place: Place,
) -> None:
    ids = {"ID": "VARCHAR2(9)"}
    table(place, "par", ids, [{"ID": "P"}])
    table(place, "chi", {"ID": "VARCHAR2(9)", "UP": "VARCHAR2(9)"}, [{"ID": "C", "UP": "P"}])
    references(place, ("chi", "up", "par"))
    place.apply([Entity(name="par"), Entity(name="chi", parents={"up": link("par", "up")})])

    ended = place.command("plan", "--all", "--json")
    made = lines(ended.stdout)
    applied = place.command("apply", *(plan["plan"] for plan in made[::-1]), "--json")

    assert [(plan["entity"], plan["counts"]["inserts"]) for plan in made] == [
        ("par", 1),
        ("chi", 1),
    ]
    assert applied.returncode == 0, applied.stderr
    assert len(hub(place, "chi")) == 1


def test_a_plan_is_seen_on_its_asset_and_is_no_materialization(place: Place) -> None:
    table(place, "itm", COLUMNS, items(3))
    place.apply([ITEM])
    plan = planned(place, "itm")

    shown = place.command("plan", plan["plan"])
    listed = place.command("plan")

    assert plan["plan"] in shown.stdout
    assert plan["plan"] in listed.stdout
    assert json.dumps(plan["counts"]["inserts"]) == "3"
    assert hub(place, "itm") == {}


def test_an_update_tells_which_fields_changed(place: Place) -> None:
    table(place, "itm", COLUMNS, items(3))
    place.apply([ITEM])
    place.sync()
    table(place, "itm", COLUMNS, [{"ID": "I0", "NAME": "z", "QTY": 5}, *items(3)[1:]])
    place.sync()

    told = place.command("trace", "itm", "I0", "--json")

    story = json.loads(told.stdout)["events"]
    assert [event["event"] for event in story] == ["inserted", "updated"]
    assert story[1]["detail"] == {"changed": ["name", "qty"]}


def test_a_withheld_record_tells_its_plan_and_an_unchanged_one_since_when(place: Place) -> None:
    plan = withheld(place)

    held = place.command("trace", "itm", "I8")
    unchanged = place.command("trace", "itm", "I1")
    told = place.command("trace", "itm", "I8", "--json")

    assert f"plan {plan.uid}" in held.stdout
    assert "withheld delete" in held.stdout
    assert "unchanged since" in unchanged.stdout
    assert "by full batch" in unchanged.stdout
    assert json.loads(told.stdout)["withheld"][0]["counts"]["deletes"] == 4


KEPT = (
    "erp_sync_state",
    "failed_records",
    "pending_children",
    "pending_deletes",
    "synced_records",
    "sweep_slices",
    "record_events",
    "push_journal",
)
"""What a plan must leave as it is."""


def kept(place: Place) -> dict[str, list[str]]:
    with place.database.begin() as connection:
        return {
            name: sorted(
                str(row)
                for row in connection.execute(sa.text(f"SELECT * FROM bridge.{name}"))  # noqa: S608  # constants
            )
            for name in KEPT
        }


def test_a_plan_changes_nothing_of_what_is_kept(place: Place) -> None:
    columns = {**COLUMNS, "UP": "VARCHAR2(9)"}

    def children(*rows: tuple[str, str, object]) -> list[Row]:
        return [{"ID": key, "NAME": "x", "QTY": quantity, "UP": up} for key, up, quantity in rows]

    table(place, "itm", COLUMNS, items(5))
    table(place, "chi", columns, children(("A", "I0", 1), ("B", "none", 1), ("C", "I1", "bad")))
    references(place, ("chi", "up", "itm"))
    place.apply([ITEM, Entity(name="chi", parents={"up": link("itm", "up")})])
    place.sync()
    before, pushed = kept(place), effects(place)
    table(place, "itm", COLUMNS, items(7, I1="b")[1:])
    table(place, "chi", columns, children(("A", "I1", 2), ("D", "none", "bad")))

    ended = place.command("plan", "--all", "--full", "--json")

    assert ended.returncode == 0, ended.stderr
    assert [plan["counts"]["rejected"] for plan in lines(ended.stdout)] == [0, 1]
    assert kept(place) == before
    assert effects(place) == pushed


def test_an_approved_plan_survives_a_kill_and_is_done_once(place: Place) -> None:
    count = 4_000
    table(place, "itm", COLUMNS, items(count))
    place.apply([ITEM])
    place.sync()
    table(place, "itm", COLUMNS, [{**row, "NAME": "b"} for row in items(count)])
    place.sync()
    (plan,) = open_plans(place, "itm")
    before = effects(place)
    dying = place.process("apply", str(plan.uid))
    deadline = time.monotonic() + 60
    while effects(place) < before + 1_000 and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(dying.pid, signal.SIGKILL)
    dying.communicate()

    ended = place.command("apply", str(plan.uid), "--json")

    assert ended.returncode == 0, ended.stderr
    assert effects(place) == before + count
    assert outcome(place.sync(), "itm")["unchanged"] == count


def test_XH08_deletes_of_parents_and_children_are_withheld_and_applied_together(
    place: Place,
) -> None:
    columns = {"ID": "VARCHAR2(9)", "UP": "VARCHAR2(9)"}

    def load(count: int) -> None:
        table(place, "itm", COLUMNS, items(count))
        table(place, "chi", columns, [{"ID": f"C{n}", "UP": f"I{n}"} for n in range(count)])

    load(30)
    references(place, ("chi", "up", "itm"))
    brake = Brake(rows=2, share=0.1)
    place.apply([ITEM, Entity(name="chi", brake=brake, parents={"up": link("itm", "up")})])
    place.sync()
    load(10)
    place.sync()
    uids = [str(plan.uid) for name in ("itm", "chi") for plan in open_plans(place, name)]

    ended = place.command("apply", *uids)
    place.sync()

    assert ended.returncode == 0, ended.stdout
    assert (len(hub(place, "itm")), len(hub(place, "chi"))) == (10, 10)


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("plan", "nope"), 2, "unknown entity nope; known are itm"),
        (("plan", "itm", "--all"), 2, "name the entities to plan, or give --all, not both"),
        (("plan", "itm", "--full", "--incremental"), 2, "exclude each other"),
        (("plan", "itm", "--slice", "9"), 2, "slice 9 does not exist"),
        (("apply", "nope"), 2, "'nope' is no plan's id"),
        (("apply", "01983b1e-7c1e-7cc3-98c4-dc0c0c07398f"), 2, "there is no plan 01983b1e"),
        (("reconcile", "nope"), 2, "unknown entity nope"),
        (("entities", "accept", "nope"), 2, "there is no entity nope"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(
    place: Place, arguments: tuple[str, ...], status: int, words: str
) -> None:
    table(place, "itm", COLUMNS, items(1))
    place.apply([ITEM])

    ended = place.command(*arguments)

    assert (ended.returncode, ended.stdout) == (status, "")
    assert words in ended.stderr
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize("system", ["SYNCFLOW_APISMITH_URL", "SYNCFLOW_SCHEDULEHUB_URL"])
@pytest.mark.parametrize("command", [("plan", "itm"), ("reconcile", "itm")])
def test_a_system_that_is_away_ends_a_plan_with_status_4(
    place: Place, command: tuple[str, ...], system: str
) -> None:
    table(place, "itm", COLUMNS, items(1))
    place.apply([ITEM])

    ended = place.command(*command, **{system: "http://127.0.0.1:9"})

    assert ended.returncode == 4, ended.stdout + ended.stderr


def sweep(place: Place) -> list[tuple[int, int]]:
    """The slices that the sweep under way has seen, and of how many."""
    with place.database.begin() as connection:
        rows = connection.execute(
            sa.text("SELECT slice, slices FROM bridge.sweep_slices ORDER BY slice")
        )
        return [(row[0], row[1]) for row in rows]


def test_the_plan_of_the_slice_that_ends_a_sweep_tells_its_deletes_and_apply_makes_them(
    place: Place,
) -> None:
    table(place, "itm", COLUMNS, items(30))
    place.apply([Entity(name="itm")])
    place.sync()
    table(place, "itm", COLUMNS, items(30)[1:])
    three = {"SYNCFLOW_SLICES": "3"}
    for number in ("1", "2"):
        assert place.command("sync", "itm", "--slice", number, **three).returncode == 0

    ended = place.command("plan", "itm", "--slice", "3", "--json", **three)
    plan = lines(ended.stdout)[0]
    before, left = sweep(place), effects(place)
    applied = place.command("apply", plan["plan"], "--json", **three)

    assert plan["counts"]["deletes"] == 1
    assert before == [(1, 3), (2, 3)]
    assert applied.returncode == 0, applied.stderr
    assert lines(applied.stdout)[0]["counts"]["deleted"] == 1
    assert (effects(place), sweep(place)) == (left + 1, [])


def test_the_plan_of_a_slice_is_not_applied_under_other_slices(place: Place) -> None:
    table(place, "itm", COLUMNS, items(30))
    place.apply([ITEM])
    plan = planned(place, "itm", "--slice", "2")

    ended = place.command("apply", plan["plan"], SYNCFLOW_SLICES="3")

    assert ended.returncode == 1
    assert "is of slice 2 of 2, and there are 3 slices now" in ended.stdout
    assert hub(place, "itm") == {}
    with place.database.begin() as connection:
        assert (
            connection.execute(
                sa.text("SELECT count(*) FROM bridge.sync_batches WHERE finished_at IS NULL")
            ).scalar_one()
            == 0
        )


def test_an_approval_is_for_the_records_that_were_shown(place: Place) -> None:
    plan = withheld(place)
    table(place, "itm", COLUMNS, items(10)[4:])  # as many are gone, and none of those shown

    ended = place.command("apply", str(plan.uid), "--json")

    assert ended.returncode == 3
    assert len(hub(place, "itm")) == 10
    assert "4 of these are not among them" in ended.stderr
    (anew,) = open_plans(place, "itm")
    assert (anew.status, anew.uid != plan.uid) == ("open", True)
    assert {row["record"] for row in anew.samples} == {"id=I0", "id=I1", "id=I2", "id=I3"}


def test_an_approval_that_led_to_nothing_lapses_with_the_next_batch(place: Place) -> None:
    plan = withheld(place)
    away = place.command("apply", str(plan.uid), SYNCFLOW_SCHEDULEHUB_URL="http://127.0.0.1:9")
    (approved,) = open_plans(place, "itm")
    place.sync()
    (lapsed,) = open_plans(place, "itm")
    table(place, "itm", COLUMNS, items(10))
    place.command("apply", str(plan.uid), SYNCFLOW_SCHEDULEHUB_URL="http://127.0.0.1:9")
    place.sync()

    assert away.returncode == 4
    assert (approved.uid, approved.status) == (plan.uid, "approved")
    assert (lapsed.uid, lapsed.status, lapsed.ceiling) == (plan.uid, "open", None)
    assert open_plans(place, "itm") == []


def test_a_batch_of_some_rows_adds_to_what_is_withheld_and_loses_none(place: Place) -> None:
    columns = {**COLUMNS, "RV": "NUMBER(9)"}

    def numbered(*rows: Row) -> list[Row]:
        return [{"RV": 1_000 * int(str(row["QTY"])), **row} for row in rows]

    table(place, "itm", columns, numbered(*items(20)))
    place.apply([ITEM.model_copy(update={"delta": "rowversion"})])
    place.sync()
    table(place, "itm", columns, numbered(*items(15)))
    place.sync(mode="full")
    (whole,) = open_plans(place, "itm")
    changed = [{**row, "NAME": "b", "RV": 50_000} for row in items(4)]
    table(place, "itm", columns, [*changed, *numbered(*items(15)[4:])])

    partly = place.sync(mode="incremental")
    (both,) = open_plans(place, "itm")
    again = place.sync(mode="incremental")
    (same,) = open_plans(place, "itm")
    applied = place.command("apply", str(same.uid), "--json")

    assert (whole.counts["deletes"], partly.batches[0].status) == (5, "withheld")
    assert (both.counts["updates"], both.counts["deletes"]) == (4, 5)
    assert {row["op"] for row in both.samples} == {"update", "delete"}
    assert "5 more since an earlier batch" in str(both.reason)
    assert (again.batches[0].status, same.uid) == ("withheld", both.uid)
    assert applied.returncode == 0, applied.stderr
    counts = lines(applied.stdout)[0]["counts"]
    assert (counts["updated"], counts["deleted"]) == (4, 5)


def test_deletes_that_wait_for_children_are_not_withheld_again_every_night(place: Place) -> None:
    table(place, "itm", COLUMNS, items(10))
    table(
        place,
        "chi",
        {"ID": "VARCHAR2(9)", "UP": "VARCHAR2(9)"},
        [{"ID": f"C{n}", "UP": f"I{n}"} for n in range(10)],
    )
    references(place, ("chi", "up", "itm"))
    place.apply([ITEM, Entity(name="chi", parents={"up": link("itm", "up")})])
    place.sync()
    table(place, "itm", COLUMNS, items(6))
    place.sync("itm")
    (plan,) = open_plans(place, "itm")
    applied = place.command("apply", str(plan.uid))  # all four wait for their children

    night = place.sync("itm")
    table(place, "itm", COLUMNS, [])
    emptied = place.sync("itm")

    assert applied.returncode == 0, applied.stderr
    assert (night.batches[0].status, outcome(night, "itm")["unchanged"]) == ("completed", 6)
    assert emptied.batches[0].status == "withheld"
    assert outcome(emptied, "itm")["withheld_deletes"] == 10
    assert len(hub(place, "itm")) == 10


def test_XC02_two_applies_of_one_plan_do_it_once_and_the_loser_says_why(place: Place) -> None:
    plan = withheld(place)
    before = effects(place)

    both = [place.process("apply", str(plan.uid)) for _ in range(2)]
    told = ["".join(process.communicate(timeout=120)) for process in both]
    statuses = sorted(process.returncode for process in both)

    assert effects(place) == before + 4
    assert statuses[0] == 0, told
    assert statuses[1] in {0, 2}, told
    if statuses[1]:  # else the second began when the first had ended
        assert any("applied" in text for text in told), told


@pytest.mark.parametrize(
    ("at", "why"),
    [
        ("syncflow_dagster.cli.ending.run_job", "was applied before"),
        ("syncflow_dagster.planning.order_for", "was applied by another run meanwhile"),
    ],
)
def test_XC02_an_apply_that_another_one_overtook_says_why_wherever_it_was(
    place: Place, at: str, why: str
) -> None:
    plan = withheld(place)
    before = effects(place)
    late = place.process("apply", str(plan.uid), at=Failpoint(at, signal=signal.SIGSTOP))
    until_stopped(late.pid)
    first = place.command("apply", str(plan.uid))
    os.kill(late.pid, signal.SIGCONT)
    told = "".join(late.communicate(timeout=60))

    status = lines(place.command("status", "itm", "--json").stdout)[0]

    assert first.returncode == 0, first.stderr
    assert late.returncode == 2
    assert why in told
    assert status["last_batch"]["status"] == "completed", "who came too late changed nothing"
    assert effects(place) == before + 4


def test_XC02_an_approval_waits_for_who_is_about_to_apply_the_plan(place: Place) -> None:
    synced(place)
    table(place, "itm", COLUMNS, items(6))
    batch = place.sync().batches[0].uid
    (plan,) = open_plans(place, "itm")

    def approve() -> None:
        with place.database.begin() as connection:
            plans.approve_plan(connection, plan.uid, by="late", now=utc_now())

    with ThreadPoolExecutor(1) as aside:
        with place.database.begin() as connection:
            plans.close_plan(connection, plan.uid, batch)
            late = aside.submit(approve)
            until(lambda: waits(place))
        with pytest.raises(ConfigError, match="was applied before"):
            late.result(60)

    with place.database.begin() as connection:
        assert plans.load_plan(connection, plan.uid).status == "applied"


def waits(place: Place) -> bool:
    """Whether somebody waits for a lock in the database."""
    with place.database.begin() as connection:
        asked = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        return bool(connection.exec_driver_sql(asked).scalar_one())


@pytest.mark.parametrize("extra", ["updates", "deletes"])
def test_an_exact_plan_is_refused_whole_also_where_the_brake_would_hold_the_rest(
    place: Place, extra: str
) -> None:
    synced(place)
    new: Row = {"ID": "N", "NAME": "n", "QTY": 1}
    table(place, "itm", COLUMNS, [*items(10), new])
    plan = planned(place, "itm", "--full")
    before = effects(place)
    changed = [{**row, "NAME": "z"} for row in items(10)] if extra == "updates" else items(4)
    table(place, "itm", COLUMNS, [*changed, new])

    refused = place.command("apply", plan["plan"])
    again = place.command("apply", plan["plan"])

    assert (refused.returncode, again.returncode) == (1, 2), refused.stdout
    assert f"{extra} were not planned" in refused.stdout
    assert "out of date" in again.stderr
    assert effects(place) == before
    assert open_plans(place, "itm") == []


def test_a_batch_that_meets_few_of_the_withheld_records_lets_none_through(place: Place) -> None:
    columns = {**COLUMNS, "RV": "NUMBER(9)"}
    rows = [{**row, "RV": 1_000 * n} for n, row in enumerate(items(20))]
    entity = ITEM.model_copy(update={"delta": "rowversion"})
    table(place, "itm", columns, rows)
    place.apply([entity])
    place.sync()
    place.apply([entity.model_copy(update={"fields": [Field(source="NAME", transform=["upper"])]})])
    place.sync(mode="full")
    (plan,) = open_plans(place, "itm")
    before = effects(place)
    rows[18] = {**rows[18], "QTY": 99, "RV": 30_000}

    table(place, "itm", columns, rows)
    met = place.sync(mode="incremental")
    (same,) = open_plans(place, "itm")
    other = {"ID": "N", "NAME": "n", "QTY": 1, "RV": 40_000}
    table(place, "itm", columns, [*rows, other])
    fresh = place.sync(mode="incremental")
    applied = place.command("apply", str(plan.uid))

    assert (met.batches[0].status, outcome(met, "itm")["withheld"]) == ("withheld", 2)
    assert (same.uid, same.counts["updates"]) == (plan.uid, 20)
    assert outcome(fresh, "itm")["inserted"] == 1
    assert applied.returncode == 0, applied.stdout
    assert effects(place) == before + 21
    assert '"name":"A"' in hub(place, "itm")["id=I18"]
