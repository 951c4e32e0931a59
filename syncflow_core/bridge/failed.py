"""``failed_records``: dead letters, one open row per (entity, key hash or raw digest).

Belongs here: filing what was refused, resolving it, listing what is open.
Does not belong here: the rules that refuse (``normalize``), when to try again (``backoff``).

Source: product.md 1 and 2; product.md, "Accounts, statuses, exits".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec
import polars as pl
import sqlalchemy as sa

from syncflow_core import columns
from syncflow_core.backoff import ATTEMPTS, FACTOR, FIRST_S
from syncflow_core.bridge.bulk import load_frame, stage, stage_keys

_STAGED: Final = (
    "key_hash bytea, raw_digest bytea, reference text, stage text, layer smallint, rule text, "
    "column_name text, value text, message text, raw text, key_source text"
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
    columns.KEY_SOURCE: "key_source",
}
_DUE: Final = (
    f"CASE WHEN {{stage}} = 'push' AND {{attempts}} < {ATTEMPTS} THEN "
    f"CAST(:now AS timestamptz) + {FIRST_S} * power({FACTOR}, {{attempts}} - 1) * interval '1 second' END"
)
"""What the target refused is due again by the delays of ``backoff``; what a rule refused is not by itself."""

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
        columns.KEY_SOURCE: pl.String(),
        "attempts": pl.Int64(),
        "due_at": pl.Datetime("us", "UTC"),
        "last_batch": pl.String(),
        "first_seen": pl.Datetime("us", "UTC"),
        "last_seen": pl.Datetime("us", "UTC"),
    }
)
"""One line per open row of ``failed_records``."""


class Alike(msgspec.Struct, frozen=True):
    """What failed records have in common; None and empty for whatever."""

    batch: UUID | None = None
    """The batch that met them last."""
    stage: str | None = None
    rule: str | None = None
    column: str | None = None
    uids: tuple[UUID, ...] = ()
    """They are among these."""

    def where(self) -> tuple[list[str], dict[str, object]]:
        """What a row of ``failed_records`` has to meet, in SQL, and the values in it."""
        equal = {
            "last_batch": self.batch,
            "stage": self.stage,
            "rule": self.rule,
            "column_name": self.column,
        }
        values: dict[str, object] = {k: v for k, v in equal.items() if v is not None}
        met = [f"{name} = :{name}" for name in values]
        if self.uids:
            met.append("uid = ANY(:uids)")
            values["uids"] = list(self.uids)
        return met, values


def file_failed(
    connection: sa.Connection, entity: str, frame: pl.DataFrame, batch: UUID, now: datetime
) -> int:
    """File records that were refused; one that has an open row gets one more attempt there.

    Args:
        connection: In a transaction.
        entity: Its name.
        frame: ``columns.REJECTED`` without its row number, and at least one of ``#key_hash`` and
            ``raw_digest`` on each line; ``#reference``, ``raw`` and ``#key_source`` where there are.
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
            f"""
            INSERT INTO bridge.failed_records AS open (entity, key_hash, raw_digest, reference,
                stage, layer, rule, column_name, value, message, raw, key_source, due_at, first_batch,
                last_batch, first_seen, last_seen)
            SELECT :entity, key_hash, raw_digest, reference, stage, layer, rule, column_name, value,
                message, raw, key_source, {_DUE.format(stage="stage", attempts=1)}, :batch, :batch, :now, :now
            FROM staged_failed
            ON CONFLICT (entity, coalesce(key_hash, raw_digest)) WHERE resolved_at IS NULL
            DO UPDATE SET
                reference = coalesce(excluded.reference, open.reference),
                stage = excluded.stage, layer = excluded.layer, rule = excluded.rule,
                column_name = excluded.column_name, value = excluded.value,
                message = excluded.message, raw = coalesce(excluded.raw, open.raw),
                key_source = coalesce(excluded.key_source, open.key_source),
                due_at = {_DUE.format(stage="excluded.stage", attempts="(open.attempts + 1)")},
                attempts = open.attempts + 1,
                last_batch = excluded.last_batch, last_seen = excluded.last_seen
            """  # noqa: S608  # constants
        ),
        {"entity": entity, "batch": batch, "now": now},
    )
    return lines.height


def load_raw(connection: sa.Connection, entity: str, key_hashes: pl.Series) -> pl.DataFrame:
    """``#key_hash`` and ``raw``, as filed, of those of the records that have an open row."""
    stage_keys(connection, key_hashes)
    return load_frame(
        connection,
        "SELECT encode(f.key_hash, 'hex'), f.raw FROM staged_keys "
        "JOIN bridge.failed_records AS f USING (key_hash) "
        "WHERE f.entity = :entity AND f.resolved_at IS NULL",
        pl.Schema({columns.KEY_HASH: pl.Binary(), "raw": pl.String()}),
        {"entity": entity},
    )


def resolve_failed(
    connection: sa.Connection, entity: str, key_hashes: pl.Series, how: str, now: datetime
) -> int:
    """Close the open rows of these records, saying *how*; returns how many there were."""
    if not _has_open(connection, entity):
        return 0
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
    alike: Alike | None = None,
    who: bytes | None = None,
) -> pl.DataFrame:
    """The entity's open rows in the shape :data:`FAILED`, oldest first.

    With *due_by* only those that are due by then; what is never due waits for its row, its declaration
    or a person. With *alike* only those; with *who* the one of this key hash or raw digest.
    """
    met, values = (alike or Alike()).where()
    if who is not None:
        met.append("coalesce(key_hash, raw_digest) = :who")
    query = (
        "SELECT uid, entity, encode(key_hash, 'hex'), encode(raw_digest, 'hex'), reference, stage, "  # noqa: S608  # columns
        "layer, rule, column_name, value, message, raw, key_source, attempts, due_at, last_batch, first_seen, "
        "last_seen FROM bridge.failed_records WHERE entity = :entity AND resolved_at IS NULL "
        "AND (CAST(:due_by AS timestamptz) IS NULL OR due_at <= :due_by) "
        f"{''.join(f'AND {condition} ' for condition in met)}"
        "ORDER BY first_seen, uid LIMIT :limit"
    )
    given = {"entity": entity, "due_by": due_by, "limit": limit, "who": who, **values}
    return load_frame(connection, query, FAILED, given).sort("first_seen", "uid")


def open_keys(connection: sa.Connection, entity: str) -> pl.Series:
    """The key hashes of the entity's open rows, those without a key left out: Binary, distinct."""
    query = (
        "SELECT encode(key_hash, 'hex') FROM bridge.failed_records "
        "WHERE entity = :entity AND resolved_at IS NULL AND key_hash IS NOT NULL"
    )
    schema = {columns.KEY_HASH: pl.Binary()}
    return load_frame(connection, query, schema, {"entity": entity})[columns.KEY_HASH]


def postpone(connection: sa.Connection, entity: str, now: datetime) -> None:
    """Move what is due by one more delay: whoever takes it up may die before it counts the attempt."""
    connection.execute(
        sa.text(
            "UPDATE bridge.failed_records AS open "  # noqa: S608  # constants
            f"SET due_at = :now + {FIRST_S} * power({FACTOR}, open.attempts) * interval '1 second' "
            "WHERE open.entity = :entity AND open.resolved_at IS NULL AND open.due_at <= :now"
        ),
        {"entity": entity, "now": now},
    )


def entities_due(connection: sa.Connection, now: datetime) -> list[str]:
    """Names of entities with an open row that is due."""
    query = sa.text(
        "SELECT DISTINCT entity FROM bridge.failed_records "
        "WHERE resolved_at IS NULL AND due_at <= :now ORDER BY 1"
    )
    return list(connection.scalars(query, {"now": now}))


def entities_alike(connection: sa.Connection, alike: Alike) -> set[str]:
    """Names of entities with an open row like these."""
    met, values = alike.where()
    conditions = " AND ".join(["resolved_at IS NULL", *met])
    query = f"SELECT DISTINCT entity FROM bridge.failed_records WHERE {conditions}"  # noqa: S608  # columns
    return set(connection.scalars(sa.text(query), values))


@dataclass(frozen=True)
class Cluster:
    """Open rows of one entity that failed alike."""

    stage: str
    rule: str
    column: str | None
    count: int
    first_seen: datetime
    last_seen: datetime
    example: str | None
    """The reference of one of them, or else its key or digest in hex."""
    message: str
    """What was said of that one."""


def clusters(connection: sa.Connection, entity: str) -> list[Cluster]:
    """The entity's open rows by what they have in common, the most frequent first."""
    query = sa.text(
        "SELECT stage, rule, column_name, count(*), min(first_seen), max(last_seen), "
        "(array_agg(coalesce(reference, encode(coalesce(key_hash, raw_digest), 'hex')) "
        "ORDER BY last_seen DESC, uid))[1], (array_agg(message ORDER BY last_seen DESC, uid))[1] "
        "FROM bridge.failed_records WHERE entity = :entity AND resolved_at IS NULL "
        "GROUP BY stage, rule, column_name ORDER BY count(*) DESC, stage, rule, column_name"
    )
    return [Cluster(*row) for row in connection.execute(query, {"entity": entity})]


def _has_open(connection: sa.Connection, entity: str) -> bool:
    query = sa.text(
        "SELECT EXISTS (SELECT FROM bridge.failed_records "
        "WHERE entity = :entity AND resolved_at IS NULL)"
    )
    return bool(connection.execute(query, {"entity": entity}).scalar_one())
