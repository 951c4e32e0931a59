"""Whichever call is the one that fails, n = 1, 2, ...: nothing is lost or doubled.

HTTP: from the n-th call on every one fails. The database: its n-th answer is lost with the connection.
The suite takes every 15th call and every 1200th answer, ``SYNCFLOW_NTH_STEP=1`` takes each.
"""

import itertools
import json
import os
from typing import Any

import pytest
import sqlalchemy as sa
from place import Place
from proxy import nth, proxied
from tables import effects, faults, hits, hub, link, references, table

from syncflow_core.bridge.failed import open_failed
from syncflow_core.entity import Brake, Entity
from syncflow_core.sandbox.store import Row

LOOSE = Brake(rows=100_000, share=1)
ENTITIES = [
    Entity(name="grand", brake=LOOSE),
    Entity(name="parent", brake=LOOSE, parents={"up": link("grand", "up")}),
    Entity(name="child", brake=LOOSE, parents={"up": link("parent", "up")}),
]
COLUMNS = {"ID": "VARCHAR2(20)", "UP": "VARCHAR2(20)", "NAME": "VARCHAR2(20)"}
ABOVE = {"grand": None, "parent": "grand", "child": "parent"}
ROWS = 5
STEP = int(os.environ.get("SYNCFLOW_NTH_STEP", "1200"))


def source(place: Place, generation: int) -> None:
    """Each table has rows that change, rows that are new, and none of those that were new before."""
    for name, above in ABOVE.items():
        rows: list[Row] = [
            {"ID": f"{name}{number}", "UP": above and f"{above}{number}", "NAME": f"g{generation}"}
            for block in (0, generation * 100)
            for number in range(block, block + ROWS)
        ]
        table(place, name, COLUMNS, rows)


@pytest.mark.parametrize(
    ("system", "action"), [("source", {"status": 500}), ("hub", {"drop": "after"})]
)
def test_whenever_a_system_goes_away_the_next_sync_makes_up_for_it(
    place: Place, monkeypatch: pytest.MonkeyPatch, system: str, action: dict[str, Any]
) -> None:
    monkeypatch.setenv("SYNCFLOW_OUTAGE_S", "0")  # an outage that is not waited for
    url = place.sandbox.apismith_url if system == "source" else place.sandbox.schedulehub_url
    references(place, ("parent", "up", "grand"), ("child", "up", "parent"))
    place.apply(ENTITIES)
    source(place, 1)
    place.sync()
    expected = 3 * (ROWS + ROWS + ROWS)  # updates, inserts, deletes
    for n in itertools.count(1, max(1, STEP // 80)):
        source(place, n + 1)
        before = effects(place)
        faults(url, {"match": {"since": n}, "action": action})
        place.sync()
        struck = hits(url)
        faults(url)
        recovered = place.sync()

        said = f"from call {n} on"
        assert recovered.succeeded, said
        assert effects(place) == before + expected, f"{said}: each record once"
        for name in ABOVE:
            held = [json.loads(text) for text in hub(place, name).values()]
            assert len(held) == 2 * ROWS, said
            assert {record["name"] for record in held} == {f"g{n + 1}"}, said
        if not struck:
            break
    assert n > 6, "the calls of a sync were counted"
    quiet = place.sync()
    assert [batch.counts.unchanged for batch in quiet.batches] == [2 * ROWS] * 3
    for name in ABOVE:
        with place.database.begin() as connection:
            assert open_failed(connection, name).is_empty()


def test_whenever_the_database_is_cut_off_the_next_sync_makes_up_for_it(place: Place) -> None:
    references(place, ("parent", "up", "grand"), ("child", "up", "parent"))
    place.apply(ENTITIES)
    source(place, 1)
    assert place.command("sync", "--all", "--full").returncode == 0
    expected = 3 * (ROWS + ROWS + ROWS)  # updates, inserts, deletes
    address = sa.make_url(place.url)
    assert address.port is not None
    for generation, n in enumerate(itertools.count(1, STEP), start=2):
        source(place, generation)
        before = effects(place)
        with proxied(address.port) as proxy:
            proxy.rule = nth("back", b"", n, "cut")
            url = address.set(port=proxy.port).render_as_string(hide_password=False)
            cut_off = place.process("sync", "--all", "--full", SYNCFLOW_DATABASE_URL=url)
            _, warned = cut_off.communicate(timeout=90)
            struck = proxy.struck
        recovered = place.command("sync", "--all", "--full")

        said = f"answer {n}: {warned}"
        assert "Traceback" not in warned, said
        assert recovered.returncode == 0, said + recovered.stderr
        assert effects(place) == before + expected, f"{said}: each record once"
        for name in ABOVE:
            held = [json.loads(text) for text in hub(place, name).values()]
            assert {record["name"] for record in held} == {f"g{generation}"}, said
        if not struck:
            break
    assert n > STEP
    quiet = place.sync()
    assert [batch.counts.unchanged for batch in quiet.batches] == [2 * ROWS] * 3
