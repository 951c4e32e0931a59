"""Batches of entities whose turn never came: each entity that was asked for has one, however its run ended.

Belongs here: closing batches that a run did not come to, and opening those that say so.
Does not belong here: batches that began (``ops``), runs whose process died (``abandoned``).

Source: product.md, "Accounts, statuses, exits": children of a parent whose run failed get a batch.
"""

from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import dagster as dg
import sqlalchemy as sa

from syncflow_core.bridge import batches, starts
from syncflow_core.bridge.batches import Batch, Counts
from syncflow_core.bridge.entities import load_registered
from syncflow_dagster.statuses import CANCELED

START_TAG: Final = "syncflow/start"
"""Names the start that a run belongs to, where the batches were there before the run."""
GRACE: Final = timedelta(seconds=60)
"""A batch that is asked for waits so long for its run to be launched."""
MOST: Final = 1_000
"""Batches that are looked at in one go."""


def close_unbegun(
    connection: sa.Connection, run: dg.DagsterRun, now: datetime, *, stopped: bool = False
) -> None:
    """Give each entity that the run was to sync, and did not begin, a batch that says why.

    Args:
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
    chosen = _asked(run)
    if not waiting and chosen is not None and chosen <= begun:
        return
    registered = {item.entity.name: item for item in load_registered(connection, enabled=None)}
    asked = waiting.keys() | (registered.keys() if chosen is None else chosen & registered.keys())
    for name in sorted(asked - begun):
        uid = waiting.get(name) or batches.open_batch(
            connection,
            entity=name,
            entity_version=registered[name].version,
            kind="full",
            now=now,
            dagster_run_id=run.run_id,
        )
        # no parent was in the way of the first one
        why = "parent not synced" if begun else "the run ended before it began"
        _close(connection, uid, stopped=stopped, now=now, why=why, parent_not_synced=bool(begun))


def close_forgotten(instance: dg.DagsterInstance, connection: sa.Connection, now: datetime) -> int:
    """End the batches whose run has ended without them, or was never launched; how many there were."""
    waiting = batches.history(connection, statuses=["pending"], until=now - GRACE, limit=MOST)
    forgotten = 0
    for batch in waiting:
        run = _run_of(instance, connection, batch)
        if run is not None and not run.is_finished:
            continue
        stopped = run is not None and run.status is dg.DagsterRunStatus.CANCELED
        why = "its run was never launched" if run is None else "the run ended before it began"
        _close(connection, batch.uid, stopped=stopped, now=now, why=why)
        forgotten += 1
    return forgotten


def _run_of(
    instance: dg.DagsterInstance, connection: sa.Connection, batch: Batch
) -> dg.DagsterRun | None:
    """The batch's run, also where whoever launched it has died before writing down its name."""
    if batch.dagster_run_id is not None:
        return instance.get_run_by_id(batch.dagster_run_id)
    start = starts.start_of(connection, batch.uid)
    if start is None:
        return None
    found = instance.get_runs(dg.RunsFilter(tags={START_TAG: start}), limit=1)
    return found[0] if found else None


def _close(
    connection: sa.Connection,
    uid: UUID,
    *,
    stopped: bool,
    now: datetime,
    why: str,
    parent_not_synced: bool = False,
) -> None:
    batches.close_batch(
        connection,
        uid,
        "stopped" if stopped else "failed",
        Counts(),
        now=now,
        proof={"asked_to_stop": stopped, "parent_not_synced": parent_not_synced and not stopped},
        error="the run was stopped before it began" if stopped else why,
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
