"""``failed_records``: dead letters, one open row per (entity, key hash or raw digest).

Belongs here: filing what was refused, resolving it, listing what is open.
Does not belong here: the rules that refuse (``normalize``), when to try again (``backoff``).

Source: product.md 1 and 2; product.md, "Accounts, statuses, exits".
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import polars as pl
import sqlalchemy as sa

from syncflow_core import columns
from syncflow_core.bridge.bulk import load_frame, stage, stage_keys

_STAGED: Final = (
    "key_hash bytea, raw_digest bytea, reference text, stage text, layer smallint, rule text, "
    "column_name text, value text, message text, raw text, due_at timestamptz"
)
_FILED: Final = {
    columns.KEY_HASH: "key_hash",
    "raw_digest": "raw_digest",
    columns.REFERENCE: "reference",
    "stage": "stage",
    "layer": "layer",
    "rule": "rule",
    "column": "column_name",
    "value": "value",
    "message": "message",
    "raw": "raw",
    "due_at": "due_at",
}

FAILED: Final = pl.Schema(
    {
        "uid": pl.String(),
        "entity": pl.String(),
        columns.KEY_HASH: pl.Binary(),
        "raw_digest": pl.Binary(),
        columns.REFERENCE: pl.String(),
        "stage": pl.String(),
        "layer": pl.Int64(),
        "rule": pl.String(),
        "column": pl.String(),
        "value": pl.String(),
        "message": pl.String(),
        "raw": pl.String(),
        "attempts": pl.Int64(),
        "due_at": pl.Datetime("us", "UTC"),
        "last_batch": pl.String(),
        "first_seen": pl.Datetime("us", "UTC"),
        "last_seen": pl.Datetime("us", "UTC"),
    }
)
"""One line per open row of ``failed_records``."""


def file_failed(
    connection: sa.Connection, entity: str, frame: pl.DataFrame, batch: UUID, now: datetime
) -> int:
    """File records that were refused; one that has an open row gets one more attempt there.

    Args:
        connection: In a transaction.
        entity: Its name.
        frame: ``columns.REJECTED`` without its row number, and at least one of ``#key_hash`` and
            ``raw_digest`` on each line; ``#reference``, ``raw`` and ``due_at`` where there are.
            Several lines of one key make one row, the first line's.
        batch: The batch that met them.
        now: Aware.

    Returns:
        How many rows were written.
    """
    if frame.is_empty():
        return 0
    present = {name: to for name, to in _FILED.items() if name in frame.columns}
    lines = frame.select(pl.col(name).alias(to) for name, to in present.items())
    names = [name for name in ("key_hash", "raw_digest") if name in lines.columns]
    lines = (
        lines.with_columns(pl.coalesce(names).alias("who"))
        .unique("who", keep="first", maintain_order=True)
        .drop("who")
    )
    stage(connection, "staged_failed", _STAGED, lines)
    connection.execute(
        sa.text(
            """
            INSERT INTO bridge.failed_records AS open (entity, key_hash, raw_digest, reference,
                stage, layer, rule, column_name, value, message, raw, due_at, first_batch,
                last_batch, first_seen, last_seen)
            SELECT :entity, key_hash, raw_digest, reference, stage, layer, rule, column_name, value,
                message, raw, due_at, :batch, :batch, :now, :now
            FROM staged_failed
            ON CONFLICT (entity, coalesce(key_hash, raw_digest)) WHERE resolved_at IS NULL
            DO UPDATE SET
                reference = coalesce(excluded.reference, open.reference),
                stage = excluded.stage, layer = excluded.layer, rule = excluded.rule,
                column_name = excluded.column_name, value = excluded.value,
                message = excluded.message, raw = coalesce(excluded.raw, open.raw),
                due_at = excluded.due_at, attempts = open.attempts + 1,
                last_batch = excluded.last_batch, last_seen = excluded.last_seen
            """
        ),
        {"entity": entity, "batch": batch, "now": now},
    )
    return lines.height


def resolve_failed(
    connection: sa.Connection, entity: str, key_hashes: pl.Series, how: str, now: datetime
) -> int:
    """Close the open rows of these records, saying *how*; returns how many there were."""
    stage_keys(connection, key_hashes)
    done = connection.execute(
        sa.text(
            "UPDATE bridge.failed_records AS open SET resolved_at = :now, resolution = :how "
            "FROM staged_keys AS staged WHERE open.entity = :entity AND open.resolved_at IS NULL "
            "AND coalesce(open.key_hash, open.raw_digest) = staged.key_hash"
        ),
        {"entity": entity, "how": how, "now": now},
    )
    return done.rowcount


def resolve_unseen(
    connection: sa.Connection, entity: str, batches: Sequence[UUID], how: str, now: datetime
) -> int:
    """Close the open rows without a key that *batches*, together a complete scan, did not meet again."""
    done = connection.execute(
        sa.text(
            "UPDATE bridge.failed_records SET resolved_at = :now, resolution = :how "
            "WHERE entity = :entity AND resolved_at IS NULL AND key_hash IS NULL "
            "AND (last_batch IS NULL OR last_batch <> ALL(:batches))"
        ),
        {"entity": entity, "how": how, "now": now, "batches": list(batches)},
    )
    return done.rowcount


def open_failed(
    connection: sa.Connection,
    entity: str,
    *,
    due_by: datetime | None = None,
    limit: int | None = None,
) -> pl.DataFrame:
    """The entity's open rows in the shape :data:`FAILED`, oldest first.

    With *due_by* only those that may be tried again by then: a ``due_at`` that has come, or none.
    """
    query = (
        "SELECT uid, entity, encode(key_hash, 'hex'), encode(raw_digest, 'hex'), reference, stage, "
        "layer, rule, column_name, value, message, raw, attempts, due_at, last_batch, first_seen, "
        "last_seen FROM bridge.failed_records WHERE entity = :entity AND resolved_at IS NULL "
        "AND (due_at IS NULL OR due_at <= coalesce(:due_by, 'infinity'::timestamptz)) "
        "ORDER BY first_seen, uid LIMIT :limit"
    )
    found = load_frame(
        connection, query, FAILED, {"entity": entity, "due_by": due_by, "limit": limit}
    )
    return found.sort("first_seen", "uid")


def open_keys(connection: sa.Connection, entity: str) -> pl.Series:
    """The key hashes of the entity's open rows, those without a key left out: Binary, distinct."""
    query = (
        "SELECT encode(key_hash, 'hex') FROM bridge.failed_records "
        "WHERE entity = :entity AND resolved_at IS NULL AND key_hash IS NOT NULL"
    )
    schema = {columns.KEY_HASH: pl.Binary()}
    return load_frame(connection, query, schema, {"entity": entity})[columns.KEY_HASH]


def count_failed(connection: sa.Connection, entity: str) -> int:
    """How many open rows the entity has."""
    query = sa.text(
        "SELECT count(*) FROM bridge.failed_records WHERE entity = :entity AND resolved_at IS NULL"
    )
    return int(connection.execute(query, {"entity": entity}).scalar_one())
