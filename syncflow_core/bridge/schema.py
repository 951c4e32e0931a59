"""Bring the schema ``bridge`` to a revision, and refuse to work with another one than the code's.

Belongs here: running the scripts of ``migrations/``, comparing revisions.
Does not belong here: what the tables are (``tables``), connecting (``database``).

Source: product.md 1 and 14; style.md, Tests 7.
"""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from syncflow_core.bridge.address import driver_url, translated
from syncflow_core.bridge.tables import SCHEMA, metadata
from syncflow_core.errors import ConfigError

VERSION_TABLE: Final = "alembic_version"
LOCK: Final = 0x53594E43464C4F57  # "SYNCFLOW": one migration at a time per database


def upgrade(url: str, revision: str = "head") -> None:
    """Bring the database to *revision*; several processes may ask at once, one does it.

    Raises:
        ConfigError: The database was written by newer code than this.
        UnavailableError: The database is away.
    """
    with _migration(url) as config:
        connection = config.attributes["connection"]
        _known_revision(connection)
        connection.execute(sa.schema.CreateSchema(SCHEMA, if_not_exists=True))
        command.upgrade(config, revision)


def downgrade(url: str, revision: str = "base") -> None:
    """Take the database back to *revision*; ``base`` leaves no schema ``bridge`` behind."""
    with _migration(url) as config:
        connection = config.attributes["connection"]
        _known_revision(connection)
        if _revision(connection) is not None:
            command.downgrade(config, revision)
        if revision == "base":
            connection.execute(sa.text(f"DROP TABLE IF EXISTS {SCHEMA}.{VERSION_TABLE}"))
            connection.execute(sa.schema.DropSchema(SCHEMA, if_exists=True))


def check_schema(connection: sa.Connection) -> None:
    """Return only where the database has exactly the code's revision.

    Raises:
        ConfigError: It is older (then ``syncflow migrate`` helps) or newer than this code.
    """
    found = _known_revision(connection)
    head, _ = _revisions()
    if found != head:
        raise ConfigError(
            f"the database's schema ({found or 'none'}) is older than this code ({head}): "
            "run syncflow migrate",
            system="database",
        )
    _refuse_read_only(connection)


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


def _known_revision(connection: sa.Connection) -> str | None:
    """The database's revision, which is one of this code's."""
    found = _revision(connection)
    head, known = _revisions()
    if found is not None and found not in known:
        raise ConfigError(
            f"the database's schema ({found}) is newer than this code "
            f"({head}): install a newer SyncFlow",
            system="database",
        )
    return found


def _refuse_read_only(connection: sa.Connection) -> None:
    if connection.scalar(sa.text("SHOW transaction_read_only")) == "on":
        raise ConfigError(
            "the database takes no writes (read-only transactions)", system="database"
        )
    lacking = connection.scalars(
        sa.text(
            "SELECT tablename FROM pg_tables WHERE schemaname = :schema AND NOT "
            "has_table_privilege(format('%I.%I', schemaname, tablename), 'SELECT,INSERT') "
            "ORDER BY tablename"
        ),
        {"schema": SCHEMA},
    ).all()
    if lacking:
        raise ConfigError(
            f"the database's user may not write {SCHEMA}.{lacking[0]}"
            + (f" and {len(lacking) - 1} more tables" if len(lacking) > 1 else ""),
            system="database",
        )


def _revision(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table(VERSION_TABLE, schema=SCHEMA):
        return None
    found = connection.scalar(sa.text(f"SELECT version_num FROM {SCHEMA}.{VERSION_TABLE}"))  # noqa: S608  # two constants
    return None if found is None else str(found)


@functools.cache  # each sync asks, and to read the scripts is to execute them
def _revisions() -> tuple[str | None, frozenset[str]]:
    """The newest revision of this code, and all."""
    scripts = ScriptDirectory.from_config(_config())
    return scripts.get_current_head(), frozenset(
        script.revision for script in scripts.walk_revisions()
    )


def _config() -> Config:
    package = Path(__file__).parents[1]
    places = (package / "_migrations", package.parent / "migrations")  # the wheel's, the checkout's
    folder = next((place for place in places if (place / "env.py").exists()), None)
    if folder is None:
        raise ConfigError(f"the installation is not whole: no migrations in {places[0]}")
    config = Config()
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


@contextmanager
def _migration(url: str) -> Iterator[Config]:
    engine = sa.create_engine(driver_url(url), poolclass=sa.NullPool)
    try:
        with translated(url), engine.begin() as connection:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(LOCK)))
            config = _config()
            config.attributes["connection"] = connection
            yield config
    finally:
        engine.dispose()
