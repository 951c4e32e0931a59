"""The jobs ``plan`` and ``apply_plan``: see what a sync would do, and say yes to it.

Belongs here: running all stages of an entity in one op, and showing what came of it on the asset.
Does not belong here: plans themselves (``syncflow_core.stages.plan``), the assets' ops (``ops``).

A plan leaves an observation on its asset, never a materialization: nothing was pushed.

Source: product.md 4 and 8; design.md, "Dagster".
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import dagster as dg
import msgspec
import pydantic

from syncflow_core.bridge import batches, plans
from syncflow_core.bridge.plans import Plan
from syncflow_core.entity import Entity
from syncflow_core.errors import ConfigError
from syncflow_core.stages.plan import make_plan
from syncflow_core.stages.whole import stage, sync
from syncflow_core.stages.work import Connections, Order
from syncflow_dagster.choices import Mode, refuse_slice, refuse_unknown
from syncflow_dagster.clock import utc_now
from syncflow_dagster.failures import told_to_dagster
from syncflow_dagster.metadata import metadata_of
from syncflow_dagster.op_jobs import APPLY, PLAN
from syncflow_dagster.ops import (
    RESOURCES,
    closing_on_error,
    connections_of,
)
from syncflow_dagster.orders import (
    chosen,
    declared,
    dry_run,
    order_for,
    telling_last,
)


class PlanConfig(dg.Config):
    """What is to be planned, for the launchpad."""

    entities: list[str] = pydantic.Field(default_factory=list)
    """Entities by name; none for all enabled ones."""
    mode: Mode = "auto"
    """auto: incremental where the entity's strategy is rowversion and a watermark exists, else full."""
    slice: int = 0
    """One slice, from 1; 0 for all rows."""
    declaration: str = ""
    """A declaration, as JSON, that is not applied: what it would change of this one entity."""
    purge: bool = False
    """Whether all records of these entities are to go from the hub, and the entities be disabled then."""
    wait_s: float = 60.0
    """How long to wait, in seconds, while another sync holds an entity."""


class ApplyConfig(dg.Config):
    """Which plans to say yes to, for the launchpad."""

    plans: list[str]
    """Their ids, as the asset, ``syncflow plan`` and the API show them."""
    approved_by: str = "the Dagster UI"
    """Who says yes; it is kept with the plan."""
    wait_s: float = 60.0
    """How long to wait, in seconds, while another sync holds an entity."""


def build_plan_jobs(slices: int) -> list[dg.JobDefinition]:
    """``plan`` and ``apply_plan``: one op each, over entities of so many slices."""
    make, apply = _plan_op(slices), _apply_op(slices)

    @dg.job(
        name=PLAN.name,
        description="What a sync would do: counts, samples, old and new values. Nothing is pushed.",
    )
    def plan_job() -> None:
        make()

    @dg.job(
        name=APPLY.name,
        description="Approve plans by their ids: a withheld one as a ceiling, another exactly.",
    )
    def apply_job() -> None:
        apply()

    return [plan_job, apply_job]


def _plan_op(slices: int) -> dg.OpDefinition:
    @dg.op(
        name=PLAN.op,
        description="What a sync would do, record by record; nothing is pushed.",
        required_resource_keys=RESOURCES,
    )
    @told_to_dagster()
    def plan_op(context: dg.OpExecutionContext, config: PlanConfig) -> None:
        """Plan the entities, parents first; one that fails is told at the end, after the others."""
        connections = connections_of(context)
        entities, lineage = declared(connections)
        names = chosen(connections, config.entities, entities, lineage)
        numbers = (config.slice,) if config.slice else ()
        refuse_slice(config.slice or None, slices)
        if config.purge:
            _refuse_purge(config.entities, entities)
        with telling_last() as attempt:
            for name in names:
                with attempt():
                    asked = order_for(context, connections, name, lineage, config.wait_s, "plan")
                    asked = dry_run(asked, config.mode, numbers, slices)
                    asked = msgspec.structs.replace(
                        asked,
                        declared=config.declaration or None,
                        purge=config.purge,
                        kind="full" if config.purge else asked.kind,
                    )
                    with closing_on_error(connections, asked):
                        made = make_plan(
                            connections, stage(connections, asked, now=utc_now), now=utc_now
                        )
                    context.log_event(
                        dg.AssetObservation(asset_key=[name], metadata=plan_metadata(made))
                    )

    return plan_op


def _apply_op(slices: int) -> dg.OpDefinition:
    @dg.op(
        name=APPLY.op,
        description="Approve plans and do what they say, or say what has changed since.",
        required_resource_keys=RESOURCES,
    )
    @told_to_dagster()
    def apply_op(context: dg.OpExecutionContext, config: ApplyConfig) -> None:
        """Apply the plans, parents first."""
        connections = connections_of(context)
        entities, lineage = declared(connections)
        with connections.database.begin() as connection:
            approved = [
                plans.approve_plan(connection, _uid(text), by=config.approved_by, now=utc_now())
                for text in config.plans
            ]
        refuse_unknown([plan.entity for plan in approved], entities, connections.database)
        approved.sort(key=lambda plan: lineage.order.index(plan.entity))
        with telling_last() as attempt:
            for plan in approved:
                with attempt():
                    asked = order_for(context, connections, plan.entity, lineage, config.wait_s)
                    with closing_on_error(connections, asked):
                        asked = _applying(connections, asked, plan, slices)
                        staged, report = sync(connections, asked, now=utc_now)
                    metadata = {**metadata_of(connections, report, staged), "plan": str(plan.uid)}
                    context.log_event(
                        dg.AssetMaterialization(asset_key=[plan.entity], metadata=metadata)
                    )

    return apply_op


def _refuse_purge(names: Sequence[str], entities: Sequence[Entity]) -> None:
    """Return where these entities may go from the hub.

    Raises:
        ConfigError: None is named, or one is the parent of another that stays.
    """
    if not names:
        raise ConfigError("purge: name the entities whose records are to go")
    for child in entities:
        kept = {parent.entity for parent in child.parents.values()} & set(names)
        if child.name not in names and kept:
            raise ConfigError(
                f"{', '.join(sorted(kept))} is a parent of {child.name}: disable that first"
            )


def plan_metadata(plan: Plan) -> dict[str, Any]:
    """What the asset shows of a plan."""
    records = [
        dg.TableRecord({name: str(row.get(name) or "") for name in SAMPLE_COLUMNS})
        for row in plan.samples
    ]
    schema = dg.TableSchema([dg.TableColumn(name, "string") for name in SAMPLE_COLUMNS])
    return {
        "plan": str(plan.uid),
        "plan_kind": plan.kind,
        "plan_status": plan.status,
        **{f"would_{name}": number for name, number in plan.counts.items()},
        "sample": dg.MetadataValue.table(records=records, schema=schema)
        if records
        else dg.MetadataValue.text("nothing would be written"),
        "notes": plan.reason or "none",
    }


SAMPLE_COLUMNS = ("op", "record", "field", "old", "new")


def _uid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError as error:
        raise ConfigError(f"{text!r} is no plan's id") from error


def _applying(connections: Connections, order: Order, plan: Plan, slices: int) -> Order:
    """The order that reads what the plan read, and may do what it says.

    Raises:
        ConfigError: It is of a slice, and the installation's slices are others now.
    """
    if plan.kind == "withheld":
        return msgspec.structs.replace(order, plan=plan.uid, kind="full")
    with connections.database.begin() as connection:
        batch = None if plan.batch is None else batches.load_batch(connection, plan.batch)
    read = {} if batch is None else batch.proof or {}
    if read.get("declared"):
        raise ConfigError(
            f"plan {plan.uid} was made under a declaration that is not applied: apply that first, and "
            f"syncflow plan {plan.entity} makes a new one",
            entity=plan.entity,
        )
    numbers = tuple(read.get("slices", ()))
    if numbers and read.get("of") != slices:
        raise ConfigError(
            f"plan {plan.uid} is of slice {numbers[0]} of {read.get('of')}, and there are {slices} "
            f"slices now: syncflow plan {plan.entity} makes a new one",
            entity=plan.entity,
        )
    return msgspec.structs.replace(
        order,
        plan=plan.uid,
        kind=read.get("kind"),
        slices=numbers,
        of=slices,
        purge=bool(read.get("purge")),
    )
