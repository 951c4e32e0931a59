"""Batches of entities whose turn never came: each entity that was asked for has one, however its run ended.

Belongs here: closing batches that a run did not come to, and opening those that say so.
Does not belong here: batches that began (``ops``), runs whose process died (``abandoned``).

Source: product.md, "Accounts, statuses, exits": children of a parent whose run failed get a batch.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import dagster as dg
import sqlalchemy as sa

from syncflow_core.bridge import batches, starts
from syncflow_core.bridge.batches import Batch, Counts
from syncflow_core.bridge.entities import load_registered
from syncflow_dagster.abandoned import has_died
from syncflow_dagster.failures import Broken, broken
from syncflow_dagster.statuses import CANCELED

START_TAG: Final = "syncflow/start"
"""Names the start that a run belongs to, where the batches were there before the run."""
GRACE: Final = timedelta(seconds=60)
"""A batch that is asked for waits so long for its run to be launched, or for who ran it to close it."""
MOST: Final = 1_000
"""Batches that are looked at in one go."""
NEVER_BEGAN: Final = Broken("the run ended before it began")
NEVER_LAUNCHED: Final = Broken("its run was never launched")
PARENT_NOT_SYNCED: Final = Broken("parent not synced")


def close_unbegun(
    instance: dg.DagsterInstance,
    connection: sa.Connection,
    run: dg.DagsterRun,
    now: datetime,
    *,
    stopped: bool = False,
) -> None:
    """Give each entity that the run was to sync, and did not begin, a batch that says why.

    Args:
        instance: Dagster's, whose log says which ops failed.
        connection: In a transaction.
        run: It does nothing more.
        now: Aware.
        stopped: Whether it was stopped, where its batches and its status do not say so.
    """
    found = batches.history(connection, dagster_run_id=run.run_id, limit=10_000)
    stopped |= any(batch.status == "stopped" for batch in found)
    stopped |= run.status in CANCELED
    waiting = {batch.entity: batch.uid for batch in found if batch.status == "pending"}
    begun = {batch.entity for batch in found if batch.status != "pending"}
    _correct(instance, connection, run, found)
    chosen = _asked(run)
    if not waiting and chosen is not None and chosen <= begun:
        return
    registered = {item.entity.name: item for item in load_registered(connection, enabled=None)}
    asked = waiting.keys() | (registered.keys() if chosen is None else chosen & registered.keys())
    failures = broken(instance, run.run_id)
    # who failed by itself says why; all others waited for a parent, where any began
    others = PARENT_NOT_SYNCED if begun or failures else NEVER_BEGAN
    for name in sorted(asked - begun):
        uid = waiting.get(name) or batches.open_batch(
            connection,
            entity=name,
            entity_version=registered[name].version,
            kind="full",
            now=now,
            dagster_run_id=run.run_id,
        )
        _close(connection, uid, failures.get(name, others), stopped=stopped, now=now)


def _correct(
    instance: dg.DagsterInstance,
    connection: sa.Connection,
    run: dg.DagsterRun,
    found: Sequence[Batch],
) -> None:
    """Say what ended batches that another sync took for dead: this run lived on, but the database did not hear it."""
    taken = [batch for batch in found if (batch.proof or {}).get("died")]
    failures = broken(instance, run.run_id) if taken else {}
    for batch in taken:
        if (ended := failures.get(batch.entity)) is not None:
            proof = {**(batch.proof or {}), "unavailable": ended.unavailable}
            batches.correct_batch(connection, batch.uid, proof=proof, error=ended.message)


def close_forgotten(instance: dg.DagsterInstance, connection: sa.Connection, now: datetime) -> int:
    """End the batches whose run has ended without them, or was never launched; how many there were."""
    waiting = batches.history(connection, statuses=["pending"], limit=MOST)
    ids = {batch.dagster_run_id for batch in waiting if batch.dagster_run_id is not None}
    named = instance.get_runs(dg.RunsFilter(run_ids=list(ids))) if ids else ()
    runs = {run.run_id: run for run in named}
    forgotten = 0
    for batch in waiting:
        run = runs.get(batch.dagster_run_id or "") or _started(instance, connection, batch)
        if run is not None and not run.is_finished:
            continue
        if batch.started_at > now - GRACE and (run is None or not has_died(run)):
            continue  # it may be launched yet, or be closed by who ran it
        if run is None:
            _close(connection, batch.uid, NEVER_LAUNCHED, stopped=False, now=now)
        else:
            why = broken(instance, run.run_id).get(batch.entity, NEVER_BEGAN)
            stopped = run.status is dg.DagsterRunStatus.CANCELED
            _close(connection, batch.uid, why, stopped=stopped, now=now)
        forgotten += 1
    return forgotten


def _started(
    instance: dg.DagsterInstance, connection: sa.Connection, batch: Batch
) -> dg.DagsterRun | None:
    """The batch's run, where whoever launched it has died before writing down its name."""
    start = None if batch.dagster_run_id else starts.start_of(connection, batch.uid)
    if start is None:
        return None
    found = instance.get_runs(dg.RunsFilter(tags={START_TAG: start}), limit=1)
    return found[0] if found else None


def _close(
    connection: sa.Connection, uid: UUID, why: Broken, *, stopped: bool, now: datetime
) -> None:
    batches.close_batch(
        connection,
        uid,
        "stopped" if stopped else "failed",
        Counts(),
        now=now,
        proof={
            "asked_to_stop": stopped,
            "parent_not_synced": why is PARENT_NOT_SYNCED and not stopped,
            "unavailable": why.unavailable and not stopped,
        },
        error=f"{batches.STOPPED}, before it began" if stopped else why.message,
    )


def _asked(run: dg.DagsterRun) -> set[str] | None:
    """The entities that the run was to sync from their beginning; None for all."""
    if run.step_keys_to_execute:
        steps = [key.partition(".") for key in run.step_keys_to_execute]
        return {name for name, _, op in steps if op == "fetch"}
    if run.asset_selection:
        return {key.path[-1] for key in run.asset_selection}
    if run.job_name == "sync_all":
        return None
    return {run.job_name.removeprefix("sync_")} if run.job_name.startswith("sync_") else set()
