"""Absent: which known records no row was seen of, and whether that proves that they are gone.

Belongs here: the records missing from a whole scan or from a sweep's slices, and why none is deleted
where a reader would expect some.
Does not belong here: withholding too many of them (``brake``), deleting (``deleter``).

Source: product.md 4 and 7.
"""

import itertools
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import polars as pl

from syncflow_core.bridge import pending, records, sweeps
from syncflow_core.bridge.leases import Lease
from syncflow_core.bridge.sweeps import Slice
from syncflow_core.columns import KEY_HASH, KNOWN
from syncflow_core.delta import gone
from syncflow_core.logs import begun
from syncflow_core.stages.lookup import look_again
from syncflow_core.stages.work import Connections, Staged

PIECE: Final = 250_000
"""Key hashes of known records that are looked at together at a sweep's end."""
AHEAD: Final = 2
"""Pieces that are read while another one is looked at."""

BYTES: Final = 256
"""Values of a key hash's first byte."""


@dataclass(frozen=True)
class Absence:
    """Known records that were not seen where all should have been."""

    absent: pl.DataFrame
    """``columns.KNOWN``."""
    notes: tuple[str, ...] = ()
    ends_sweep: bool = False
    """Whether the batch's slices were the last ones of a sweep."""
    rows: int = 0
    """Rows that the scan, or the whole sweep, saw: none at all is an empty source."""
    unproven: pl.DataFrame | None = None
    """``columns.KNOWN``: not seen, but for a reason that the notes tell none of them is deleted."""
    seen: Callable[[pl.Series], pl.Series] | None = None
    """Tells of key hashes whether they were seen, where all should have been: who was not may be gone."""


def find_absent(  # each is a part of the question
    connections: Connections,
    staged: Staged,
    live: pl.DataFrame | None,
    keys: pl.Series,
    lease: Lease,
    now: datetime,
) -> Absence:
    """The records that a complete scan, or a complete sweep, did not see.

    Args:
        connections: The staged frames and the database.
        staged: The batch.
        live: ``columns.KNOWN``: all records, where a whole scan was compared with them.
        keys: The key hashes of all accepted rows.
        lease: Checked where a slice's keys are kept.
        now: When the slice was seen.
    """
    nobody = KNOWN.to_frame()
    if staged.kind not in {"full", "slice"}:
        return Absence(nobody)
    refused = pl.concat(
        [connections.frames.read(staged.frames[name]) for name in ("rejected", "losers")]
    )
    # a row that could not be read is not a row that is gone
    seen = pl.concat([keys, refused[KEY_HASH].drop_nulls()])
    unkeyed = refused.filter(pl.col(KEY_HASH).is_null() & (pl.col("rule") != "null_key")).height
    if staged.kind == "slice":
        swept = _keep_slice(connections, staged, seen, unkeyed, lease, now)
        del seen  # the sweep's end reads those of all slices
        return Absence(nobody) if swept is None else _after_sweep(connections, staged, swept)
    assert live is not None  # noqa: S101  # a whole scan was compared with all of them

    def was_seen(keys: pl.Series) -> pl.Series:
        return keys.is_in(seen.implode())

    # a person who has an entity's records removed means all of them: no source is empty then
    rows = live.height if staged.order.purge else staged.counts["fetched"]
    if staged.shape.entity.deletes == "ignore" and not staged.order.purge:
        return Absence(nobody, rows=rows, seen=was_seen if staged.complete else None)
    absent = gone(live, seen)
    why_not = None
    if not staged.complete:
        why_not = "the scan is not proven complete"
    elif unkeyed:
        why_not = f"{unkeyed} rejected rows have no readable key"
    if why_not is None or absent.is_empty():
        return Absence(absent, rows=rows, seen=was_seen if staged.complete else None)
    note = f"{absent.height} records were not seen, but {why_not}: none is deleted"
    return Absence(nobody, (note,), rows=rows, unproven=absent)


def _keep_slice(
    connections: Connections,
    staged: Staged,
    seen: pl.Series,
    unkeyed: int,
    lease: Lease,
    now: datetime,
) -> tuple[list[Slice], sweeps.Seen] | None:
    """Keep what the slices saw; after the last of a sweep, all slices and what they saw.

    A plan keeps nothing: it looks at the sweep as it would be, and undoes what it wrote.
    """
    with connections.database.begin() as connection, connection.begin_nested() as kept:
        lease.check(connection)
        for at, found in enumerate(staged.slices):
            sweeps.save_slice(
                connection,
                staged.name,
                Slice(
                    slice=found.number,
                    slices=staged.order.of,
                    batch=staged.batch,
                    counted=found.counted,
                    complete=found.complete,
                    unkeyed=0 if at else unkeyed,
                    head=found.head,
                    tail=found.tail,
                ),
                # rows of several slices read together are told apart by nobody: the first has them all
                seen.clear() if at else seen,
                now,
            )
        slices = sweeps.load_slices(connection, staged.name)
        whole = len(slices) == staged.order.of
        for ref in staged.frames.values() if whole else ():
            connections.frames.drop(ref)  # what all slices saw takes its room
        everything = sweeps.load_seen(connection, staged.name) if whole else None
        if staged.order.dry_run:
            kept.rollback()
    return None if everything is None else (slices, everything)


def _after_sweep(
    connections: Connections, staged: Staged, swept: tuple[list[Slice], sweeps.Seen]
) -> Absence:
    """What none of the slices saw."""
    slices, everything = swept
    nobody = KNOWN.to_frame()
    rows = sum(found.counted for found in slices)
    broken = [str(found.slice) for found in slices if not found.complete]
    if staged.shape.entity.deletes == "ignore":
        proven = None if broken else everything.has
        return Absence(nobody, ends_sweep=True, rows=rows, seen=proven)
    absent = _unseen(connections, staged, everything, rows)
    lost = sum(found.unkeyed for found in slices)
    why_not = None
    if broken:
        why_not = f"slice {', '.join(broken)} is not proven complete"
    elif lost:
        why_not = f"{lost} rejected rows have no readable key"
    if why_not is None or absent.is_empty():
        return Absence(absent, ends_sweep=True, rows=rows, seen=None if why_not else everything.has)
    note = f"{absent.height} records were seen in no slice, but {why_not}: none is deleted"
    return Absence(nobody, (note,), ends_sweep=True, rows=rows, unproven=absent)


def _unseen(connections: Connections, staged: Staged, seen: sweeps.Seen, rows: int) -> pl.DataFrame:
    """The known records that no slice saw, ``columns.KNOWN``; a few pieces of their keys are held at a time.

    Key hashes are spread evenly, so shares of their range are shares of the records, which are about as
    many as *rows*: all that the sweep saw. Lines of deleted records are among the unseen until the last
    question, which asks for those that are alive.
    """
    pieces = min(BYTES, max(1, -(-rows // PIECE)))
    bounds = [BYTES * at // pieces for at in range(pieces + 1)]
    unseen = [pl.Series(KEY_HASH, [], dtype=pl.Binary)]

    def load(low: int, high: int) -> Future[pl.Series]:
        least, end = bytes([low]) if low else b"", bytes([high]) if high < BYTES else None
        return begun("known", records.load_keys, connections.database, staged.name, least, end)

    def look(low: int, high: int, keys: Future[pl.Series]) -> None:
        lines = keys.result()
        unseen.append(lines.filter(~lines.is_in(seen.between(low, high).implode())))

    coming: deque[tuple[int, int, Future[pl.Series]]] = deque()
    for low, high in itertools.pairwise(bounds):
        coming.append((low, high, load(low, high)))
        if len(coming) > AHEAD:
            look(*coming.popleft())
    while coming:
        look(*coming.popleft())
    return records.load_known_among(connections.database, staged.name, pl.concat(unseen))


def prove_absent(
    connections: Connections, staged: Staged, absent: pl.DataFrame
) -> tuple[pl.DataFrame, list[str]]:
    """Those of the records that the source, asked by their keys, does not have; and what it said.

    Of an entity that is purged all go, whatever the source has.
    """
    if absent.is_empty() or staged.order.purge:
        return absent, []
    with connections.database.begin() as connection:
        named = records.load_key_sources(connection, staged.name, absent[KEY_HASH])
    found = look_again(
        connections,
        staged.shape,
        absent.join(named, on=KEY_HASH, how="left"),
        trust_scan=staged.complete,
    )
    notes = []
    if found.there:
        notes.append(
            f"{found.there} records that were not seen are in the source after all: rows moved "
            "while they were read; the next sync reads them"
        )
    if found.unasked and not staged.complete:
        notes.append(f"{found.unasked} records cannot be asked for by their key: none is deleted")
    return found.gone.select(absent.columns), notes


def forget_waiting(
    connections: Connections, staged: Staged, absence: Absence, lease: Lease, now: datetime
) -> list[str]:
    """Let children that left the source while they waited wait no longer; what a person should know.

    As with a delete, absence is a suspicion, and the answer of the source the proof.
    """
    if absence.seen is None or not absence.rows:
        return []
    with connections.database.read() as connection:
        waiting = pending.open_pending(connection, staged.name).unique(KEY_HASH)
    if waiting.is_empty():
        return []
    unseen = waiting.filter(~absence.seen(waiting[KEY_HASH]))
    if unseen.is_empty():
        return []
    found = look_again(connections, staged.shape, unseen, trust_scan=staged.kind == "full")
    with connections.database.begin() as connection:
        lease.check(connection)
        pending.close_pending(connection, staged.name, found.gone[KEY_HASH], "cancelled", now)
    number = found.gone.height
    return [f"{number} that waited for a parent are gone from the source"] if number else []
