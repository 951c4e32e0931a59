"""The asset of an entity: six ops in a row, partitioned by slices, from the source's to the hub's.

Belongs here: turning an entity into an asset; the only place that does.
Does not belong here: what an op does (``ops``), which entities there are (``registry``).

Source: product.md 8; dagster.md 1, 2 and 7.
"""

import datetime as dt
import functools
from collections.abc import Sequence
from typing import Any, Final

import dagster as dg

from syncflow_core.entity import Entity
from syncflow_core.parents import Lineage
from syncflow_core.parents import lineage as lineage_of
from syncflow_dagster.checks import CHECKS, specs
from syncflow_dagster.metadata import source_key, target_key
from syncflow_dagster.ops import build_ops
from syncflow_dagster.partitions import partitions

A_DAY: Final = dt.timedelta(hours=24)


def build_assets(
    entities: Sequence[Entity], slices: int, time_zone: str
) -> list[dg.AssetsDefinition]:
    """The assets of these entities, and what stands for the systems at both ends.

    Raises:
        ConfigError: A cycle of parents that cannot be cut.
    """
    lineage = lineage_of(entities)
    return [
        *_sources(entities),
        *(build_asset(entity, lineage, slices, time_zone) for entity in entities),
        *_targets(entities),
    ]


def build_asset(
    entity: Entity, lineage: Lineage, slices: int, time_zone: str
) -> dg.AssetsDefinition:
    """The asset of one entity: its key is the entity's name, its ops are ``<entity>.<stage>``.

    Args:
        entity: The declaration.
        lineage: Who goes before whom.
        slices: How many slices there are.
        time_zone: The installation's, where the entity's window names none.
    """
    name = entity.name
    parents = lineage.parents[name]
    upstream = {
        "after": source_key(entity.api),
        **{f"after_{parent}": dg.AssetKey([parent]) for parent in parents},
    }
    ops = build_ops(name, after=tuple(upstream), slices=slices, deferred=lineage.deferred_of(name))
    night = entity.schedule.background
    minutes = entity.schedule.incremental_minutes

    @dg.graph_asset(
        name=name,
        partitions_def=partitions(slices),
        backfill_policy=dg.BackfillPolicy.single_run(),
        ins={after: dg.AssetIn(key, dagster_type=dg.Nothing) for after, key in upstream.items()},
        group_name=entity.group,
        owners=entity.owners,
        kinds={"polars", "postgres"},
        tags={
            "syncflow/collection": entity.collection,
            "syncflow/night": "swept" if night.enabled else "off",
        },
        description=entity.description
        or f"APISmith {entity.api} to ScheduleHub {entity.collection}.",
        metadata={
            "api": entity.api,
            "collection": entity.collection,
            "parents": ", ".join(sorted(item.entity for item in entity.parents.values())) or "none",
            "night_window": f"{night.window} {night.time_zone or time_zone}, {slices} slices in "
            f"{night.nights} nights"
            if night.enabled
            else "none",
            "by_day": f"every {minutes} minutes" if minutes else "not",
        },
        check_specs=specs(name),
    )
    def entity_asset(**after: object) -> dict[str, object]:
        fetched = ops.fetch.alias("fetch")(**after)
        normalized = ops.normalize.alias("normalize")(fetched)
        identified = ops.identity.alias("identity")(normalized)
        changes = ops.delta.alias("delta")(identified)
        resolved = ops.resolve.alias("resolve")(changes)
        pushed = ops.push.alias("push")(resolved)
        return {
            "result": pushed.result,
            **{f"{name}_{check.name}": getattr(pushed, check.name) for check in CHECKS},
        }

    return _fresh(entity_asset, entity, time_zone)


def _fresh(asset: dg.AssetsDefinition, entity: Entity, time_zone: str) -> dg.AssetsDefinition:
    """The asset, to be synced by the end of each night in which it has a slice."""
    night = entity.schedule.background
    if not night.enabled or night.nights > 7:  # noqa: PLR2004  # nights without a slice are none to miss
        return asset
    policy = _by(night.window.partition("-")[2], night.time_zone or time_zone)
    return asset.map_asset_specs(lambda spec: spec.replace_attributes(freshness_policy=policy))


@functools.cache
def _by(time: str, zone: str) -> dg.FreshnessPolicy:
    """Synced by this time each day; Dagster looks through a thousand days for each one it makes."""
    hour, minute = time.split(":")
    return dg.FreshnessPolicy.cron(
        deadline_cron=f"{int(minute)} {int(hour)} * * *", lower_bound_delta=A_DAY, timezone=zone
    )


def _sources(entities: Sequence[Entity]) -> list[dg.AssetsDefinition]:
    """What APISmith serves."""
    return [
        _external(
            source_key(api),
            group_name="apismith",
            kinds={"oracle"},
            description=f"The ERP's {api}, as APISmith serves it.",
        )
        for api in sorted({entity.api for entity in entities})
    ]


def _targets(entities: Sequence[Entity]) -> list[dg.AssetsDefinition]:
    """What ScheduleHub holds."""
    return [
        _external(
            target_key(entity.collection),
            deps=[dg.AssetKey([entity.name])],
            group_name="schedulehub",
            kinds={"json"},
            description=f"ScheduleHub's {entity.collection}, as it acknowledged it.",
        )
        for entity in entities
    ]


def _external(key: dg.AssetKey, **options: Any) -> dg.AssetsDefinition:  # noqa: ANN401  # AssetSpec's
    """An asset that nobody runs, by itself: Dagster takes bare specs as one thing, in every job whole."""
    return dg.AssetsDefinition(specs=[dg.AssetSpec(key, **options)])
