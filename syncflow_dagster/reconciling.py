"""The job ``reconcile`` and the asset check of the same kind: records compared with hub and source.

Belongs here: running a reconciliation in one op, and showing what it found on the asset.
Does not belong here: comparing (``syncflow_core.stages.reconcile`` and ``spot_check``).

Source: product.md 8 and 13; design.md, "Dagster".
"""

from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg
import pydantic

from syncflow_core.bridge.identifiers import new_uid
from syncflow_core.parents import Lineage
from syncflow_core.stages.plan import make_plan
from syncflow_core.stages.reconcile import Reconciled, reconcile_whole
from syncflow_core.stages.spot_check import reconcile_sample
from syncflow_core.stages.whole import stage
from syncflow_core.stages.work import Connections, Order
from syncflow_dagster.clock import utc_now
from syncflow_dagster.failures import told_to_dagster
from syncflow_dagster.op_jobs import RECONCILE
from syncflow_dagster.ops import RESOURCES, closing_on_error, connections_of
from syncflow_dagster.orders import chosen, declared, dry_run, order_for, telling_last


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
    name=RECONCILE.op,
    description="Compare records with hub and source; a plan sets right what differs.",
    required_resource_keys=RESOURCES,
)
@told_to_dagster()
def reconcile_op(context: dg.OpExecutionContext, config: ReconcileConfig) -> None:
    """Reconcile the entities, parents first."""
    connections = connections_of(context)
    entities, lineage = declared(connections)
    with telling_last() as attempt:
        for name in chosen(connections, config.entities, entities, lineage):
            with attempt():
                done = _reconciled(context, connections, name, lineage, config)
                context.log_event(
                    dg.AssetObservation(asset_key=[name], metadata=reconciled_metadata(done))
                )


def _reconciled(
    context: dg.OpExecutionContext,
    connections: Connections,
    name: str,
    lineage: Lineage,
    config: ReconcileConfig,
) -> Reconciled:
    """What was found of one entity; where a sample's differences are to be repaired, with a plan."""
    asked = order_for(context, connections, name, lineage, config.wait_s, "plan")
    with closing_on_error(connections, asked):
        if not config.sample:
            return reconcile_whole(
                connections, dry_run(asked, "full"), repair=config.repair, now=utc_now
            )
        done = reconcile_sample(
            connections, asked, config.sample, repair=config.repair, now=utc_now
        )
    if not done.found.repaired:
        return done
    asked = dry_run(order_for(context, connections, name, lineage, config.wait_s, "plan"), "full")
    with closing_on_error(connections, asked):
        plan = make_plan(connections, stage(connections, asked, now=utc_now), now=utc_now)
    return Reconciled(done.found, plan)


def build_reconcile_checks(names: Sequence[str]) -> list[dg.AssetChecksDefinition]:
    """The asset check of each entity that compares a sample of its records by content.

    All are one op that can be asked for some of them: an op each would make a large location load slowly.
    """
    if not names:
        return []  # Dagster knows no op without a check

    @dg.multi_asset_check(
        name=RECONCILED,
        description="Compare records drawn by chance.",
        specs=[
            dg.AssetCheckSpec(
                RECONCILED,
                asset=dg.AssetKey([name]),
                description=f"{CHECK_SAMPLE} records drawn by chance are the same in source and hub.",
            )
            for name in names
        ],
        can_subset=True,
        required_resource_keys=RESOURCES,
    )
    def check(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        with told_to_dagster(), telling_last() as attempt:
            connections = connections_of(context.op_execution_context)
            for key in sorted(item.asset_key for item in context.selected_asset_check_keys):
                with attempt():
                    order = Order(
                        entity=key.to_user_string(), batch=new_uid(), run_id=context.run.run_id
                    )
                    with closing_on_error(connections, order):
                        done = reconcile_sample(connections, order, CHECK_SAMPLE, now=utc_now)
                    yield dg.AssetCheckResult(
                        asset_key=key,
                        check_name=RECONCILED,
                        passed=done.found.differences == 0,
                        severity=dg.AssetCheckSeverity.WARN,
                        metadata=reconciled_metadata(done),
                    )

    return [check]


RECONCILED = "reconciliation"
CHECK_SAMPLE = 100
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


def build_reconcile_job() -> dg.JobDefinition:
    """``reconcile``."""

    @dg.job(
        name=RECONCILE.name,
        description="Compare records with hub and source, all or a sample; repair through a plan.",
    )
    def reconcile_job() -> None:
        reconcile_op()

    return reconcile_job
