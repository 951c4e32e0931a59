"""The job ``retry_failed`` and the sensor that starts it: what was not delivered is tried once more.

Belongs here: choosing the entities, running a retry of each in one op, asking when one is due.
Does not belong here: what a retry reads (``syncflow_core.stages.undelivered``), how rows are delivered.

Source: product.md 6 and 8; product.md, "Accounts, statuses, exits".
"""

from datetime import datetime
from uuid import UUID

import dagster as dg
import msgspec
import pydantic
import sqlalchemy as sa

from syncflow_core.bridge import browse, failed, pending
from syncflow_core.bridge.failed import Alike
from syncflow_core.bridge.leases import held_entities
from syncflow_core.errors import ConfigError
from syncflow_core.settings import read_settings
from syncflow_core.stages.whole import sync
from syncflow_dagster.clock import utc_now
from syncflow_dagster.failures import told_to_dagster
from syncflow_dagster.metadata import metadata_of
from syncflow_dagster.op_jobs import RETRY
from syncflow_dagster.ops import (
    RESOURCES,
    closing_on_error,
    connections_of,
)
from syncflow_dagster.orders import chosen, declared, order_for, telling_last
from syncflow_dagster.session import bridge
from syncflow_dagster.statuses import LIVE
from syncflow_dagster.tags import BY_CLOCK

EVERY_S = 30
"""Seconds between two looks of the sensor: a child goes within the minute in which its parent landed."""


class RetryConfig(dg.Config):
    """What is to be tried again, for the launchpad."""

    entities: list[str] = pydantic.Field(default_factory=list)
    """Entities by name; none for all enabled ones that have something to try."""
    ids: list[str] = pydantic.Field(default_factory=list)
    """These failed records alone, by their uid."""
    batch: str = ""
    """Those that this batch met last."""
    stage: str = ""
    """Those that failed in this stage, by this rule, in this column."""
    rule: str = ""
    column: str = ""
    due_only: bool = False
    """Whether only what is due is tried, as the sensor does; a person tries everything."""
    wait_s: float = 60.0
    """How long to wait, in seconds, while another sync holds an entity."""


@dg.op(
    name=RETRY.op,
    description="Read the rows of dead letters and waiting children by key, and deliver them.",
    required_resource_keys=RESOURCES,
)
@told_to_dagster()
def retry_op(context: dg.OpExecutionContext, config: RetryConfig) -> None:
    """Retry the entities, parents first; one that fails is told at the end, after the others."""
    connections = connections_of(context)
    entities, lineage = declared(connections)
    names = chosen(connections, config.entities, entities, lineage)
    alike = _alike(config)
    if not config.entities or alike is not None:
        with connections.database.begin() as connection:
            undelivered = (
                entities_with(connection, due_by=utc_now() if config.due_only else None)
                if alike is None
                else failed.entities_alike(connection, alike)
            )
        names = [name for name in names if name in undelivered]
    with telling_last() as attempt:
        for name in names:
            with attempt():
                asked = msgspec.structs.replace(
                    order_for(context, connections, name, lineage, config.wait_s, "retry"),
                    kind="retry",
                    letters=alike,
                    by_person=not config.due_only,
                )
                with closing_on_error(connections, asked):
                    staged, report = sync(connections, asked, now=utc_now)
                context.log_event(
                    dg.AssetObservation(
                        asset_key=[name], metadata=metadata_of(connections, report, staged)
                    )
                )


def _alike(config: RetryConfig) -> Alike | None:
    """What the failed records have in common that are to be tried; None: whatever failed."""
    try:
        alike = Alike(
            batch=UUID(config.batch) if config.batch else None,
            stage=config.stage or None,
            rule=config.rule or None,
            column=config.column or None,
            uids=tuple(map(UUID, config.ids)),
        )
    except ValueError as error:
        raise ConfigError(f"batch and ids are UUIDs: {error}") from error
    return None if alike == Alike() else alike


def entities_with(connection: sa.Connection, *, due_by: datetime | None) -> set[str]:
    """Entities with something undelivered at all (None), or due by then and not being synced."""
    if due_by is not None:
        due = {
            *failed.entities_due(connection, due_by),
            *pending.entities_to_release(connection, due_by),
        }
        return due - held_entities(connection)
    return browse.entities_with_undelivered(connection)


def build_retry_job() -> dg.JobDefinition:
    """``retry_failed``."""

    @dg.job(
        name=RETRY.name,
        description="Try once more what was not delivered: dead letters, and children that wait.",
    )
    def retry_job() -> None:
        retry_op()

    return retry_job


def build_retry_sensor(job: dg.JobDefinition) -> dg.SensorDefinition:
    """``undelivered``: starts ``retry_failed`` where a record is due, or its parent has landed."""

    def look(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        running = context.instance.get_runs(
            dg.RunsFilter(job_name=RETRY.name, statuses=LIVE), limit=1
        )
        if running:
            return dg.SkipReason(f"run {running[0].run_id} is still trying")
        with bridge(read_settings()) as connection:
            names = sorted(entities_with(connection, due_by=utc_now()))
        if not names:
            return dg.SkipReason("nothing is due")
        config = {"entities": names, "due_only": True, "wait_s": 0.0}
        return dg.RunRequest(run_config=RETRY.configured(config), tags=BY_CLOCK)

    return dg.SensorDefinition(
        name="undelivered",
        evaluation_fn=look,
        job_name=job.name,  # by object Dagster rebuilds the sensor, and warns of its own beta parameter
        minimum_interval_seconds=EVERY_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Dead letters and waiting children that are due, or whose parents have landed.",
    )
