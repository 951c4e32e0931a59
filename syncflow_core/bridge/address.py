"""The database's address: for SQLAlchemy, for people, and in what an error says.

Belongs here: reading a PostgreSQL URL, and making SyncFlow's errors of SQLAlchemy's and the driver's.
Does not belong here: connections (``database``), settings (``settings``).

Source: style.md, Errors ("translate once, at the edge").
"""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import sqlalchemy as sa

from syncflow_core.errors import ConfigError, UnavailableError

AUTHENTICATION = ("28000", "28P01", "3D000", "42501", "25006")
"""SQLSTATEs that trying again does not mend: wrong user, password or database; no permission; read only."""

PASSING = ("40001", "40P01", "53100", "53200", "53300", "55P03", "57014", "57P01", "57P02", "57P03")
"""SQLSTATEs that may be over soon: met another transaction, no room, a lock, a server that ends or starts."""


def driver_url(url: str) -> sa.URL:
    """The URL for SQLAlchemy with psycopg 3, whatever PostgreSQL scheme it came with."""
    return sa.make_url(plain_url(url)).set(drivername="postgresql+psycopg")


def plain_url(url: str) -> str:
    """The URL as libpq reads it: ``postgresql://...``."""
    return f"postgresql://{url.partition('://')[2]}"


def place(url: str) -> str:
    """``host:port/database``, without user and password.

    >>> place("postgresql+psycopg2://user:secret@db.example/bridge")
    'db.example:5432/bridge'
    """
    parts = driver_url(url)
    host = parts.host or str(parts.query.get("host", "localhost"))
    return f"{host}:{parts.port or 5432}/{parts.database or parts.username or ''}"


@contextmanager
def translated(url: str) -> Iterator[None]:
    """Turn the drivers' errors into SyncFlow's: one line, with the place, without the password.

    Raises:
        UnavailableError: The database is away, overloaded, or a lock was not to be had in time.
        ConfigError: User, password or database are wrong, or a permission is missing.
    """
    try:
        yield
    except (
        sa.exc.OperationalError,
        sa.exc.InterfaceError,
        sa.exc.TimeoutError,
        psycopg.OperationalError,
        psycopg.InterfaceError,
    ) as error:
        raise translation(error, url) from error
    except (sa.exc.ProgrammingError, sa.exc.InternalError) as error:
        if getattr(error.orig, "sqlstate", None) in AUTHENTICATION:
            raise translation(error, url) from error
        raise


def translation(error: Exception, url: str) -> ConfigError | UnavailableError:
    """SyncFlow's error for a driver's."""
    cause = getattr(error, "orig", None) or error
    lines = str(cause).strip().splitlines() or [type(cause).__name__]
    reason = _without(lines[0], driver_url(url).password)
    state = getattr(cause, "sqlstate", None)
    # A refused login has no SQLSTATE in psycopg: libpq reports it as a failed connection.
    words = ("password authentication failed", "does not exist", "no pg_hba.conf entry")
    if state in AUTHENTICATION or (state is None and any(word in str(cause) for word in words)):
        last = _without(lines[-1], driver_url(url).password)
        return ConfigError(f"the database at {place(url)} refuses: {last}", system="database")
    return UnavailableError(
        f"the database at {place(url)} is not available: {reason}", system="database"
    )


def _without(text: str, secret: object) -> str:
    return text.replace(str(secret), "***") if secret else text
