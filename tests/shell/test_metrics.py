"""Metrics: counters only grow, whatever is tidied away; every metric is documented and every alert has its page."""

import json
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
import yaml
from fastapi import FastAPI
from scraping import Samples, application, of, samples_of, scrape

from syncflow_core.bridge import batches
from syncflow_core.bridge.batches import Counts, Kind, Status
from syncflow_core.bridge.database import Database
from syncflow_core.bridge.entities import apply_entities
from syncflow_core.bridge.history import forget_past
from syncflow_core.bridge.outages import SharedBreaker
from syncflow_core.bridge.totals import add_up
from syncflow_core.calls import Asked, Calls
from syncflow_core.entity import Entity
from syncflow_core.settings import Settings
from syncflow_dagster.api.families import FAMILIES

NOW = datetime(2026, 1, 2, 3, tzinfo=UTC)
OPERATIONS = Path(__file__).parents[2] / "docs/operations"
ROWS = Counts(fetched=9, normalized=8, rejected=1, inserted=5, updated=2, unchanged=1, deleted=3)


@pytest.fixture
def app(database: Database) -> FastAPI:
    with database.begin() as connection:
        apply_entities(connection, [Entity(name="orders"), Entity(name="lines")])
    return application(Settings(), database)


def told(app: FastAPI) -> Samples:
    return samples_of(scrape(app).text)


def closed(
    database: Database,
    counts: Counts = ROWS,
    *,
    kind: Kind = "full",
    status: Status = "completed",
    now: datetime = NOW,
) -> UUID:
    """A batch of ``orders`` that has ended, with two calls."""
    calls = Calls()
    for seconds in (0.02, 40.0):
        calls.note(Asked("apismith", "POST", "200"), seconds=seconds, waited=0)
    with database.begin() as connection:
        uid = batches.open_batch(connection, entity="orders", entity_version=1, kind=kind, now=now)
        batches.add_calls(connection, uid, calls)
        batches.close_batch(
            connection,
            uid,
            status,
            counts,
            now=now,
            seconds={"fetch": 0.25, "push": 2.0, "total": 2.25},
            calls=calls,
        )
    return uid


def cumulative(samples: Samples) -> Samples:
    ends = ("_total", "_bucket", "_count", "_sum", "_unaccounted_rows")
    return {key: value for key, value in samples.items() if key[0].endswith(ends)}


def test_counters_do_not_go_back_when_batches_are_forgotten(
    app: FastAPI, database: Database
) -> None:
    for night in range(3):
        closed(database, now=NOW + timedelta(days=night))
    before = told(app)
    closed(database, status="partial", now=NOW + timedelta(days=3))  # nobody asks before it goes
    with database.begin() as connection:
        gone = forget_past(connection, NOW + timedelta(days=30))
    after = told(app)
    closed(database, now=NOW + timedelta(days=40))
    last = told(app)

    assert gone["sync_batches"] == 4
    assert of(before, "rows_total", entity="orders", outcome="inserted") == 15
    assert of(after, "rows_total", entity="orders", outcome="inserted") == 20
    assert of(last, "rows_total", entity="orders", outcome="inserted") == 25
    kinds = {"entity": "orders", "kind": "full"}
    assert of(after, "batches_total", status="partial", **kinds) == 1
    assert of(last, "batches_total", status="completed", **kinds) == 4
    call = {"system": "apismith", "method": "POST", "status": "200"}
    assert of(last, "http_call_duration_seconds_count", **call) == 20
    assert of(last, "http_call_duration_seconds_bucket", le="0.025", **call) == 10
    assert of(last, "stage_duration_seconds_sum", entity="orders", stage="fetch") == 1.25
    for older, newer in ((before, after), (after, last)):
        assert cumulative(older).keys() <= newer.keys()
        assert [key for key, value in cumulative(older).items() if newer[key] < value] == []


def test_a_batch_is_added_once_however_many_add_up_at_once(
    app: FastAPI, database: Database
) -> None:
    for _ in range(20):
        closed(database)

    def add(_: int) -> int:
        with database.begin() as connection:
            return add_up(connection, most=3)

    with ThreadPoolExecutor(4) as pool:
        added = sum(pool.map(add, range(40)))

    assert added == 20
    samples = told(app)
    assert of(samples, "rows_fetched_total", entity="orders") == 180
    assert of(samples, "batches_total", entity="orders", kind="full", status="completed") == 20


def test_what_a_plan_would_do_is_not_counted_as_done(app: FastAPI, database: Database) -> None:
    closed(database, kind="plan")
    samples = told(app)

    assert of(samples, "rows_fetched_total", entity="orders") == 0
    assert of(samples, "rows_total", entity="orders", outcome="inserted") == 0
    assert of(samples, "deletes_total", entity="orders", outcome="deleted") == 0
    assert of(samples, "batches_total", entity="orders", kind="plan", status="completed") == 1


def test_a_batch_that_goes_on_is_counted_when_it_has_ended_and_one_that_died_too(
    app: FastAPI, database: Database
) -> None:
    with database.begin() as connection:
        uid = batches.open_batch(
            connection, entity="orders", entity_version=1, kind="full", now=NOW
        )
        calls = Calls()
        calls.note(Asked("schedulehub", "POST", "none"), seconds=3, waited=1)
        batches.add_calls(connection, uid, calls)
    during = told(app)
    with database.begin() as connection:
        batches.close_dead_batches(connection, "orders", "its process died", now=NOW)
        batches.add_calls(connection, uid, calls)  # too late: its story is told
    after = told(app)

    labels = {"entity": "orders", "kind": "full", "status": "failed"}
    assert of(during, "batches_live", entity="orders", status="running") == 1
    assert of(during, "batches_total", **labels) == 0
    assert of(after, "batches_live", entity="orders", status="running") == 0
    assert of(after, "batches_total", **labels) == 1
    call = {"system": "schedulehub", "method": "POST", "status": "none"}
    assert of(after, "http_call_duration_seconds_count", **call) == 1
    assert of(after, "limiter_wait_seconds_sum", system="schedulehub") == 1


def test_rows_without_an_outcome_are_told_and_do_not_cancel_out(
    app: FastAPI, database: Database
) -> None:
    closed(database, Counts(fetched=5, inserted=3))
    closed(database, Counts(fetched=5, inserted=6))
    samples = told(app)

    assert of(samples, "unaccounted_rows", entity="orders") == 3
    assert of(samples, "unaccounted_rows", entity="lines") == 0


def test_an_outage_and_fewer_slots_are_told(app: FastAPI, database: Database) -> None:
    breaker = SharedBreaker(database, "schedulehub")
    breaker.answered()
    while not breaker.failed():
        pass
    with database.begin() as connection:
        connection.execute(
            sa.text(
                "UPDATE bridge.target_limits SET state = state || '{\"at_once\": 4}' "
                "WHERE system = 'schedulehub'"
            )
        )
    away = told(app)
    breaker.answered()
    back = told(app)

    assert of(away, "breaker_open", system="schedulehub") == 1
    assert of(away, "breaker_open", system="apismith") == 0
    assert of(away, "limiter_slots", system="schedulehub") == 4
    assert of(away, "limiter_slots", system="apismith") == 16
    assert of(back, "breaker_open", system="schedulehub") == 0


def test_the_nights_progress_is_told_and_only_of_what_is_enabled(
    app: FastAPI, database: Database
) -> None:
    uid = closed(database)
    with database.begin() as connection:
        apply_entities(connection, [Entity(name="gone", enabled=False)])
        connection.execute(
            sa.text(
                "INSERT INTO bridge.sweep_slices (entity, slice, slices, batch, counted, complete, "
                "unkeyed, key_hashes, head, tail, finished_at) SELECT 'orders', g, 7, :uid, 10, g < 3, "
                "0, '', '[]', '[]', now() FROM generate_series(1, 3) AS g"
            ),
            {"uid": uid},
        )
        connection.execute(
            sa.text(
                "UPDATE bridge.background_sync_schedule SET sweep_number = 4, current_offset = 30, "
                "nights = 14, last_night = current_date - 2 WHERE entity = 'orders'"
            )
        )
    samples = told(app)

    assert of(samples, "sweep_slices_done", entity="orders") == 2
    assert of(samples, "sweep_slices", entity="orders") == 7
    assert of(samples, "sweep_number", entity="orders") == 4
    assert of(samples, "sweep_offset_rows", entity="orders") == 30
    assert of(samples, "sync_interval_seconds", entity="orders") == 2 * 86_400
    assert 2 <= of(samples, "sweep_slice_age_seconds", entity="orders") / 86_400 <= 3
    assert [
        key for key in samples if ("entity", "gone") in key[1] and "in_doubt" not in key[0]
    ] == []


def test_a_database_that_is_away_is_a_problem_and_no_empty_answer() -> None:
    away = Database("postgresql://u:s3cret@127.0.0.1:9/x")
    answer = scrape(application(Settings(), away))

    assert answer.status_code == 503
    assert "s3cret" not in answer.text


def test_every_metric_is_told_with_its_words_and_documented_so(
    app: FastAPI, database: Database
) -> None:
    closed(database)
    text = scrape(app).text
    lines = (OPERATIONS.parent / "reference/metrics.md").read_text("utf-8").splitlines()
    documented = [line for line in lines if line.startswith("| `")]
    expected = []
    for family in FAMILIES:
        name = family.name + ("_total" if family.kind == "counter" else "")
        assert f"# HELP {name} {family.words}\n# TYPE {name} {family.kind}\n" in text
        labels = "".join(f" `{label}`" for label in family.labels)
        expected.append(f"| `{name}` | {family.kind} |{labels} | {family.words} |")

    assert documented == expected
    assert text.count("# HELP ") == len(FAMILIES)


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((OPERATIONS / "alerts.yaml").read_text("utf-8"))["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def test_every_alert_says_what_it_is_and_where_its_page_is() -> None:
    page = (OPERATIONS / "alerts.md").read_text("utf-8")
    headings = re.findall(r"^## (\w+)$", page, re.MULTILINE)

    assert [rule["alert"] for rule in rules()] == headings
    for rule in rules():
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["annotations"].keys() == {"summary", "description", "runbook"}
        expected = f"docs/operations/alerts.md#{rule['alert'].lower()}"
        assert rule["annotations"]["runbook"] == expected
    for section in re.split(r"^## \w+$", page, flags=re.MULTILINE)[1:]:
        assert re.findall(r"^\*\*(\w+)\.\*\*", section, re.MULTILINE) == ["Means", "Look", "Do"]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs Prometheus's promtool")
def test_prometheus_takes_the_rules() -> None:
    done = subprocess.run(
        ["promtool", "check", "rules", str(OPERATIONS / "alerts.yaml")],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert f"{len(rules())} rules found" in done.stdout


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs Prometheus's promtool")
def test_prometheus_takes_the_metrics(app: FastAPI, database: Database) -> None:
    closed(database)
    done = subprocess.run(
        ["promtool", "check", "metrics"],
        input=scrape(app).text,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr


def test_the_dashboard_is_one_that_grafana_10_reads() -> None:
    board = json.loads((OPERATIONS / "dashboard.json").read_text("utf-8"))

    assert board["schemaVersion"] >= 38
    assert board["uid"]
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"]) > 10
    places = {tuple(sorted(panel["gridPos"].items())) for panel in board["panels"]}
    assert len(places) == len(board["panels"])
    for panel in board["panels"]:
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
        assert [target["refId"] for target in panel["targets"]] == list(
            "ABC"[: len(panel["targets"])]
        )
        assert all(target["expr"] for target in panel["targets"])
