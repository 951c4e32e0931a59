"""``push_journal``: the intent written before a write call goes out, closed by its outcome.

A law: an intent is committed before its call begins. What is open when nobody holds the entity's
lease is in doubt: the hub is asked before anything of it is written again.

Belongs here: opening, closing and listing intents.
Does not belong here: asking the hub (``stages``).

Source: product.md 1 and 5; contract.md, "in doubt".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

import polars as pl
import sqlalchemy as sa

from syncflow_core.bridge.identifiers import new_uid
from syncflow_core.bridge.tables import push_journal

_OPEN = sa.text(
    "INSERT INTO bridge.push_journal (uid, entity, batch, op, key_hashes, fence, opened_at) "
    "VALUES (:uid, :entity, :batch, :op, CAST(:keys AS bytea[]), :fence, :now)"
)

WriteOp = Literal["insert", "update", "delete"]


@dataclass(frozen=True)
class Intent:
    """A write call that began and whose outcome is not known."""

    uid: UUID
    batch: UUID | None
    op: WriteOp
    key_hashes: pl.Series
    """Binary."""
    opened_at: datetime


def write_intents(  # each is a column of its own
    connection: sa.Connection,
    *,
    entity: str,
    batch: UUID | None,
    calls: Sequence[tuple[WriteOp, pl.Series]],
    fence: int | None,
    now: datetime,
) -> list[UUID]:
    """Write down that these records are about to be written: operation and key hashes of each call."""
    uids = [new_uid(now.timestamp) for _ in calls]
    if calls:
        connection.execute(
            _OPEN,
            [
                {
                    "uid": uid,
                    "entity": entity,
                    "batch": batch,
                    "op": op,
                    "keys": _array(keys),
                    "fence": fence,
                    "now": now,
                }
                for uid, (op, keys) in zip(uids, calls, strict=True)
            ],
        )
    return uids


def close_intents(
    connection: sa.Connection,
    uids: Sequence[UUID],
    outcome: Literal["done", "settled", "failed"],
    now: datetime,
) -> None:
    """Write down how the calls ended; a closed intent keeps its first outcome.

    ``done``: answered. ``settled``: found out later by asking. ``failed``: nothing was written.
    """
    connection.execute(
        push_journal.update()
        .where(push_journal.c.uid.in_(uids), push_journal.c.closed_at.is_(None))
        .values(outcome=outcome, closed_at=now)
    )


def _array(key_hashes: pl.Series) -> str:
    """The hashes as the text of a PostgreSQL array: one value for the driver, not a thousand."""
    if key_hashes.is_empty():
        return "{}"
    between = '","\\\\x'
    inner: str = key_hashes.bin.encode("hex").str.join(between).item()
    return '{"\\\\x' + inner + '"}'


def open_intents(connection: sa.Connection, entity: str) -> list[Intent]:
    """The entity's intents without an outcome, oldest first."""
    query = (
        push_journal.select()
        .where(push_journal.c.entity == entity, push_journal.c.closed_at.is_(None))
        .order_by(push_journal.c.opened_at, push_journal.c.uid)
    )
    return [
        Intent(
            uid=row.uid,
            batch=row.batch,
            op=row.op,
            key_hashes=pl.Series("#key_hash", row.key_hashes, dtype=pl.Binary),
            opened_at=row.opened_at,
        )
        for row in connection.execute(query)
    ]
