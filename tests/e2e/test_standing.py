"""What ``syncflow status`` and ``syncflow alerts`` say while somebody is turned away, has died or is disabled."""

import os
import signal
from datetime import timedelta
from typing import Any

import pytest
from forked import Failpoint
from machine import until_stopped
from place import Place, lines
from tables import hub, items, link, table

from syncflow_core.bridge.alerts import SETTLED_S, find_conditions
from syncflow_core.bridge.entities import disable_entity
from syncflow_core.entity import Entity
from syncflow_dagster.clock import utc_now

COLUMNS = {"ID": "VARCHAR2(9)", "NAME": "VARCHAR2(9)"}


def stands(place: Place, *names: str) -> dict[str, Any]:
    ended = place.command("status", *names, "--json")
    assert ended.returncode == 0, ended.stderr
    return {line["entity"]: line for line in lines(ended.stdout)}


def wrong(place: Place, after: timedelta = timedelta(0)) -> dict[str, str]:
    with place.database.begin() as connection:
        found = find_conditions(connection, utc_now() + after, failed_share=0.3)
    return {item.kind: item.message for item in found}


@pytest.mark.parametrize("ends", ["well", "killed"])
def test_who_is_turned_away_changes_nothing_of_what_is_told_of_the_sync_that_goes_on(
    place: Place, ends: str
) -> None:
    table(place, "itm", COLUMNS, items(10))
    place.apply([Entity(name="itm")])
    point = Failpoint("syncflow_dagster.ops.push", signal=signal.SIGSTOP)
    running = place.process("sync", "itm", at=point)
    until_stopped(running.pid)

    away = [place.command(name, "itm", "--wait", "0") for name in ("sync", "plan")]
    meanwhile = stands(place)["itm"]["last_batch"]
    early = wrong(place)
    if ends == "killed":
        running.kill()
    os.kill(running.pid, signal.SIGCONT)
    running.communicate(timeout=60)
    after, late = stands(place)["itm"]["last_batch"], wrong(place, timedelta(seconds=SETTLED_S))
    settled = place.command("sync", "itm", "--full")

    assert [item.returncode for item in away] == [1, 1]
    assert all("itm is being synced by" in item.stdout + item.stderr for item in away)
    assert (meanwhile["kind"], meanwhile["status"]) == ("full", "running")
    assert (meanwhile["abandoned"], early) == (False, {})
    assert after["batch"] == meanwhile["batch"]
    if ends == "killed":
        assert (running.returncode, after["status"], after["abandoned"]) == (-9, "running", True)
        assert late["failed"] == (
            "its last sync (full) failed: its process died; the next one settles it"
        )
    else:
        assert (running.returncode, after["status"], late) == (0, "completed", {})
    assert settled.returncode == 0, settled.stderr
    assert wrong(place, timedelta(seconds=SETTLED_S)) == {}
    assert len(hub(place, "itm")) == 10


def test_an_entity_that_is_disabled_is_shown_where_it_is_asked_for_or_has_something_open(
    place: Place,
) -> None:
    table(place, "well", COLUMNS, items(3))
    table(place, "ill", {**COLUMNS, "QTY": "NUMBER(3)"}, [{**items(1)[0], "QTY": "x"}])
    place.apply([Entity(name="well"), Entity(name="ill")])
    place.sync()
    with place.database.begin() as connection:
        for name in ("well", "ill"):
            disable_entity(connection, name)

    asked, every = stands(place, "well"), stands(place)
    shown = place.command("status", "well").stdout

    assert (asked["well"]["enabled"], asked["well"]["known"]) == (False, 3)
    assert (set(every), every["ill"]["failed"]) == ({"ill"}, 1)
    assert "well (disabled)" in shown


def test_a_self_reference_that_only_the_source_says_is_the_key_is_refused(place: Place) -> None:
    table(place, "itm", COLUMNS, items(3))
    place.apply([Entity(name="itm", parents={"up": link("itm", "id")})])

    ended = place.command("sync", "itm")
    looked = lines(place.command("doctor", "itm", "--json").stdout)
    (parents,) = [item for item in looked if item["name"] == "entity.itm.parents"]

    words = "parents.up closes a cycle with itm and can never be NULL: no record could be the first"
    assert ended.returncode == 1
    assert words in ended.stdout + ended.stderr
    assert (parents["status"], words in parents["seen"]) == ("fail", True)
    assert hub(place, "itm") == {}


def test_a_cycle_of_keys_that_only_the_source_says_is_named_by_the_doctor(place: Place) -> None:
    for name in ("one", "two"):
        table(place, name, COLUMNS, items(2))
    place.apply(
        [
            Entity(name="one", parents={"b": link("two", "id")}),
            Entity(name="two", parents={"a": link("one", "id")}),
        ]
    )

    ended = place.command("doctor", "one", "two", "--json")
    seen = {item["name"]: item for item in lines(ended.stdout)}
    parents = [seen[f"entity.{name}.parents"] for name in ("one", "two")]

    assert ended.returncode == 1
    assert "fail" in [item["status"] for item in parents]
    assert "can never be NULL: no record could be the first" in str(parents)


def test_a_variable_that_is_almost_a_setting_is_told_by_every_command(place: Place) -> None:
    ended = place.process("status", SYNCFLOW_OUTAGES="5", SYNCFLOW_SLIECS="5")
    _, said = ended.communicate(timeout=60)

    assert ended.returncode == 0
    assert "SYNCFLOW_SLIECS is no setting, and is ignored: is SYNCFLOW_SLICES meant?" in said
    assert "SYNCFLOW_OUTAGES is no setting, and is ignored: is SYNCFLOW_OUTAGE_S meant?" in said


def test_a_batch_is_of_the_kind_that_was_asked_for_before_it_reads(place: Place) -> None:
    table(place, "itm", {**COLUMNS, "RV": "NUMBER(9)"}, [{**row, "RV": 1} for row in items(3)])
    place.apply([Entity(name="itm")])
    place.sync()
    point = Failpoint("syncflow_dagster.ops.fetch", signal=signal.SIGSTOP)
    running = place.process("sync", "itm", "--incremental", at=point)
    until_stopped(running.pid)
    begun = stands(place)["itm"]["last_batch"]
    os.kill(running.pid, signal.SIGCONT)
    running.communicate(timeout=60)

    assert (begun["kind"], begun["status"]) == ("incremental", "pending")
    assert running.returncode == 0
    assert stands(place)["itm"]["last_batch"]["kind"] == "incremental"
