"""The code location: every declared entity as an asset, its jobs and resources.

Belongs here: assembling.
Does not belong here: anything with a decision in it.

Source: product.md 8.
"""

from collections.abc import Sequence

import dagster as dg

from syncflow_core.entity import Entity
from syncflow_core.settings import read_settings
from syncflow_dagster.assets import build_assets
from syncflow_dagster.frame_io import FrameIOManager
from syncflow_dagster.jobs import build_jobs
from syncflow_dagster.planning import build_plan_jobs, build_reconcile_check
from syncflow_dagster.registry import read_entities
from syncflow_dagster.resources import resources


def build(entities: Sequence[Entity], slices: int) -> dg.Definitions:
    """The definitions of these entities."""
    return dg.Definitions(
        assets=build_assets(entities, slices),
        asset_checks=[build_reconcile_check(entity.name) for entity in entities],
        jobs=[*build_jobs([entity.name for entity in entities], slices), *build_plan_jobs()],
        resources={**resources(), "frame_io": FrameIOManager()},
        executor=dg.in_process_executor,
    )


@dg.definitions
def defs() -> dg.Definitions:
    """What ``workspace.yaml`` loads."""
    settings = read_settings()
    return build(read_entities(settings), settings.slices)
