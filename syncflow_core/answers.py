"""What an answer of either system says beside its rows: status, waiting time, problem, token; and none.

Belongs here: reading these few shapes that both systems share.
Does not belong here: asking (``http``), the answers of one system alone (``pages``, ``outcomes``).

Source: contract.md, "Common to both".
"""

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

import jwt
import msgspec

from syncflow_core.errors import (
    ConfigError,
    ContractError,
    DoubtError,
    RejectedError,
    SyncFlowError,
    UnavailableError,
)
from syncflow_core.printable import printable
from syncflow_core.tokens import Grant

_RETRIABLE = frozenset({408, 425, 429, 500, 502, 503, 504})
# refused before processing, by their definition (RFC 8470, 6585)
_NOT_PROCESSED = frozenset({425, 429})
_NAMES = {"apismith": "APISmith", "schedulehub": "ScheduleHub"}
_DETAIL_LIMIT = 300  # characters of the other side's words in a message


@dataclass(frozen=True)
class Answer:
    """What came back: header names in lower case, the body whole and decompressed."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def content_type(self) -> str:
        """The header as it came; empty where there is none."""
        return self.headers.get("content-type", "")


def checked(  # an answer, and all that says what it means
    answer: Answer,
    asked: str,
    system: str,
    now: Callable[[], float],
    *,
    safe: bool,
    expect: frozenset[int] = frozenset(),
) -> Answer:
    """The answer if it is a success or expected, else the error that it stands for.

    Args:
        answer: What came.
        asked: The request, in an error's words.
        system: Whose answer it is.
        now: Seconds since 1970, for ``Retry-After`` dates.
        safe: Whether the request may be repeated although it was processed.
        expect: Statuses from 400 on that the caller wants to see.
    """
    if 200 <= answer.status < 300 or answer.status in expect:  # noqa: PLR2004  # HTTP's classes
        return answer
    said = f"{system} answered {answer.status} to {asked}"
    if answer.status < 400:  # noqa: PLR2004  # HTTP's classes
        raise ContractError(f"{said}: redirects are not followed", system=system)
    detail = problem_detail(answer.body)
    if answer.status in _RETRIABLE or answer.status >= 500:  # noqa: PLR2004  # HTTP's classes
        kind = UnavailableError if safe or answer.status in _NOT_PROCESSED else DoubtError
        wait = retry_after(answer.headers.get("retry-after"), now)
        raise kind(f"{said}{detail}", retry_after_s=wait, system=system)
    raise RejectedError(
        f"{system} refused {asked} ({answer.status}){detail}", status=answer.status, system=system
    )


def retry_after(value: str | None, now: Callable[[], float]) -> float | None:
    """Seconds to wait as ``Retry-After`` says; None where it says nothing that can be read."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text[:12])
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
    aware = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return max(0.0, aware.timestamp() - now())


def read_grant(body: bytes, refresh: str | None) -> Grant:
    """The tokens of a login or a refresh; *refresh* stands in where no new refresh token is given.

    Raises:
        ValueError: There is no access token, or nothing says how long it lives.
    """
    given = msgspec.json.decode(body, type=_Given)
    life = given.expires_in or _life_s(given.access_token)
    if life is None or life <= 0:
        raise ValueError("nothing says how long it lives")
    return Grant(given.access_token, given.refresh_token or refresh, life)


class _Problem(msgspec.Struct):
    detail: msgspec.Raw


class _Fault(msgspec.Struct):
    msg: str
    loc: list[str | int] = []


def problem_detail(body: bytes) -> str:
    """The other side's words, led by a colon; empty where it said nothing in the contract's shape."""
    try:
        raw = msgspec.json.decode(body, type=_Problem).detail
        said = msgspec.json.decode(raw, type=str | list[_Fault])
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return ""
    if not isinstance(said, str):
        said = "; ".join(f"{'.'.join(map(str, fault.loc))}: {fault.msg}" for fault in said)
    return f": {printable(' '.join(said.split()))[:_DETAIL_LIMIT]}" if said.strip() else ""


class _Given(msgspec.Struct):
    access_token: str
    refresh_token: str | None = None
    expires_in: float | None = None


def _life_s(token: str) -> float | None:
    """The life that the token itself names, by its issuer's clock alone."""
    try:
        claims = jwt.decode(token, options={"verify_signature": False})
    except jwt.InvalidTokenError:
        return None
    begin, end = claims.get("iat"), claims.get("exp")
    if isinstance(begin, int | float) and isinstance(end, int | float):
        return float(end - begin)
    return None


def unconnected(error: Exception, system: str, url: str) -> SyncFlowError:
    """What it means that no connection came about: a certificate that is not trusted, or nobody there."""
    variable = f"SYNCFLOW_{system.upper()}_URL"
    if is_caused_by(error, ssl.SSLCertVerificationError):
        return ConfigError(
            f"{system} at {url} shows a certificate that is not trusted: {error}; "
            f"check {variable} and SSL_CERT_FILE",
            system=system,
        )
    reason = "connection refused" if is_caused_by(error, ConnectionRefusedError) else str(error)
    reason = reason or "no connection in time"
    return UnavailableError(
        f"{system} at {url} does not answer ({reason}): is it running? check {variable}",
        system=system,
    )


def is_it(system: str) -> str:
    """The question to ask oneself where something else seems to answer at a system's address."""
    return f"is this {_NAMES[system]}? check SYNCFLOW_{system.upper()}_URL"


def is_caused_by(error: BaseException | None, kind: type[BaseException]) -> bool:
    """Whether the error, or what it came of, is of this kind."""
    while error is not None:
        if isinstance(error, kind):
            return True
        error = error.__cause__ or error.__context__
    return False
