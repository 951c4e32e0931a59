"""Dagster's instance from the shipped ``dagster.yaml``: under the home, or in PostgreSQL."""

import logging
import shutil
from pathlib import Path

import dagster as dg
import psycopg
import pytest
from dagster._core.instance.ref import InstanceRef
from dagster_postgres import DagsterPostgresStorage

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with ``dagster.yaml``; SYNCFLOW_HOME beside it; no DAGSTER_HOME."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.delenv("SYNCFLOW_DATABASE_URL", raising=False)
    monkeypatch.delenv("SYNCFLOW_HOME", raising=False)
    folder = tmp_path / "instance"
    folder.mkdir()
    shutil.copy(ROOT / "dagster.yaml", folder)
    return folder


@dg.asset
def trivial() -> int:
    return 1


def run_of(folder: Path) -> str:
    with dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(folder))) as instance:
        return dg.materialize([trivial], instance=instance).run_id


def status_of(folder: Path, run: str) -> dg.DagsterRunStatus:
    with dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(folder))) as instance:
        found = instance.get_run_by_id(run)
    assert found is not None
    return found.status


def test_history_logs_and_artifacts_lie_under_the_home_of_the_current_folder(
    configured: Path,
) -> None:
    run = run_of(configured)
    home = configured.parent / ".syncflow" / "dagster"

    assert status_of(configured, run) == dg.DagsterRunStatus.SUCCESS
    assert list((home / "history").rglob("runs.db")) != []
    assert (home / "logs" / run).is_dir()
    assert (home / "artifacts").is_dir()
    assert [path.name for path in configured.iterdir()] == ["dagster.yaml"]


@pytest.mark.parametrize("scheme", ["postgresql", "postgresql+psycopg"])
def test_history_lies_in_postgresql_when_a_url_is_set(
    configured: Path, url: str, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYNCFLOW_DATABASE_URL", url.replace("postgresql", scheme, 1))

    run = run_of(configured)

    assert status_of(configured, run) == dg.DagsterRunStatus.SUCCESS
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT run_id, status FROM runs").fetchall()
    assert rows == [(run, "SUCCESS")]


def test_what_dagster_gets_is_its_own_storage_with_our_reference(
    configured: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYNCFLOW_DATABASE_URL", url)
    with dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(configured))) as instance:
        reference = instance.get_ref()
    assert reference.storage_data is not None
    assert reference.storage_data.class_name == "SyncFlowStorage"
    assert isinstance(reference.storage, DagsterPostgresStorage)


@pytest.mark.parametrize("kept_in", ["SQLite", "PostgreSQL"])
def test_a_run_has_failed_before_the_event_is_there_that_says_so(
    configured: Path, url: str, kept_in: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What reads the event asks for the run's status, and never looks again (dagster's run retries)."""
    if kept_in == "PostgreSQL":
        monkeypatch.setenv("SYNCFLOW_DATABASE_URL", url)
    with dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(configured))) as instance:
        run = instance.create_run_for_job(dg.job(name="one")(lambda: None)).run_id
        failure = dg.DagsterEvent(dg.DagsterEventType.RUN_FAILURE.value, "one")
        entry = dg.EventLogEntry(
            error_info=None,
            level=logging.ERROR,
            user_message="",
            run_id=run,
            timestamp=1_000_000_000.0,
            dagster_event=failure,
        )

        instance.event_log_storage.store_event(entry)  # all that has happened so far

        record = instance.get_run_record_by_id(run)
        assert record is not None
        assert (record.dagster_run.status, record.end_time) == (
            dg.DagsterRunStatus.FAILURE,
            1_000_000_000.0,
        )
        stored = instance.get_records_for_run(run, of_type=dg.DagsterEventType.RUN_FAILURE)
        assert len(stored.records) == 1
