"""What both servers share: tokens, login, request ids, and the control calls of the sandbox.

Belongs here: contract.md, "Common to both".
Does not belong here: what either server holds (``apismith``, ``schedulehub``), faults (``faults``).
"""

import hashlib
import hmac
import resource
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Annotated, Any

import jwt
import psycopg
from fastapi import APIRouter, FastAPI, HTTPException
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, ConfigDict, Field
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from syncflow_core.sandbox.faults import Faults, control_router

API = "/api/v1"
OPEN_PATHS = frozenset({f"{API}/health", f"{API}/auth/login", f"{API}/auth/refresh"})
TOKEN_SECONDS = 1_800
REFRESH_LIVES = 8
"""A refresh token lives this many times as long as an access token."""


class Login(BaseModel):
    """Name and password."""

    username: str = Field(examples=["syncflow"])
    password: str = Field(examples=["sandbox"])


class Refresh(BaseModel):
    """The refresh token of a login."""

    refresh_token: str


class Switches(BaseModel):
    """What a real installation can lack or do otherwise, switched by tests; None leaves a switch alone."""

    model_config = ConfigDict(extra="forbid")

    token_seconds: Annotated[float, Field(gt=0)] | None = None
    refresh_uses: Annotated[int, Field(ge=0)] | None = None
    """How often one refresh token may be used; unlimited at first."""
    batch_missing: int | None = Field(default=None, examples=[404, 405, 501])
    """Status of every batch call of the hub; 0 brings them back."""
    reject: list[dict[str, Any]] | None = None
    """Records with ``{"collection", "field", "value"}`` are refused with 422; ``[]`` refuses none."""
    ndjson: bool | None = None
    arrow: bool | None = None
    """Whether APISmith knows NDJSON and Arrow."""


@dataclass
class Tokens:
    """Issues and checks JWTs (HS256). The secret follows from the password, so tokens outlive a restart."""

    username: str
    password: str
    lifetime_s: float = TOKEN_SECONDS
    refresh_uses: int | None = None
    clock: Callable[[], float] = time.time
    _not_before: dict[str, float] = field(default_factory=dict)
    _uses: dict[str, int] = field(default_factory=dict)

    @property
    def secret(self) -> str:
        """The signing key."""
        return hashlib.sha256(f"sandbox/{self.username}/{self.password}".encode()).hexdigest()

    def login(self, username: str, password: str) -> dict[str, object] | None:
        """A pair of tokens; None for wrong credentials."""
        same = hmac.compare_digest(
            f"{username}\n{password}".encode(), f"{self.username}\n{self.password}".encode()
        )
        if not same:
            return None
        refresh = self._issue("refresh", self.lifetime_s * REFRESH_LIVES)
        return {**self._access(), "refresh_token": refresh}

    def refresh(self, token: str) -> dict[str, object] | None:
        """A new access token; None when the refresh token is invalid, expired or spent."""
        claims = self._claims(token, "refresh")
        if claims is None:
            return None
        identity = str(claims["jti"])
        self._uses[identity] = self._uses.get(identity, 0) + 1
        if self.refresh_uses is not None and self._uses[identity] > self.refresh_uses:
            return None
        return self._access()

    def is_valid(self, authorization: str) -> bool:
        """Whether the header carries an access token that holds now."""
        scheme, _, token = authorization.partition(" ")
        return scheme.lower() == "bearer" and self._claims(token, "access") is not None

    def expire(self, *, refresh: bool) -> None:
        """No access token given out so far holds any more; with ``refresh``, no refresh token either."""
        self._not_before["access"] = self.clock()
        if refresh:
            self._not_before["refresh"] = self.clock()

    def _access(self) -> dict[str, object]:
        return {
            "access_token": self._issue("access", self.lifetime_s),
            "token_type": "bearer",
            "expires_in": int(self.lifetime_s) if self.lifetime_s >= 1 else self.lifetime_s,
        }

    def _issue(self, kind: str, lifetime_s: float) -> str:
        now = self.clock()
        claims = {
            "sub": self.username,
            "kind": kind,
            "jti": uuid.uuid4().hex,
            "iat": now,
            "exp": now + lifetime_s,
        }
        return jwt.encode(claims, self.secret, algorithm="HS256")

    def _claims(self, token: str, kind: str) -> dict[str, Any] | None:
        try:
            claims = jwt.decode(
                token,
                self.secret,
                algorithms=["HS256"],
                options={"verify_exp": False, "verify_iat": False},
            )
        except jwt.PyJWTError:
            return None
        holds = claims["kind"] == kind and claims["exp"] > self.clock()
        return claims if holds and claims["iat"] > self._not_before.get(kind, 0) else None


class Gate:
    """ASGI middleware: echoes ``X-Request-ID`` and lets nothing under ``/api/v1`` pass without a token."""

    def __init__(self, app: ASGIApp, tokens: Tokens) -> None:
        self.app = app
        self.tokens = tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        request_id = headers.get("x-request-id")

        async def echo(message: Message) -> None:
            if request_id is not None and message["type"] == "http.response.start":
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        path = scope["path"]
        guarded = path.startswith(f"{API}/") and path not in OPEN_PATHS
        if guarded and not self.tokens.is_valid(headers.get("authorization", "")):
            response = JSONResponse(
                {"detail": "token missing, invalid or expired"},
                401,
                headers={"WWW-Authenticate": "Bearer"},
            )
            await response(scope, receive, echo)
            return
        await self.app(scope, receive, echo)


def make_app(  # each is one part that the two servers do not share
    title: str,
    tokens: Tokens,
    routers: Sequence[APIRouter],
    *,
    faults: Faults,
    switch: Callable[[Switches], None],
    stats: Callable[[], dict[str, object]],
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]],
) -> ASGIApp:
    """The whole server: its routers, login and control calls, behind gate and faults."""
    app = FastAPI(title=title, version="1", lifespan=lifespan, docs_url="/docs", redoc_url=None)
    app.include_router(_common_router(tokens))
    app.include_router(control_router(faults))
    app.include_router(_sandbox_router(tokens, switch, stats))
    for router in routers:
        app.include_router(router)
    app.add_exception_handler(psycopg.OperationalError, _database_away)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]  # FastAPI's documented way
    compressed = GZipMiddleware(app, minimum_size=1024, compresslevel=1)
    return faults.middleware(Gate(compressed, tokens), tokens.expire)


def _database_away(_request: Request, error: Exception) -> Response:
    """Nothing was committed: the database is away, or it chose this call in a deadlock."""
    return JSONResponse({"detail": f"database: {type(error).__name__}"}, 503)


def _openapi(app: FastAPI) -> dict[str, Any]:
    """The description, with the bearer token that the gate asks for."""
    if app.openapi_schema is None:
        schema = get_openapi(title=app.title, version=app.version, routes=app.routes)
        parts = schema.setdefault("components", {})
        parts["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
        }
        for path, calls in schema["paths"].items():
            if path.startswith(API) and path not in OPEN_PATHS:
                for call in calls.values():
                    call["security"] = [{"bearer": []}]
        app.openapi_schema = schema
    return app.openapi_schema


def _common_router(tokens: Tokens) -> APIRouter:
    router = APIRouter(prefix=API, tags=["common"])

    @router.get("/health")
    async def health() -> dict[str, str]:
        """Whether the server answers; no token needed."""
        return {"status": "healthy"}

    @router.post("/auth/login", responses={401: {"description": "Wrong credentials"}})
    async def login(body: Login) -> dict[str, object]:
        """An access and a refresh token."""
        return _or_401(tokens.login(body.username, body.password), "wrong credentials")

    @router.post("/auth/refresh", responses={401: {"description": "The refresh token is spent"}})
    async def refresh(body: Refresh) -> dict[str, object]:
        """A new access token."""
        return _or_401(tokens.refresh(body.refresh_token), "refresh token is spent")

    return router


def _or_401(answer: dict[str, object] | None, reason: str) -> dict[str, object]:
    if answer is None:
        raise HTTPException(401, reason)
    return answer


def _sandbox_router(
    tokens: Tokens, switch: Callable[[Switches], None], stats: Callable[[], dict[str, object]]
) -> APIRouter:
    router = APIRouter(prefix="/sandbox", tags=["sandbox"])

    @router.post("/switches")
    def set_switches(body: Switches) -> dict[str, object]:
        """Set the switches that are given; answers them."""
        if body.token_seconds is not None:
            tokens.lifetime_s = body.token_seconds
        if "refresh_uses" in body.model_fields_set:
            tokens.refresh_uses = body.refresh_uses
        switch(body)
        return body.model_dump(exclude_unset=True)

    @router.get("/stats")
    def read_stats() -> dict[str, object]:
        """Counts, and the CPU seconds of this process."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        return {
            **stats(),
            "cpu_seconds": used.ru_utime + used.ru_stime,
            "max_rss_kib": used.ru_maxrss,
        }

    return router
