"""Confirm: ask the target what it holds where a known hash was made under another mapping.

Belongs here: telling, by content, which records hold what is to be sent.
Does not belong here: comparing hashes (``delta``), reading the target's JSON (``content``).

After a change of mapping or encoding every data hash differs, and of a record that was taken over
nobody knows what its hash covers. Only records whose content differs are sent.

Source: product.md 3 and 4.
"""

from dataclasses import dataclass

import polars as pl

from syncflow_core.bridge import records
from syncflow_core.bridge.leases import Lease
from syncflow_core.columns import DATA_HASH, KEY_HASH
from syncflow_core.content import content_hashes
from syncflow_core.digests import DIGESTS, of_layout
from syncflow_core.logs import Threads
from syncflow_core.outcomes import HubRecord
from syncflow_core.schedulehub import BATCH_LIMIT
from syncflow_core.stages.work import Connections, Staged
from syncflow_core.stages.writer import CALLS_AT_ONCE


@dataclass(frozen=True)
class Confirmed:
    """What the target was found to hold of records whose known hash says nothing."""

    equal: pl.Series
    """Key hashes of records that hold what is to be sent."""
    differing: pl.Series
    """Those that do not."""
    note: str | None = None


def confirm(
    connections: Connections, staged: Staged, rows: pl.DataFrame, lease: Lease
) -> Confirmed:
    """Compare by content where hashes cannot; equal records' hashes are known anew afterwards.

    Args:
        connections: The target and the database.
        staged: The batch.
        rows: ``#key_hash`` and ``#data_hash`` of rows whose record may have been sent otherwise.
        lease: Checked where known hashes are replaced.
    """
    nothing = pl.Series(KEY_HASH, [], dtype=pl.Binary)
    if rows.is_empty():
        return Confirmed(nothing, nothing)
    shape = staged.shape
    with connections.database.begin() as connection:
        before = records.load_before(connection, staged.name, rows[KEY_HASH])
    stale = before.filter(~of_layout(pl.col(DIGESTS), shape))[KEY_HASH]
    if stale.is_empty():
        return Confirmed(nothing, nothing)
    entity = shape.entity
    chunks = [stale[at : at + BATCH_LIMIT].to_list() for at in range(0, len(stale), BATCH_LIMIT)]
    equal, done = [nothing], 0

    def held(keys: list[bytes]) -> pl.DataFrame:
        return _content(connections.target.query(entity.collection, keys), staged)

    with Threads(CALLS_AT_ONCE, thread_name_prefix="confirm") as pool:
        for found in pool.map(held, chunks):
            same = found.join(
                rows.select(KEY_HASH, DATA_HASH), on=[KEY_HASH, DATA_HASH], how="semi"
            )
            with connections.database.begin() as connection:
                lease.check(connection)
                records.save_recomputed(connection, staged.name, same)
            equal.append(same[KEY_HASH])
            done += found.height
            connections.progress(staged.name, "confirm", done, len(stale))
    unsent = pl.concat(equal)
    differing = stale.filter(~stale.is_in(unsent.implode()))
    note = (
        f"{len(stale)} known records, sent under another mapping, by another program or by a sync that "
        f"was cut off, were compared with the target: {len(differing)} differ in content"
    )
    return Confirmed(unsent, differing, note)


def _content(held: list[HubRecord], staged: Staged) -> pl.DataFrame:
    """``#key_hash``, ``#data_hash`` and ``#digests`` by content of the records that are alive."""
    live = [record for record in held if not record.is_deleted]
    keys = pl.Series(KEY_HASH, [record.key_hash for record in live], dtype=pl.Binary)
    hashes = content_hashes([record.fields for record in live], staged.shape)
    return pl.DataFrame([keys, *hashes])
