"""Starting and stopping a sync through Dagster: batches first, then the run, once whatever is lost.

Belongs here: the order of things, so that neither a lost answer nor a repeated request makes a second run.
Does not belong here: HTTP (``sync``), Dagster's words (``gateway``).

A start has a name, which is written down with its batches before anything is launched and which the run
bears as a tag. Whoever repeats the start finds the run by it.

Source: product.md 9.
"""

import json
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from syncflow_core.bridge import batches, starts
from syncflow_core.bridge.batches import LIVE, Batch, Counts
from syncflow_core.bridge.database import Database
from syncflow_core.bridge.entities import load_registered
from syncflow_core.bridge.identifiers import new_uid
from syncflow_core.errors import ConfigError, SyncFlowError, UnavailableError
from syncflow_core.parents import lineage
from syncflow_dagster.abandoned import COMMAND_LINE, STARTED_BY_TAG, process_of
from syncflow_dagster.api.gateway import DagsterGateway, DagsterRun
from syncflow_dagster.choices import Mode
from syncflow_dagster.clock import utc_now
from syncflow_dagster.partitions import range_tags, slice_key
from syncflow_dagster.unbegun import START_TAG


@dataclass(frozen=True)
class Wanted:
    """A sync that somebody asks for."""

    names: Sequence[str]
    """None for all enabled entities."""
    mode: Mode
    slice: int | None
    slices: int
    """How many slices there are."""
    wait_s: float
    tags: Mapping[str, str]

    @property
    def text(self) -> str:
        """What tells two requests apart."""
        return json.dumps([sorted(self.names), self.mode, self.slice, self.wait_s])


def start(
    database: Database, gateway: DagsterGateway, wanted: Wanted, key: str | None
) -> dict[str, Any]:
    """Open the batches and launch their run; what was started before, where the key was used before.

    Raises:
        ConfigError: The key was used for another request.
        SyncFlowError: Dagster refused the run; its batches say so.
        UnavailableError: Dagster does not answer. Where it did get the run, the batches begin all the same.
    """
    name = str(new_uid())
    key = key or name
    with starts.one_at_a_time(database, key):
        with database.begin() as connection:
            before = starts.remembered(connection, key, wanted.text)
            answer = before or {"start": name, "batches": _open(connection, wanted)}
            if before is None:
                starts.remember(connection, key, wanted.text, answer)
        run = gateway.run_tagged(START_TAG, answer["start"]) if before is not None else None
        uids = [UUID(line["batch_uid"]) for line in answer["batches"]]
        run_id = run.run_id if run else _launch(database, gateway, wanted, answer, key)
        with database.begin() as connection:
            batches.name_run(connection, uids, run_id)
    return {"run_id": run_id, "batch_uid": uids[0], "batches": answer["batches"]}


def _open(connection: sa.Connection, wanted: Wanted) -> list[dict[str, str]]:
    """One waiting batch of each entity, parents first."""
    registered = {item.entity.name: item for item in load_registered(connection)}
    order = lineage([item.entity for item in registered.values()]).order
    opened = []
    for name in (name for name in order if not wanted.names or name in wanted.names):
        uid = batches.open_batch(
            connection,
            entity=name,
            entity_version=registered[name].version,
            kind="full" if wanted.slice is None else "slice",
            now=utc_now(),
            status="pending",
            partition=",".join(
                slice_key(number)
                for number in ([wanted.slice] if wanted.slice else range(1, wanted.slices + 1))
            ),
        )
        opened.append({"entity": name, "batch_uid": str(uid)})
    return opened


def _launch(
    database: Database,
    gateway: DagsterGateway,
    wanted: Wanted,
    answer: Mapping[str, Any],
    key: str,
) -> str:
    """Launch the run of the batches; where Dagster refuses it they end, and the key is free again."""
    lines = answer["batches"]
    ops = {
        line["entity"]: {
            "ops": {
                "fetch": {
                    "config": {
                        "mode": wanted.mode,
                        "wait_s": wanted.wait_s,
                        "batch": line["batch_uid"],
                    }
                }
            }
        }
        for line in lines
    }
    slices = (
        range_tags([1, wanted.slices])
        if wanted.slice is None
        else {"dagster/partition": slice_key(wanted.slice)}
    )
    tags = {**wanted.tags, **slices, START_TAG: answer["start"]}
    assets = [line["entity"] for line in lines]
    try:
        return gateway.launch_assets(assets, {"ops": ops}, tags)
    except UnavailableError:
        raise  # it may have got the run: the batches wait for it, and end by themselves without it
    except SyncFlowError as error:
        with database.begin() as connection:
            starts.forget(connection, key)
            for line in lines:
                batches.close_batch(
                    connection,
                    UUID(line["batch_uid"]),
                    "failed",
                    Counts(),
                    now=utc_now(),
                    error=str(error),
                )
        raise


def run_of(gateway: DagsterGateway, batch: Batch) -> DagsterRun | None:
    """The batch's run; None where Dagster does not answer, or has none."""
    if batch.dagster_run_id is None:
        return None
    try:
        return gateway.run(batch.dagster_run_id)
    except SyncFlowError:
        return None


def stop(database: Database, gateway: DagsterGateway, batch: Batch) -> bool:
    """Have the batch's run end; whether it had not begun, and its batches have ended with it.

    Raises:
        ConfigError: It has ended, or its process is on another machine and none of Dagster's.
        UnavailableError: Dagster does not answer.
    """
    if batch.status not in LIVE:
        raise ConfigError(f"batch {batch.uid} has ended: {batch.status}")
    run = None if batch.dagster_run_id is None else gateway.run(batch.dagster_run_id)
    if run is None or run.has_ended:
        raise ConfigError(f"batch {batch.uid} has no run in Dagster that goes on")
    process = process_of(run.tags, run.run_id)
    if process is not None and not _is_dagsters(run):
        os.kill(process, signal.SIGTERM)  # the command line's own run: Dagster did not start it
        return False
    gateway.terminate(run.run_id)
    after = gateway.run(run.run_id)
    if after is None or after.status != "CANCELED":
        return False
    with database.begin() as connection:
        for waiting in batches.history(
            connection, dagster_run_id=run.run_id, statuses=["pending"], limit=10_000
        ):
            batches.close_batch(
                connection,
                waiting.uid,
                "stopped",
                Counts(),
                now=utc_now(),
                error=f"{batches.STOPPED}, before it began",
            )
    return True


def _is_dagsters(run: DagsterRun) -> bool:
    """Whether Dagster launched the run's process."""
    return run.tags.get(STARTED_BY_TAG) != COMMAND_LINE
