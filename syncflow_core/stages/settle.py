"""Settle: ask the target about every write whose outcome a dead batch never learned.

Belongs here: turning open intents into acknowledged records, by the target's own word.
Does not belong here: writing anything to the target.

Source: product.md 1, ``push_journal``, and 5.
"""

from collections.abc import Sequence
from datetime import datetime

import polars as pl
import sqlalchemy as sa

from syncflow_core.bridge import batches, journal, records, suspects
from syncflow_core.bridge.journal import Intent
from syncflow_core.bridge.leases import Lease
from syncflow_core.columns import (
    DATA_HASH,
    HUB_UID,
    KEY_HASH,
    KEY_SOURCE,
    PARENT_REFS,
    REFERENCE,
    ROWVERSION,
)
from syncflow_core.stages.taken_over import hiding
from syncflow_core.stages.verdicts import ask
from syncflow_core.stages.work import Connections, Staged
from syncflow_core.stages.writer import GROUP_ROWS


def settle_open(connections: Connections, staged: Staged, lease: Lease, now: datetime) -> list[str]:
    """Close every open intent of the entity with what the target holds; say how many there were.

    Afterwards ``synced_records`` tells, for each key in doubt, what the target holds now: the delta
    then finds what is still to do, and nothing is sent twice.
    """
    with connections.database.begin() as connection:
        intents = journal.open_intents(connection, staged.name)
    if not intents:
        return []
    doubtful = pl.Series(KEY_HASH, [], dtype=pl.Binary)
    doubtful = pl.concat([doubtful, *(intent.key_hashes for intent in intents)]).unique()
    entity = staged.shape.entity
    for start in range(0, len(doubtful), GROUP_ROWS):
        keys = doubtful[start : start + GROUP_ROWS]
        held = ask(connections.target, entity, keys)
        live = held.filter(~pl.col("#held_deleted")).select(
            KEY_HASH,
            pl.col("#held_data_hash").alias(DATA_HASH),
            pl.col("#held_parent_refs").alias(PARENT_REFS),
            pl.col("#held_rowversion").alias(ROWVERSION),
            pl.col("uid").alias(HUB_UID),
            pl.col("#held_reference").alias(REFERENCE),
            pl.lit(None, dtype=pl.String).alias(KEY_SOURCE),
        )
        absent = keys.to_frame(KEY_HASH).join(live.select(KEY_HASH), on=KEY_HASH, how="anti")
        with connections.database.begin() as connection:
            lease.check(connection)
            lost = _lost(connection, entity.name, intents, live, keys)
            if len(lost):
                suspects.accuse(connection, entity.name, lost)
            known = hiding(connections, entity, staged.shape).known(connection, live)
            records.save_acknowledged(connection, entity.name, known, staged.batch)
            records.mark_deleted(connection, entity.name, absent[KEY_HASH], staged.batch)
    with connections.database.begin() as connection:
        lease.check(connection)
        journal.close_intents(connection, [intent.uid for intent in intents], "settled", now)
    return [
        f"{len(doubtful)} records were in doubt since a batch that was cut off; the target was asked"
    ]


def _lost(
    connection: sa.Connection,
    entity: str,
    intents: Sequence[Intent],
    live: pl.DataFrame,
    keys: pl.Series,
) -> pl.Series:
    """Those of the keys whose insert or update a worker that died had begun, and the target has not seen."""
    batches_of = [intent.batch for intent in intents if intent.batch is not None]
    died = batches.died_among(connection, batches_of)
    written = pl.concat(
        [
            keys.clear(),
            *(i.key_hashes for i in intents if i.batch in died and i.op != "delete"),
        ]
    )
    known = records.load_known_of(connection, entity, keys).filter(~pl.col("deleted"))
    here = live.join(known, on=KEY_HASH, how="left", suffix="_known", nulls_equal=True)
    fresh = pl.col(DATA_HASH).ne_missing(pl.col(f"{DATA_HASH}_known")) | pl.col(
        PARENT_REFS
    ).ne_missing(pl.col(f"{PARENT_REFS}_known"))
    applied = here.filter(fresh)[KEY_HASH].implode()
    return keys.filter(keys.is_in(written.implode()) & ~keys.is_in(applied))
