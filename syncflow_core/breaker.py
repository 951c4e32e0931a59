"""The circuit breaker: when a system stops answering, ask it seldom until it answers again.

Belongs here: telling an outage from a single failure, and when to probe.
Does not belong here: what counts as an answer, waiting, giving up (``http``).

Closed, every request passes. After some failures in a row it opens: requests wait, and one at a time
asks whether the system is there again, ever more seldom. One answer closes it. A system that has never
answered is no outage but a wrong address, and stays closed: whoever asks is told at once.

Source: product.md 5; faults.md XP13; M. Nygard, Release It! (2007), "Circuit Breaker".
"""

import threading
import time
from collections.abc import Callable
from typing import Final

FAILURES: Final = 4
"""Failures in a row that may be an outage: fewer than one request makes before it gives up."""
FIRST_S: Final = 1.0
CAP_S: Final = 15.0


class Breaker:
    """One system's breaker, for all threads that ask it.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._answered = False
        self._failures = 0
        self._open = False
        self._span = FIRST_S
        self._next = 0.0

    @property
    def is_open(self) -> bool:
        """Whether the system is taken to be away."""
        return self._open

    @property
    def span_s(self) -> float:
        """Seconds from one probe to the next, as it stands."""
        return self._span

    def opened_elsewhere(self) -> None:
        """Another run has found that the system is away."""
        with self._lock:
            self._open = True

    def wait_s(self) -> float:
        """Seconds to wait before asking here again; 0: go. Who goes while it is open is the probe."""
        with self._lock:
            if not self._open:
                return 0.0
            now = self._clock()
            if now < self._next:
                return self._next - now
            # nobody else until the probe has its answer, or this is over
            self._next = now + self._span
            return 0.0

    def answered(self) -> bool:
        """An answer came: whatever it said, the system is there. Returns whether this closed the breaker."""
        with self._lock:
            closed = self._open
            self._answered = True
            self._failures = 0
            self._open = False
            self._span = FIRST_S
            return closed

    def failed(self) -> bool:
        """No answer, or one of a system that is down. Returns whether this opened the breaker."""
        with self._lock:
            if not self._answered and not self._open:
                return False
            self._failures += 1
            if self._open:
                self._span = min(CAP_S, self._span * 2)
                self._next = self._clock() + self._span
                return False
            if self._failures < FAILURES:
                return False
            self._open = True
            self._next = self._clock() + self._span
            return True
