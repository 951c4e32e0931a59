"""Attempts of waiting children: each vain one is counted; after the last a person is told, and they wait on.

Belongs here: counting, the next time that one is due, the dead letter at the end.
Does not belong here: who waits (``parents``, ``verdicts``), the delays (``backoff``).

Every sync that meets the row and misses its parent is an attempt. A record whose attempts are over
costs no more: it is read, counted as pending, and sent when its parent lands.

Source: product.md 6; faults.md XH04.
"""

from datetime import datetime
from typing import Final

import polars as pl
import sqlalchemy as sa

from syncflow_core.backoff import ATTEMPTS, delay_s
from syncflow_core.bridge import failed, pending
from syncflow_core.columns import KEY_HASH, REFERENCE
from syncflow_core.stages.verdicts import hidden_bodies
from syncflow_core.stages.writer import Writer

PARENT_NAME: Final = "#parent_name"
"""String: the parent's reference, as its own entity would write it."""


def count_attempt(
    connection: sa.Connection,
    writer: Writer,
    lines: pl.DataFrame,
    before: pl.DataFrame,
    now: datetime,
) -> None:
    """Count one attempt for each line; who has had the last one becomes a dead letter, once.

    Args:
        connection: In the transaction that has parked the lines.
        writer: Of the batch that met them.
        lines: ``pending.PARKED`` with ``#parent_name``.
        before: ``pending.open_pending`` as it was before they were parked.
        now: Aware.
    """
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
        writer.entity.name,
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
    letters = _letters(dead)
    letters = letters.with_columns(hidden_bodies(letters["raw"], writer.privacy))
    failed.file_failed(connection, writer.entity.name, letters, writer.batch, now)
    writer.tell(connection, dead.unique(KEY_HASH), pl.lit("failed"), now)


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
