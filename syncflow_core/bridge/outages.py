"""The circuit breaker of a system, for all runs on this database: what one run found out, all know.

Belongs here: keeping the breaker's state in ``target_limits``, and one probe at a time over all runs.
Does not belong here: telling an outage (``breaker``), probing (``http``).

All times are the database's: processes whose clocks differ, or jump, agree all the same.

Source: product.md 5; faults.md XP13.
"""

import time
from collections.abc import Callable
from typing import Final

import sqlalchemy as sa

from syncflow_core.breaker import FIRST_S, Breaker
from syncflow_core.bridge.database import Database

LOOK_S: Final = 1.0
"""How old what is known of the other runs may be."""
STALE_S: Final = 60.0
"""An outage that nobody has probed for so long is nobody's: whoever asks next is told at once."""

_NOW = "extract(epoch FROM now())::float8"
_LOOK = sa.text(
    f"""
    SELECT (state ->> 'probe_at')::float8 - {_NOW} FROM bridge.target_limits
    WHERE system = :system AND state ? 'probe_at'
    """  # noqa: S608  # constants
)
_SET = sa.text(
    f"""
    INSERT INTO bridge.target_limits AS t (system, state)
    VALUES (:system, jsonb_build_object('probe_at', {_NOW} + :span))
    ON CONFLICT (system) DO UPDATE
    SET updated_at = now(), state = t.state || jsonb_build_object('probe_at', {_NOW} + :span)
    """  # noqa: S608  # constants
)
_CLAIM = sa.text(
    f"""
    UPDATE bridge.target_limits SET updated_at = now(),
        state = state || jsonb_build_object('probe_at', {_NOW} + :span)
    WHERE system = :system AND (state ->> 'probe_at')::float8 <= {_NOW}
    """  # noqa: S608  # constants
)
_AWAY = sa.text("SELECT system FROM bridge.target_limits WHERE state ? 'probe_at' ORDER BY 1")
_CLOSE = sa.text(
    "UPDATE bridge.target_limits SET updated_at = now(), state = state - 'probe_at' "
    "WHERE system = :system"
)


class SharedBreaker(Breaker):
    """One system's breaker, for all threads of this process and all runs on this database.

    Args:
        database: Where the state is.
        system: ``apismith`` or ``schedulehub``.
        clock: Monotonic seconds.
    """

    def __init__(
        self, database: Database, system: str, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(clock=clock)
        self._database = database
        self._system = system
        self._looked_at = float("-inf")
        self._left_open = False
        """Whether an outage is noted that nobody has probed for long."""

    def wait_s(self) -> float:
        """Seconds to wait before asking here again; 0: go. Who goes while it is open is the probe.

        Raises:
            UnavailableError: The bridge database is away.
        """
        if not self.is_open and self._clock() - self._looked_at < LOOK_S:
            return 0.0
        self._looked_at = self._clock()
        with self._database.read() as connection:
            left: float | None = connection.scalar(_LOOK, {"system": self._system})
        self._left_open = left is not None and left <= -STALE_S
        if left is None or self._left_open:
            if self.is_open:
                super().answered()  # another run found that it is there again
            return 0.0
        self.opened_elsewhere()
        if left > 0:
            return left
        with self._database.begin() as connection:
            claimed = connection.execute(_CLAIM, {"system": self._system, "span": self.span_s})
        return 0.0 if claimed.rowcount else LOOK_S

    def answered(self) -> bool:
        """An answer came: whatever it said, the system is there; all runs are told.

        Returns:
            Whether this closed the breaker.
        """
        if self.is_open or self._left_open:
            with self._database.begin() as connection:
                connection.execute(_CLOSE, {"system": self._system})
            self._left_open = False
        return super().answered()

    def failed(self) -> bool:
        """No answer, or one of a system that is down. Returns whether this opened the breaker."""
        opened = super().failed()
        if self.is_open:
            span = FIRST_S if opened else self.span_s
            with self._database.begin() as connection:
                connection.execute(_SET, {"system": self._system, "span": span})
        return opened


def systems_away(connection: sa.Connection) -> list[str]:
    """The systems that did not answer when they were asked last, be it long ago."""
    return list(connection.scalars(_AWAY))
