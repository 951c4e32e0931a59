"""``/sync``: start, watch, stop; what was run; once more what failed.

Belongs here: the calls and their shapes.
Does not belong here: starting itself (``starting``), what a run does (``ops``).

Source: product.md 9.
"""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Header, HTTPException, Query, Request
from pydantic import BaseModel, ConfigDict, Field, model_validator

from syncflow_core.bridge import batches
from syncflow_core.bridge.batches import Batch, Kind, Status
from syncflow_core.bridge.entities import load_entities
from syncflow_core.errors import ConfigError
from syncflow_dagster.api import starting
from syncflow_dagster.api.problems import described
from syncflow_dagster.api.requests import (
    UID,
    BatchUid,
    Moment,
    Operator,
    Page,
    StartedRun,
    Viewer,
    database_of,
    gateway_of,
    next_mark,
    settings_of,
    started_by,
)
from syncflow_dagster.choices import Mode, refuse_slice, refuse_unknown
from syncflow_dagster.op_jobs import RETRY

router = APIRouter(prefix="/sync", tags=["sync"])


class StartRequest(BaseModel):
    """What is to be synced."""

    model_config = ConfigDict(extra="forbid")

    entities: list[str] = Field(
        default=[],
        max_length=1000,
        description="Entities by name; none for all enabled ones.",
        examples=[["order_lines"]],
    )
    mode: Mode = Field(
        default="auto",
        description="auto: incremental where the entity's strategy is rowversion and a watermark exists.",
        examples=["full"],
    )
    slice: int | None = Field(
        default=None,
        ge=1,
        strict=True,
        description="One slice, from 1; none for all rows.",
        examples=[3],
    )
    wait_s: float = Field(
        default=60.0,
        strict=True,
        ge=0,
        le=3600,
        description="How long to wait, in seconds, while another sync holds an entity.",
        examples=[60.0],
    )

    @model_validator(mode="after")
    def _one_or_the_other(self) -> "StartRequest":
        if self.slice is not None and self.mode != "auto":
            raise ValueError("a slice is read whole: it goes with no mode")
        return self


class StartedBatch(BaseModel):
    """One entity's batch."""

    entity: str = Field(description="The entity.", examples=["order_lines"])
    batch_uid: UUID = Field(description="Its batch; there from now on.", examples=[UID])


class StartedSync(BaseModel):
    """A sync that was started; the Dagster UI shows the same run."""

    run_id: str = Field(description="The run in Dagster.", examples=[UID])
    batch_uid: UUID = Field(description="The first entity's batch.", examples=[UID])
    batches: list[StartedBatch] = Field(description="One of each entity, parents first.")


class BatchShown(BaseModel):
    """One execution of one entity."""

    batch_uid: UUID = Field(description="Its uid, a UUID of version 7.", examples=[UID])
    entity: str = Field(description="The entity.", examples=["order_lines"])
    entity_version: int = Field(
        description="The version of its declaration that the batch used.", examples=[2]
    )
    kind: Kind = Field(description="What was read.", examples=["full"])
    status: Status = Field(
        description="pending and running go on; the others have ended.", examples=["completed"]
    )
    run_id: str | None = Field(description="Its run in Dagster.", examples=[UID])
    partition: str | None = Field(
        description="Its slices, separated by commas.", examples=["slice-1,slice-2"]
    )
    started_at: datetime = Field(
        description="When it began, or was asked for.", examples=["2026-01-31T19:00:00Z"]
    )
    finished_at: datetime | None = Field(
        description="When it ended; null while it goes on.", examples=["2026-01-31T19:00:04Z"]
    )
    counts: dict[str, int] = Field(
        description="The accounts: fetched = rejected + inserted + updated + unchanged + pending + "
        "failed + withheld; deleted, withheld_deletes and retried beside them.",
        examples=[{"fetched": 1000, "inserted": 10, "unchanged": 990}],
    )
    seconds: dict[str, float] = Field(
        description="By stage, and total.", examples=[{"fetch": 0.4, "total": 1.2}]
    )
    rows_per_second: float | None = Field(
        description="Fetched rows in all its seconds.", examples=[250000.0]
    )
    watermark_before: str | None = Field(
        description="The newest rowversion acknowledged before.", examples=["2026-01-30T18:59:00Z"]
    )
    watermark_after: str | None = Field(
        description="The newest rowversion acknowledged after.", examples=["2026-01-31T18:59:00Z"]
    )
    notes: list[str] = Field(
        description="What a person should know of it.",
        examples=[["read outside the night window (19:00-07:00 UTC), for it was asked for"]],
    )
    error: str | None = Field(
        description="Why it did not come to its end.", examples=["parent not synced"]
    )


class BatchStatus(BatchShown):
    """A batch as it stands now."""

    run_status: str | None = Field(
        description="Dagster's word for its run; null where Dagster does not answer or has none.",
        examples=["STARTED"],
    )


class History(BaseModel):
    """Batches, newest first."""

    items: list[BatchShown] = Field(description="The page.")
    next: str | None = Field(
        description="`after` of the page behind; null on the last one.", examples=["WyIyMDI2Il0"]
    )


class Stopping(BaseModel):
    """A run that was told to end; what is in flight is finished."""

    run_id: str = Field(description="The run in Dagster; all its batches end.", examples=[UID])
    batch_uid: UUID = Field(description="The batch that was asked for.", examples=[UID])
    status: Literal["stopping", "stopped"] = Field(
        description="stopped: it had not begun.", examples=["stopping"]
    )


class Signature(BaseModel):
    """What failed records have in common."""

    model_config = ConfigDict(extra="forbid")

    stage: str | None = Field(default=None, description="Where it failed.", examples=["push"])
    rule: str | None = Field(default=None, description="What refused it.", examples=["refused"])
    column: str | None = Field(default=None, description="In which column.", examples=["QTY"])

    @model_validator(mode="after")
    def _says_something(self) -> "Signature":
        if self.stage is self.rule is self.column is None:
            raise ValueError("names a stage, a rule or a column")
        return self


class RetryRequest(BaseModel):
    """What is to be tried again: all that failed or waits, or what every choice given names."""

    model_config = ConfigDict(extra="forbid")

    entities: list[str] = Field(
        default=[],
        max_length=1000,
        description="Of these entities; none for all.",
        examples=[["order_lines"]],
    )
    batch_uid: UUID | None = Field(
        default=None, description="What this batch met last.", examples=[UID]
    )
    signature: Signature | None = Field(default=None, description="What failed alike.")
    ids: list[UUID] = Field(
        default=[],
        max_length=10_000,
        description="These failed records, by their uid.",
        examples=[[UID]],
    )


@router.post(
    "/start", status_code=202, operation_id="start_sync", responses=described(409, 422, 503)
)
def start_sync(
    request: Request,
    caller: Operator,
    wanted: StartRequest,
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=200,
            description="Asking again with the same key and body starts nothing and answers the same.",
        ),
    ] = None,
) -> StartedSync:
    """Start a sync: parents first, one run for all. Its batches are there from now on."""
    database = database_of(request)
    with database.begin() as connection:
        entities = load_entities(connection)
    refuse_unknown(wanted.entities, entities, database)
    refuse_slice(wanted.slice, settings_of(request).slices)
    if not entities:
        raise ConfigError("no entity is declared (syncflow entities apply FILE)")
    started = starting.start(
        database,
        gateway_of(request),
        starting.Wanted(
            names=wanted.entities,
            mode=wanted.mode,
            slice=wanted.slice,
            slices=settings_of(request).slices,
            wait_s=wanted.wait_s,
            tags=started_by(caller),
        ),
        key=None if idempotency_key is None else f"{caller.name}/{idempotency_key}",
    )
    return StartedSync.model_validate(started)


@router.get(
    "/status/{batch_uid}", operation_id="get_sync_status", responses=described(404, 422, 503)
)
def get_status(request: Request, _caller: Viewer, batch_uid: BatchUid) -> BatchStatus:
    """Show one batch as it stands: its accounts so far, and its run in Dagster."""
    batch = _batch(request, batch_uid)
    run = starting.run_of(gateway_of(request), batch)
    return BatchStatus.model_validate({**shown(batch), "run_status": run and run.status})


@router.post(
    "/stop/{batch_uid}",
    status_code=202,
    operation_id="stop_sync",
    responses=described(404, 409, 422, 503),
)
def stop_sync(request: Request, _caller: Operator, batch_uid: BatchUid) -> Stopping:
    """Stop the run of a batch: the calls in flight are finished, the rest is left to the next sync."""
    batch = _batch(request, batch_uid)
    try:
        stopped = starting.stop(database_of(request), gateway_of(request), batch)
    except ConfigError as error:
        raise HTTPException(409, str(error)) from error
    return Stopping(
        run_id=batch.dagster_run_id or "",
        batch_uid=batch.uid,
        status="stopped" if stopped else "stopping",
    )


class HistoryQuery(Page):
    """Which batches."""

    entity: list[str] = Field(default=[], max_length=100, description="Of these entities.")
    status: list[Status] = Field(default=[], description="In these states.")
    kind: list[Kind] = Field(default=[], description="Of these kinds.")
    run_id: str | None = Field(default=None, max_length=64, description="Of this Dagster run.")
    since: Moment | None = Field(default=None, description="Started then or later.")
    until: Moment | None = Field(default=None, description="Started before then.")


@router.get("/history", operation_id="list_batches", responses=described(422, 503))
def list_batches(
    request: Request, _caller: Viewer, query: Annotated[HistoryQuery, Query()]
) -> History:
    """List batches, newest first, page by page."""
    with database_of(request).begin() as connection:
        found = batches.history(
            connection,
            entities=query.entity or None,
            statuses=query.status or None,
            kinds=query.kind or None,
            dagster_run_id=query.run_id,
            since=query.since,
            until=query.until,
            after=query.place,
            limit=query.limit + 1,
        )
    return History(
        items=[BatchShown.model_validate(shown(batch)) for batch in found[: query.limit]],
        next=next_mark(found, query.limit, "started_at"),
    )


@router.post(
    "/retry-failed",
    status_code=202,
    operation_id="retry_failed",
    responses=described(409, 422, 503),
)
def retry_failed(request: Request, caller: Operator, wanted: RetryRequest) -> StartedRun:
    """Try once more what was not delivered, with the rows of today; its batches are listed by the run's id."""
    database = database_of(request)
    with database.begin() as connection:
        entities = load_entities(connection)
    refuse_unknown(wanted.entities, entities, database)
    alike = {} if wanted.signature is None else wanted.signature.model_dump(exclude_none=True)
    config: dict[str, Any] = {
        "entities": wanted.entities,
        "batch": "" if wanted.batch_uid is None else str(wanted.batch_uid),
        **alike,
        "ids": [str(uid) for uid in wanted.ids],
    }
    run = gateway_of(request).launch_op(RETRY, config, started_by(caller))
    return StartedRun(run_id=run)


def shown(batch: Batch) -> dict[str, Any]:
    """A batch as the API shows it."""
    proof = batch.proof or {}
    return {
        **{name: getattr(batch, name) for name in BatchShown.model_fields if hasattr(batch, name)},
        "batch_uid": batch.uid,
        "run_id": batch.dagster_run_id,
        "counts": vars(batch.counts),
        "notes": proof.get("notes", []),
    }


def _batch(request: Request, uid: UUID) -> Batch:
    try:
        with database_of(request).begin() as connection:
            return batches.load_batch(connection, uid)
    except ConfigError as error:
        raise HTTPException(404, f"there is no batch {uid}") from error
