"""HTTP calls, counted: by system, method and status, with how long they took and waited for their turn.

Belongs here: the counts, the shape in which a batch keeps them, who counts for which batch.
Does not belong here: making calls (``http``), keeping the counts (``bridge.batches``).

Only what a batch asks is counted: calls outside of batches (health checks, the doctor) belong to
nobody's account. The batches of one run share two clients, and take turns: what is asked while a
batch has its turn is that batch's, whichever thread asks.

Source: product.md 14 (metrics).
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, NamedTuple
from uuid import UUID

from syncflow_core.histogram import Bounds, Histogram

BOUNDS: Final[Bounds] = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 120.0),
)
"""Seconds; the last one is SYNCFLOW_ANSWER_S unless set. A change needs ``metric_totals`` emptied."""

NO_ANSWER: Final = "none"
"""The status of a call that was not answered to the end."""

_NAMED: Final = frozenset(
    {
        *(200, 201, 207, 400, 401, 403, 404, 405, 408, 409, 413, 422, 424, 425, 429),
        *(500, 501, 502, 503, 504),
    }
)
"""What the contract speaks of; any other status is told by its class, so that there are never many."""


class Asked(NamedTuple):
    """What calls have in common that are counted together."""

    system: str
    method: str
    status: str


class Calls:
    """The calls of one batch."""

    def __init__(self) -> None:
        self.answered: dict[Asked, Histogram] = {}
        """Seconds from sending to the end of the answer."""
        self.waited: dict[str, Histogram] = {}
        """Seconds before sending, by system: for a slot of the limiter, and as ``Retry-After`` asked."""

    def __bool__(self) -> bool:
        return bool(self.answered)

    def note(self, asked: Asked, *, seconds: float, waited: float) -> None:
        """Count one call."""
        self.answered.setdefault(asked, Histogram(BOUNDS)).observe(seconds)
        self.waited.setdefault(asked.system, Histogram(BOUNDS)).observe(waited)

    def add(self, other: "Calls") -> None:
        """Count what *other* has counted."""
        for asked, found in other.answered.items():
            self.answered.setdefault(asked, Histogram(BOUNDS)).add(found)
        for system, found in other.waited.items():
            self.waited.setdefault(system, Histogram(BOUNDS)).add(found)

    def as_json(self) -> dict[str, Any]:
        """By system: ``calls`` by method and status (``POST 200``), and ``waits``."""
        return {
            system: {
                "calls": {
                    f"{asked.method} {asked.status}": found.as_json()
                    for asked, found in sorted(self.answered.items())
                    if asked.system == system
                },
                "waits": waits.as_json(),
            }
            for system, waits in sorted(self.waited.items())
        }

    @classmethod
    def of_json(cls, kept: Mapping[str, Any] | None) -> "Calls":
        """The calls that ``as_json`` gave; none for None."""
        found = cls()
        for system, counted in (kept or {}).items():
            for name, calls in counted["calls"].items():
                method, _, status = name.partition(" ")
                found.answered[Asked(system, method, status)] = Histogram.of_json(BOUNDS, calls)
            found.waited[system] = Histogram.of_json(BOUNDS, counted["waits"])
        return found


class Tally:
    """Counts the calls of a process for the batch whose turn it is; safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._turn: UUID | None = None
        self._calls: dict[UUID, Calls] = {}

    @contextmanager
    def counting(self, batch: UUID) -> Iterator[None]:
        """Count what is asked within the block for this batch; a batch within a batch takes its turn."""
        before, self._turn = self._turn, batch
        try:
            yield
        finally:
            self._turn = before

    def note(
        self, system: str, method: str, status: int | None, *, seconds: float, waited: float
    ) -> None:
        """Count one call, None for a *status* that did not come; nothing outside of batches.

        One short lock for a call, which takes a thousand times as long.
        """
        turn = self._turn
        if turn is None:
            return
        asked = Asked(system, method, _status(status))
        with self._lock:
            self._calls.setdefault(turn, Calls()).note(asked, seconds=seconds, waited=waited)

    def take(self, batch: UUID) -> Calls:
        """What was counted for the batch since this was last asked; it is the asker's to keep."""
        with self._lock:
            return self._calls.pop(batch, None) or Calls()

    def give_back(self, batch: UUID, calls: Calls) -> None:
        """Count for the batch what was taken and could not be kept."""
        with self._lock:
            self._calls.setdefault(batch, Calls()).add(calls)


def _status(status: int | None) -> str:
    if status is None:
        return NO_ANSWER
    return str(status) if status in _NAMED else f"{status // 100}xx"
