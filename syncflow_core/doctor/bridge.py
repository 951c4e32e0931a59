"""The bridge database: there, new enough, of this version's schema, its clock.

Belongs here: looking; an embedded database that was never made is not made here either.
Does not belong here: what is declared in it (``entities``), Dagster's history.

Source: product.md 1 ("a health check") and 10.
"""

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from syncflow_core.bridge.database import Database
from syncflow_core.bridge.embedded import is_made
from syncflow_core.bridge.entities import Registered, load_registered
from syncflow_core.doctor.checks import LIMIT_S, Check, Seen
from syncflow_core.doctor.clocks import clock_seen
from syncflow_core.settings import Settings

OLDEST: Final = 14
"""The oldest PostgreSQL that its makers still mend."""
EMBEDDED_S: Final = 30.0
"""The embedded server may have to start, and to recover."""


class Bridge:
    """The bridge database while it is looked at; opened by its first check, unless it is given.

    Args:
        settings: Where it is.
        database: One that is open already; closing it is the caller's.
    """

    def __init__(self, settings: Settings, database: Database | None = None) -> None:
        self._settings = settings
        self._given = database
        self._opened: Database | None = None

    @property
    def database(self) -> Database:
        """The database, once ``checks`` has reached it."""
        found = self._given or self._opened
        assert found is not None, "a check that needs it names database among its needs"  # noqa: S101  # as its needs say
        return found

    def checks(self, now: Callable[[], datetime]) -> tuple[Check, ...]:
        """Whether it is there and as this code needs it."""
        embedded = self._settings.database_url is None
        return (
            Check(
                "database",
                self._reach,
                "see server.log in the home's folder postgres, or set SYNCFLOW_DATABASE_URL"
                if embedded
                else "is it running? check SYNCFLOW_DATABASE_URL: user, password, host, port, database",
                ("home",) if embedded and self._given is None else (),
                limit_s=EMBEDDED_S if embedded else LIMIT_S,
            ),
            Check(
                "database.migrations",
                self._migrations,
                "syncflow migrate, or, where the schema is newer, install that version of SyncFlow",
                ("database",),
            ),
            Check(
                "database.clock",
                lambda: clock_seen("the database", self._time, now),
                "set both machines' clocks by NTP",
                ("database",),
            ),
        )

    def registered(self, names: Sequence[str]) -> list[Registered]:
        """The declarations: these, or the enabled ones without any names.

        Raises:
            ConfigError: One of the names is no entity's.
        """
        with self.database.begin() as connection:
            return load_registered(connection, names or None, enabled=None if names else True)

    def everything(self) -> dict[str, Registered]:
        """All declarations by name, disabled ones too."""
        with self.database.begin() as connection:
            return {item.entity.name: item for item in load_registered(connection, enabled=None)}

    def close(self) -> None:
        """Close it, if it was opened here."""
        if self._opened is not None:
            self._opened.close()

    def _reach(self) -> Seen:
        if self._given is None and self._settings.database_url is None:
            home = self._settings.home_path
            if not is_made(home):
                return Seen(f"no embedded PostgreSQL in {home} yet", "fail", "syncflow migrate")
        if self._given is None and self._opened is None:
            self._opened = Database.open(self._settings)
        health = self.database.health()
        kind = " (embedded)" if health.embedded else ""
        words = f"PostgreSQL {health.server} at {health.place}{kind}"
        major = re.match(r"\d+", health.server)
        if major is None or int(major.group()) < OLDEST:
            return Seen(
                f"{words}: older than {OLDEST}",
                "fail",
                f"set SYNCFLOW_DATABASE_URL to PostgreSQL {OLDEST} or newer",
            )
        return Seen(words)

    def _migrations(self) -> Seen:
        self.database.check_schema()
        return Seen("the schema is this version's")

    def _time(self) -> datetime | None:
        with self.database.begin() as connection:
            said: datetime | None = connection.scalar(sa.text("SELECT clock_timestamp()"))
        return said
