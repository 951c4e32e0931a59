"""Carry requests to one system and its answers back: token, repeats, time limits, size limit.

Belongs here: everything that is true of both systems' HTTP.
Does not belong here: one exchange (``exchange``), when to try again (``repeats``), outages (``outage``),
getting a token (``sign_in``), what is asked and what an answer means (``apismith``, ``schedulehub``).

A read may be repeated after anything that may pass. A write is repeated only where it is certain that
it was not processed: nothing was sent (no connection), or the other side put it off (425, 429) or did
not know the caller (401). In all other cases it is in doubt, and ``DoubtError`` says so.

Source: contract.md, "Common to both"; product.md 5.
"""

import random
import ssl
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Final, Self, TypedDict, TypeVar, Unpack

import httpx

from syncflow_core.answers import Answer, checked
from syncflow_core.breaker import Breaker
from syncflow_core.calls import Tally
from syncflow_core.errors import ConfigError, RejectedError, UnavailableError
from syncflow_core.exchange import Exchange, shown
from syncflow_core.limiter import Limiter, Limits, process_limiter
from syncflow_core.loopback import is_loopback
from syncflow_core.outage import Outage
from syncflow_core.repeats import Repeats
from syncflow_core.sign_in import EXPECTED, SignIn
from syncflow_core.tokens import Login, Tokens

BASE_PATH: Final = "/api/v1"
_DOWN = frozenset({500, 502, 503, 504})
_OVERLOADED = frozenset({429, 503})
_UNAUTHORIZED = 401
_KEEPALIVE_S = 3.0  # under uvicorn's 5 s: a write must not meet a connection that is being closed

T = TypeVar("T")


def _nothing() -> None:
    """What is done before a request that needs nothing."""


class Options(TypedDict, total=False):
    """What a request consists of besides its method and path."""

    content: bytes | None
    """The JSON body."""
    params: Mapping[str, str] | None
    """The query."""
    headers: Mapping[str, str] | None
    """Besides the usual ones."""
    safe: bool
    """Whether the request may be repeated although it was processed; True unless said."""
    expect: frozenset[int]
    """Statuses from 400 on that the caller wants to see as answers."""
    deadline_s: float | None
    """For one try, instead of the limits'."""
    before: Callable[[], None] | None
    """Called right before each try is sent; what it raises ends the request."""


class Transport:
    """One system's HTTP: one connection pool and one token for all threads of this process.

    Args:
        system: ``apismith`` or ``schedulehub``; errors carry it, and name its ``SYNCFLOW_`` variables.
        base_url: Without ``/api/v1``.
        login: The account.
        transport: What carries requests instead of the network.
        limiter: What bounds requests at once; the process's own where None.
        breaker: What tells an outage; one of its own where None.
        tally: What counts the calls; nothing does where None.
        sleep: Waits; in a way that ``abort`` ends where None.
        now: Seconds since 1970, for ``Retry-After`` dates alone.
        jitter: A number from 0 to 1.
    """

    def __init__(  # noqa: PLR0913  # each is a seam that a test or a shared limiter needs
        self,
        system: str,
        base_url: str,
        login: Login,
        *,
        limits: Limits | None = None,
        transport: httpx.BaseTransport | None = None,
        limiter: Limiter | None = None,
        breaker: Breaker | None = None,
        tally: Tally | None = None,
        sleep: Callable[[float], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._system = system
        self._limits = limits or Limits()
        self._aborted = threading.Event()
        self._sleep = sleep or self._aborted.wait
        self._clock = clock
        self._now = now
        try:
            url = httpx.URL(base_url)
        except httpx.InvalidURL as error:
            raise ConfigError(f"SYNCFLOW_{system.upper()}_URL: {error}", system=system) from error
        self.url = str(url.copy_with(userinfo=b"", query=None, fragment=None)).rstrip("/")
        self._not_before = 0.0
        self._limiter = limiter or process_limiter(self.url, self._limits.connections)
        self._tally = tally or Tally()
        breaker = breaker or Breaker(clock=clock)
        self._outage = Outage(system, self.url, breaker, self._is_healthy, self._limits.total_s)
        self._repeats = Repeats(
            self._limits,
            breaker,
            sleep=self._sleep,
            clock=clock,
            jitter=jitter,
            aborted=self._aborted.is_set,
        )
        self._exchange = Exchange(system, self.url, self._limits.body_bytes, clock)
        account = SignIn(system, self.url, login, self._sign_in)
        self._tokens = Tokens(account.log_in, account.refresh, clock=clock)
        timeout = httpx.Timeout(
            self._limits.read_s, connect=self._limits.connect_s, pool=self._limits.deadline_s
        )
        here = is_loopback(url.host)
        self._client = httpx.Client(
            base_url=self.url + BASE_PATH,
            headers={
                "Accept": "application/json",
                # what does not leave this machine costs more to compress than to send
                "Accept-Encoding": "identity" if here else "gzip",
            },
            timeout=timeout,
            limits=httpx.Limits(
                max_connections=self._limits.connections,
                max_keepalive_connections=self._limits.connections,
                keepalive_expiry=_KEEPALIVE_S,
            ),
            follow_redirects=False,
            trust_env=not here,  # a proxy is for what lies outside this machine
            verify=_trust(url),
            transport=transport,
        )

    def __repr__(self) -> str:
        return f"Transport({self._system} at {self.url})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the connections back; idempotent."""
        self._client.close()

    def abort(self) -> None:
        """End what all threads wait for, and ask nothing more: the process is told to end.

        A write that is under way is in doubt then.
        """
        self._aborted.set()
        self._exchange.cut()

    def request(self, method: str, path: str, **options: Unpack[Options]) -> Answer:
        """The answer to one request, asked as often as the limits and *safe* allow; see ``call``."""
        return self.call(lambda answer: answer, method, path, **options)

    def call(
        self,
        read: Callable[[Answer], T],
        method: str,
        path: str,
        **options: Unpack[Options],
    ) -> T:
        """What *read* makes of the answer; its ``UnavailableError`` (a broken body) is one more failed try.

        Args:
            read: Runs outside the limiter's slot.
            method: GET, POST, PATCH or DELETE.
            path: Below ``/api/v1``, beginning with ``/``.
            options: The rest of the request, and how it may be repeated.

        Raises:
            RejectedError: A 4xx that no repeat can change and the caller does not expect.
            ContractError: A redirect, or an answer beyond the size limit.
            DoubtError: A write may have been applied.
            UnavailableError: Every try failed; nothing was applied.
            ConfigError: The other side's certificate is not trusted.
        """
        request = self._build(
            method,
            path,
            options.get("content"),
            options.get("params"),
            options.get("headers"),
        )
        safe, expect = options.get("safe", True), options.get("expect", frozenset())
        seconds = options.get("deadline_s") or self._limits.deadline_s
        before = options.get("before") or _nothing

        def send() -> Answer:
            return self._send(request, safe=safe, seconds=seconds, before=before)

        def attempt() -> T:
            return read(self._authorized(request, send, safe=safe, expect=expect))

        return self._repeats.run(attempt)

    def health(self) -> Answer:
        """The answer of ``GET /health``, asked once and without a token.

        Raises:
            UnavailableError: It does not answer, or not with success.
        """
        request = self._build("GET", "/health", None, None, None)
        return self._checked(self._send(request, safe=True, seconds=self._limits.read_s), safe=True)

    def log_in(self) -> None:
        """Return if the account is accepted; nothing is asked where a token is held.

        Raises:
            RejectedError: The system refuses it.
            ContractError: It gave no usable token.
            UnavailableError: It does not answer.
        """
        self._tokens.current()

    def _build(
        self,
        method: str,
        path: str,
        content: bytes | None,
        params: Mapping[str, str] | None,
        headers: Mapping[str, str] | None,
    ) -> httpx.Request:
        sent = {"X-Request-ID": str(uuid.uuid4()), **(headers or {})}
        if content is not None:
            sent["Content-Type"] = "application/json"
        return self._client.build_request(
            method, path, content=content, params=params or None, headers=sent
        )

    def _authorized(
        self,
        request: httpx.Request,
        send: Callable[[], Answer],
        *,
        safe: bool,
        expect: frozenset[int],
    ) -> Answer:
        """One try, with the token renewed by refresh and then by login when it is refused."""
        token = self._tokens.current()
        for renewals_left in (2, 1, 0):
            request.headers["Authorization"] = f"Bearer {token}"
            answer = send()
            if answer.status != _UNAUTHORIZED:
                self._tokens.accepted(token)
                return self._checked(answer, safe=safe, expect=expect, request=request)
            if renewals_left:
                token = self._tokens.replace(token)
        raise RejectedError(
            f"{self._system} refused {shown(request)} (401) with a new token: "
            f"the account may not use it",
            status=_UNAUTHORIZED,
            system=self._system,
        )

    def _checked(
        self,
        answer: Answer,
        *,
        safe: bool,
        expect: frozenset[int] = frozenset(),
        request: httpx.Request | None = None,
    ) -> Answer:
        """The answer if it is a success or expected, else the error that it stands for."""
        asked = "GET /health" if request is None else shown(request)
        try:
            return checked(answer, asked, self._system, self._now, safe=safe, expect=expect)
        except UnavailableError as error:
            self._put_off(error.retry_after_s)
            raise

    def _put_off(self, wait: float | None) -> None:
        """Keep all threads from asking for *wait* seconds, unless that is absurd."""
        if wait is not None and wait <= self._limits.retry_after_cap_s:
            self._not_before = max(self._not_before, self._clock() + wait)

    def _send(
        self,
        request: httpx.Request,
        *,
        safe: bool,
        seconds: float,
        before: Callable[[], None] = _nothing,
    ) -> Answer:
        """One exchange, in the system's turn: after a pause it asked for, when there is a slot."""
        if self._aborted.is_set():
            raise UnavailableError(
                f"{self._system} is asked nothing more: the run was told to end",
                system=self._system,
            )
        if (wait := max(0.0, self._not_before - self._clock())) > 0:
            self._sleep(wait)
        self._outage.refuse_while_away()
        ready = self._clock()
        with self._limiter.slot():
            wait += self._clock() - ready
            before()
            try:
                answer = self._counted(request, seconds, wait, safe=safe)
            except UnavailableError as error:
                self._outage.failed()
                if isinstance(error.__cause__, httpx.TimeoutException):
                    self._limiter.told(overloaded=True)
                raise
        if answer.status in _DOWN:
            self._outage.failed()
        else:
            self._outage.answered()
        self._limiter.told(overloaded=answer.status in _OVERLOADED)
        return answer

    def _counted(
        self, request: httpx.Request, seconds: float, waited: float, *, safe: bool
    ) -> Answer:
        """One exchange, counted however it ends."""
        begun, status = self._clock(), None
        try:
            answer = self._exchange(self._client, request, begun + seconds, safe=safe)
            status = answer.status
        finally:
            took = self._clock() - begun
            self._tally.note(self._system, request.method, status, seconds=took, waited=waited)
        return answer

    def _is_healthy(self) -> bool:
        try:
            answer = self._client.get("/health", timeout=self._limits.connect_s)
        except httpx.HTTPError:
            return False
        return answer.status_code not in _DOWN

    def _sign_in(self, path: str, content: bytes) -> Answer:
        """One call, repeated by whoever needs the token, not here: repeats would multiply."""
        request = self._build("POST", path, content, None, None)
        answer = self._send(request, safe=True, seconds=self._limits.read_s)
        return self._checked(answer, safe=True, expect=EXPECTED, request=request)


def _trust(url: httpx.URL) -> ssl.SSLContext:
    """Whose certificates are believed: those of this machine, or of ``SSL_CERT_FILE``.

    They take tens of milliseconds to read, and plain HTTP has none.
    """
    if url.scheme == "https":
        return httpx.create_ssl_context()
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
