"""Hold one system's access token for all threads, and renew it once for all of them.

Belongs here: when a token is renewed and by whom, and which renewal comes after which.
Does not belong here: the calls that get one (``http``).

Source: contract.md, "Common to both"; product.md 5.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

RENEW_AT = 0.8  # share of a token's life, product.md 5


@dataclass(frozen=True)
class Login:
    """Who SyncFlow is to a system. The password is not shown."""

    username: str
    password: str

    def __repr__(self) -> str:
        return f"Login(username={self.username!r})"


@dataclass(frozen=True)
class Grant:
    """What a login or a refresh gave. Its tokens are not shown."""

    access: str = field(repr=False)
    refresh: str | None = field(repr=False)
    life_s: float


class Tokens:
    """The current access token of one system; safe to use from many threads.

    Args:
        login: Gets a grant by user name and password; raises what the caller of ``current`` shall see.
        refresh: Gets a grant by refresh token; None where the other side says it is spent.
        clock: Seconds of a clock that never goes back.
    """

    def __init__(
        self,
        login: Callable[[], Grant],
        refresh: Callable[[str], Grant | None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._login = login
        self._refresh = refresh
        self._clock = clock
        self._lock = threading.Lock()
        self._grant: Grant | None = None
        self._since = 0.0
        self._refreshed = False

    def current(self) -> str:
        """A token to send: the held one, renewed first once 80 % of its life are over.

        While one thread renews, the others go on with the old token as long as it is valid.
        """
        grant, age = self._grant, self._clock() - self._since
        if grant is not None and age < RENEW_AT * grant.life_s:
            return grant.access
        if grant is None or age >= grant.life_s:
            with self._lock:
                return self._renewed(grant, by_refresh=True)
        if not self._lock.acquire(blocking=False):
            return grant.access
        try:
            return self._renewed(grant, by_refresh=True)
        finally:
            self._lock.release()

    def replace(self, refused: str) -> str:
        """A token instead of *refused*, which the other side did not accept.

        The first time by refresh; if what came of it is refused too, by login. Threads that were
        refused with the same token get the one new token.
        """
        with self._lock:
            grant = self._grant
            if grant is not None and grant.access != refused:
                return grant.access
            return self._renewed(grant, by_refresh=not self._refreshed, refused=True)

    def _renewed(self, before: Grant | None, *, by_refresh: bool, refused: bool = False) -> str:
        """Renew, unless another thread did while this one waited for the lock."""
        if self._grant is not None and self._grant is not before:
            return self._grant.access
        grant = None
        if by_refresh and before is not None and before.refresh is not None:
            grant = self._refresh(before.refresh)
        self._refreshed = refused and grant is not None
        self._grant = grant or self._login()
        self._since = self._clock()
        return self._grant.access

    def accepted(self, token: str) -> None:
        """Note that *token* was accepted: the next refusal may be answered by a refresh again."""
        grant = self._grant
        if grant is not None and grant.access == token:
            self._refreshed = False
