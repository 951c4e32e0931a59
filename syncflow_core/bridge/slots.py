"""One limiter per target for all runs on this database: so many requests at once, whoever makes them.

Belongs here: holding and giving back slots, as advisory locks of one session; how many there are now.
Does not belong here: the limits themselves (``limiter``), keeping to them (``http``).

A slot is a lock of PostgreSQL's: a process that dies, however it dies, holds none. A system that says
it has too much to do gets half as many requests at once, and one more for each second that goes well.

Source: product.md 5, "one limiter per target shared by all runs"; V. Jacobson, Congestion Avoidance and
Control (1988), for additive increase and multiplicative decrease.
"""

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psycopg

from syncflow_core.bridge.address import translated
from syncflow_core.bridge.database import Database, Session

POLL_S: Final = 0.02
"""Between two looks for a free slot, at most."""

STEP_S: Final = 1.0
"""Between two changes of how many there are, whoever asks for them."""

_CLASS = "hashtext('syncflow slots ' || %(system)s)"
_NOW = "extract(epoch FROM now())"
_SLOTS = "least(%(slots)s::int, coalesce((t.state ->> 'at_once')::int, %(slots)s::int))"
# OFFSET 0: one's own slots are left out before a lock is tried, which would succeed once more
_TAKE = f"""
    SELECT s, n FROM (SELECT coalesce((SELECT {_SLOTS} FROM bridge.target_limits AS t
        WHERE t.system = %(system)s), %(slots)s::int) AS n) AS now,
        LATERAL (SELECT g FROM generate_series(1, n) AS g WHERE g <> ALL(%(held)s::int[]) OFFSET 0)
            AS free(s)
    WHERE pg_try_advisory_lock({_CLASS}, s) LIMIT 1
    """  # noqa: S608  # constants
_GIVE = f"SELECT pg_advisory_unlock({_CLASS}, %(slot)s::int)"
_CHANGE = """
    INSERT INTO bridge.target_limits AS t (system, state)
    VALUES (%(system)s, jsonb_build_object('at_once', {first}, 'changed_at', {now}))
    ON CONFLICT (system) DO UPDATE SET updated_at = now(), state = t.state
        || jsonb_build_object('at_once', {then}, 'changed_at', {now})
    WHERE coalesce((t.state ->> 'changed_at')::float8, 0) < {now} - %(step_s)s::float8
"""
_FEWER = _CHANGE.format(
    now=_NOW, first="greatest(1, %(slots)s::int / 2)", then=f"greatest(1, {_SLOTS} / 2)"
)
_MORE = _CHANGE.format(
    now=_NOW, first="%(slots)s::int", then=f"least(%(slots)s::int, {_SLOTS} + 1)"
)


class SharedLimiter:
    """At most so many requests at once to one system, from all processes on this database.

    Args:
        database: Where the slots are.
        system: ``apismith`` or ``schedulehub``.
        slots: Requests at once.
    """

    def __init__(self, database: Database, system: str, slots: int) -> None:
        self._database = database
        self._system = system
        self._slots = slots
        self._here = threading.BoundedSemaphore(slots)
        self._busy = threading.Lock()
        self._held: set[int] = set()
        self._session: Session | None = None
        self._allowed = slots

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Wait for a slot and hold it while the context lasts.

        Raises:
            UnavailableError: The bridge database is away.
        """
        with self._here:
            slot = self._take()
            while slot is None:
                pause_s = random.uniform(0, POLL_S)  # noqa: S311  # no secret
                time.sleep(pause_s)  # noqa: TID251  # what another process does is waited for
                slot = self._take()
            try:
                yield
            finally:
                self._give(slot)

    def told(self, *, overloaded: bool) -> None:
        """Halve the number of slots, for all runs, or raise it by one where it was halved."""
        if not overloaded and self._allowed >= self._slots:
            return
        with self._busy, translated(self._database.url):
            self._connected().execute(
                _FEWER if overloaded else _MORE,
                {"system": self._system, "slots": self._slots, "step_s": STEP_S},
            )

    def close(self) -> None:
        """End the session, and with it every slot that is still held; idempotent."""
        with self._busy:
            self._end()

    def _take(self) -> int | None:
        with self._busy, translated(self._database.url):
            session = self._connected()
            found = session.execute(
                _TAKE, {"system": self._system, "slots": self._slots, "held": list(self._held)}
            ).fetchone()
            if found is None:
                return None
            slot: int = found[0]
            self._held.add(slot)
            self._allowed = found[1]
            return slot

    def _give(self, slot: int) -> None:
        with self._busy:
            self._held.discard(slot)
            if self._session is None:
                return
            try:
                self._session.execute(_GIVE, {"system": self._system, "slot": slot})
            except psycopg.Error:
                self._end()  # the session is gone, and its slots with it: the next one begins anew

    def _connected(self) -> Session:
        """A session of its own: it must neither return to the pool nor count against it.

        The driver's own: a slot is taken and given back for every request, and quickly.
        """
        if self._session is not None and self._session.closed:
            self._end()
        if self._session is None:
            self._session = self._database.own_session()
        return self._session

    def _end(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None
        self._held.clear()
