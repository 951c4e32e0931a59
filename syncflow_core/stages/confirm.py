"""Confirm: ask the target what it holds where a known hash was made under another mapping.

Belongs here: telling, by content, which of the supposed updates say nothing new.
Does not belong here: comparing hashes (``delta``), reading the target's JSON (``content``).

After a change of mapping or encoding every data hash differs, and of a record that was taken over
nobody knows what its hash covers. Only records whose content differs are sent.

Source: product.md 3 and 4.
"""

from concurrent.futures import ThreadPoolExecutor

import polars as pl

from syncflow_core.bridge import records
from syncflow_core.bridge.leases import Lease
from syncflow_core.columns import DATA_HASH, KEY_HASH
from syncflow_core.content import content_hashes
from syncflow_core.digests import DIGESTS, of_layout
from syncflow_core.outcomes import HubRecord
from syncflow_core.schedulehub import BATCH_LIMIT
from syncflow_core.stages.work import Connections, Staged
from syncflow_core.stages.writer import CALLS_AT_ONCE


def confirm_updates(
    connections: Connections, staged: Staged, updates: pl.DataFrame, lease: Lease
) -> tuple[pl.Series, list[str]]:
    """Find the supposed updates that the target holds as they are; its hash is known anew then.

    Args:
        connections: The target and the database.
        staged: The batch.
        updates: ``#key_hash`` and ``#data_hash`` of rows whose data hash is not the known one.
        lease: Checked where known hashes are replaced.

    Returns:
        The key hashes of records whose data need not be sent, and what a person should know.
    """
    nothing = pl.Series(KEY_HASH, [], dtype=pl.Binary)
    if updates.is_empty():
        return nothing, []
    shape = staged.shape
    with connections.database.begin() as connection:
        before = records.load_before(connection, staged.name, updates[KEY_HASH])
    stale = before.filter(~of_layout(pl.col(DIGESTS), shape))[KEY_HASH]
    if stale.is_empty():
        return nothing, []
    entity = shape.entity
    chunks = [stale[at : at + BATCH_LIMIT].to_list() for at in range(0, len(stale), BATCH_LIMIT)]
    equal, done = [nothing], 0

    def held(keys: list[bytes]) -> pl.DataFrame:
        return _content(connections.target.query(entity.collection, keys), staged)

    with ThreadPoolExecutor(CALLS_AT_ONCE, thread_name_prefix="confirm") as pool:
        for found in pool.map(held, chunks):
            same = found.join(
                updates.select(KEY_HASH, DATA_HASH), on=[KEY_HASH, DATA_HASH], how="semi"
            )
            with connections.database.begin() as connection:
                lease.check(connection)
                records.save_recomputed(connection, staged.name, same)
            equal.append(same[KEY_HASH])
            done += found.height
            connections.progress(staged.name, "confirm", done, len(stale))
    unsent = pl.concat(equal)
    note = (
        f"{len(stale)} known records were sent under another mapping or by another program: "
        f"{len(stale) - len(unsent)} differ in content"
    )
    return unsent, [note]


def _content(held: list[HubRecord], staged: Staged) -> pl.DataFrame:
    """``#key_hash`` and ``#data_hash`` by content of the records that are alive."""
    live = [record for record in held if not record.is_deleted]
    hashes = content_hashes([record.fields for record in live], staged.shape)
    keys = pl.Series(KEY_HASH, [record.key_hash for record in live], dtype=pl.Binary)
    return pl.DataFrame([keys, hashes.rename(DATA_HASH)])
