"""When a request is tried once more, and how long to wait before.

Belongs here: the one place where requests are repeated: the bound, the delays.
Does not belong here: sending (``http``), what an outage is (``breaker``).

Source: contract.md, "Common to both"; product.md 5: full jitter, ``Retry-After`` honoured.
"""

from collections.abc import Callable
from typing import Final, TypeVar

import tenacity

from syncflow_core.breaker import Breaker
from syncflow_core.errors import DoubtError, PausedError, UnavailableError
from syncflow_core.limiter import Limits

PAUSE_JITTER_S: Final = 0.2
T = TypeVar("T")


class Repeats:
    """One system's policy, for all its requests.

    Args:
        limits: How often, how long.
        breaker: While it is open, waiting is not trying.
        sleep: Waits.
        clock: Monotonic seconds.
        jitter: A number from 0 to 1.
        aborted: Whether nothing is to be tried once more.
    """

    def __init__(
        self,
        limits: Limits,
        breaker: Breaker,
        *,
        sleep: Callable[[float], object],
        clock: Callable[[], float],
        jitter: Callable[[], float],
        aborted: Callable[[], bool] = lambda: False,
    ) -> None:
        self._limits = limits
        self._breaker = breaker
        self._sleep = sleep
        self._clock = clock
        self._jitter = jitter
        self._aborted = aborted

    def run(self, attempt: Callable[[], T]) -> T:
        """What *attempt* returns, tried as often as the limits allow; its last error otherwise."""
        begun = self._clock()
        tries = 0

        def over(_: tenacity.RetryCallState) -> bool:
            nonlocal tries
            tries = 0 if self._breaker.is_open else tries + 1
            spent = self._clock() - begun >= self._limits.total_s
            return spent or tries >= self._limits.attempts or self._aborted()

        return tenacity.Retrying(
            sleep=self._pause,
            stop=over,
            wait=self._wait,
            retry=tenacity.retry_if_exception(self._may_pass),
            reraise=True,
        )(attempt)

    def _pause(self, seconds: float) -> None:
        self._sleep(seconds)

    def _may_pass(self, error: BaseException) -> bool:
        if not isinstance(error, UnavailableError) or isinstance(error, DoubtError):
            return False
        return (error.retry_after_s or 0) <= self._limits.retry_after_cap_s

    def _wait(self, state: tenacity.RetryCallState) -> float:
        """Full jitter over a doubling span; never before the time that the other side named."""
        span = min(
            self._limits.backoff_cap_s, self._limits.backoff_s * 2.0 ** (state.attempt_number - 1)
        )
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, PausedError):
            span = PAUSE_JITTER_S  # the pause is the breaker's; this only parts the threads
        named = error.retry_after_s if isinstance(error, UnavailableError) else None
        wait: float = (named or 0.0) + self._jitter() * span
        return wait
