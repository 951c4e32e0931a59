"""The jobs that a person starts with one click.

Belongs here: which assets, how many slices, how many tries.
Does not belong here: asset implementations.

Source: design.md, "Dagster".
"""

from collections.abc import Sequence

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from syncflow_dagster.checks import own_checks
from syncflow_dagster.partitions import range_tags


def build_jobs(names: Sequence[str], slices: int) -> list[UnresolvedAssetJobDefinition]:
    """``sync_all`` and one ``sync_<entity>`` each: every slice in one run, without a partition to pick."""
    if not names:
        return []
    tags = range_tags([1, slices])
    return [
        dg.define_asset_job(
            "night",
            selection=_synced(names),
            description="Slices of entities, as the night window asks for them.",
        ),
        dg.define_asset_job(
            "incremental",
            selection=_synced(names),
            tags=tags,
            description="What has changed of entities since they were read last, as their intervals ask.",
        ),
        dg.define_asset_job(
            "sync_all",
            selection=_synced(names),
            tags=tags,
            description="Every entity, whole: parents first, all slices in one run.",
        ),
        *(
            dg.define_asset_job(
                f"sync_{name}",
                selection=_synced([name]),
                tags=tags,
                description=f"{name}, whole: all slices in one run.",
            )
            for name in names
        ),
    ]


def _synced(names: Sequence[str]) -> dg.AssetSelection:
    """The assets with the check that their own ops make; the others run when they are asked for."""
    own = dg.AssetSelection.checks(*own_checks(names))
    return dg.AssetSelection.assets(*names).without_checks() | own
