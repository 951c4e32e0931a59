"""The application: routers, security headers, limits.

Belongs here: assembling.
Does not belong here: calls (a module for each group).
"""

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Final
from urllib.parse import unquote

from fastapi import Depends, FastAPI, Request, Response

from syncflow_core.bridge.database import Database
from syncflow_core.settings import Settings
from syncflow_dagster.api import (
    entities,
    health,
    mappings,
    metrics,
    plans,
    records,
    schedules,
    sync,
    undelivered,
)
from syncflow_dagster.api.gateway import DagsterGateway
from syncflow_dagster.api.limits import Bucket
from syncflow_dagster.api.problems import add_handlers, problem
from syncflow_dagster.api.requests import SharedSource, refuse_strange
from syncflow_dagster.api.security import Verifier

PREFIX: Final = "/api/v1"
MOST_BYTES: Final = 1_000_000
"""Of a request's body."""
MOST_DEEP: Final = 50
"""Brackets within brackets of a request's body."""
HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def create_app(
    settings: Settings, database: Database, gateway: DagsterGateway, verifier: Verifier
) -> FastAPI:
    """The API over a database and a Dagster webserver; opening and closing both is the caller's."""

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        yield
        app.state.source.close()

    app = FastAPI(
        title="SyncFlow",
        lifespan=life,
        version=version("syncflow"),
        description="Keeps ScheduleHub equal to an Oracle ERP. Runs that are started here are Dagster's.",
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
    )
    app.state.settings, app.state.database = settings, database
    app.state.gateway, app.state.verifier = gateway, verifier
    app.state.source = SharedSource(settings)
    app.state.writes = Bucket(settings.api_writes_per_minute)
    app.state.refusals = Bucket(settings.api_refusals_per_minute)
    add_handlers(app)
    app.state.readiness = health.Readiness(health.Looks(settings, database))
    for module in (
        sync,
        plans,
        undelivered,
        records,
        entities,
        mappings,
        schedules,
        health,
        metrics,
    ):
        app.include_router(module.router, prefix=PREFIX, dependencies=[Depends(refuse_strange)])

    @app.middleware("http")
    async def guard(
        request: Request, following: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        length = request.headers.get("content-length", "0")
        if not length.isdigit() or int(length) > MOST_BYTES:
            answer: Response = problem(
                413, f"a body of {length[:20]} bytes; {MOST_BYTES:,} at most"
            )
        elif "transfer-encoding" in request.headers:
            answer = problem(413, "a body without its length is not taken")
        elif depth_of(body := await request.body()) > MOST_DEEP:
            answer = problem(422, f"a body that nests deeper than {MOST_DEEP} is not taken")
        elif not _is_text(request, body):
            answer = problem(422, "a NUL, or half of a surrogate pair, is no text")
        else:
            answer = await following(request)
        for name, value in HEADERS.items():
            answer.headers.setdefault(name, value)
        return answer

    return app


def _is_text(request: Request, body: bytes) -> bool:
    """Whether all that was given can be kept as text; what is no JSON is told by whoever reads it."""
    address = unquote(f"{request.url.path}?{request.url.query}", errors="surrogateescape")
    try:
        told = json.dumps(json.loads(body or b"null"), ensure_ascii=False)
    except ValueError:
        told = ""
    try:
        (address + told).encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in address and not _NUL.search(told)


_NUL: Final = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


def depth_of(body: bytes) -> int:
    """How deep a JSON text nests, strings left out; what is no JSON is told by whoever reads it."""
    deepest = depth = 0
    for found in _BRACKET.finditer(body):
        mark = found[0]
        if mark in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif mark in b"]}":
            depth -= 1
    return deepest


_BRACKET: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"|[\[{\]}]')
