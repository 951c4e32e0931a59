"""One record's story, and how much there is of all.

Belongs here: the calls and their shapes.
Does not belong here: lists of what was not delivered (``undelivered``), gathering (``syncflow_core.trace``).

Source: product.md 9.
"""

import dataclasses
from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, HTTPException, Request
from pydantic import BaseModel, Field

from syncflow_core.bridge import stats
from syncflow_core.digest_key import digest_key
from syncflow_core.errors import ConfigError
from syncflow_core.privacy import Privacy, shown_to
from syncflow_core.trace import Story, trace
from syncflow_dagster.api.problems import described
from syncflow_dagster.api.requests import (
    UID,
    Viewer,
    database_of,
    path,
    settings_of,
    source_of,
)
from syncflow_dagster.api.security import Caller
from syncflow_dagster.api.shown import hexed, privacies
from syncflow_dagster.api.sync import BatchShown, shown

router = APIRouter()
MOST_KEY: Final = 4_000
"""Characters of a key."""
KEY_HASH = "0f343b0931126a20f133d67c2b018a3b"


class RecordEvent(BaseModel):
    """Something that happened to a record."""

    at: datetime = Field(description="When.", examples=["2026-01-31T19:00:02Z"])
    event: str = Field(description="What.", examples=["updated"])
    batch: UUID | None = Field(description="In which batch.", examples=[UID])
    detail: dict[str, Any] = Field(
        description="Of an update, the fields that changed; of a failure, the rule.",
        examples=[{"changed": ["quantity"]}],
    )


class RecordStory(BaseModel):
    """All that is known of one record."""

    entity: str = Field(description="The entity.", examples=["order_lines"])
    key_hash: str = Field(description="Its key hash.", examples=[KEY_HASH])
    reference: str | None = Field(
        description="What a person calls it.", examples=["order_no=WO1|line_no=2"]
    )
    known: dict[str, Any] | None = Field(
        description="What ScheduleHub last acknowledged; null: never anything.",
        examples=[{"hub_uid": UID, "rowversion": "2026-01-31T18:00:00Z", "deleted": False}],
    )
    events: list[RecordEvent] = Field(description="Its history, the oldest first.")
    failed: dict[str, Any] | None = Field(
        description="Its open failed record.", examples=[{"stage": "push", "rule": "refused"}]
    )
    pending: list[dict[str, Any]] = Field(
        description="What it waits for.", examples=[[{"parent_entity": "orders"}]]
    )
    children: dict[str, int] | None = Field(
        description="Where its delete waits: records that refer to it, by entity.",
        examples=[{"order_lines": 3}],
    )
    withheld_by: list[UUID] = Field(
        description="Open plans that hold a write of it back.", examples=[[UID]]
    )
    last_read: BatchShown | None = Field(
        description="The newest batch that read the entity's rows to its end."
    )
    source: str = Field(
        description="Whether the source was asked for its row, and has it.",
        examples=["has it", "does not have it", "was not asked: it is away"],
    )
    row: dict[str, Any] | None = Field(
        description="Its row in the source now, else as its failed record kept it.",
        examples=[{"ORDER_NO": "WO1"}],
    )
    steps: list[dict[str, Any]] = Field(
        description="What each normalization layer makes of the row's fields.",
        examples=[[{"layer": 1, "field": "quantity", "before": "1,5", "after": "1.5"}]],
    )


class Stats(BaseModel):
    """How much there is."""

    entities: int = Field(description="Enabled entities.", examples=[12])
    batches: dict[str, int] = Field(
        description="Of the last 24 hours, by status.", examples=[{"completed": 96}]
    )
    rows: dict[str, int] = Field(
        description="Of the last 24 hours' batches, by outcome.", examples=[{"fetched": 1_000_000}]
    )
    failed: int = Field(description="Open failed records.", examples=[3])
    pending: dict[str, int] = Field(
        description="Children that wait, by state.", examples=[{"waiting": 5}]
    )
    plans: dict[str, int] = Field(
        description="Plans that wait for a person, by kind.", examples=[{"withheld": 1}]
    )
    in_doubt: int = Field(description="Writes without an outcome.", examples=[0])
    running: int = Field(description="Batches that go on.", examples=[1])


@router.get(
    "/records/{entity}/{key:path}",
    operation_id="get_record",
    tags=["records"],
    responses=described(404, 422, 503),
)
def get_record(
    request: Request,
    caller: Viewer,
    entity: Annotated[str, path("The entity.", "order_lines")],
    key: Annotated[str, path("The record's key.", "order_no=WO1|line_no=2", most=MOST_KEY)],
) -> RecordStory:
    """Tell the whole story of one record.

    `key` is its reference (`order_no=WO1|line_no=2`), its key hash, or, of a key of one field, the value.
    """
    database = database_of(request)
    try:
        with database.begin() as connection:
            privacy = privacies(connection, {entity})[entity]
    except ConfigError as error:
        raise HTTPException(404, f"there is no entity {entity[:80]!r}") from error
    try:
        story = trace(
            database,
            source_of(request),
            entity,
            key,
            digest_key=partial(digest_key, settings_of(request)),
        )
    except ConfigError as error:
        raise HTTPException(422, str(error)) from error
    if story.is_strange and story.row is None:
        raise HTTPException(404, f"nothing is known of {entity} {key[:200]!r}")
    return _story(story, caller, privacy)


@router.get("/stats", operation_id="get_stats", tags=["records"], responses=described(503))
def get_stats(request: Request, _caller: Viewer) -> Stats:
    """Tell how much there is: batches and rows of a day, what failed, what waits, what goes on."""
    with database_of(request).begin() as connection:
        return Stats(**stats.load_stats(connection))


def _story(story: Story, caller: Caller, privacy: Privacy) -> RecordStory:
    asked = (
        f"was not asked: {story.away}"
        if story.away is not None
        else "has it"
        if story.row is not None and not story.kept
        else "does not have it"
    )
    return RecordStory(
        entity=story.entity,
        key_hash=story.key_hash.hex(),
        reference=story.reference,
        known=None if story.known is None else _plain(story.known),
        events=[
            RecordEvent(at=event.at, event=event.event, batch=event.batch, detail=event.detail)
            for event in story.events
        ],
        failed=None if story.failed is None else _plain(story.failed),
        pending=[shown_to(caller.role, _plain(line), privacy) for line in story.pending],
        children=None if story.children is None else dict(story.children),
        withheld_by=[plan.uid for plan in story.withheld],
        last_read=None if story.last_read is None else BatchShown(**shown(story.last_read)),
        source=asked,
        row=None if story.row is None else shown_to(caller.role, story.row, privacy),
        steps=[_plain(dataclasses.asdict(step)) for step in story.steps],
    )


def _plain(line: Mapping[str, object]) -> dict[str, Any]:
    """A line with its columns' plain names, hashes in hex."""
    return {name.lstrip("#"): value for name, value in hexed(line).items()}
