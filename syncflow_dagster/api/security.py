"""Who calls, and what they may: JWT bearer tokens with a role.

Belongs here: issuing and checking tokens, the secret, the roles.
Does not belong here: what a call does.

Source: product.md 9; RFC 7519; RFC 8725 (one fixed algorithm, audience and expiry required).
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final, Literal, get_args

import jwt
from fastapi import Depends, HTTPException, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from syncflow_core.errors import ConfigError
from syncflow_core.settings import Settings

Role = Literal["viewer", "operator", "admin"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)
"""From the least to the most: each may what the ones before it may."""
ALGORITHM: Final = "HS256"
AUDIENCE: Final = "syncflow"
LEAST_SECRET: Final = 32  # bytes: HS256 needs a key as long as its hash (RFC 7518, 3.2)
LEEWAY: Final = timedelta(seconds=10)

bearer = HTTPBearer(
    auto_error=False, description="A token of `syncflow token`, or of your own issuer."
)


@dataclass(frozen=True)
class Caller:
    """Who calls."""

    name: str
    role: Role


def secret_of(settings: Settings, *, loopback: bool) -> str:
    """The secret that signs tokens: SYNCFLOW_API_SECRET, else one of the home's own, on loopback alone.

    Raises:
        ConfigError: There is none, or it is too short.
    """
    if settings.api_secret is not None and settings.api_secret.get_secret_value():
        given = settings.api_secret.get_secret_value()
        if len(given.encode()) < LEAST_SECRET:
            raise ConfigError(f"SYNCFLOW_API_SECRET is shorter than {LEAST_SECRET} bytes")
        return given
    if not loopback:
        raise ConfigError(
            "SYNCFLOW_API_SECRET is not set: without it the API is bound to 127.0.0.1 only"
        )
    place = settings.home_path / "api-secret"
    try:
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with place.open("x", encoding="ascii") as file:
            place.chmod(0o600)
            file.write(secrets.token_urlsafe(LEAST_SECRET))
    except FileExistsError:
        pass  # made before
    return place.read_text(encoding="ascii")


def issue(secret: str, *, name: str, role: Role, life: timedelta, now: datetime) -> str:
    """A token for a person or a service."""
    claims = {"sub": name, "role": role, "aud": AUDIENCE, "iat": now, "exp": now + life}
    return jwt.encode(claims, secret, algorithm=ALGORITHM)


def caller_of(token: str, secret: str) -> Caller:
    """Whose token this is.

    Raises:
        HTTPException: 401: it is none of ours, has expired, or says no role.
    """
    try:
        claims = jwt.decode(
            token,
            secret,
            algorithms=[ALGORITHM],
            audience=AUDIENCE,
            leeway=LEEWAY,
            options={"require": ["exp", "sub", "aud"]},
        )
    except jwt.PyJWTError as error:
        raise _unknown(f"the token is not accepted: {error}") from error
    role = claims.get("role")
    if role not in ROLES:
        raise _unknown("the token is not accepted: it says no role")
    return Caller(str(claims["sub"]), role)


def may(role: Role) -> Callable[..., Caller]:
    """A dependency that lets callers of this role, or of one above it, through."""

    def check(
        request: Request,
        credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
    ) -> Caller:
        if credentials is None:
            raise _unknown("a bearer token is needed (syncflow token issues one)")
        caller = caller_of(credentials.credentials, request.app.state.secret)
        if ROLES.index(caller.role) < ROLES.index(role):
            raise HTTPException(403, f"{caller.name} is {caller.role}; this needs {role}")
        return caller

    return check


def _unknown(words: str) -> HTTPException:
    return HTTPException(401, words, headers={"WWW-Authenticate": "Bearer"})


def utc_now() -> datetime:
    """The time, for tokens."""
    return datetime.now(tz=UTC)
