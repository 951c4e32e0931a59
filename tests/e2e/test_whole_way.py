"""The main job on real servers and a real database: through Dagster, through time, through a kill."""

import os
import pty
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from dagster._core.definitions.reconstruct import ReconstructableRepository
from local import LOCAL
from machine import processes_of, until
from place import SYNCFLOW, Place, lines, outcome
from tables import effects, faults, lost

from syncflow_core.bridge.batches import history
from syncflow_core.bridge.failed import open_failed
from syncflow_core.sandbox import erp
from syncflow_core.sandbox.compare import compare
from syncflow_core.sandbox.effects import inserted_twice, updated_twice
from syncflow_dagster.checks import CHECKS
from syncflow_dagster.launch import Run
from syncflow_dagster.partitions import range_tags
from syncflow_dagster.sandbox import demo_entities


def seed(place: Place, rows: int) -> None:
    with place.tables.connection() as connection:
        erp.seed_erp(connection, rows=rows, seed=3)
    place.apply(demo_entities())


def pass_day(place: Place, **shares: float) -> None:
    LOCAL.post(
        f"{place.sandbox.apismith_url}/sandbox/day", json=shares, timeout=60
    ).raise_for_status()


@dataclass(frozen=True)
class First:
    """The first sync of everything, and what it filed."""

    place: Place
    run: Run
    filed: list[pl.DataFrame]


@pytest.fixture(scope="module")
def first(shared_place: Place) -> First:
    """One for all tests that begin with it; each leaves the hub as the ERP has it."""
    seed(shared_place, 2_000)
    run = shared_place.sync()
    with shared_place.database.begin() as connection:
        filed = [open_failed(connection, entity.name) for entity in demo_entities()]
    return First(shared_place, run, filed)


def test_hub_equals_erp_after_a_first_sync_a_day_and_a_second_sync(first: First) -> None:
    pass_day(first.place, changed=0.05, inserted=0.02, deleted=0.02)

    second = first.place.sync()
    comparison = compare(first.place.url)

    assert comparison.equal, comparison.table()
    updated = sum(batch.counts.updated for batch in second.batches)
    assert 0 < updated < 2_000 * 0.1
    assert [batch for batch in second.batches if batch.counts.unaccounted] == []


def test_an_unchanged_source_pushes_nothing(first: First) -> None:
    before = effects(first.place)

    first.place.sync()

    assert effects(first.place) == before > 0


def test_XN01_bad_rows_are_filed_with_rule_column_and_value(first: First) -> None:
    rejected = sum(batch.counts.rejected for batch in first.run.batches)
    assert rejected > 0
    assert sum(frame.height for frame in first.filed) == rejected
    for frame in first.filed:
        assert frame["rule"].null_count() == 0
        assert frame["column"].null_count() == 0
        assert frame["raw"].null_count() == 0


def test_the_asset_shows_its_accounts_and_its_ops(first: First) -> None:
    records = first.place.instance.get_records_for_run(first.run.run_id).records
    events = [item.event_log_entry.dagster_event for item in records]
    steps = [
        event.step_key for event in events if event and event.event_type_value == "STEP_SUCCESS"
    ]
    stages = ["fetch", "normalize", "identity", "delta", "resolve", "push"]
    assert [step for step in steps if step.startswith("work_centres.")] == [
        f"work_centres.{stage}" for stage in stages
    ]
    assert steps.index("sites.push") < steps.index("work_centres.fetch")
    made = [
        event.asset_check_evaluation_data
        for event in events
        if event and event.event_type_value == "ASSET_CHECK_EVALUATION"
    ]
    for name in ("sites", "work_centres"):
        found = [
            (check.check_name, check.passed) for check in made if check.asset_key.path == [name]
        ]
        assert sorted(found) == sorted((check.name, True) for check in CHECKS)
    shown = [event.materialization for event in events if event and event.is_step_materialization]
    sites = next(item for item in shown if item.asset_key.path == ["sites"])
    assert sites.metadata["fetched"].value == outcome(first.run, "sites")["fetched"]
    assert {"inserted", "rows_per_second", "seconds_push", "status"} <= set(sites.metadata)


def test_XF20_a_source_that_lost_most_rows_is_withheld_and_says_so(first: First) -> None:
    with lost(first.place, "stock", "id % 4 > 0"):
        ended = first.place.command("sync", "stock", "--full", "--json")

    assert ended.returncode == 3, ended.stderr
    line = lines(ended.stdout)[0]
    assert line["status"] == "withheld"
    assert line["counts"]["deleted"] == 0
    assert line["counts"]["withheld_deletes"] > 100


def test_XH01_children_of_a_missing_parent_wait_and_are_released_when_it_lands(
    place: Place,
) -> None:
    seed(place, 1_000)
    early = place.sync("work_centres")

    assert outcome(early, "work_centres")["pending"] == outcome(early, "work_centres")["fetched"]
    late = place.sync("sites")

    released = [batch for batch in late.batches if batch.kind == "retry"]
    assert [batch.entity for batch in released] == ["work_centres"]
    assert released[0].counts.retried == outcome(early, "work_centres")["pending"]
    assert compare(place.url, ["work_centres"]).equal


def test_a_sync_killed_half_way_is_followed_by_one_that_ends_equal(place: Place) -> None:
    seed(place, 8_000)
    dying = place.process("sync", "--all", "--full", "--json")
    deadline = time.monotonic() + 120
    while effects(place) < 2_000 and time.monotonic() < deadline and dying.poll() is None:
        time.sleep(0.01)
    os.kill(dying.pid, signal.SIGKILL)
    dying.communicate()
    killed_at = effects(place)

    ended = place.command("sync", "--all", "--full", "--json")

    comparison = compare(place.url)
    assert 2_000 <= killed_at < sum(item.expected for item in comparison.entities)
    assert ended.returncode == 1, ended.stderr  # the seeded bad rows make it partial
    assert comparison.equal, comparison.table()
    assert inserted_twice(place.url) == []
    assert updated_twice(place.url) == []


def test_the_demo_draws_bars_while_it_works_says_equal_and_leaves_no_process(
    tmp_path: Path,
) -> None:
    home = tmp_path / "home"
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith(("SYNCFLOW_", "DAGSTER_"))
    }
    screen, terminal = pty.openpty()
    demo = subprocess.Popen(
        [SYNCFLOW, "demo", "--rows", "1000"],
        env={**environment, "SYNCFLOW_HOME": str(home), "TERM": "xterm"},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=terminal,
        text=True,
    )
    os.close(terminal)

    with ThreadPoolExecutor(1) as pool:
        looked_at = pool.submit(drawn, screen)
        told, _ = demo.communicate(timeout=240)
        bars = looked_at.result()

    assert demo.returncode == 0, told + bars
    assert "equal: the hub holds what the ERP holds" in told
    assert {"fetch", "identity", "push"} <= set(bars.split())
    until(lambda: processes_of(home) == [])


def drawn(screen: int) -> str:
    """What a terminal was told to show, until nobody draws on it any more."""
    pieces = []
    try:
        while piece := os.read(screen, 1 << 16):
            pieces.append(piece)
    except OSError:
        pass  # so Linux says that its other end is closed
    os.close(screen)
    return b"".join(pieces).decode(errors="replace")


def test_a_push_that_failed_is_taken_up_again_without_fetching(place: Place) -> None:
    seed(place, 1_000)
    job = ReconstructableRepository.for_module(
        "syncflow_dagster.definitions", "defs", working_directory=str(place.home)
    ).get_reconstructable_job("sync_customers")
    hub_url = place.sandbox.schedulehub_url
    faults(hub_url, {"match": {"path": "/customers/batch/insert"}, "action": {"status": 503}})
    (place.home / "dagster").mkdir()
    slices = range_tags([1, place.slices])
    with dg.DagsterInstance.local_temp(str(place.home / "dagster")) as instance:
        first = dg.execute_job(job, instance, tags=slices)
        pages = _stats(place)["pages"]
        faults(hub_url)

        options = dg.ReexecutionOptions.from_failure(first.run_id, instance)
        again = dg.execute_job(job, instance, tags=slices, reexecution_options=options)

    assert (first.success, again.success) == (False, True)
    with place.database.begin() as connection:
        batches = [history(connection, dagster_run_id=run.run_id)[0] for run in (first, again)]
    assert [batch.status for batch in batches] == ["failed", "completed"]
    assert batches[1].counts.inserted == batches[1].counts.fetched > 0
    assert _stats(place)["pages"] == pages
    assert compare(place.url, ["customers"]).equal


def test_a_run_that_died_when_its_batch_had_ended_is_taken_up_and_sends_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed(place, 1_000)
    job = ReconstructableRepository.for_module(
        "syncflow_dagster.definitions", "defs", working_directory=str(place.home)
    ).get_reconstructable_job("sync_customers")
    (place.home / "dagster").mkdir()
    slices = range_tags([1, place.slices])
    with dg.DagsterInstance.local_temp(str(place.home / "dagster")) as instance:
        with monkeypatch.context() as patched:
            patched.setattr("syncflow_dagster.ops.stands_now", _dies)
            first = dg.execute_job(job, instance, tags=slices)
        sent = effects(place)

        options = dg.ReexecutionOptions.from_failure(first.run_id, instance)
        again = dg.execute_job(job, instance, tags=slices, reexecution_options=options)
        shown = instance.get_latest_materialization_event(dg.AssetKey(["customers"]))

    assert (first.success, again.success) == (False, True)
    with place.database.begin() as connection:
        (batch,) = history(connection, entities=["customers"])
    assert (batch.status, batch.counts.inserted) == ("completed", sent)
    assert effects(place) == sent > 0
    assert shown is not None
    assert shown.asset_materialization is not None
    assert shown.asset_materialization.metadata["inserted"].value == sent


def _dies(*_: object) -> None:
    raise OSError("the machine is gone")


def _stats(place: Place) -> dict[str, int]:
    answer = LOCAL.get(f"{place.sandbox.apismith_url}/sandbox/stats")
    answer.raise_for_status()
    stats: dict[str, int] = answer.json()
    return stats
