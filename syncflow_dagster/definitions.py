"""The code location: every declared entity as an asset, its jobs and resources.

Belongs here: assembling.
Does not belong here: anything with a decision in it.

Source: product.md 8.
"""

from collections.abc import Sequence

import dagster as dg

from syncflow_core.entity import Entity
from syncflow_core.settings import read_settings
from syncflow_dagster.alerting import build_alert_sensor
from syncflow_dagster.assets import build_assets
from syncflow_dagster.daytime import build_day_schedule
from syncflow_dagster.forks import fork_runs
from syncflow_dagster.frame_io import FrameIOManager
from syncflow_dagster.jobs import build_jobs
from syncflow_dagster.logs import log_to_stderr
from syncflow_dagster.nights import build_night_schedule, build_window_guard
from syncflow_dagster.planning import build_plan_jobs
from syncflow_dagster.reconciling import build_reconcile_checks, build_reconcile_job
from syncflow_dagster.registry import read_entities
from syncflow_dagster.resources import resources
from syncflow_dagster.retrying import build_retry_job, build_retry_sensor
from syncflow_dagster.schedules import build_schedules
from syncflow_dagster.scopes import gather_by_known_classes
from syncflow_dagster.sensors import build_sensors
from syncflow_dagster.tidying import build_tidy_job


def build(
    entities: Sequence[Entity],
    slices: int,
    *,
    time_zone: str = "UTC",
    own_checks_only: bool = False,
) -> dg.Definitions:
    """The definitions of these entities.

    Args:
        entities: The enabled ones.
        slices: How many slices each has.
        time_zone: The installation's, for what the clock starts.
        own_checks_only: Whether the checks that are runs of their own are left out: Dagster runs an
            asset's checks with it unless they do not exist.
    """
    gather_by_known_classes()
    checks = [] if own_checks_only else build_reconcile_checks([item.name for item in entities])
    reconcile, retry, tidy = build_reconcile_job(), build_retry_job(), build_tidy_job()
    jobs = build_jobs([entity.name for entity in entities], slices)
    # there are no such jobs of no entity
    clock = [build_night_schedule(), build_day_schedule(slices)] if jobs else []
    guard = [build_window_guard()] if jobs else []
    return dg.Definitions(
        assets=build_assets(entities, slices, time_zone),
        asset_checks=checks,
        jobs=[
            *jobs,
            *build_plan_jobs(slices),
            reconcile,
            retry,
            tidy,
        ],
        sensors=[
            build_retry_sensor(retry),
            *guard,
            *build_sensors(tidy.name),
            build_alert_sensor(tidy.name),
        ],
        schedules=[*build_schedules(reconcile, tidy, time_zone), *clock],
        resources={**resources(), "frame_io": FrameIOManager()},
        executor=dg.in_process_executor,
    )


@dg.definitions
def defs() -> dg.Definitions:
    """What ``workspace.yaml`` loads."""
    settings = read_settings()
    log_to_stderr(settings, server=True)
    fork_runs()
    return build(read_entities(settings), settings.slices, time_zone=settings.time_zone)
