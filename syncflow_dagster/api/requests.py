"""What the calls share: what an application carries, who calls, pages of a list, a run that was launched.

Belongs here: reaching the database and Dagster from a request; page marks; shapes of several calls.
Does not belong here: calls.
"""

import base64
import binascii
import json
import re
import threading
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import Depends, HTTPException, Path, Request
from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

from syncflow_core.apismith import Source
from syncflow_core.bridge.database import Database
from syncflow_core.settings import Settings
from syncflow_dagster.abandoned import STARTED_BY_TAG
from syncflow_dagster.api.gateway import DagsterGateway
from syncflow_dagster.api.security import Caller, may

UID: Final = "01983b1e-7c1e-7cc3-98c4-dc0c0c07398f"
"""The example of every uid."""
MOST: Final = 200
"""Lines of one page."""

Viewer = Annotated[Caller, Depends(may("viewer"))]
Operator = Annotated[Caller, Depends(may("operator"))]
Admin = Annotated[Caller, Depends(may("admin"))]


def path(words: str, example: str, most: int | None = None) -> Any:  # noqa: ANN401  # what FastAPI's Path gives
    """A part of a call's path, described; of so many characters at most."""
    return Path(description=words, examples=[example], max_length=most)


EntityUid = Annotated[UUID, path("The entity's uid.", UID)]
BatchUid = Annotated[UUID, path("The batch's uid.", UID)]
PlanUid = Annotated[UUID, path("The plan's uid.", UID)]


def _as_text(value: object) -> object:
    if isinstance(value, str) and not re.match(r"\d{4}-\d\d-\d\d[Tt ]", value):
        raise ValueError("is no moment such as 2026-01-31T19:00:00Z")
    return value


Moment = Annotated[AwareDatetime, BeforeValidator(_as_text)]
"""A moment with its zone, as RFC 3339 writes it; a number is none."""


class Page(BaseModel):
    """Which part of a list."""

    model_config = ConfigDict(extra="forbid")

    after: str | None = Field(
        default=None,
        max_length=200,
        description="`next` of the page before; none for the first page.",
    )
    limit: int = Field(default=50, ge=1, le=MOST, description="Lines of one page, at most.")

    @property
    def place(self) -> tuple[datetime, UUID] | None:
        """Where the page before ended.

        Raises:
            HTTPException: 422: the mark is none of ours.
        """
        return None if self.after is None else _place_of(self.after)


class StartedRun(BaseModel):
    """A run that was launched; the Dagster UI shows the same one."""

    run_id: str = Field(description="Its id in Dagster.", examples=[UID])


def database_of(request: Request) -> Database:
    """The bridge database."""
    database: Database = request.app.state.database
    return database


def gateway_of(request: Request) -> DagsterGateway:
    """Dagster's webserver."""
    gateway: DagsterGateway = request.app.state.gateway
    return gateway


class SharedSource:
    """One client of APISmith for all requests, opened when it is first needed: a login for each is slow.

    Args:
        settings: Where it is.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._source: Source | None = None

    def opened(self) -> Source:
        """The client.

        Raises:
            ConfigError: Its address is not set.
        """
        with self._lock:
            if self._source is None:
                self._source = Source.open(self._settings)
            return self._source

    def close(self) -> None:
        """Close it, where it was opened."""
        with self._lock:
            if self._source is not None:
                self._source.close()
                self._source = None


def source_of(request: Request) -> Source:
    """APISmith."""
    shared: SharedSource = request.app.state.source
    return shared.opened()


def settings_of(request: Request) -> Settings:
    """The environment."""
    settings: Settings = request.app.state.settings
    return settings


def started_by(caller: Caller) -> dict[str, str]:
    """The tag that tells in Dagster who started a run."""
    return {STARTED_BY_TAG: f"API: {caller.name}"}


def refuse_strange(request: Request) -> None:
    """A dependency that refuses query parameters that the call does not have: a filter that is misspelled.

    Raises:
        HTTPException: 422.
    """
    declared = request.scope["route"].dependant.query_params
    if any(issubclass(item.field_info.annotation, Page) for item in declared if _is_class(item)):
        return  # the shape of a list's parameters refuses them itself
    strange = sorted(set(request.query_params) - {item.alias for item in declared})
    if strange:
        raise HTTPException(422, f"there is no parameter {strange[0][:80]!r} of this call")


def _is_class(item: Any) -> bool:  # noqa: ANN401  # FastAPI's own description of a parameter
    return isinstance(item.field_info.annotation, type)


def mark_of(moment: datetime, uid: UUID) -> str:
    """The mark of a page that ends with this line."""
    text = json.dumps([moment.isoformat(), str(uid)])
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _place_of(mark: str) -> tuple[datetime, UUID]:
    try:
        text = base64.urlsafe_b64decode(mark + "=" * (-len(mark) % 4))
        moment, uid = json.loads(text)
        found = datetime.fromisoformat(moment), UUID(uid)
    except (binascii.Error, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise HTTPException(422, f"after: {mark[:40]!r} is no mark of a page") from error
    if found[0].tzinfo is None:
        raise HTTPException(422, f"after: {mark[:40]!r} is no mark of a page")
    return found


def next_mark(lines: Sequence[Any], limit: int, moment: str) -> str | None:
    """The mark of a page of so many lines at most; None where no other page follows.

    Args:
        lines: One more than the page has, where another page follows; each has a ``uid``.
        limit: The page's lines.
        moment: The name of what the list is sorted by.
    """
    if len(lines) <= limit:
        return None
    last = lines[limit - 1]
    return mark_of(getattr(last, moment), last.uid)
