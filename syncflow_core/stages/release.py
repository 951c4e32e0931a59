"""Release: send what waited for a parent that has landed now, and deletes that waited for children.

Belongs here: which waiting records can go, in batches of their own.
Does not belong here: parking (``park``), retrying what nobody released (``undelivered``).

A released record belongs to an earlier batch's accounts: its own batch, of kind ``retry``, counts it
as ``retried`` and fetches nothing.

Source: product.md 6.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import polars as pl

from syncflow_core.bridge import batches, pending, records
from syncflow_core.bridge.batches import Counts
from syncflow_core.bridge.entities import load_registered
from syncflow_core.bridge.identifiers import new_uid
from syncflow_core.bridge.leases import HeldError, Lease
from syncflow_core.bridge.state import load_state
from syncflow_core.columns import (
    HUB_UID,
    KEY_HASH,
    OP,
    PARENT_REFS,
    ROW,
    ROWVERSION,
)
from syncflow_core.delta import classify
from syncflow_core.digests import DIGESTS
from syncflow_core.entity import Entity, RowversionKind
from syncflow_core.errors import UnavailableError
from syncflow_core.fields import shape_of
from syncflow_core.parents import can_be_null, refs_without
from syncflow_core.rowversion import sortable
from syncflow_core.stages.deleter import Deleter
from syncflow_core.stages.lookup import look_again
from syncflow_core.stages.sender import Sender, groups
from syncflow_core.stages.verdicts import BODY, OUTGOING
from syncflow_core.stages.work import Connections, Staged


def release_children(
    connections: Connections,
    staged: Staged,
    landed: pl.Series,
    parked: pl.Series,
    *,
    now: Callable[[], datetime],
) -> list[str]:
    """Send every waiting record whose parents have all landed; then those that waited for it, and so on.

    An entity that another sync holds is passed over: that sync, or the sensor, releases its records.
    For that, this entity's own records go first whose parents landed while it was held; what the target
    has just *parked*, which holds a parent against what is known, does not.

    Returns:
        A sentence for each entity of which records were released.
    """
    notes: list[str] = []
    queue = [(staged.name, landed)]
    missed = _released_by_nobody(connections, staged.name)
    missed = missed.filter(~missed.is_in(parked.implode()))
    if len(missed) and len(sent := _release(connections, staged, staged.name, missed, now)):
        notes.append(f"{len(sent)} {staged.name} released: their parents had landed before")
        queue.append((staged.name, sent))
    while queue:
        parent, keys = queue.pop(0)
        if keys.is_empty():
            continue
        with connections.database.begin() as connection:
            waiting = pending.waiting_for(connection, parent, keys)
        for child in waiting["entity"].unique(maintain_order=True):
            children = waiting.filter(pl.col("entity") == child)[KEY_HASH].unique()
            sent = _release(connections, staged, child, children, now)
            if len(sent):
                notes.append(f"{len(sent)} {child} released: their {parent} landed")
                queue.append((child, sent))
    return notes


@dataclass
class _Side:
    """A batch beside the one that runs: its entity and what writes for it."""

    entity: Entity
    sender: Sender
    deleter: Deleter


@contextmanager
def _side_batch(
    connections: Connections, staged: Staged, name: str, now: Callable[[], datetime]
) -> Iterator[_Side | None]:
    """A batch of kind ``retry`` for another entity; None where another sync holds it.

    None too where the entity goes to another collection since: its own next batch begins there.
    """
    own = name == staged.name
    batch = new_uid()
    run_id = staged.order.run_id
    if own:
        lease = connections.leases[staged.batch]
    else:
        try:
            lease = Lease.acquire(connections.database, name, run_id=run_id, wait_s=0)
        except HeldError:
            yield None
            return
    try:
        with connections.database.begin() as connection:
            registered = load_registered(connection, [name], enabled=None)[0]
            entity = registered.entity
            before = load_state(connection, name, entity.api)
        if not before.speaks_of(entity.collection):
            yield None
            return
        with connections.database.begin() as connection:
            batches.open_batch(
                connection,
                uid=batch,
                entity=name,
                entity_version=registered.version,
                kind="retry",
                now=now(),
                dagster_run_id=run_id,
                fence=lease.fence,
            )
        side = _Side(
            entity,
            Sender(connections, entity, batch, lease, now),
            Deleter(connections, entity, batch, lease, now, deferred=_nullable(entity)),
        )
        try:
            with connections.tally.counting(batch):
                yield side
        except Exception as error:
            privacy = connections.privacy_of(entity)
            told = privacy.error(error, name) if privacy else error
            _close(connections, batch, side, str(told) or type(told).__name__)
            if told is error:
                raise
            raise told from None
        except BaseException as error:
            _close(connections, batch, side, str(error) or type(error).__name__)
            raise
        _close(connections, batch, side, None)
    finally:
        if not own:
            lease.release()


def _close(connections: Connections, batch: UUID, side: _Side, error: str | None) -> None:
    counted = side.sender.counts + side.deleter.counts
    retried = sum(counted[name] for name in ("inserted", "updated", "unchanged"))
    troubled = counted["failed"] + counted["failed_deletes"]
    with connections.database.begin() as connection:
        batches.close_batch(
            connection,
            batch,
            "failed" if error else "partial" if troubled else "completed",
            Counts(retried=retried, deleted=counted["deleted"]),
            now=side.sender.now(),
            error=error,
            calls=connections.tally.take(batch),
        )


def _release(
    connections: Connections,
    staged: Staged,
    child: str,
    keys: pl.Series,
    now: Callable[[], datetime],
) -> pl.Series:
    """Send those of the children whose parents are all there; the key hashes that landed."""
    with _side_batch(connections, staged, child, now) as side:
        if side is None:
            return keys.clear()
        with connections.database.begin() as connection:
            waiting = pending.open_pending(connection, child)
        waiting = waiting.filter(pl.col(KEY_HASH).is_in(keys.implode()))
        here = _parents_here(connections, waiting)
        blocked = here.filter(~pl.col("here") & (pl.col("kind") == "parked"))[KEY_HASH]
        ready = here.filter(~pl.col(KEY_HASH).is_in(blocked.implode()))
        sent = _outgoing(connections, side.entity, ready)
        for group in groups(sent):
            side.sender.send(group)
        side.sender.finish()
        landed = pl.concat([keys.clear().alias(KEY_HASH), *side.sender.landed])
        with connections.database.begin() as connection:
            side.sender.lease.check(connection)
            not_there = [keys.clear().alias(KEY_HASH), *side.sender.refused, *side.sender.parked]
            arrived = ready.filter(
                pl.col("here") & ~pl.col(KEY_HASH).is_in(pl.concat(not_there).implode())
            )
            pending.close_references(connection, child, arrived, now())
            lacking = ready.filter(~pl.col("here")).select(pending.PARKED.names())
            pending.park(connection, child, lacking, side.sender.batch, now())
    return landed


def _released_by_nobody(connections: Connections, name: str) -> pl.Series:
    """Key hashes of the entity's waiting records that could have gone already."""
    with connections.database.read() as connection:
        if pending.open_keys(connection, name).is_empty():
            return pl.Series(KEY_HASH, [], dtype=pl.Binary)
        waiting = pending.open_pending(connection, name)
    here = _parents_here(connections, waiting)
    blocked = here.filter(~pl.col("here") & (pl.col("kind") == "parked"))[KEY_HASH]
    free = here.filter(pl.col("here") & ~pl.col(KEY_HASH).is_in(blocked.implode()))
    return free[KEY_HASH].unique()


def _parents_here(connections: Connections, waiting: pl.DataFrame) -> pl.DataFrame:
    """Add ``here``: whether the target holds the parent that the line waits for."""
    parts = []
    for parent, lines in waiting.group_by("parent_entity", maintain_order=True):
        with connections.database.begin() as connection:
            there = records.acknowledged_among(
                connection, str(parent[0]), lines["parent_key_hash"].unique()
            )
        parts.append(
            lines.with_columns(pl.col("parent_key_hash").is_in(there.implode()).alias("here"))
        )
    return pl.concat(parts) if parts else waiting.with_columns(pl.lit(value=False).alias("here"))


def _outgoing(connections: Connections, entity: Entity, ready: pl.DataFrame) -> pl.DataFrame:
    """The newest version of each record that can go, with the references that can go, if it differs."""
    declared = _rowversion_kind(connections, entity)
    kind = declared or "text"
    newest = sortable(pl.col(ROWVERSION), kind)
    rows = ready.sort(newest, nulls_last=False).unique(KEY_HASH, keep="last", maintain_order=True)
    left_out = (
        ready.filter(~pl.col("here"))
        .group_by(KEY_HASH)
        .agg(pl.col("reference_name").alias("#left_out"))
    )
    incoming = (
        rows.join(left_out, on=KEY_HASH, how="left")
        .with_columns(
            refs_without(
                pl.col(PARENT_REFS), pl.col("#left_out").fill_null([]), entity.parents
            ).alias(PARENT_REFS),
            pl.col("payload").alias(BODY),
            pl.lit(None, dtype=pl.Binary).alias(DIGESTS),
        )
        .select(name for name in OUTGOING.names() if name not in {OP, HUB_UID})
        .with_row_index(ROW)
    )
    with connections.database.begin() as connection:
        known = records.load_known_of(connection, entity.name, incoming[KEY_HASH])
    live = known.filter(~pl.col("deleted"))
    verdicts = classify(incoming, live, kind=kind, guarded=declared is not None).filter(
        pl.col(OP) != "unchanged"
    )
    return (
        incoming.join(verdicts.select(ROW, OP), on=ROW, how="inner")
        .join(live.select(KEY_HASH, HUB_UID), on=KEY_HASH, how="left")
        .select(OUTGOING.names())
    )


def _rowversion_kind(connections: Connections, entity: Entity) -> RowversionKind | None:
    """How two versions of a record compare; None where the source, which would say so, is away."""
    if entity.rowversion is not None and entity.rowversion.kind is not None:
        return entity.rowversion.kind
    try:
        return shape_of(entity, connections.source.describe(entity.api)).rowversion_kind
    except UnavailableError:
        return None


def release_deletes(
    connections: Connections, staged: Staged, *, now: Callable[[], datetime]
) -> list[str]:
    """Delete parents that waited until their children, this entity's records, were gone; then theirs.

    Each is asked for by its key first: it may be back in the source since it began to wait.
    """
    notes: list[str] = []
    queue = _parents(staged.shape.entity)
    while queue:
        parent = queue.pop(0)
        with connections.database.begin() as connection:
            waiting = pending.waiting_deletes(connection, parent)
        if waiting.is_empty():
            continue
        with _side_batch(connections, staged, parent, now) as side:
            if side is None:
                continue
            with connections.database.begin() as connection:
                still = pending.waiting_deletes(connection, parent)
                named = records.load_key_sources(connection, parent, still[KEY_HASH])
            try:
                shape = shape_of(side.entity, connections.source.describe(side.entity.api))
                found = look_again(
                    connections, shape, still.join(named, on=KEY_HASH, how="left"), trust_scan=False
                )
            except UnavailableError as error:
                why = connections.privacy_of(side.entity).told(str(error))
                notes.append(f"{still.height} {parent} deletes go on waiting: {why}")
                continue
            side.deleter.delete(found.gone)
            if side.deleter.counts["deleted"]:
                notes.append(
                    f"{side.deleter.counts['deleted']} {parent} deleted: their children are gone"
                )
                queue += _parents(side.entity)
    return notes


def _nullable(entity: Entity) -> tuple[str, ...]:
    """The references that a record which is deleted may let go of."""
    return tuple(name for name in entity.parents if can_be_null(entity, name))


def _parents(entity: Entity) -> list[str]:
    """The entities that this one's records refer to, itself left out."""
    named = dict.fromkeys(item.entity for item in entity.parents.values())
    return [name for name in named if name != entity.name]
