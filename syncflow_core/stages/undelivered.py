"""Undelivered: ask the source, by key, for the rows behind dead letters and waiting children.

Belongs here: which rows a batch reads besides those that are new; dead letters of rows that are gone.
Does not belong here: reading them into parts (``reading``), what then becomes of them (the other stages).

What was rejected may be right under a mended declaration, and what the target refused once it may take
now. Neither has a new rowversion, so no incremental fetch meets it. It is the row of today that is
tried, never the one that failed: an old version cannot follow a newer one.

Source: product.md 4 and "Accounts, statuses, exits".
"""

import json
from collections.abc import Mapping
from datetime import datetime

import polars as pl

from syncflow_core.bridge import failed, pending, records
from syncflow_core.columns import KEY_HASH, KEY_SOURCE, REFERENCE, ROW
from syncflow_core.fields import Shape
from syncflow_core.keys import keys_of, source_keys, with_plain_references
from syncflow_core.stages.work import Connections, Staged, hold

WAITS = "parent_missing"
"""The rule of a dead letter whose record only waits: its parent's arrival releases it."""
GONE = "gone from the source"
"""How a dead letter is resolved whose row is not there any more."""


def undelivered(
    connections: Connections, staged: Staged, now: datetime
) -> tuple[pl.DataFrame | None, list[str]]:
    """The rows that this batch reads besides its own, and what a person should know of them.

    A retry takes dead letters and waiting children; an incremental batch dead letters alone, for waiting
    children whose parents have landed go without their rows being read. What the clock starts takes
    those that are due, what a person starts takes all. Whole scans and slices read the rows anyway.

    Returns:
        The source's columns as text; None where the batch takes nothing besides.
    """
    if staged.kind not in {"incremental", "retry"}:
        return None, []
    asked = with_plain_references(_taken_up(connections, staged, now), staged.shape)
    spelled = [
        _keys(raw, key_source, reference, staged.shape)
        for raw, key_source, reference in asked.select("raw", KEY_SOURCE, REFERENCE).iter_rows()
    ]
    keys = {json.dumps(key, sort_keys=True, default=str): key for some in spelled for key in some}
    found = connections.source.look_up(staged.shape.api, list(keys.values()))
    numbered = found.frame.with_row_index(ROW)
    known = keys_of(numbered, staged.shape)
    named = known[KEY_HASH]
    readable = not found.unreadable and len(named) == found.frame.height
    if staged.order.dry_run or not readable:  # a row whose key cannot be read may be any of them
        return found.frame, []
    askable = pl.Series([bool(some) for some in spelled], dtype=pl.Boolean)
    missing = asked.filter(askable & pl.col(KEY_HASH).is_not_null())
    missing = missing.filter(~pl.col(KEY_HASH).is_in(named.implode()))
    rows = found.frame
    if missing.is_empty() and asked[KEY_HASH].null_count() == 0:
        # of a compound key the source gives neighbours, too; where one that was asked for is not there,
        # it may have another key under the declaration of today, and all are taken
        wanted = known.filter(pl.col(KEY_HASH).is_in(asked[KEY_HASH].implode()))
        rows = numbered.join(wanted, on=ROW, how="semi", maintain_order="left").drop(ROW)
    return rows, _forget_gone(connections, staged, missing, now)


def _taken_up(connections: Connections, staged: Staged, now: datetime) -> pl.DataFrame:
    """What is to be tried: ``#key_hash``, ``raw``, ``#reference``, ``#key_source`` and ``waits``.

    What is due is put off first, so that nothing is tried over and over where this batch comes to
    no end.
    """
    due_by, alike = None if staged.order.by_person else now, staged.order.letters
    retry, name = staged.kind == "retry", staged.name
    lease = hold(connections, staged.order)
    with connections.database.begin() as connection:
        lease.check(connection)
        letters = failed.open_failed(connection, name, due_by=due_by, alike=alike)
        children = pending.due(connection, name, due_by) if retry else pending.PENDING.to_frame()
        if not staged.order.dry_run:
            failed.postpone(connection, name, now)
        if retry:
            pending.postpone(connection, name, now)
    if alike is not None:  # those that wait are told of by dead letters of their own
        told = letters.filter(pl.col("rule") == WAITS)[KEY_HASH]
        children = children.filter(pl.col(KEY_HASH).is_in(told.implode()))
    # what was refused later was kept as it was to be sent, under other names
    raw = pl.when(pl.col("stage").is_in(["fetch", "normalize"])).then("raw").alias("raw")
    return pl.concat(
        [
            letters.filter(pl.col("rule") != WAITS).select(
                KEY_HASH,
                raw,
                REFERENCE,
                KEY_SOURCE,
                pl.lit(value=False).alias("waits"),
            ),
            children.unique(KEY_HASH).select(
                KEY_HASH,
                pl.lit(None, pl.String).alias("raw"),
                REFERENCE,
                KEY_SOURCE,
                pl.lit(value=True).alias("waits"),
            ),
        ]
    )


def _keys(
    raw: str | None, key_source: str | None, reference: str | None, shape: Shape
) -> list[Mapping[str, object]]:
    """The key as the source sent it, where it or the row was kept; else as the reference has it."""
    if key_source is not None:
        return source_keys(key_source, reference, shape)
    row = json.loads(raw) if raw else None
    if isinstance(row, dict) and all(row.get(name) is not None for name in shape.key_columns):
        return [{name: row[name] for name in shape.key_columns}]
    return source_keys(key_source, reference, shape)


def _forget_gone(
    connections: Connections, staged: Staged, missing: pl.DataFrame, now: datetime
) -> list[str]:
    """Close dead letters, and let children wait no longer, whose rows are not in the source any more.

    A dead letter of a record that the target holds stays open: what failed may be its delete.
    """
    if missing.is_empty():
        return []
    lease, name = hold(connections, staged.order), staged.name
    with connections.database.begin() as connection:
        lease.check(connection)
        held = records.acknowledged_among(connection, name, missing[KEY_HASH])
        letters = missing.filter(~pl.col("waits") & ~pl.col(KEY_HASH).is_in(held.implode()))
        children = missing.filter("waits")[KEY_HASH]
        failed.resolve_failed(connection, name, letters[KEY_HASH], GONE, now)
        pending.close_pending(connection, name, children, "cancelled", now)
    number = letters.height + len(children)
    return [f"{number} that were not delivered are gone from the source"] if number else []
