"""``/health``: whether this process answers, and whether all that a sync needs is there.

Neither call needs a token, so neither says where anything is, nor in whose words it failed.

Belongs here: the calls, what of the doctor's checks makes ready, remembering the last answer.
Does not belong here: the checks themselves (``syncflow_core.doctor``, ``syncflow_dagster.daemon``).

Source: product.md 9.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Final, Literal

import dagster as dg
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from syncflow_core.bridge.database import Database
from syncflow_core.doctor import source_system, target_system
from syncflow_core.doctor.bridge import Bridge
from syncflow_core.doctor.checks import Check, Finding, made
from syncflow_core.errors import UnavailableError
from syncflow_core.settings import Settings
from syncflow_dagster.clock import utc_now
from syncflow_dagster.daemon import daemon_seen
from syncflow_dagster.failures import history_there
from syncflow_dagster.home import open_instance

router = APIRouter(prefix="/health", tags=["health"])
KEPT_S: Final = 5.0
"""How long an answer is remembered: however often it is asked, the systems are asked no oftener."""

Name = Literal["database", "migrations", "source", "target", "daemon"]
NAMES: Final[dict[str, Name]] = {
    "database": "database",
    "database.migrations": "migrations",
    "apismith": "source",
    "schedulehub": "target",
    "dagster.daemon": "daemon",
}
"""The doctor's names of what makes ready, and those told here."""
AWAY: Final = "does not answer"
WRONG: Final[dict[Name, str]] = {
    "database": "refuses SyncFlow, or is too old",
    "migrations": "the schema is not this version's, or may not be written",
    "source": "has no address, or something else answers there",
    "target": "has no address, or something else answers there",
    "daemon": "gives no sign of life",
}


class Alive(BaseModel):
    """That this process answers."""

    status: str = Field(description="Always the same word.", examples=["alive"])


class Part(BaseModel):
    """One thing that a sync needs."""

    name: Name = Field(description="source: APISmith. target: ScheduleHub.", examples=["database"])
    status: Literal["ok", "fail", "skipped"] = Field(
        description="skipped: it cannot be looked at before another part is there.",
        examples=["ok"],
    )
    latency_ms: float | None = Field(
        description="How long looking took; null where it was not looked at.", examples=[1.7]
    )
    reason: str | None = Field(
        description="Why it is not ok, in general words: syncflow doctor has the particular ones.",
        examples=["does not answer"],
    )


class Ready(BaseModel):
    """Whether all that a sync needs is there."""

    status: Literal["ready", "not ready"] = Field(
        description="ready: every part is ok.", examples=["ready"]
    )
    checks: list[Part] = Field(
        description="Every part, in this order.",
        examples=[[{"name": "database", "status": "ok", "latency_ms": 1.7, "reason": None}]],
    )


class Looks:
    """One look after another at all parts, side by side.

    Args:
        settings: Where they are.
        database: The API's own.
        open_history: Opens Dagster's instance; it is kept for the life of the process.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        open_history: Callable[[Settings], dg.DagsterInstance] = open_instance,
    ) -> None:
        self._settings, self._database = settings, database
        self._open_history = open_history
        self._instance: dg.DagsterInstance | None = None
        self._opening = threading.Lock()

    def __call__(self) -> Ready:
        """Look."""
        found: dict[str, Finding] = {}
        with ExitStack() as closing:
            bridge = Bridge(self._settings, self._database)
            source, target = source_system(self._settings), target_system(self._settings)
            closing.callback(source.close)
            closing.callback(target.close)
            wanted = [check for check in bridge.checks(utc_now) if check.name in NAMES]
            daemon = Check("dagster.daemon", lambda: daemon_seen(self._history()), "")
            groups = [wanted, [source.reach], [target.reach], [daemon]]
            with ThreadPoolExecutor(len(groups), thread_name_prefix="ready") as pool:
                list(pool.map(lambda checks: list(made(checks, found)), groups))
        parts = [_part(found[name]) for name in NAMES]
        ready = all(part.status == "ok" for part in parts)
        return Ready(status="ready" if ready else "not ready", checks=parts)

    def _history(self) -> dg.DagsterInstance:
        with self._opening:
            if self._instance is None:
                with history_there():
                    self._instance = self._open_history(self._settings)
            return self._instance


class Readiness:
    """The last answer, for ``KEPT_S`` seconds; who asks while it is being made anew waits for it.

    Args:
        look: Makes one; takes some seconds at most.
        clock: Monotonic seconds.
    """

    def __init__(
        self, look: Callable[[], Ready], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._look, self._clock = look, clock
        # waiting for it takes no thread away from other calls
        self._asking = asyncio.Lock()
        self._last: Ready | None = None
        self._at = 0.0

    async def answer(self) -> Ready:
        """The answer that is remembered, else one made now."""
        async with self._asking:
            if self._last is None or self._clock() - self._at >= KEPT_S:
                self._last = await run_in_threadpool(self._look)
                self._at = self._clock()
            return self._last


@router.get("", operation_id="health")
def health() -> Alive:
    """Say that this process answers; no token is needed."""
    return Alive(status="alive")


@router.get(
    "/ready",
    operation_id="ready",
    responses={503: {"model": Ready, "description": "Something that a sync needs is not there"}},
)
async def ready(request: Request, response: Response) -> Ready:
    """Say whether all that a sync needs is there, as it was some seconds ago at most; no token is needed."""
    readiness: Readiness = request.app.state.readiness
    found = await readiness.answer()
    if found.status != "ready":
        response.status_code = 503
        response.headers["Retry-After"] = str(round(KEPT_S))
    return found


def _part(finding: Finding) -> Part:
    name = NAMES[finding.name]
    if finding.status == "ok":
        return Part(name=name, status="ok", latency_ms=finding.latency_ms, reason=None)
    if finding.status == "skipped" and finding.root in NAMES:
        reason = f"not looked at: see {NAMES[finding.root]}"
        return Part(name=name, status="skipped", latency_ms=None, reason=reason)
    away = isinstance(finding.error, UnavailableError) and name != "daemon"
    return Part(
        name=name,
        status="fail",  # a warning of the doctor's that makes not ready is no warning here
        latency_ms=finding.latency_ms,
        reason=AWAY if away else WRONG[name],
    )
