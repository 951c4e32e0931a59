"""Who calls, and what they may: JWT bearer tokens with a role.

Belongs here: issuing and checking tokens, the secret, the roles.
Does not belong here: what a call does.

Source: product.md 9; RFC 7519; RFC 8725 (one fixed algorithm, audience and expiry required).
"""

import math
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Final, get_args

import jwt
from fastapi import Depends, HTTPException, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from syncflow_core.errors import ConfigError, UnavailableError
from syncflow_core.privacy import Role
from syncflow_core.private import make_folder
from syncflow_core.settings import Settings

ROLES: Final[tuple[Role, ...]] = get_args(Role)
"""From the least to the most: each may what the ones before it may."""
ALGORITHM: Final = "HS256"
LEAST_SECRET: Final = 32  # bytes: HS256 needs a key as long as its hash (RFC 7518, 3.2)
LEEWAY: Final = timedelta(seconds=10)
PUBLIC: Final = frozenset({"RS256", "ES256"})
"""Algorithms of an issuer's public keys."""
KEYS_S: Final = 5.0
KEPT_S: Final = 300.0
"""How long an issuer's keys are kept; an unknown key has them fetched at once."""
SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})

bearer = HTTPBearer(
    auto_error=False, description="A token of `syncflow token`, or of your own issuer."
)


@dataclass(frozen=True)
class Caller:
    """Who calls."""

    name: str
    role: Role


class Verifier:
    """Tells whose a token is: of SyncFlow's own secret, or of an issuer whose public keys are served.

    Each kind of key has algorithms of its own, so that a public key is never taken for a secret.

    Args:
        settings: Issuer, audience, and which claim says the role.
        secret: Signs SyncFlow's own tokens; None takes none of those.
    """

    def __init__(self, settings: Settings, secret: str | None) -> None:
        self._settings = settings
        self._secret = secret
        self._keys = (
            None
            if settings.api_jwks_url is None
            else jwt.PyJWKClient(settings.api_jwks_url, timeout=KEYS_S, lifespan=KEPT_S)
        )

    def caller_of(self, token: str) -> Caller:
        """Whose token this is.

        Raises:
            HTTPException: 401: it is none of ours, has expired, or says no role.
            UnavailableError: The issuer's keys cannot be had.
        """
        try:
            claims = self._claims(token)
        except jwt.PyJWKClientConnectionError as error:
            raise UnavailableError("the token issuer's keys cannot be fetched") from error
        except (jwt.PyJWTError, ValueError) as error:
            raise unknown(f"the token is not accepted: {error}") from error
        role = claims.get(self._settings.api_role_claim)
        if role not in ROLES:
            raise unknown("the token is not accepted: it says no role")
        return Caller(str(claims["sub"]), role)

    def _claims(self, token: str) -> dict[str, Any]:
        algorithm = jwt.get_unverified_header(token).get("alg")
        needed = {"require": ["exp", "sub", "aud"]}
        audience = self._settings.api_audience
        if algorithm == ALGORITHM and self._secret is not None:
            return jwt.decode(
                token,
                self._secret,
                algorithms=[ALGORITHM],
                audience=audience,
                leeway=LEEWAY,
                options=needed,  # type: ignore[arg-type]  # a TypedDict of PyJWT's own
            )
        if algorithm in PUBLIC and self._keys is not None:
            return jwt.decode(
                token,
                self._keys.get_signing_key_from_jwt(token),
                algorithms=[str(algorithm)],
                audience=audience,
                issuer=self._settings.api_issuer or None,
                leeway=LEEWAY,
                options=needed,  # type: ignore[arg-type]  # as above
            )
        raise jwt.InvalidAlgorithmError(f"its algorithm {str(algorithm)[:20]!r} is not taken here")


def verifier_of(settings: Settings, *, loopback: bool) -> Verifier:
    """Who may call: an issuer's keys alone where there is no secret and the API is not on loopback.

    Raises:
        ConfigError: Nobody could, or the secret is too short.
    """
    given = settings.api_secret is not None and settings.api_secret.get_secret_value()
    if settings.api_jwks_url is not None and not given and not loopback:
        return Verifier(settings, None)
    return Verifier(settings, secret_of(settings, loopback=loopback))


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
        make_folder(place.parent)
        with place.open("x", encoding="ascii") as file:
            place.chmod(0o600)
            file.write(secrets.token_urlsafe(LEAST_SECRET))
    except FileExistsError:
        pass  # made before
    return place.read_text(encoding="ascii")


def issue(
    settings: Settings, secret: str, *, name: str, role: Role, life: timedelta, now: datetime
) -> str:
    """A token for a person or a service."""
    claims = {
        "sub": name,
        settings.api_role_claim: role,
        "aud": settings.api_audience,
        "iat": now,
        "exp": now + life,
    }
    return jwt.encode(claims, secret, algorithm=ALGORITHM)


def may(role: Role) -> Callable[..., Caller]:
    """A dependency that lets callers of this role, or of one above it, through, and not too many at once."""

    def check(
        request: Request,
        credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
    ) -> Caller:
        state, address = request.app.state, request.client.host if request.client else ""
        if credentials is None:
            raise unknown("a bearer token is needed (syncflow token issues one)")
        if wait := state.refusals.wait_s(address):
            raise too_many("wrong tokens from this address", wait)
        try:
            caller: Caller = state.verifier.caller_of(credentials.credentials)
        except HTTPException:
            state.refusals.take(address)
            raise
        if ROLES.index(caller.role) < ROLES.index(role):
            raise HTTPException(403, f"{caller.name} is {caller.role}; this needs {role}")
        if request.method not in SAFE and (wait := state.writes.take(caller.name)):
            raise too_many(f"changes by {caller.name}", wait)
        return caller

    return check


def unknown(words: str) -> HTTPException:
    """401."""
    return HTTPException(401, words, headers={"WWW-Authenticate": "Bearer"})


def too_many(what: str, wait_s: float) -> HTTPException:
    """429."""
    return HTTPException(
        429, f"too many {what}", headers={"Retry-After": str(max(1, math.ceil(wait_s)))}
    )
