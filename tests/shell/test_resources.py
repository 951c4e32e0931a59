"""The bridge database of a run: its own, or that of the command which runs it."""

import dagster as dg
import pytest

from syncflow_core.bridge.database import Database
from syncflow_dagster.resources import BridgeResource, lent


def used(url: str, monkeypatch: pytest.MonkeyPatch) -> Database:
    """The database that a run worked with, which has ended."""
    monkeypatch.setenv("SYNCFLOW_DATABASE_URL", url)
    bridge = BridgeResource()
    with bridge.yield_for_execution(dg.build_init_resource_context()):
        return bridge.database()


def test_a_run_works_with_the_connections_of_its_command_and_leaves_them_open(
    migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Database(migrated_url) as own:
        own.check_schema()  # as the command does
        with lent(own):
            assert used(migrated_url, monkeypatch) is own
        assert own.engine.pool.status().startswith("Pool size: 10  Connections in pool: 1")


def test_a_run_by_itself_opens_and_closes_its_own(
    migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Database(migrated_url) as other:
        alone = used(migrated_url, monkeypatch)
    assert alone is not other
    assert alone.engine.pool.status().startswith("Pool size: 10  Connections in pool: 0")


def test_a_database_that_is_not_the_runs_is_left_alone(
    url: str, migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Database(url) as other, lent(other):
        alone = used(migrated_url, monkeypatch)
    assert alone is not other
    assert alone.place != other.place
