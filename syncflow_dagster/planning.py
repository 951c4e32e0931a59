"""The jobs ``plan``, ``apply_plan`` and ``reconcile``: see what a sync would do, and say yes to it.

Belongs here: running all stages of an entity in one op, and showing what came of it on the asset.
Does not belong here: plans themselves (``syncflow_core.stages.plan``), the assets' ops (``ops``).

A plan leaves an observation on its asset, never a materialization: nothing was pushed.

Source: product.md 4 and 8; design.md, "Dagster".
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal
from uuid import UUID

import dagster as dg
import msgspec
import pydantic

from syncflow_core.bridge import batches, plans
from syncflow_core.bridge.entities import load_entities, load_registered
from syncflow_core.bridge.identifiers import new_uid
from syncflow_core.bridge.plans import Plan
from syncflow_core.entity import Entity
from syncflow_core.errors import ConfigError, SyncFlowError
from syncflow_core.parents import Lineage, lineage
from syncflow_core.stages.plan import make_plan
from syncflow_core.stages.reconcile import Reconciled, reconcile_sample, reconcile_whole
from syncflow_core.stages.whole import stage, sync
from syncflow_core.stages.work import Connections, Order
from syncflow_dagster.failures import as_failure
from syncflow_dagster.ops import (
    RESOURCES,
    closing_on_error,
    connections_of,
    metadata_of,
    utc_now,
)

Mode = Literal["auto", "full", "incremental"]


class PlanConfig(dg.Config):
    """What is to be planned, for the launchpad."""

    entities: list[str] = pydantic.Field(default_factory=list)
    """Entities by name; none for all enabled ones."""
    mode: Mode = "auto"
    """auto: incremental where the entity's strategy is rowversion and a watermark exists, else full."""
    slice: int = 0
    """One slice, from 1; 0 for all rows."""
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


class ReconcileConfig(dg.Config):
    """What is compared, for the launchpad."""

    entities: list[str] = pydantic.Field(default_factory=list)
    """Entities by name; none for all enabled ones."""
    sample: int = 0
    """So many records of each, drawn by chance and compared by content; 0 for all, by hash."""
    repair: bool = False
    """Whether what the hub really holds is taken over, so that the plan sets it right."""
    wait_s: float = 60.0
    """How long to wait, in seconds, while a sync holds an entity."""


@dg.op(
    name="make_plan",
    description="What a sync would do, record by record; nothing is pushed.",
    required_resource_keys=RESOURCES,
)
def plan_op(context: dg.OpExecutionContext, config: PlanConfig) -> None:
    """Plan the entities, parents first; one that fails is told at the end, after the others."""
    connections = connections_of(context)
    entities, order = _declared(connections)
    names = _chosen(config.entities, entities, order)
    slices = (config.slice,) if config.slice else ()
    with _telling_last() as attempt:
        for name in names:
            with attempt():
                asked = _order(context, connections, name, order, config.wait_s)
                asked = _dry(asked, config.mode, slices)
                with closing_on_error(connections, asked):
                    made = make_plan(
                        connections, stage(connections, asked, now=utc_now), now=utc_now
                    )
                context.log_event(
                    dg.AssetObservation(asset_key=[name], metadata=plan_metadata(made))
                )


@dg.op(
    name="apply",
    description="Approve plans and do what they say, or say what has changed since.",
    required_resource_keys=RESOURCES,
)
def apply_op(context: dg.OpExecutionContext, config: ApplyConfig) -> None:
    """Apply the plans, parents first."""
    connections = connections_of(context)
    _, order = _declared(connections)
    with connections.database.begin() as connection:
        chosen = [plans.load_plan(connection, _uid(text)) for text in config.plans]
        for plan in chosen:
            plans.approve_plan(connection, plan.uid, by=config.approved_by, now=utc_now())
    chosen.sort(key=lambda plan: order.order.index(plan.entity))
    with _telling_last() as attempt:
        for plan in chosen:
            with attempt():
                asked = _order(context, connections, plan.entity, order, config.wait_s)
                asked = _applying(connections, asked, plan)
                with closing_on_error(connections, asked):
                    staged, report = sync(connections, asked, now=utc_now)
                metadata = {**metadata_of(report, staged), "plan": str(plan.uid)}
                context.log_event(
                    dg.AssetMaterialization(asset_key=[plan.entity], metadata=metadata)
                )


@dg.op(
    name="compare",
    description="Compare records with hub and source; a plan sets right what differs.",
    required_resource_keys=RESOURCES,
)
def reconcile_op(context: dg.OpExecutionContext, config: ReconcileConfig) -> None:
    """Reconcile the entities, parents first."""
    connections = connections_of(context)
    entities, order = _declared(connections)
    with _telling_last() as attempt:
        for name in _chosen(config.entities, entities, order):
            with attempt():
                if config.sample:
                    asked = Order(
                        entity=name, batch=new_uid(), run_id=context.run_id, wait_s=config.wait_s
                    )
                    done = reconcile_sample(connections, asked, config.sample, now=utc_now)
                else:
                    asked = _dry(
                        _order(context, connections, name, order, config.wait_s), "full", ()
                    )
                    with closing_on_error(connections, asked):
                        done = reconcile_whole(
                            connections, asked, repair=config.repair, now=utc_now
                        )
                context.log_event(
                    dg.AssetObservation(asset_key=[name], metadata=reconciled_metadata(done))
                )


def build_reconcile_check(name: str) -> dg.AssetChecksDefinition:
    """The asset check that compares a sample of the entity's records by content."""

    @dg.asset_check(
        asset=dg.AssetKey([name]),
        name=RECONCILED,
        description=f"{SAMPLE} records drawn by chance are the same in source and hub.",
        required_resource_keys=RESOURCES,
    )
    def check(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        order = Order(entity=name, batch=new_uid(), run_id=context.run.run_id)
        try:
            done = reconcile_sample(
                connections_of(context.op_execution_context), order, SAMPLE, now=utc_now
            )
        except SyncFlowError as error:
            raise as_failure(error) from error
        return dg.AssetCheckResult(
            passed=done.found.differences == 0,
            severity=dg.AssetCheckSeverity.WARN,
            metadata=reconciled_metadata(done),
        )

    return check


RECONCILED = "reconciliation"
SAMPLE = 100
"""Records that the asset check compares."""


def reconciled_metadata(done: Reconciled) -> dict[str, Any]:
    """What the asset shows of a reconciliation."""
    found = done.found
    names = ("side", "kind", "record")
    records = [dg.TableRecord({name: str(row[name]) for name in names}) for row in found.samples]
    schema = dg.TableSchema([dg.TableColumn(name, "string") for name in names])
    return {
        "reconciled": found.kind,
        "compared": found.compared,
        "accuracy": found.accuracy,
        "accuracy_at_least": found.bound,
        **dict(found.counts),
        "differences": dg.MetadataValue.table(records=records, schema=schema)
        if records
        else dg.MetadataValue.text("none"),
        **({"plan": str(done.plan.uid)} if done.plan is not None else {}),
    }


def build_plan_jobs() -> list[dg.JobDefinition]:
    """``plan``, ``apply_plan`` and ``reconcile``: one op each."""

    @dg.job(
        name="plan",
        description="What a sync would do: counts, samples, old and new values. Nothing is pushed.",
    )
    def plan_job() -> None:
        plan_op()

    @dg.job(
        name="apply_plan",
        description="Approve plans by their ids: a withheld one as a ceiling, another exactly.",
    )
    def apply_job() -> None:
        apply_op()

    @dg.job(
        name="reconcile",
        description="Compare records with hub and source, all or a sample; repair through a plan.",
    )
    def reconcile_job() -> None:
        reconcile_op()

    return [plan_job, apply_job, reconcile_job]


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


def _declared(connections: Connections) -> tuple[list[Entity], Lineage]:
    with connections.database.begin() as connection:
        entities = load_entities(connection)
    return entities, lineage(entities)


def _chosen(names: Sequence[str], entities: Sequence[Entity], order: Lineage) -> list[str]:
    known = {entity.name for entity in entities}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise as_failure(
            ConfigError(
                f"unknown entity {', '.join(unknown)}; known are {', '.join(sorted(known)) or 'none'}"
            )
        )
    return [name for name in order.order if not names or name in names]


def _uid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError as error:
        raise as_failure(ConfigError(f"{text!r} is no plan's id")) from error


def _order(
    context: dg.OpExecutionContext,
    connections: Connections,
    name: str,
    order: Lineage,
    wait_s: float,
) -> Order:
    """An order for one entity, its batch written down as pending."""
    asked = Order(
        entity=name,
        batch=new_uid(),
        run_id=context.run_id,
        wait_s=wait_s,
        deferred=tuple(sorted(reference for child, reference in order.deferred if child == name)),
    )
    with connections.database.begin() as connection:
        batches.open_batch(
            connection,
            uid=asked.batch,
            entity=name,
            entity_version=load_registered(connection, [name], enabled=None)[0].version,
            kind="full",
            now=utc_now(),
            status="pending",
            dagster_run_id=asked.run_id,
        )
    return asked


def _dry(order: Order, mode: Mode, slices: tuple[int, ...]) -> Order:
    kind = None if mode == "auto" else mode
    return msgspec.structs.replace(order, dry_run=True, kind=kind, slices=slices)


def _applying(connections: Connections, order: Order, plan: Plan) -> Order:
    """The order that reads what the plan read, and may do what it says."""
    with connections.database.begin() as connection:
        batch = None if plan.batch is None else batches.load_batch(connection, plan.batch)
    proof = {} if batch is None else batch.proof or {}
    kind = proof.get("kind") if plan.kind == "sync" else "full"
    slices = tuple(proof.get("slices", ())) if plan.kind == "sync" else ()
    return msgspec.structs.replace(order, plan=plan.uid, kind=kind, slices=slices)


@contextmanager
def _telling_last() -> Iterator[Callable[[], Any]]:
    """Let each block of the inner context fail by itself; the first failure is raised at the end."""
    failures: list[SyncFlowError | dg.Failure] = []

    @contextmanager
    def attempt() -> Iterator[None]:
        try:
            yield
        except (SyncFlowError, dg.Failure) as error:
            failures.append(error)

    yield attempt
    if failures:
        raise failures[0]
