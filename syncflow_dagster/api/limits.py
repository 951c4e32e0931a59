"""How much one caller, or one address, may ask in a minute.

Belongs here: counting.
Does not belong here: what is counted (``security``).

Source: product.md 9; the token bucket of RFC 2697 in its simplest form.
"""

import threading
import time
from collections.abc import Callable
from typing import Final

MOST: Final = 10_000
"""Names that are kept; the fullest are forgotten first, for they have asked least."""


class Bucket:
    """So many a minute of each name, saved up to a minute's.

    Args:
        per_minute: How many.
        clock: Monotonic seconds.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._left: dict[str, tuple[float, float]] = {}
        self._lock = threading.Lock()

    def take(self, name: str) -> float:
        """Take one; 0 where there was one, else the seconds until there is."""
        with self._lock:
            left, now = self._now(name)
            if left < 1:
                return self._until(left)
            self._left[name] = (left - 1, now)
            if len(self._left) > MOST:
                self._forget()
            return 0.0

    def wait_s(self, name: str) -> float:
        """Seconds until there is one; 0 where there is."""
        with self._lock:
            left, _ = self._now(name)
            return 0.0 if left >= 1 else self._until(left)

    def _now(self, name: str) -> tuple[float, float]:
        now = self._clock()
        left, since = self._left.get(name, (float(self._per_minute), now))
        return min(self._per_minute, left + (now - since) * self._per_minute / 60), now

    def _until(self, left: float) -> float:
        return (1 - left) * 60 / self._per_minute

    def _forget(self) -> None:
        full = sorted(self._left, key=lambda name: self._now(name)[0], reverse=True)
        for name in full[: MOST // 2]:
            del self._left[name]
