"""``record_events``: the history of each record.

Belongs here: appending events, telling one record's story.
Does not belong here: deciding what happened (``stages``).

Source: product.md 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import polars as pl
import sqlalchemy as sa

from syncflow_core import columns
from syncflow_core.bridge.bulk import copy_in
from syncflow_core.bridge.tables import record_events


@dataclass(frozen=True)
class Event:
    """One thing that happened to one record."""

    at: datetime
    event: str
    batch: UUID | None
    detail: Mapping[str, Any]


def record(
    connection: sa.Connection, entity: str, frame: pl.DataFrame, batch: UUID, now: datetime
) -> None:
    """Append one event per line: ``#key_hash``, ``event``, and ``detail`` (JSON text) where there is."""
    detail = pl.col("detail") if "detail" in frame.columns else pl.lit(None, pl.String)
    lines = frame.select(
        pl.lit(entity).alias("entity"),
        pl.col(columns.KEY_HASH).alias("key_hash"),
        pl.lit(str(batch)).alias("batch"),
        pl.lit(now.isoformat()).alias("at"),
        pl.col("event").cast(pl.String),
        detail.alias("detail"),
    )
    copy_in(connection, "bridge.record_events", lines)


def story(
    connection: sa.Connection, entity: str, key_hash: bytes, *, limit: int = 1000
) -> list[Event]:
    """What happened to one record, oldest first; of a longer story the newest *limit* events."""
    table = record_events.c
    query = (
        record_events.select()
        .where(table.entity == entity, table.key_hash == key_hash)
        .order_by(table.id.desc())
        .limit(limit)
    )
    found = [
        Event(at=row.at, event=row.event, batch=row.batch, detail=row.detail or {})
        for row in connection.execute(query)
    ]
    return found[::-1]
