"""A hub or a source that stops answering half-way and comes back: the run waits, nothing is lost or doubled."""

import time
from typing import Any

import pytest
from machine import until
from place import Place
from tables import effects, faults, hub, table

from syncflow_core.bridge.failed import open_failed
from syncflow_core.bridge.outages import systems_away
from syncflow_core.entity import Entity

ROWS = 20_000
AWAY_S = 1.5


def away(place: Place) -> list[str]:
    with place.database.begin() as connection:
        return systems_away(connection)


@pytest.mark.parametrize("action", [{"status": 503}, {"drop": "before"}])
def test_XP13_a_hub_that_goes_away_during_the_push_pauses_the_run(
    place: Place, action: dict[str, Any]
) -> None:
    columns = {"ID": "NUMBER(9)", "NAME": "VARCHAR2(9)"}
    table(place, "out", columns, [{"ID": n, "NAME": "a"} for n in range(ROWS)])
    place.apply([Entity(name="out")])
    url = place.sandbox.schedulehub_url
    faults(url, {"match": {"since": 8}, "action": action})  # in the middle of the push
    running = place.process("sync", "out", SYNCFLOW_OUTAGE_S="60")
    until(lambda: away(place) == ["schedulehub"])
    time.sleep(AWAY_S)
    before, sent = running.poll(), effects(place)
    faults(url)

    told, warned = running.communicate(timeout=120)

    assert before is None, "it ended while the hub was away"
    assert 0 < sent < ROWS
    assert running.returncode == 0, told + warned
    assert "has stopped answering; waiting for it" in warned
    assert "answers again" in warned
    assert effects(place) == len(hub(place, "out")) == ROWS
    with place.database.begin() as connection:
        assert open_failed(connection, "out").is_empty()
