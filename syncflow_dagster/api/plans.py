"""``/plans``: make one, look at it, say yes to it.

Belongs here: the calls and their shapes.
Does not belong here: plans themselves (``syncflow_core.bridge.plans``, ``syncflow_core.stages.plan``).

Source: product.md 4 and 9.
"""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, HTTPException, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from syncflow_core.bridge import plans
from syncflow_core.bridge.entities import load_entities
from syncflow_core.bridge.plans import Plan
from syncflow_core.bridge.starts import one_at_a_time
from syncflow_core.bridge.tables.words import PlanKind, PlanStatus
from syncflow_core.errors import ConfigError
from syncflow_dagster.api.problems import described
from syncflow_dagster.api.requests import (
    MOST,
    UID,
    Operator,
    PlanUid,
    StartedRun,
    Viewer,
    database_of,
    gateway_of,
    settings_of,
    started_by,
)
from syncflow_dagster.choices import Mode, refuse_slice, refuse_unknown
from syncflow_dagster.clock import utc_now
from syncflow_dagster.op_jobs import APPLY, PLAN

router = APIRouter(prefix="/plans", tags=["plans"])
PLAN_TAG = "syncflow/plan"
"""Names the plan that a run applies."""


class PlanSummary(BaseModel):
    """A plan without its samples."""

    uid: UUID = Field(description="Its id.", examples=[UID])
    entity: str = Field(description="Whose records it would write.", examples=["order_lines"])
    kind: PlanKind = Field(
        description="sync: all that a sync would do, applied exactly. withheld: what the brake held "
        "back; approved, its numbers are a ceiling.",
        examples=["withheld"],
    )
    status: PlanStatus = Field(description="open: it waits for a person.", examples=["open"])
    counts: dict[str, int] = Field(
        description="inserts, updates, deletes, pending, unchanged, rejected, fetched, known.",
        examples=[{"updates": 0, "deletes": 741, "known": 1076}],
    )
    reason: str | None = Field(
        description="Why it was withheld, or what a person should know.",
        examples=["741 of 1076 known records would be deleted (more than 100 and 10%)"],
    )
    batch: UUID | None = Field(description="The batch that made it.", examples=[UID])
    run_id: str | None = Field(description="Its Dagster run.", examples=[UID])
    created_at: datetime = Field(description="When it was made.", examples=["2026-01-31T19:00:00Z"])
    approved_at: datetime | None = Field(
        description="When somebody said yes.", examples=["2026-02-01T07:30:00Z"]
    )
    approved_by: str | None = Field(description="Who said yes.", examples=["anna"])
    applied_batch: UUID | None = Field(description="The batch that applied it.", examples=[UID])


class PlanDetail(PlanSummary):
    """A plan with samples of what it would write."""

    samples: list[dict[str, Any]] = Field(
        description="Some records of each operation; of updates every field with both values.",
        examples=[[{"op": "update", "record": "id=1", "field": "qty", "old": "2", "new": "3"}]],
    )


class PlanList(BaseModel):
    """Plans, newest first."""

    items: list[PlanSummary] = Field(description="At most `limit` of them.")


class PlanRequest(BaseModel):
    """What is to be planned."""

    model_config = ConfigDict(extra="forbid")

    entities: list[str] = Field(
        default=[], description="Entities by name; none for all.", examples=[["order_lines"]]
    )
    mode: Mode = Field(
        default="auto",
        description="auto: incremental where the entity's strategy is rowversion and a watermark exists.",
        examples=["full"],
    )
    slice: int | None = Field(
        default=None, ge=1, strict=True, description="One slice, from 1.", examples=[3]
    )


@router.get("", operation_id="list_plans", responses=described(422, 503))
def list_plans(
    request: Request,
    _caller: Viewer,
    entity: Annotated[str | None, Query(description="Of this entity alone.")] = None,
    run_id: Annotated[str | None, Query(description="Made by this Dagster run alone.")] = None,
    status: Annotated[
        list[PlanStatus] | None,
        Query(description="In these states; open and approved without any."),
    ] = None,
    limit: Annotated[int, Query(ge=1, le=MOST, description="At most so many.")] = 50,
) -> PlanList:
    """List plans, newest first: those that are open or approved, without a state."""
    with database_of(request).begin() as connection:
        found = plans.list_plans(
            connection,
            entity=entity,
            run_id=run_id,
            statuses=status or ("open", "approved"),
            limit=limit,
        )
    return PlanList(items=[PlanSummary.model_validate(_row(plan)) for plan in found])


@router.post("", status_code=202, operation_id="make_plan", responses=described(409, 422, 503))
def make_plan(request: Request, caller: Operator, wanted: PlanRequest) -> StartedRun:
    """Launch a run that plans; its plans are listed by the run's id when it has ended. Nothing is pushed."""
    database = database_of(request)
    with database.begin() as connection:
        entities = load_entities(connection)
    refuse_unknown(wanted.entities, entities, database)
    refuse_slice(wanted.slice, settings_of(request).slices)
    config = {"entities": wanted.entities, "mode": wanted.mode, "slice": wanted.slice or 0}
    return StartedRun(run_id=gateway_of(request).launch_op(PLAN, config, started_by(caller)))


@router.get("/{uid}", operation_id="get_plan", responses=described(404, 422, 503))
def get_plan(request: Request, _caller: Viewer, uid: PlanUid) -> PlanDetail:
    """Show one plan, with samples of what it would write."""
    return PlanDetail.model_validate(_row(_plan(request, uid)))


@router.post("/{uid}/approve", operation_id="approve_plan", responses=described(404, 409, 422, 503))
def approve_plan(request: Request, caller: Operator, uid: PlanUid) -> PlanDetail:
    """Say yes to a plan; the next sync, or `apply`, does what it says."""
    _approve(request, caller.name, uid)
    return get_plan(request, caller, uid)


@router.post(
    "/{uid}/apply",
    status_code=202,
    operation_id="apply_plan",
    responses=described(404, 409, 422, 503),
)
def apply_plan(request: Request, caller: Operator, uid: PlanUid) -> StartedRun:
    """Say yes to a plan and launch the run that does what it says, or says what has changed since."""
    _approve(request, caller.name, uid)
    config = {"plans": [str(uid)], "approved_by": caller.name}
    tags = {**started_by(caller), PLAN_TAG: str(uid)}
    with one_at_a_time(database_of(request), f"plan {uid}"):
        run = gateway_of(request).run_tagged(PLAN_TAG, str(uid))
        if run is not None and not run.has_ended:
            raise HTTPException(409, f"plan {uid} is being applied by run {run.run_id}")
        return StartedRun(run_id=gateway_of(request).launch_op(APPLY, config, tags))


def _approve(request: Request, by: str, uid: UUID) -> None:
    plan = _plan(request, uid)
    try:
        with database_of(request).begin() as connection:
            plans.approve_plan(connection, plan.uid, by=by, now=utc_now())
    except ConfigError as error:
        raise HTTPException(409, str(error)) from error


def _plan(request: Request, uid: UUID) -> Plan:
    try:
        with database_of(request).begin() as connection:
            return plans.load_plan(connection, uid)
    except ConfigError as error:
        raise HTTPException(404, f"there is no plan {uid}") from error


def _row(plan: Plan) -> dict[str, Any]:
    names = [name for name in PlanDetail.model_fields if name != "run_id"]
    return {"run_id": plan.dagster_run_id, **{name: getattr(plan, name) for name in names}}
