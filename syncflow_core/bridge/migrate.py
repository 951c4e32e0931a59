"""Bring the schema ``bridge`` to a revision.

Belongs here: running the scripts of ``migrations/``; whatever needs Alembic, which takes a tenth of the time in which
SyncFlow is imported.
Does not belong here: which revision there is (``schema``), what the tables are (``tables``).

Source: product.md 1 and 14; style.md, Tests 7.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext

from syncflow_core.bridge.address import driver_url, translated
from syncflow_core.bridge.schema import VERSION_TABLE, found_revision, known_revision, scripts
from syncflow_core.bridge.tables import SCHEMA, metadata

LOCK: Final = 0x53594E43464C4F57  # "SYNCFLOW": one migration at a time per database


def upgrade(url: str, revision: str = "head") -> None:
    """Bring the database to *revision*; several processes may ask at once, one does it.

    Raises:
        ConfigError: The database was written by newer code than this.
        UnavailableError: The database is away.
    """
    with _migration(url) as config:
        connection = config.attributes["connection"]
        known_revision(connection)
        connection.execute(sa.schema.CreateSchema(SCHEMA, if_not_exists=True))
        command.upgrade(config, revision)


def downgrade(url: str, revision: str = "base") -> None:
    """Take the database back to *revision*; ``base`` leaves no schema ``bridge`` behind."""
    with _migration(url) as config:
        connection = config.attributes["connection"]
        known_revision(connection)
        if found_revision(connection) is not None:
            command.downgrade(config, revision)
        if revision == "base":
            connection.execute(sa.text(f"DROP TABLE IF EXISTS {SCHEMA}.{VERSION_TABLE}"))
            connection.execute(sa.schema.DropSchema(SCHEMA, if_exists=True))


def drift(connection: sa.Connection) -> list[object]:
    """What ``alembic check`` would find: differences between the tables in the code and in the database."""
    context = MigrationContext.configure(
        connection,
        opts={
            "include_schemas": True,
            "include_name": lambda name, kind, _parents: kind != "schema" or name == SCHEMA,
            "version_table_schema": SCHEMA,
            "compare_server_default": True,
        },
    )
    return list(compare_metadata(context, metadata))


@contextmanager
def _migration(url: str) -> Iterator[Config]:
    engine = sa.create_engine(driver_url(url), poolclass=sa.NullPool)
    try:
        with translated(url), engine.begin() as connection:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(LOCK)))
            config = Config()
            config.set_main_option("script_location", str(scripts()).replace("%", "%%"))
            config.set_main_option("path_separator", "os")
            config.attributes["connection"] = connection
            yield config
    finally:
        engine.dispose()
