"""Delta: compare the rows of one batch with what the target last acknowledged.

Belongs here: gathering the known records, deciding, staging what changed.
Does not belong here: the decision (``syncflow_core.delta``, ``brake``), settling (``settle``), adopting (``adopt``).

Source: product.md 4.
"""

from collections.abc import Callable, Iterator
from datetime import datetime

import polars as pl

from syncflow_core.brake import Verdict, judge
from syncflow_core.bridge import pending, records
from syncflow_core.columns import (
    DATA_HASH,
    HUB_UID,
    KEY_HASH,
    OP,
    PARENT_REFS,
    REFERENCE,
    ROW,
    ROWVERSION,
)
from syncflow_core.delta import KNOWN_DATA_HASH, KNOWN_PARENT_REFS, OLDER, classify, gone
from syncflow_core.identity import split_collided, text_hash_expr
from syncflow_core.stages.adopt import adopt
from syncflow_core.stages.normalize import FILED
from syncflow_core.stages.settle import settle_open
from syncflow_core.stages.work import Connections, Staged, hold, timed

NARROW = (ROW, KEY_HASH, DATA_HASH, ROWVERSION, PARENT_REFS)


def find_changes(
    connections: Connections, staged: Staged, *, now: Callable[[], datetime]
) -> Staged:
    """Decide for every row what the target needs, and which known records are gone.

    Returns:
        ``changes``: the rows to insert or update, with ``#op``, ``#hub_uid`` and what is known of
        them. ``gone``: ``columns.KNOWN``, the records to delete. ``counts``: ``unchanged``,
        ``withheld``, ``withheld_deletes``.
    """
    seconds: dict[str, float] = {}
    with timed(connections, seconds, "delta"):
        lease = hold(connections, staged.order)
        notes = [
            *settle_open(connections, staged, lease, now()),
            *adopt(connections, staged, lease, now()),
        ]
        frames, shape = connections.frames, staged.shape
        known = records.load_known(connections.database, staged.name)
        incoming = frames.read(staged.frames["distinct"], columns=list(NARROW))
        guarded = staged.kind == "slice" or staged.order.continued
        verdicts = classify(incoming, known, kind=shape.rowversion_kind, guarded=guarded)
        changed, collided = _collided(
            connections, staged, verdicts.filter(pl.col(OP) != "unchanged")
        )
        backwards = int(verdicts[OLDER].sum())
        if backwards:
            taken = "none overwrites it" if guarded else "the source is taken at its word"
            notes.append(f"{backwards} rows are older than what was acknowledged: {taken}")
        deletes, why_not = _gone(connections, staged, known, incoming[KEY_HASH])
        notes += why_not
        updates = changed.filter(pl.col(OP) == "update").height
        verdict = judge(
            shape.entity.brake,
            known=known.filter(~pl.col("deleted")).height,
            incoming=staged.counts["fetched"],
            updates=updates,
            deletes=deletes.height,
        )
        if verdict.updates:
            changed = changed.filter(pl.col(OP) != "update")
        with connections.database.begin() as connection:
            lease.check(connection)
            pending.cancel_deletes(connection, staged.name, incoming[KEY_HASH])
        staged = staged.having(
            frames={
                "changes": frames.write(
                    str(staged.batch), "changes", _changes(connections, staged, changed)
                ),
                "gone": frames.write(
                    str(staged.batch), "gone", [deletes.clear() if verdict.deletes else deletes]
                ),
                "collided": frames.write(str(staged.batch), "collided", [collided]),
            },
            counts={
                **_counts(staged, verdicts, updates, deletes.height, verdict),
                "rejected": staged.counts["rejected"] + collided.height,
            },
            notes=(*notes, *([verdict.reason] if verdict.reason else [])),
        )
        frames.drop(staged.frames["distinct"])
    return staged.having(seconds=seconds)


def _collided(
    connections: Connections, staged: Staged, changed: pl.DataFrame
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Part the changes from rows whose key hash is another key's, in the shape ``FILED``.

    An unchanged row needs no look: its data hash covers its key.
    """
    updates = changed.filter(pl.col(OP) == "update")[KEY_HASH]
    if updates.is_empty():
        return changed, FILED.to_frame()
    named = connections.frames.read(staged.frames["distinct"], columns=[ROW, KEY_HASH, REFERENCE])
    named = named.filter(pl.col(KEY_HASH).is_in(updates.implode()))
    with connections.database.begin() as connection:
        known = records.load_key_sources(connection, staged.name, updates)
    _, collided = split_collided(named, known)
    filed = (
        collided.join(named, on=ROW, how="left")
        .with_columns(
            pl.lit(None, pl.String).alias("raw"),
            text_hash_expr(pl.col(REFERENCE)).alias("raw_digest"),
        )
        .select(FILED.names())
    )
    return changed.filter(~pl.col(ROW).is_in(collided[ROW].implode())), filed


def _gone(
    connections: Connections, staged: Staged, known: pl.DataFrame, keys: pl.Series
) -> tuple[pl.DataFrame, list[str]]:
    """The records to delete, and why there are none where a reader would expect some."""
    nothing = known.clear()
    if staged.kind != "full" or staged.shape.entity.deletes == "ignore":
        return nothing, []
    refused = pl.concat(
        [connections.frames.read(staged.frames[name]) for name in ("rejected", "losers")]
    )
    absent = gone(known, pl.concat([keys, refused[KEY_HASH].drop_nulls()]))
    if absent.is_empty():
        return nothing, []
    if not staged.complete:
        return nothing, [
            f"{absent.height} records were not seen, but the scan is not proven complete: none is deleted"
        ]
    unkeyed = refused.filter(pl.col(KEY_HASH).is_null() & (pl.col("rule") != "null_key")).height
    if unkeyed:
        why = f"{unkeyed} rejected rows have no readable key"
        return nothing, [f"{absent.height} records were not seen, but {why}: none is deleted"]
    return absent, []


def _changes(
    connections: Connections, staged: Staged, changed: pl.DataFrame
) -> Iterator[pl.DataFrame]:
    """The whole rows of what changed, part by part."""
    labels = changed.select(ROW, OP, HUB_UID, KNOWN_DATA_HASH, KNOWN_PARENT_REFS)
    done = 0
    for part in connections.frames.parts(staged.frames["distinct"]):
        done += part.height
        connections.progress(staged.name, "delta", done, staged.frames["distinct"].rows)
        yield part.join(labels, on=ROW, how="inner", maintain_order="left")


def _counts(
    staged: Staged, verdicts: pl.DataFrame, updates: int, deletes: int, verdict: Verdict
) -> dict[str, int]:
    unchanged = verdicts.filter(pl.col(OP) == "unchanged").height
    return {
        "unchanged": staged.counts["unchanged"] + unchanged,
        "withheld": updates if verdict.updates else 0,
        "withheld_deletes": deletes if verdict.deletes else 0,
    }
