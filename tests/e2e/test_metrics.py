"""What Prometheus reads after real syncs: it parses, and its numbers are the batches' own accounts."""

import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from place import Place
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as openmetrics_families,
)
from scraping import Samples, application, of, samples_of, scrape
from tables import faults, link, table

from syncflow_core.bridge import batches, journal
from syncflow_core.bridge.batches import SYNCS, Batch
from syncflow_core.calls import Calls
from syncflow_core.entity import Brake, Entity, Field, Rowversion
from syncflow_core.sandbox.store import Row
from syncflow_core.settings import read_settings
from syncflow_dagster.api.families import OUTCOMES

OPERATIONS = Path(__file__).parents[2] / "docs/operations"
HUB = "schedulehub"
PARTS = {"ID": "VARCHAR2(9)", "QTY": "NUMBER(9)", "RV": "TIMESTAMP"}
LINES = {"ID": "VARCHAR2(9)", "PART": "VARCHAR2(9)"}
KEYS = pl.Series("#key_hash", [bytes(16), bytes([1] * 16)], dtype=pl.Binary)
NEWEST = datetime(2026, 1, 2, 3, 4, 5, 600_000, tzinfo=UTC)


def parts(count: int, qty: int = 1) -> list[Row]:
    stamp = NEWEST.strftime("%Y-%m-%dT%H:%M:%S.%f")
    return [{"ID": f"P{n}", "QTY": qty, "RV": stamp} for n in range(count)]


@pytest.fixture(scope="module")
def lived(shared_place: Place) -> Place:
    """Two entities that have met with everything: what is new, bad, orphaned, withheld, refused, failed."""
    place = shared_place
    place.cut_into(7)
    small = Field(source="QTY", target="qty", maximum=100)
    place.apply(
        [
            Entity(
                name="part",
                brake=Brake(rows=2, share=0.1),
                rowversion=Rowversion(column="RV", kind="timestamp"),
                fields=[small],
            ),
            Entity(name="line", parents={"part": link("part", "part")}),
        ]
    )
    table(place, "part", PARTS, [*parts(9), {"ID": "PX", "QTY": 500, "RV": None}])
    table(place, "line", LINES, [{"ID": f"L{n}", "PART": f"P{n}"} for n in range(11)])
    faults(
        place.sandbox.schedulehub_url,
        {
            "match": {"path": "/part/batch/insert", "nth": 1},
            "action": {"status": 503},
        },
    )
    place.sync()
    faults(place.sandbox.schedulehub_url)
    table(place, "part", PARTS, [*parts(3, qty=2), {"ID": "P9", "QTY": 1, "RV": None}])
    place.sync("part")  # its deletes are withheld, and a line's parent lands
    place.command("plan", "part")
    table(place, "line", {"ID": "VARCHAR2(9)"}, [])
    place.sync("line")  # the schema contract is broken
    with place.database.begin() as connection:
        batch = batches.history(connection, entities=["part"], limit=1)[0]
        journal.write_intents(
            connection,
            entity="part",
            batch=batch.uid,
            calls=[("insert", KEYS)],
            fence=None,
            now=datetime.now(tz=UTC) - timedelta(hours=1),
        )
    return place


@pytest.fixture(scope="module")
def app(lived: Place) -> FastAPI:
    return application(read_settings(), lived.database)


def scraped(app: FastAPI) -> Samples:
    answer = scrape(app)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return samples_of(answer.text)


def ended(place: Place) -> list[Batch]:
    with place.database.begin() as connection:
        return batches.history(connection, limit=1_000)


def test_counters_are_the_accounts_of_the_batches(lived: Place, app: FastAPI) -> None:
    found, told = ended(lived), scraped(app)

    statuses = Counter((batch.entity, batch.kind, batch.status) for batch in found)
    assert {status for _, _, status in statuses} == {"partial", "completed", "withheld", "failed"}
    for (entity, kind, status), number in statuses.items():
        assert of(told, "batches_total", entity=entity, kind=kind, status=status) == number
    for entity in ("part", "line"):
        counts = sum(
            (batch.counts for batch in found if batch.entity == entity and batch.kind in SYNCS),
            start=batches.Counts(),
        )
        assert of(told, "rows_fetched_total", entity=entity) == counts.fetched > 0
        outcomes = {name: of(told, "rows_total", entity=entity, outcome=name) for name in OUTCOMES}
        assert outcomes == {name: getattr(counts, name) for name in OUTCOMES}
        assert sum(outcomes.values()) == counts.fetched
        assert of(told, "deletes_total", entity=entity, outcome="deleted") == counts.deleted
        withheld = of(told, "deletes_total", entity=entity, outcome="withheld")
        assert withheld == counts.withheld_deletes
        assert of(told, "unaccounted_rows", entity=entity) == 0
    assert of(told, "deletes_total", entity="part", outcome="withheld") == 6
    assert of(told, "rows_total", entity="line", outcome="pending") == 2
    assert of(told, "rows_retried_total", entity="line") == 1


def test_seconds_by_stage_are_those_of_the_batches(lived: Place, app: FastAPI) -> None:
    found, told = ended(lived), scraped(app)

    timed = [batch for batch in found if batch.entity == "part" and "push" in batch.seconds]
    name = "stage_duration_seconds"
    assert of(told, f"{name}_count", entity="part", stage="push") == len(timed) == 2
    assert of(told, f"{name}_bucket", entity="part", stage="push", le="+Inf") == 2
    assert of(told, f"{name}_sum", entity="part", stage="push") == pytest.approx(
        sum(batch.seconds["push"] for batch in timed)
    )


def test_calls_are_counted_for_the_batch_that_made_them(lived: Place, app: FastAPI) -> None:
    told = scraped(app)
    with lived.database.begin() as connection:
        rows = connection.execute(
            sa.text("SELECT entity, kind, status, calls FROM bridge.sync_batches ORDER BY uid")
        ).all()
    by_batch = [(row, Calls.of_json(row.calls)) for row in rows]
    sums = Calls()
    for _, calls in by_batch:
        sums.add(calls)

    name = "http_call_duration_seconds"
    for asked, counted in sums.answered.items():
        assert of(told, f"{name}_count", **asked._asdict()) == counted.count
    in_all = [value for (sample, _), value in told.items() if sample == f"syncflow_{name}_count"]
    assert sum(in_all) == sum(counted.count for counted in sums.answered.values())
    waits = [value for (sample, _), value in told.items() if sample.endswith("_wait_seconds_count")]
    assert sum(waits) == sum(in_all)
    assert of(told, f"{name}_count", system="schedulehub", method="POST", status="503") == 1
    refused = [row.entity for row, calls in by_batch if (HUB, "POST", "503") in calls.answered]
    assert refused == ["part"], (
        "the first batch of the run, not the other one that shares its client"
    )
    released = next(calls for row, calls in by_batch if row.kind == "retry")
    assert {asked: counted.count for asked, counted in released.answered.items()} == {
        ("apismith", "GET", "200"): 1,
        (HUB, "POST", "200"): 1,
    }, "of all that the part's push has asked, what sent the line"
    contract = next(calls for row, calls in by_batch if row.status == "failed")
    assert {asked.system for asked in contract.answered} == {"apismith"}, "it never came to the hub"


def test_gauges_say_what_there_is_now(lived: Place, app: FastAPI) -> None:
    told = scraped(app)
    with lived.database.begin() as connection:
        newest = connection.scalar(
            sa.text("SELECT watermark_at FROM bridge.erp_sync_state WHERE entity = 'part'")
        )

    assert newest == NEWEST
    assert of(told, "watermark_age_seconds", entity="part") > 0
    assert ("syncflow_watermark_age_seconds", frozenset({("entity", "line")})) not in told
    assert of(told, "entities") == 2
    assert of(told, "pending_children", entity="line", state="waiting") == 1
    assert of(told, "pending_children", entity="line", state="dead") == 0
    assert of(told, "failed_records", entity="part") == 1
    assert of(told, "failed_records_oldest_age_seconds", entity="part") > 0
    assert of(told, "failed_records_oldest_age_seconds", entity="line") == 0
    assert of(told, "withheld_plans", entity="part") == 1
    assert of(told, "in_doubt_calls", entity="part") == 1
    assert of(told, "in_doubt_records", entity="part") == 2
    assert of(told, "in_doubt_oldest_age_seconds", entity="part") >= 3600
    assert of(told, "breaker_open", system="apismith") == 0
    assert of(told, "sweep_slices_done", entity="part") == 0
    assert of(told, "sweep_slices", entity="part") == 7
    assert of(told, "sync_interval_seconds", entity="part") == 86_400


def test_openmetrics_is_told_to_whom_asks_for_it(app: FastAPI) -> None:
    answer = scrape(app, accept="application/openmetrics-text; version=1.0.0")

    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    names = {family.name for family in openmetrics_families(answer.text)}
    assert {"syncflow_rows", "syncflow_http_call_duration_seconds"} <= names


@pytest.mark.parametrize("document", ["alerts.yaml", "dashboard.json"])
def test_what_rules_and_dashboard_ask_for_is_told(app: FastAPI, document: str) -> None:
    asked = set(re.findall(r"\bsyncflow_\w+", (OPERATIONS / document).read_text("utf-8")))
    told = {name for name, _ in scraped(app)}

    assert len(asked) > 10
    assert asked - told == set()
