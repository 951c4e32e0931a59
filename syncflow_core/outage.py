"""What one system's outage means to those who ask it: told once, probed seldom, waited for.

Belongs here: telling the breaker what came of each request, probing, saying so in the log.
Does not belong here: when an outage begins (``breaker``), how long to wait (``repeats``), requests (``http``).

Source: product.md 5; faults.md XP13.
"""

import logging
from collections.abc import Callable

from syncflow_core.breaker import Breaker
from syncflow_core.errors import PausedError

logger = logging.getLogger(__name__)


class Outage:
    """One system's outage, if there is one.

    Args:
        system: Its name.
        url: Its address, for people.
        breaker: What tells an outage.
        is_healthy: Asks the system whether it is there.
        total_s: How long it is waited for, for people.
    """

    def __init__(
        self,
        system: str,
        url: str,
        breaker: Breaker,
        is_healthy: Callable[[], bool],
        total_s: float,
    ) -> None:
        self._system = system
        self._url = url
        self._breaker = breaker
        self._is_healthy = is_healthy
        self._total_s = total_s

    def answered(self) -> None:
        """Note an answer; the one that ends an outage may be a request's that was on its way."""
        if self._breaker.answered():
            self._tell_end()

    def failed(self) -> None:
        """Note a failure; what fails while the system is healthy is the request's own trouble."""
        if not self._breaker.failed():
            return
        if self._is_healthy():
            self._breaker.answered()  # nobody has been told that it was away
            return
        self._tell_begin()

    def refuse_while_away(self) -> None:
        """Return if the system is taken to be there; else, where it is time, ask whether it is again.

        Raises:
            PausedError: It is away; nothing was sent.
        """
        was_open = self._breaker.is_open
        pause = self._breaker.wait_s()
        if was_open and not self._breaker.is_open:
            self._tell_end()  # another run has found it there
        if pause == 0 and self._breaker.is_open:
            if self._is_healthy():
                if self._breaker.answered() and was_open:
                    self._tell_end()
                return
            self._breaker.failed()
            pause = self._breaker.wait_s()
        if pause > 0:
            if not was_open:
                self._tell_begin()  # another run has found it away
            raise PausedError(
                f"{self._system} at {self._url} has stopped answering",
                retry_after_s=pause,
                system=self._system,
            )

    def _tell_begin(self) -> None:
        logger.warning(
            "%s at %s has stopped answering; waiting for it, at most %.0f s",
            self._system,
            self._url,
            self._total_s,
        )

    def _tell_end(self) -> None:
        logger.warning("%s at %s answers again", self._system, self._url)
