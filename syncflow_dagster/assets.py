"""The asset of an entity: six ops in a row, partitioned by slices, after its parents.

Belongs here: turning an entity into an asset; the only place that does.
Does not belong here: what an op does (``ops``), which entities there are (``registry``).

Source: product.md 8; dagster.md 1 and 2.
"""

from collections.abc import Sequence

import dagster as dg

from syncflow_core.entity import Entity
from syncflow_core.parents import Lineage, lineage
from syncflow_dagster.ops import ACCOUNTS_CLOSE, build_ops
from syncflow_dagster.partitions import partitions


def build_assets(entities: Sequence[Entity], slices: int) -> list[dg.AssetsDefinition]:
    """The assets of these entities, parents before children.

    Raises:
        ConfigError: A cycle of parents that cannot be cut.
    """
    order = lineage(entities)
    return [build_asset(entity, order, slices) for entity in entities]


def build_asset(entity: Entity, order: Lineage, slices: int) -> dg.AssetsDefinition:
    """The asset of one entity: its key is the entity's name, its ops are ``<entity>.<stage>``."""
    name = entity.name
    parents = order.parents[name]
    deferred = tuple(sorted(reference for child, reference in order.deferred if child == name))
    ops = build_ops(name, has_parents=bool(parents), slices=slices, deferred=deferred)

    @dg.graph_asset(
        name=name,
        partitions_def=partitions(slices),
        backfill_policy=dg.BackfillPolicy.single_run(),
        ins={
            parent: dg.AssetIn(dg.AssetKey([parent]), dagster_type=dg.Nothing) for parent in parents
        },
        group_name=entity.group,
        owners=entity.owners,
        kinds={"polars", "postgres"},
        tags={"syncflow/collection": entity.collection},
        description=entity.description
        or f"APISmith {entity.api} to ScheduleHub {entity.collection}.",
        metadata={
            "api": entity.api,
            "collection": entity.collection,
            "parents": ", ".join(sorted(item.entity for item in entity.parents.values())) or "none",
        },
        check_specs=[
            dg.AssetCheckSpec(
                ACCOUNTS_CLOSE,
                asset=dg.AssetKey([name]),
                description="fetched = rejected + inserted + updated + unchanged + pending + failed + withheld",
            )
        ],
    )
    def entity_asset(**upstream: object) -> dict[str, object]:
        fetched = (
            ops.fetch.alias("fetch")(parents=list(upstream.values()))
            if upstream
            else ops.fetch.alias("fetch")()
        )
        normalized = ops.normalize.alias("normalize")(fetched)
        identified = ops.identity.alias("identity")(normalized)
        changes = ops.delta.alias("delta")(identified)
        resolved = ops.resolve.alias("resolve")(changes)
        pushed = ops.push.alias("push")(resolved)
        return {
            "result": pushed.result,
            f"{name}_{ACCOUNTS_CLOSE}": getattr(pushed, ACCOUNTS_CLOSE),
        }

    return entity_asset
