"""Which schema ``bridge`` the database has, and the refusal to work with another one than the code's.

Belongs here: comparing revisions, which are the names of the scripts in ``migrations/``.
Does not belong here: running the scripts (``migrate``), what the tables are (``tables``).

Source: product.md 1 and 14; style.md, Tests 7.
"""

import functools
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from syncflow_core.bridge.tables import SCHEMA
from syncflow_core.errors import ConfigError

VERSION_TABLE: Final = "alembic_version"


def check_schema(connection: sa.Connection) -> None:
    """Return only where the database has exactly the code's revision.

    Raises:
        ConfigError: It is older (then ``syncflow migrate`` helps) or newer than this code.
    """
    found = known_revision(connection)
    head, _ = _revisions()
    if found != head:
        raise ConfigError(
            f"the database's schema ({found or 'none'}) is older than this code ({head}): "
            "run syncflow migrate",
            system="database",
        )
    _refuse_read_only(connection)


def known_revision(connection: sa.Connection) -> str | None:
    """The database's revision, which is one of this code's."""
    found = found_revision(connection)
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


def found_revision(connection: sa.Connection) -> str | None:
    """The database's revision; None where there is no schema."""
    if not sa.inspect(connection).has_table(VERSION_TABLE, schema=SCHEMA):
        return None
    found = connection.scalar(sa.text(f"SELECT version_num FROM {SCHEMA}.{VERSION_TABLE}"))  # noqa: S608  # two constants
    return None if found is None else str(found)


@functools.cache
def _revisions() -> tuple[str, frozenset[str]]:
    """The newest revision of this code, and all: a script bears its revision's name, and begins with its number."""
    known = sorted(script.stem for script in (scripts() / "versions").glob("[0-9]*.py"))
    return known[-1], frozenset(known)


def scripts() -> Path:
    """The folder ``migrations``.

    Raises:
        ConfigError: The installation is not whole.
    """
    package = Path(__file__).parents[1]
    places = (package / "_migrations", package.parent / "migrations")  # the wheel's, the checkout's
    folder = next((place for place in places if (place / "env.py").exists()), None)
    if folder is None:
        raise ConfigError(f"the installation is not whole: no migrations in {places[0]}")
    return folder
