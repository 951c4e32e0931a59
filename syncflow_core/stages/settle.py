"""Settle: ask the target about every write whose outcome a dead batch never learned.

Belongs here: turning open intents into acknowledged records, by the target's own word.
Does not belong here: writing anything to the target.

Source: product.md 1, ``push_journal``, and 5.
"""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import polars as pl
import sqlalchemy as sa

from syncflow_core.bridge import batches, events, journal, records, suspects
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
    with connections.database.read() as connection:
        intents = journal.open_intents(connection, staged.name)
    if not intents:
        return []
    doubtful = pl.Series(KEY_HASH, [], dtype=pl.Binary)
    doubtful = pl.concat([doubtful, *(intent.key_hashes for intent in intents)]).unique()
    entity = staged.shape.entity
    arrived = 0
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
            before = records.load_known_of(connection, entity.name, keys)
            done = _done(live, before)
            lost = _lost(connection, intents, done, keys)
            if len(lost):
                suspects.accuse(connection, entity.name, lost)
            _tell(connection, entity.name, intents, done, staged.batch, now)
            known = hiding(connections, entity, staged.shape).known(connection, live)
            records.save_acknowledged(connection, entity.name, known, staged.batch)
            records.mark_deleted(connection, entity.name, absent[KEY_HASH], staged.batch)
        arrived += done.height
    with connections.database.begin() as connection:
        lease.check(connection)
        journal.close_intents(connection, [intent.uid for intent in intents], "settled", now)
    asked = "records were in doubt since a batch that was cut off; the target was asked"
    return [f"{len(doubtful)} {asked}, and had done what was begun with {arrived} of them"]


def _done(live: pl.DataFrame, before: pl.DataFrame) -> pl.DataFrame:
    """What was done with records since they were last acknowledged: ``#key_hash``, ``event``.

    Args:
        live: What the target holds now of the records in doubt.
        before: ``columns.KNOWN_WHOLE`` of the records in doubt.
    """
    known = before.filter(~pl.col("deleted"))
    here = live.join(known, on=KEY_HASH, how="left", suffix="_known", nulls_equal=True)
    other = pl.any_horizontal(
        pl.col(name).ne_missing(pl.col(f"{name}_known")) for name in (DATA_HASH, PARENT_REFS)
    )
    new = ~pl.col(KEY_HASH).is_in(known[KEY_HASH].implode())
    event = pl.when(new).then(pl.lit("inserted")).otherwise(pl.lit("updated")).alias("event")
    gone = known.join(live, on=KEY_HASH, how="anti")
    return pl.concat(
        [
            here.filter(new | other).select(KEY_HASH, event),
            gone.select(KEY_HASH, pl.lit("deleted").alias("event")),
        ]
    )


def _tell(  # each is what the history says
    connection: sa.Connection,
    entity: str,
    intents: Sequence[Intent],
    done: pl.DataFrame,
    batch: UUID,
    now: datetime,
) -> None:
    """One line of history for each record that was written, in the batch that wrote it and never learned it."""
    begun = pl.concat(
        intent.key_hashes.to_frame(KEY_HASH).with_columns(
            pl.lit(str(intent.batch or batch)).alias("batch"),
            pl.lit(intent.op == "delete").alias("deletes"),
        )
        for intent in sorted(intents, key=lambda intent: intent.opened_at)
    )
    newest = begun.unique([KEY_HASH, "deletes"], keep="last", maintain_order=True)
    # what nobody here had begun, another program did
    deletes = (pl.col("event") == "deleted").alias("deletes")
    lines = done.with_columns(deletes).join(newest, on=[KEY_HASH, "deletes"])
    for (by,), part in lines.partition_by("batch", as_dict=True).items():
        events.record(connection, entity, part, UUID(str(by)), now)


def _lost(
    connection: sa.Connection, intents: Sequence[Intent], done: pl.DataFrame, keys: pl.Series
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
    applied = done.filter(pl.col("event") != "deleted")[KEY_HASH].implode()
    return keys.filter(keys.is_in(written.implode()) & ~keys.is_in(applied))
