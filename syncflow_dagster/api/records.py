"""Failed records, waiting children, one record's story, and how much there is of all.

Belongs here: the calls and their shapes.
Does not belong here: the lists (``bridge.browse``), gathering a story (``syncflow_core.trace``).

Source: product.md 9.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import partial
from typing import Annotated, Any, Literal
from uuid import UUID

import sqlalchemy as sa
from fastapi import APIRouter, HTTPException, Query, Request
from pydantic import BaseModel, Field

from syncflow_core.bridge import browse, failed, stats
from syncflow_core.bridge.entities import load_registered
from syncflow_core.bridge.failed import Alike
from syncflow_core.digest_key import digest_key
from syncflow_core.errors import ConfigError
from syncflow_core.privacy import SEES_ALL, Privacy, privacy_of, shown_to
from syncflow_core.trace import Story, trace
from syncflow_dagster.api.problems import described
from syncflow_dagster.api.requests import (
    UID,
    Page,
    Viewer,
    database_of,
    next_mark,
    path,
    settings_of,
    source_of,
)
from syncflow_dagster.api.security import Caller
from syncflow_dagster.api.sync import BatchShown, shown

router = APIRouter()
KEY_HASH = "0f343b0931126a20f133d67c2b018a3b"


class FailedRecord(BaseModel):
    """A record that was refused, on its way or by ScheduleHub."""

    uid: UUID = Field(description="Its uid; `retry-failed` takes it.", examples=[UID])
    entity: str = Field(description="The entity.", examples=["order_lines"])
    key_hash: str | None = Field(
        description="Its key hash; null where it has no usable key.", examples=[KEY_HASH]
    )
    raw_digest: str | None = Field(
        description="The digest of its row, where it has no usable key.", examples=[None]
    )
    reference: str | None = Field(
        description="What a person calls it.", examples=["order_no=WO1|line_no=2"]
    )
    stage: str = Field(description="Where it failed.", examples=["normalize"])
    layer: int | None = Field(description="The layer that refused it.", examples=[3])
    rule: str = Field(description="The rule that refused it.", examples=["not_a_number"])
    column: str | None = Field(description="The column.", examples=["QTY"])
    value: str | None = Field(description="Its value there.", examples=["ten"])
    message: str = Field(description="What was said of it.", examples=["'ten' is no number"])
    raw: str | None = Field(
        description="The row as the source sent it, as JSON text.", examples=['{"QTY":"ten"}']
    )
    attempts: int = Field(description="How often it was tried.", examples=[1])
    due_at: datetime | None = Field(
        description="When the clock tries it again; null: a person, or a mended row or declaration.",
        examples=["2026-01-31T19:05:00Z"],
    )
    first_batch: UUID | None = Field(description="The batch that met it first.", examples=[UID])
    last_batch: UUID | None = Field(description="The batch that met it last.", examples=[UID])
    first_seen: datetime = Field(description="When.", examples=["2026-01-31T19:00:00Z"])
    last_seen: datetime = Field(description="When.", examples=["2026-01-31T19:00:00Z"])
    resolved_at: datetime | None = Field(
        description="When it was closed; null: it is open.", examples=[None]
    )
    resolution: str | None = Field(description="How.", examples=["went through"])


class FailedRecords(BaseModel):
    """Failed records, those met last first."""

    items: list[FailedRecord] = Field(description="The page.")
    next: str | None = Field(
        description="`after` of the page behind; null on the last one.", examples=["WyIyMDI2Il0"]
    )


class Cluster(BaseModel):
    """Open failed records that failed alike."""

    entity: str = Field(description="The entity.", examples=["order_lines"])
    stage: str = Field(description="Where.", examples=["push"])
    rule: str = Field(description="By which rule.", examples=["refused"])
    column: str | None = Field(description="In which column.", examples=["QTY"])
    count: int = Field(description="How many.", examples=[12])
    first_seen: datetime = Field(description="The first.", examples=["2026-01-31T19:00:00Z"])
    last_seen: datetime = Field(description="The last.", examples=["2026-01-31T19:00:00Z"])
    example: str | None = Field(description="One of them.", examples=["order_no=WO1|line_no=2"])
    message: str = Field(description="What was said of it.", examples=["quantity is negative"])


class Clusters(BaseModel):
    """What failed alike, the most frequent first."""

    items: list[Cluster] = Field(description="Of every entity, or of one.")


class PendingChild(BaseModel):
    """A record that waits for a parent."""

    uid: UUID = Field(description="Its uid.", examples=[UID])
    entity: str = Field(description="The child's entity.", examples=["order_lines"])
    key_hash: str = Field(description="The child's key hash.", examples=[KEY_HASH])
    reference: str | None = Field(
        description="What a person calls it.", examples=["order_no=WO1|line_no=2"]
    )
    reference_name: str = Field(description="Which of its references.", examples=["order"])
    parent_entity: str = Field(description="The parent's entity.", examples=["orders"])
    parent_key_hash: str = Field(description="The parent's key hash.", examples=[KEY_HASH])
    kind: Literal["parked", "deferred"] = Field(
        description="deferred: the record is in the hub, only this reference is not.",
        examples=["parked"],
    )
    state: Literal["waiting", "released", "dead", "cancelled"] = Field(
        description="dead: its attempts are over; it still goes when its parent comes.",
        examples=["waiting"],
    )
    attempts: int = Field(description="How often it was tried.", examples=[1])
    due_at: datetime | None = Field(
        description="When it is tried again.", examples=["2026-01-31T19:05:00Z"]
    )
    batch: UUID | None = Field(description="The batch that parked it.", examples=[UID])
    created_at: datetime = Field(description="Since when.", examples=["2026-01-31T19:00:00Z"])


class PendingChildren(BaseModel):
    """Records that wait for a parent, those that came last first."""

    items: list[PendingChild] = Field(description="The page.")
    next: str | None = Field(
        description="`after` of the page behind; null on the last one.", examples=["WyIyMDI2Il0"]
    )


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


class FailedQuery(Page):
    """Which failed records."""

    entity: str | None = Field(default=None, max_length=63, description="Of this entity.")
    batch: UUID | None = Field(default=None, description="Met last by this batch.")
    stage: str | None = Field(default=None, max_length=63, description="Failed there.")
    rule: str | None = Field(default=None, max_length=63, description="Refused by this rule.")
    column: str | None = Field(default=None, max_length=255, description="In this column.")
    state: browse.State = Field(default="open", description="Open ones, closed ones, or all.")


class PendingQuery(Page):
    """Which children."""

    entity: str | None = Field(default=None, max_length=63, description="Of this entity.")
    parent_entity: str | None = Field(
        default=None, max_length=63, description="That wait for one of this entity."
    )
    state: list[Literal["waiting", "released", "dead", "cancelled"]] = Field(
        default=["waiting", "dead"], description="In these states."
    )


@router.get(
    "/failed-records",
    operation_id="list_failed_records",
    tags=["records"],
    responses=described(422, 503),
)
def list_failed(
    request: Request, caller: Viewer, query: Annotated[FailedQuery, Query()]
) -> FailedRecords:
    """List failed records, those met last first, page by page."""
    alike = Alike(batch=query.batch, stage=query.stage, rule=query.rule, column=query.column)
    with database_of(request).begin() as connection:
        found = browse.failed_page(
            connection,
            alike,
            entity=query.entity,
            state=query.state,
            after=query.place,
            limit=query.limit + 1,
        )
        hidden = _privacies(connection, {str(row["entity"]) for row in found})
    lines = [
        FailedRecord(
            **{**_hexed(row), "raw": _raw(caller, row["raw"], hidden[row["entity"]])},
            column=row["column_name"],
        )
        for row in found
    ]
    return FailedRecords(
        items=lines[: query.limit], next=next_mark(lines, query.limit, "last_seen")
    )


@router.get(
    "/failed-records/clusters",
    operation_id="list_failure_clusters",
    tags=["records"],
    responses=described(422, 503),
)
def list_clusters(
    request: Request,
    _caller: Viewer,
    entity: Annotated[str | None, Query(max_length=63, description="Of this entity alone.")] = None,
) -> Clusters:
    """List what failed alike, the most frequent first: `retry-failed` takes a cluster's signature."""
    with database_of(request).begin() as connection:
        names = [item.entity.name for item in load_registered(connection, enabled=None)]
        found = [
            Cluster(entity=name, **vars(cluster))
            for name in names
            if entity in {None, name}
            for cluster in failed.clusters(connection, name)
        ]
    return Clusters(items=sorted(found, key=lambda cluster: -cluster.count))


@router.get(
    "/pending-children",
    operation_id="list_pending_children",
    tags=["records"],
    responses=described(422, 503),
)
def list_pending(
    request: Request, _caller: Viewer, query: Annotated[PendingQuery, Query()]
) -> PendingChildren:
    """List records that wait for a parent, those that came last first, page by page."""
    with database_of(request).begin() as connection:
        found = browse.waiting_page(
            connection,
            entity=query.entity,
            parent_entity=query.parent_entity,
            states=query.state,
            after=query.place,
            limit=query.limit + 1,
        )
    lines = [PendingChild(**_hexed(row)) for row in found]
    return PendingChildren(
        items=lines[: query.limit], next=next_mark(lines, query.limit, "created_at")
    )


@router.get(
    "/records/{entity}/{key}",
    operation_id="get_record",
    tags=["records"],
    responses=described(404, 422, 503),
)
def get_record(
    request: Request,
    caller: Viewer,
    entity: Annotated[str, path("The entity.", "order_lines")],
    key: Annotated[str, path("The record's key.", "order_no=WO1|line_no=2")],
) -> RecordStory:
    """Tell the whole story of one record.

    `key` is its reference (`order_no=WO1|line_no=2`), its key hash, or, of a key of one field, the value.
    """
    database = database_of(request)
    try:
        with database.begin() as connection:
            privacy = _privacies(connection, {entity})[entity]
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


def _privacies(connection: sa.Connection, names: Iterable[str]) -> dict[str, Privacy]:
    """What is hidden of these entities.

    Raises:
        ConfigError: One is not there.
    """
    return {
        item.entity.name: privacy_of(item.entity)
        for item in load_registered(connection, sorted(names), enabled=None)
    }


def _raw(caller: Caller, raw: str | None, privacy: Privacy) -> str | None:
    return raw if caller.role in SEES_ALL else privacy.json(raw)


def _plain(line: Mapping[str, object]) -> dict[str, Any]:
    """A line with its columns' plain names, hashes in hex."""
    return {name.lstrip("#"): value for name, value in _hexed(line).items()}


def _hexed(line: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value.hex() if isinstance(value, bytes) else value for name, value in line.items()
    }
