"""Carry requests to one system and its answers back: token, repeats, time limits, size limit.

Belongs here: everything that is true of both systems' HTTP. This is the one module that knows httpx's
exceptions, and the one place where requests are repeated.
Does not belong here: what is asked and what an answer means (``apismith``, ``schedulehub``).

A read may be repeated after anything that may pass. A write is repeated only where it is certain that
it was not processed: nothing was sent (no connection), or the other side put it off (425, 429) or did
not know the caller (401). In all other cases it is in doubt, and ``DoubtError`` says so.

Source: contract.md, "Common to both"; product.md 5.
"""

import json
import random
import ssl
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Final, Self, TypeVar

import httpx
import tenacity

from syncflow_core.answers import Answer, problem_detail, read_grant, retry_after
from syncflow_core.errors import (
    ConfigError,
    ContractError,
    RejectedError,
    SyncFlowError,
    UnavailableError,
)
from syncflow_core.limiter import Limiter, Limits, process_limiter
from syncflow_core.tokens import Grant, Login, Tokens

BASE_PATH: Final = "/api/v1"
_RETRIABLE = frozenset({408, 425, 429, 500, 502, 503, 504})
_NOT_PROCESSED = frozenset(
    {425, 429}
)  # refused before processing, by their definition (RFC 8470, 6585)
_UNAUTHORIZED = 401
_KEEPALIVE_S = 3.0  # under uvicorn's 5 s: a write must not meet a connection that is being closed
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})

T = TypeVar("T")


class DoubtError(UnavailableError):
    """A write went out and its answer did not come back: it may have been applied."""


class Transport:
    """One system's HTTP: one connection pool and one token for all threads of this process.

    Args:
        system: ``apismith`` or ``schedulehub``; errors carry it, and name its ``SYNCFLOW_`` variables.
        base_url: Without ``/api/v1``.
        login: The account.
        transport: What carries requests instead of the network.
        limiter: What bounds requests at once; the process's own where None.
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
        sleep: Callable[[float], None] = time.sleep,  # noqa: TID251  # the default of a seam
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._system = system
        self._limits = limits or Limits()
        self._login = login
        self._sleep = sleep
        self._clock = clock
        self._now = now
        self._jitter = jitter
        try:
            url = httpx.URL(base_url)
        except httpx.InvalidURL as error:
            raise ConfigError(f"SYNCFLOW_{system.upper()}_URL: {error}", system=system) from error
        self.url = str(url.copy_with(userinfo=b"", query=None, fragment=None)).rstrip("/")
        self._not_before = 0.0
        self._limiter = limiter or process_limiter(self.url, self._limits.connections)
        self._tokens = Tokens(self._log_in, self._refresh, clock=clock)
        timeout = httpx.Timeout(
            self._limits.read_s, connect=self._limits.connect_s, pool=self._limits.deadline_s
        )
        self._client = httpx.Client(
            base_url=self.url + BASE_PATH,
            headers={"Accept": "application/json", "Accept-Encoding": "gzip"},
            timeout=timeout,
            limits=httpx.Limits(
                max_connections=self._limits.connections,
                max_keepalive_connections=self._limits.connections,
                keepalive_expiry=_KEEPALIVE_S,
            ),
            follow_redirects=False,
            trust_env=url.host not in _LOOPBACK,  # a proxy is for what lies outside this machine
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

    def request(
        self,
        method: str,
        path: str,
        *,
        content: bytes | None = None,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        safe: bool = True,
        expect: frozenset[int] = frozenset(),
        deadline_s: float | None = None,
    ) -> Answer:
        """The answer to one request, asked as often as the limits and *safe* allow.

        Args:
            method: GET, POST, PATCH or DELETE.
            path: Below ``/api/v1``, beginning with ``/``.
            content: The JSON body.
            params: The query.
            headers: Besides the usual ones.
            safe: Whether the request may be repeated although it was processed.
            expect: Statuses from 400 on that the caller wants to see as answers.
            deadline_s: For one try, instead of the limits'.

        Raises:
            RejectedError: A 4xx that no repeat can change and the caller does not expect.
            ContractError: A redirect, or an answer beyond the size limit.
            DoubtError: A write may have been applied.
            UnavailableError: Every try failed; nothing was applied.
            ConfigError: The other side's certificate is not trusted.
        """
        return self.call(
            lambda answer: answer,
            method,
            path,
            content=content,
            params=params,
            headers=headers,
            safe=safe,
            expect=expect,
            deadline_s=deadline_s,
        )

    def call(  # noqa: PLR0913  # what a request consists of
        self,
        read: Callable[[Answer], T],
        method: str,
        path: str,
        *,
        content: bytes | None = None,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        safe: bool = True,
        expect: frozenset[int] = frozenset(),
        deadline_s: float | None = None,
    ) -> T:
        """What *read* makes of the answer; its ``UnavailableError`` (a broken body) is one more failed try.

        Arguments and errors as for ``request``. *read* runs outside the limiter's slot.
        """
        request = self._build(method, path, content, params, headers)
        seconds = self._limits.deadline_s if deadline_s is None else deadline_s

        def attempt() -> T:
            return read(self._authorized(request, safe=safe, expect=expect, seconds=seconds))

        return self._repeated(attempt)

    def health(self) -> Answer:
        """The answer of ``GET /health``, asked once and without a token.

        Raises:
            UnavailableError: It does not answer, or not with success.
        """
        request = self._build("GET", "/health", None, None, None)
        return self._checked(self._send(request, safe=True, seconds=self._limits.read_s), safe=True)

    def _repeated(self, attempt: Callable[[], T]) -> T:
        begun = self._clock()

        def over(state: tenacity.RetryCallState) -> bool:
            late = self._clock() - begun >= self._limits.total_s
            return late or state.attempt_number >= self._limits.attempts

        return tenacity.Retrying(
            sleep=self._sleep,
            stop=over,
            wait=self._wait,
            retry=tenacity.retry_if_exception(self._may_pass),
            reraise=True,
        )(attempt)

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
        named = error.retry_after_s if isinstance(error, UnavailableError) else None
        wait: float = (named or 0.0) + self._jitter() * span
        return wait

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
        self, request: httpx.Request, *, safe: bool, expect: frozenset[int], seconds: float
    ) -> Answer:
        """One try, with the token renewed by refresh and then by login when it is refused."""
        token = self._tokens.current()
        for renewals_left in (2, 1, 0):
            request.headers["Authorization"] = f"Bearer {token}"
            answer = self._send(request, safe=safe, seconds=seconds)
            if answer.status != _UNAUTHORIZED:
                self._tokens.accepted(token)
                return self._checked(answer, safe=safe, expect=expect, request=request)
            if renewals_left:
                token = self._tokens.replace(token)
        raise RejectedError(
            f"{self._system} refused {_shown(request)} (401) with a new token: "
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
        if 200 <= answer.status < 300 or answer.status in expect:  # noqa: PLR2004  # HTTP's classes
            return answer
        asked = "GET /health" if request is None else _shown(request)
        said = f"{self._system} answered {answer.status} to {asked}"
        if answer.status < 400:  # noqa: PLR2004  # HTTP's classes
            raise ContractError(f"{said}: redirects are not followed", system=self._system)
        detail = problem_detail(answer.body)
        if answer.status in _RETRIABLE or answer.status >= 500:  # noqa: PLR2004  # HTTP's classes
            kind = UnavailableError if safe or answer.status in _NOT_PROCESSED else DoubtError
            wait = self._put_off(retry_after(answer.headers.get("retry-after"), self._now))
            raise kind(f"{said}{detail}", retry_after_s=wait, system=self._system)
        raise RejectedError(
            f"{self._system} refused {asked} ({answer.status}){detail}",
            status=answer.status,
            system=self._system,
        )

    def _put_off(self, wait: float | None) -> float | None:
        """Keep all threads from asking for *wait* seconds, unless that is absurd; *wait* again."""
        if wait is not None and wait <= self._limits.retry_after_cap_s:
            self._not_before = max(self._not_before, self._clock() + wait)
        return wait

    def _send(self, request: httpx.Request, *, safe: bool, seconds: float) -> Answer:
        """One exchange, within its time and size; httpx's errors become SyncFlow's here."""
        if (wait := self._not_before - self._clock()) > 0:
            self._sleep(wait)
        end = self._clock() + seconds
        asked = _shown(request)
        try:
            with self._limiter.slot():
                response = self._client.send(request, stream=True)
                try:
                    body = self._body(response, end, asked, safe=safe)
                finally:
                    response.close()
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise self._unconnected(error) from error
        except (httpx.TransportError, httpx.DecodingError) as error:
            reason = str(error) or type(error).__name__
            kind = UnavailableError if safe else DoubtError
            raise kind(
                f"{self._system} did not answer {asked} to the end: {reason}", system=self._system
            ) from error
        headers = {name.lower(): value for name, value in response.headers.items()}
        return Answer(response.status_code, headers, body)

    def _body(self, response: httpx.Response, end: float, asked: str, *, safe: bool) -> bytes:
        parts: list[bytes] = []
        size = 0
        for part in response.iter_bytes():
            parts.append(part)
            size += len(part)
            if size > self._limits.body_bytes:
                raise ContractError(
                    f"{self._system} answered {asked} with more than "
                    f"{self._limits.body_bytes:,} bytes, the limit of one answer",
                    system=self._system,
                )
            if self._clock() > end:
                kind = UnavailableError if safe else DoubtError
                raise kind(
                    f"{self._system} did not end its answer to {asked} in time", system=self._system
                )
        return b"".join(parts)

    def _unconnected(self, error: httpx.TransportError) -> SyncFlowError:
        variable = f"SYNCFLOW_{self._system.upper()}_URL"
        if _cause(error, ssl.SSLCertVerificationError):
            return ConfigError(
                f"{self._system} at {self.url} shows a certificate that is not trusted: {error}; "
                f"check {variable} and SSL_CERT_FILE",
                system=self._system,
            )
        reason = "connection refused" if _cause(error, ConnectionRefusedError) else str(error)
        reason = reason or "no connection in time"
        return UnavailableError(
            f"{self._system} at {self.url} does not answer ({reason}): is it running? "
            f"check {variable}",
            system=self._system,
        )

    def _log_in(self) -> Grant:
        content = json.dumps(
            {"username": self._login.username, "password": self._login.password}
        ).encode()
        answer = self._token_call("/auth/login", content)
        if answer.status == _UNAUTHORIZED:
            name = self._system.upper()
            raise RejectedError(
                f"{self._system} at {self.url} refused the login of {self._login.username!r} (401): "
                f"wrong credentials; check SYNCFLOW_{name}_USERNAME and SYNCFLOW_{name}_PASSWORD",
                status=_UNAUTHORIZED,
                system=self._system,
            )
        return self._grant(answer, None)

    def _refresh(self, token: str) -> Grant | None:
        answer = self._token_call("/auth/refresh", json.dumps({"refresh_token": token}).encode())
        return None if answer.status == _UNAUTHORIZED else self._grant(answer, token)

    def _token_call(self, path: str, content: bytes) -> Answer:
        """One call, repeated by whoever needs the token, not here: repeats would multiply."""
        request = self._build("POST", path, content, None, None)
        answer = self._send(request, safe=True, seconds=self._limits.read_s)
        return self._checked(answer, safe=True, expect=frozenset({401}), request=request)

    def _grant(self, answer: Answer, refresh: str | None) -> Grant:
        try:
            return read_grant(answer.body, refresh)
        except ValueError as error:
            raise ContractError(
                f"{self._system} answered a login without a usable token: {error}",
                system=self._system,
            ) from error


def _cause(error: BaseException | None, kind: type[BaseException]) -> bool:
    while error is not None:
        if isinstance(error, kind):
            return True
        error = error.__cause__ or error.__context__
    return False


def _shown(request: httpx.Request) -> str:
    return f"{request.method} {request.url.path}"
