"""Migrations: up, no drift, down, and refusal of another revision than the code's."""

import threading

import pytest
import sqlalchemy as sa

from syncflow_core.bridge import migrate
from syncflow_core.bridge.database import Database
from syncflow_core.bridge.tables import metadata
from syncflow_core.errors import ConfigError

TEN = {
    "sync_batches",
    "failed_records",
    "pending_children",
    "erp_sync_state",
    "background_sync_schedule",
    "field_mappings",
    "entities",
    "synced_records",
    "push_journal",
    "record_events",
}


def tables(url: str) -> set[str]:
    with Database(url) as database, database.begin() as connection:
        return set(sa.inspect(connection).get_table_names(schema="bridge"))


def test_upgrade_makes_every_table_and_nothing_differs_from_the_code(url: str) -> None:
    migrate.upgrade(url)

    with Database(url) as database, database.begin() as connection:
        assert migrate.drift(connection) == []
    assert tables(url) >= TEN
    assert {table.name for table in metadata.tables.values()} <= tables(url)


def test_downgrade_leaves_no_schema_and_upgrade_brings_it_back(url: str) -> None:
    migrate.upgrade(url)
    migrate.downgrade(url)
    with Database(url) as database, database.begin() as connection:
        assert "bridge" not in sa.inspect(connection).get_schema_names()

    migrate.upgrade(url)

    assert tables(url) >= TEN


def test_every_constraint_has_a_name_of_the_convention(database: Database) -> None:
    query = sa.text(
        "SELECT conname FROM pg_constraint JOIN pg_namespace AS n ON n.oid = connamespace "
        "WHERE nspname = 'bridge' AND contype <> 'n' AND conname <> 'alembic_version_pkc'"
    )
    with database.begin() as connection:
        names = connection.scalars(query).all()

    assert [name for name in names if not name.startswith(("pk_", "uq_", "fk_", "ck_"))] == []
    assert len(names) > 40


def test_upgrades_at_the_same_time_wait_for_one_another(url: str) -> None:
    failures: list[BaseException] = []

    def upgrade() -> None:
        try:
            migrate.upgrade(url)
        except BaseException as error:  # noqa: BLE001  # reported by the test's own thread
            failures.append(error)

    threads = [threading.Thread(target=upgrade) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []


def test_XD10_a_database_without_the_schema_is_older_and_migrate_is_the_way(url: str) -> None:
    with (
        Database(url) as database,
        pytest.raises(ConfigError, match=r"older than this code.*run syncflow migrate"),
    ):
        database.check_schema()


def test_XD10_a_database_of_newer_code_is_neither_used_nor_touched(migrated_url: str) -> None:
    with Database(migrated_url) as database:
        with database.begin() as connection:
            connection.execute(sa.text("UPDATE bridge.alembic_version SET version_num = '9999_x'"))
        for refused in (
            database.check_schema,
            lambda: migrate.upgrade(migrated_url),
            lambda: migrate.downgrade(migrated_url),
        ):
            with pytest.raises(ConfigError, match=r"\(9999_x\) is newer than this code"):
                refused()


def test_check_schema_accepts_the_codes_own_revision(database: Database) -> None:
    database.check_schema()
