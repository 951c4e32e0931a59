"""Park: let rows wait for their parents; after the last vain attempt tell a person, and go on waiting.

Belongs here: filing what waits, counting its attempts, the dead letter at their end.
Does not belong here: who waits (``parents``), releasing (``release``), the delays (``backoff``).

Every sync that meets the row and misses its parent is an attempt. A record whose attempts are over
costs no more: it is read, counted as pending, and sent when its parent lands.

Source: product.md 6; faults.md XH04.
"""

from datetime import datetime

import polars as pl
import sqlalchemy as sa

from syncflow_core.backoff import ATTEMPTS, delay_s
from syncflow_core.bridge import events, failed, pending
from syncflow_core.columns import KEY_HASH, REFERENCE, ROW
from syncflow_core.entity import Entity
from syncflow_core.identity import escaped
from syncflow_core.stages.sender import Sender, groups
from syncflow_core.stages.verdicts import BODY, outgoing
from syncflow_core.stages.work import Connections, Staged

PARENT_NAME = "#parent_name"
"""String: the parent's reference, as its own entity would write it."""


def park_waiting(connections: Connections, staged: Staged, sender: Sender) -> None:
    """File the rows that wait for a parent, and the references that wait for the second phase."""
    if "missing" not in staged.frames or not staged.frames["missing"].rows:
        return
    entity, now = staged.shape.entity, sender.now()
    missing = connections.frames.read(staged.frames["missing"])
    parked = connections.frames.read(staged.frames["parked"])
    deferred = connections.frames.read(staged.frames["deferred"])
    with connections.database.begin() as connection:
        sender.lease.check(connection)
        before = pending.open_pending(connection, entity.name)
        for rows, kind in ((parked, "parked"), (deferred, "deferred")):
            for part in groups(rows):
                lines = (
                    outgoing(part, staged.shape)
                    .with_columns(part[ROW])
                    .join(missing, on=ROW, how="inner")
                    .join(_parent_names(part, entity), on=[ROW, "reference"], how="left")
                    .with_columns(
                        pl.col("reference").alias("reference_name"),
                        pl.col("reference")
                        .replace_strict({n: p.entity for n, p in entity.parents.items()})
                        .alias("parent_entity"),
                        pl.col("parent").alias("parent_key_hash"),
                        pl.lit(kind).alias("kind"),
                        pl.lit(None, dtype=pl.Datetime("us", "UTC")).alias("due_at"),
                        pl.col(BODY).alias("payload"),
                    )
                )
                pending.park(
                    connection, entity.name, lines.select(pending.PARKED.names()), sender.batch, now
                )
                _count_attempt(connection, sender, lines, before, now)
        fresh = parked.filter(~pl.col(KEY_HASH).is_in(before[KEY_HASH].implode()))
        events.record(
            connection,
            entity.name,
            fresh.select(KEY_HASH, pl.lit("parked").alias("event")),
            sender.batch,
            now,
        )
    sender.count("pending", parked.height)


def forget_overtaken(connections: Connections, staged: Staged, sender: Sender) -> None:
    """Cancel what records that this batch met wait with from earlier batches; to be called after parking.

    What still waits of them was parked anew. Any other line is of an older version, or of a
    reference that the newer one has no more: it must not follow what was sent, withheld or refused.
    """
    name = sender.entity.name
    with connections.database.begin() as connection:
        waiting = pending.open_keys(connection, name)
        if waiting.is_empty():
            return
        met = connections.frames.read(staged.frames["distinct"], columns=[KEY_HASH])[KEY_HASH]
        sender.lease.check(connection)
        pending.cancel_older(
            connection,
            name,
            waiting.filter(waiting.is_in(met.implode())),
            sender.batch,
            sender.now(),
        )


def _parent_names(rows: pl.DataFrame, entity: Entity) -> pl.DataFrame:
    """``#row``, ``reference`` and ``#parent_name``: each reference as the parent's own entity writes it."""
    frames = [
        rows.select(
            ROW,
            pl.lit(reference).alias("reference"),
            pl.concat_str(
                [
                    pl.concat_str(pl.lit(f"{field}="), escaped(pl.col(own)))
                    for field, own in parent.key.items()
                ],
                separator="|",
            ).alias(PARENT_NAME),
        )
        for reference, parent in entity.parents.items()
    ]
    return pl.concat(frames)


def _count_attempt(
    connection: sa.Connection,
    sender: Sender,
    lines: pl.DataFrame,
    before: pl.DataFrame,
    now: datetime,
) -> None:
    """Count one attempt for each line; who has had the last one becomes a dead letter, once."""
    earlier = before.select(
        KEY_HASH, "reference_name", "parent_key_hash", pl.col("attempts").alias("#earlier")
    )
    who = [KEY_HASH, "reference_name", "parent_key_hash"]
    tried = lines.join(earlier, on=who, how="left").with_columns(
        pl.col("#earlier").fill_null(0).alias("#earlier")
    )
    tried = tried.with_columns(
        pl.min_horizontal(pl.col("#earlier") + 1, pl.lit(ATTEMPTS)).alias("attempts")
    )
    wait = pl.duration(seconds=delay_s(pl.col("attempts")))
    pending.defer(
        connection,
        sender.entity.name,
        tried.select(
            KEY_HASH,
            "reference_name",
            "attempts",
            (pl.lit(now) + wait).dt.cast_time_unit("us").alias("due_at"),
            pl.when(pl.col("attempts") < ATTEMPTS)
            .then(pl.lit("waiting"))
            .otherwise(pl.lit("dead"))
            .alias("state"),
        ),
        now,
    )
    dead = tried.filter((pl.col("attempts") == ATTEMPTS) & (pl.col("#earlier") < ATTEMPTS))
    if dead.is_empty():
        return
    failed.file_failed(connection, sender.entity.name, _letters(dead), sender.batch, now)
    sender.tell(connection, dead.unique(KEY_HASH), pl.lit("failed"), now)


def _letters(dead: pl.DataFrame) -> pl.DataFrame:
    """Lines whose attempts are over, as ``failed.file_failed`` takes them."""
    words = pl.concat_str(
        pl.lit("waits for "),
        pl.col("parent_entity"),
        pl.lit(" "),
        pl.col(PARENT_NAME),
        pl.lit(f", which was not there in {ATTEMPTS} attempts; it is still sent when that comes"),
    )
    return dead.select(
        pl.lit("resolve").alias("stage"),
        pl.lit(None, dtype=pl.UInt8).alias("layer"),
        pl.lit("parent_missing").alias("rule"),
        pl.col("reference_name").alias("column"),
        pl.col(PARENT_NAME).alias("value"),
        words.alias("message"),
        pl.col("payload").alias("raw"),
        KEY_HASH,
        REFERENCE,
    )
