"""One limiter per target for all runs on this database: so many requests at once, whoever makes them.

Belongs here: holding and giving back slots, as advisory locks of one session.
Does not belong here: the limits themselves (``limiter``), keeping to them (``http``).

A slot is a lock of PostgreSQL's: a process that dies, however it dies, holds none.

Source: product.md 5, "one limiter per target shared by all runs".
"""

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import sqlalchemy as sa

from syncflow_core.bridge.address import translated
from syncflow_core.bridge.database import Database

POLL_S: Final = 0.02
"""Between two looks for a free slot, at most."""

_CLASS = "hashtext('syncflow slots ' || :system)"
_TAKE = sa.text(
    f"SELECT s FROM generate_series(1, :slots) AS s "  # noqa: S608  # constants
    f"WHERE s <> ALL(:held) AND pg_try_advisory_lock({_CLASS}, s) LIMIT 1"
)
_GIVE = sa.text(f"SELECT pg_advisory_unlock({_CLASS}, :slot)")


class SharedLimiter:
    """At most so many requests at once to one system, from all processes on this database.

    Args:
        database: Where the slots are.
        system: ``apismith`` or ``schedulehub``.
        slots: Requests at once.
        sleep: Waits.
    """

    def __init__(
        self,
        database: Database,
        system: str,
        slots: int,
        *,
        sleep: Callable[[float], None] = time.sleep,  # noqa: TID251  # the default of a seam
    ) -> None:
        self._database = database
        self._system = system
        self._slots = slots
        self._sleep = sleep
        self._here = threading.BoundedSemaphore(slots)
        self._busy = threading.Lock()
        self._held: set[int] = set()
        self._session: sa.Connection | None = None
        self._driver: Any = None

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Wait for a slot and hold it while the context lasts.

        Raises:
            UnavailableError: The bridge database is away.
        """
        with self._here:
            slot = self._take()
            while slot is None:
                self._sleep(random.uniform(0, POLL_S))  # noqa: S311  # no secret
                slot = self._take()
            try:
                yield
            finally:
                self._give(slot)

    def close(self) -> None:
        """End the session, and with it every slot that is still held; idempotent."""
        with self._busy:
            self._end()

    def _take(self) -> int | None:
        with self._busy, translated(self._database.url):
            session = self._connected()
            found: int | None = session.scalar(
                _TAKE, {"system": self._system, "slots": self._slots, "held": list(self._held)}
            )
            if found is not None:
                self._held.add(found)
            return found

    def _give(self, slot: int) -> None:
        with self._busy:
            self._held.discard(slot)
            if self._session is None:
                return
            try:
                self._session.execute(_GIVE, {"system": self._system, "slot": slot})
            except sa.exc.DBAPIError:
                self._end()  # the session is gone, and its slots with it: the next one begins anew

    def _connected(self) -> sa.Connection:
        """A session of its own: it must neither return to the pool nor count against it."""
        if self._session is not None and self._session.invalidated:
            self._end()
        if self._session is None:
            session = self._database.engine.connect()
            session = session.execution_options(isolation_level="AUTOCOMMIT")
            self._driver = session.connection.driver_connection
            session.detach()
            self._session = session
        return self._session

    def _end(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None
        if self._driver is not None:
            self._driver.close()  # SQLAlchemy lets go of one that the server has ended
            self._driver = None
        self._held.clear()
