"""``/failed-records`` and ``/pending-children``: what was not delivered, and why.

Belongs here: the calls and their shapes.
Does not belong here: the lists (``bridge.browse``), trying again (``sync``).

Source: product.md 9.
"""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from syncflow_core.bridge import browse, failed
from syncflow_core.bridge.entities import load_registered
from syncflow_core.bridge.failed import Alike
from syncflow_core.bridge.tables.words import ChildKind, ChildState
from syncflow_core.privacy import SEES_ALL, Privacy
from syncflow_dagster.api.problems import described
from syncflow_dagster.api.requests import (
    UID,
    Page,
    Viewer,
    database_of,
    next_mark,
)
from syncflow_dagster.api.security import Caller
from syncflow_dagster.api.shown import hexed, privacies

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
    kind: ChildKind = Field(
        description="deferred: the record is in the hub, only this reference is not.",
        examples=["parked"],
    )
    state: ChildState = Field(
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
    state: list[ChildState] = Field(default=["waiting", "dead"], description="In these states.")


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
        hidden = privacies(connection, {str(row["entity"]) for row in found})
    lines = [
        FailedRecord(
            **{**hexed(row), "raw": _raw(caller, row["raw"], hidden[row["entity"]])},
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
    lines = [PendingChild(**hexed(row)) for row in found]
    return PendingChildren(
        items=lines[: query.limit], next=next_mark(lines, query.limit, "created_at")
    )


def _raw(caller: Caller, raw: str | None, privacy: Privacy) -> str | None:
    return raw if caller.role in SEES_ALL else privacy.json(raw)
