"""Run assets in this process, through Dagster, so that the run is in the UI like any other.

Belongs here: one run, from names and slices to its end; which batches it left.
Does not belong here: showing it (``cli``), what the ops do (``ops``).

Source: design.md, "Command line".
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import dagster as dg
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.execution.api import execute_run_iterator
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.storage.tags import MAX_RETRIES_TAG

from syncflow_core.bridge import batches
from syncflow_core.bridge.batches import Batch
from syncflow_core.bridge.database import Database
from syncflow_core.entity import Entity
from syncflow_core.errors import SyncFlowError
from syncflow_dagster.abandoned import COMMAND_LINE, STARTED_BY_TAG, end_abandoned, mark
from syncflow_dagster.choices import Mode, refuse_slice, refuse_unknown
from syncflow_dagster.clock import utc_now
from syncflow_dagster.definitions import build
from syncflow_dagster.failures import Broken, broken
from syncflow_dagster.interrupts import told
from syncflow_dagster.partitions import LOCATION, REPOSITORY, range_tags, slice_key
from syncflow_dagster.printed import left_alone
from syncflow_dagster.resources import lent
from syncflow_dagster.statuses import CANCELED
from syncflow_dagster.unbegun import close_forgotten, close_unbegun

QUIET: Final[dict[str, object]] = {
    # the events are in the UI; the terminal shows progress and the end
    "loggers": {"console": {"config": {"log_level": "CRITICAL"}}}
}


@dataclass(frozen=True)
class Run:
    """How a run ended."""

    run_id: str
    succeeded: bool
    stopped: bool
    batches: tuple[Batch, ...]
    """One of each entity asked for, in the order asked; retries of released children behind them."""
    broken: Broken | None = None
    """What ended a job's op, which may have come to no batch."""


def run_sync(  # each is a choice of whoever starts it
    instance: dg.DagsterInstance,
    database: Database,
    entities: Sequence[Entity],
    names: Sequence[str],
    *,
    mode: Mode = "auto",
    slice_: int | None = None,
    slices: int = 7,
    wait_s: float = 60.0,
) -> Run:
    """Sync these entities, parents first; each has a batch afterwards, also one that never began.

    Raises:
        ConfigError: A name that is no enabled entity's, or a slice that does not exist.
    """
    refuse_unknown(names, entities, database)
    refuse_slice(slice_, slices)
    keys = {dg.AssetKey([name]) for name in names}
    subset = _sync_job(_Declared(entities), slices, frozenset(keys))
    tags = range_tags([1, slices]) if slice_ is None else {"dagster/partition": slice_key(slice_)}
    config = {
        **QUIET,
        "ops": {
            name: {"ops": {"fetch": {"config": {"mode": mode, "wait_s": wait_s}}}} for name in names
        },
    }
    run, stopped = _execute(instance, database, subset, config, tags, keys)
    return Run(
        run_id=run.run_id,
        succeeded=run.is_success,
        stopped=stopped,
        batches=_batches(instance, database, run, names, stopped=stopped),
    )


def run_job(
    instance: dg.DagsterInstance,
    database: Database,
    entities: Sequence[Entity],
    name: str,
    config: Mapping[str, object],
    *,
    slices: int = 7,
) -> Run:
    """Run one of the jobs that are not an asset's, of one op each, in this process."""
    job = build(entities, slices).resolve_job_def(name)
    ops = {node.name: {"config": dict(config)} for node in job.graph.nodes}
    run, stopped = _execute(instance, database, job, {**QUIET, "ops": ops}, {})
    with database.begin() as connection:
        found = batches.history(connection, dagster_run_id=run.run_id, limit=10_000)[::-1]
    ended = {} if run.is_success else broken(instance, run.run_id)
    return Run(
        run_id=run.run_id,
        succeeded=run.is_success,
        stopped=stopped,
        batches=tuple(found),
        broken=next(iter(ended.values()), None),
    )


class _Declared(tuple[Entity, ...]):
    """Entities that are the same where all they declare is."""

    __slots__ = ()

    def __hash__(self) -> int:
        return hash(tuple(entity.name for entity in self))


@functools.lru_cache(maxsize=4)
def _sync_job(entities: _Declared, slices: int, keys: frozenset[dg.AssetKey]) -> dg.JobDefinition:
    """The job of these assets; kept, for who syncs once often syncs again."""
    # the checks that are not the ops' own run when they are asked for, not with each sync
    job = build(entities, slices, own_checks_only=True).resolve_implicit_global_asset_job_def()
    return job.get_subset(asset_selection=keys)


def _execute(
    instance: dg.DagsterInstance,
    database: Database,
    job: dg.JobDefinition,
    config: Mapping[str, object],
    tags: Mapping[str, str],
    keys: set[dg.AssetKey] | None = None,
) -> tuple[dg.DagsterRun, bool]:
    """Run a job in this process: the run as it ended, whether it was stopped.

    Raises:
        KeyboardInterrupt: The command was told to end before there was a run.
    """
    if told():
        raise KeyboardInterrupt
    end_abandoned(instance)
    with database.begin() as connection:
        close_forgotten(instance, connection, utc_now())
    run = instance.create_run_for_job(
        job_def=job,
        run_config=config,
        tags={**tags, STARTED_BY_TAG: COMMAND_LINE, MAX_RETRIES_TAG: "0"},
        asset_selection=keys,
        # so that the UI can take up a run that failed; by itself nobody does
        remote_job_origin=RemoteJobOrigin(
            RemoteRepositoryOrigin(RegisteredCodeLocationOrigin(LOCATION), REPOSITORY), job.name
        ),
    )
    mark(instance, run.run_id)
    interrupted = False
    try:
        with lent(database), left_alone():
            for _ in execute_run_iterator(InMemoryJob(job), run, instance):
                pass
    except (DagsterExecutionInterruptedError, KeyboardInterrupt):
        interrupted = True
    ended = instance.get_run_by_id(run.run_id)
    if ended is None:
        raise SyncFlowError(f"run {run.run_id} is gone from Dagster's history")
    stopped = (
        interrupted
        or ended.status in CANCELED
        or _was_stopped(database, run.run_id)
        or (told() and not ended.is_success)  # Dagster calls a run that was told early a failed one
    )
    return ended, stopped


def _was_stopped(database: Database, run_id: str) -> bool:
    """Whether one of the run's batches was stopped: Dagster ends an interrupted op as failed."""
    with database.read() as connection:
        return bool(
            batches.history(connection, dagster_run_id=run_id, statuses=["stopped"], limit=1)
        )


def _batches(
    instance: dg.DagsterInstance,
    database: Database,
    run: dg.DagsterRun,
    names: Sequence[str],
    *,
    stopped: bool,
) -> tuple[Batch, ...]:
    """The run's batches; an entity that never began has one that says so."""
    with database.begin() as connection:
        close_unbegun(instance, connection, run, utc_now(), stopped=stopped)
        found = batches.history(connection, dagster_run_id=run.run_id, limit=10_000)[::-1]
    own = {batch.entity: batch for batch in found if batch.kind != "retry"}
    released = [batch for batch in found if batch.kind == "retry"]
    return (*(own[name] for name in names), *released)
