"""``pending_children`` and ``pending_deletes``: what waits for another record.

A child waits once per missing reference. ``waiting`` is tried again when due, ``dead`` is not, but
both are released when their parent lands.

Belongs here: parking, releasing, listing what waits.
Does not belong here: who is whose parent (``parents``), when to try again (``backoff``).

Source: product.md 1 and 6.
"""

from datetime import datetime
from typing import Final, Literal
from uuid import UUID

import polars as pl
import sqlalchemy as sa

from syncflow_core import columns
from syncflow_core.backoff import FACTOR, FIRST_S
from syncflow_core.bridge.bulk import load_frame, stage, stage_keys

PARKED: Final = pl.Schema(
    {
        columns.KEY_HASH: pl.Binary(),
        "reference_name": pl.String(),
        "parent_entity": pl.String(),
        "parent_key_hash": pl.Binary(),
        columns.REFERENCE: pl.String(),
        columns.KEY_SOURCE: pl.String(),
        "payload": pl.String(),
        columns.PARENT_REFS: pl.String(),
        columns.DATA_HASH: pl.Binary(),
        columns.ROWVERSION: pl.String(),
        "kind": pl.String(),
        "due_at": pl.Datetime("us", "UTC"),
    }
)
"""What :func:`park` takes: one line per missing reference; ``kind`` is ``parked`` or ``deferred``."""

PENDING: Final = pl.Schema(
    {
        "entity": pl.String(),
        **PARKED,
        "attempts": pl.Int64(),
        "state": pl.String(),
        "created_at": pl.Datetime("us", "UTC"),
    }
)
"""One line per open row of ``pending_children``."""

WAITING_DELETES: Final = pl.Schema({columns.KEY_HASH: pl.Binary(), columns.HUB_UID: pl.String()})

_TABLE_NAMES: Final = {
    columns.KEY_HASH: "key_hash",
    columns.REFERENCE: "reference",
    columns.KEY_SOURCE: "key_source",
    columns.PARENT_REFS: "parent_refs",
    columns.DATA_HASH: "data_hash",
    columns.ROWVERSION: "rowversion",
}
_STAGED: Final = (
    "key_hash bytea, reference_name text, parent_entity text, parent_key_hash bytea, "
    "reference text, key_source text, payload text, parent_refs text, data_hash bytea, rowversion text, kind text, due_at timestamptz"
)
_SELECT: Final = (
    "SELECT p.entity, encode(p.key_hash, 'hex'), p.reference_name, p.parent_entity, "
    "encode(p.parent_key_hash, 'hex'), p.reference, p.key_source, p.payload, p.parent_refs, encode(p.data_hash, 'hex'), "
    "p.rowversion, p.kind, p.due_at, p.attempts, p.state, p.created_at "
    "FROM bridge.pending_children AS p "
)
_OPEN: Final = "p.state IN ('waiting', 'dead')"


def park(
    connection: sa.Connection, entity: str, frame: pl.DataFrame, batch: UUID, now: datetime
) -> None:
    """Let children wait for their parents; those that wait already get the newer payload.

    The attempts go on counting, except where the parent is another one than before; a dead
    one stays dead until :func:`defer` or its parent says otherwise.

    Args:
        connection: In a transaction.
        entity: The children's.
        frame: Shape :data:`PARKED`; unique in key hash and reference name.
        batch: The batch that met them.
        now: Aware.
    """
    lines = frame.select(
        pl.col(name).cast(kind).alias(_TABLE_NAMES.get(name, name)) for name, kind in PARKED.items()
    )
    stage(connection, "staged_pending", _STAGED, lines)
    connection.execute(
        sa.text(
            """
            INSERT INTO bridge.pending_children AS open (entity, key_hash, reference_name,
                parent_entity, parent_key_hash, reference, key_source, payload, parent_refs, data_hash,
                rowversion, kind, due_at, batch, created_at, updated_at)
            SELECT :entity, key_hash, reference_name, parent_entity, parent_key_hash, reference,
                key_source, payload, parent_refs, data_hash, rowversion, kind, due_at, :batch, :now, :now
            FROM staged_pending
            ON CONFLICT (entity, key_hash, reference_name) WHERE state IN ('waiting', 'dead')
            DO UPDATE SET
                state = CASE WHEN open.parent_key_hash = excluded.parent_key_hash
                    THEN open.state ELSE 'waiting' END,
                attempts = CASE WHEN open.parent_key_hash = excluded.parent_key_hash
                    THEN open.attempts ELSE 0 END,
                due_at = CASE WHEN open.parent_key_hash = excluded.parent_key_hash
                    THEN open.due_at ELSE excluded.due_at END,
                parent_entity = excluded.parent_entity,
                parent_key_hash = excluded.parent_key_hash, reference = excluded.reference,
                key_source = excluded.key_source, payload = excluded.payload,
                parent_refs = excluded.parent_refs, data_hash = excluded.data_hash,
                rowversion = excluded.rowversion, kind = excluded.kind,
                batch = excluded.batch, updated_at = excluded.updated_at
            """
        ),
        {"entity": entity, "batch": batch, "now": now},
    )


def defer(connection: sa.Connection, entity: str, frame: pl.DataFrame, now: datetime) -> None:
    """Write the outcome of a vain attempt.

    Args:
        connection: In a transaction.
        entity: The children's.
        frame: ``#key_hash``, ``reference_name``, ``attempts``, ``due_at`` (null: none) and
            ``state``: ``waiting``, or ``dead`` after the last attempt.
        now: Aware.
    """
    lines = frame.select(
        pl.col(columns.KEY_HASH).alias("key_hash"), "reference_name", "attempts", "due_at", "state"
    )
    shape = "key_hash bytea, reference_name text, attempts int, due_at timestamptz, state text"
    stage(connection, "staged_deferred", shape, lines)
    connection.execute(
        sa.text(
            "UPDATE bridge.pending_children AS p SET attempts = s.attempts, due_at = s.due_at, "  # noqa: S608  # a constant
            "state = s.state, updated_at = :now FROM staged_deferred AS s "
            "WHERE p.entity = :entity AND p.key_hash = s.key_hash "
            f"AND p.reference_name = s.reference_name AND {_OPEN}"
        ),
        {"entity": entity, "now": now},
    )


def close_pending(
    connection: sa.Connection,
    entity: str,
    key_hashes: pl.Series,
    state: Literal["released", "cancelled"],
    now: datetime,
) -> None:
    """Let these children wait for nothing any more."""
    if not _has_open(connection, entity):
        return
    stage_keys(connection, key_hashes)
    connection.execute(
        sa.text(
            "UPDATE bridge.pending_children AS p SET state = :state, updated_at = :now "  # noqa: S608  # a constant
            f"FROM staged_keys AS s WHERE p.entity = :entity AND p.key_hash = s.key_hash AND {_OPEN}"
        ),
        {"entity": entity, "state": state, "now": now},
    )


def cancel_older(
    connection: sa.Connection, entity: str, key_hashes: pl.Series, batch: UUID, now: datetime
) -> None:
    """Cancel what these children wait with that another batch than *batch* parked."""
    stage_keys(connection, key_hashes)
    connection.execute(
        sa.text(
            "UPDATE bridge.pending_children AS p SET state = 'cancelled', updated_at = :now "  # noqa: S608  # a constant
            "FROM staged_keys AS s WHERE p.entity = :entity AND p.key_hash = s.key_hash "
            f"AND p.batch IS DISTINCT FROM :batch AND {_OPEN}"
        ),
        {"entity": entity, "batch": batch, "now": now},
    )


def close_references(
    connection: sa.Connection, entity: str, frame: pl.DataFrame, now: datetime
) -> None:
    """Release single references: ``#key_hash`` and ``reference_name`` of what arrived."""
    lines = frame.select(pl.col(columns.KEY_HASH).alias("key_hash"), "reference_name")
    stage(connection, "staged_references", "key_hash bytea, reference_name text", lines)
    connection.execute(
        sa.text(
            "UPDATE bridge.pending_children AS p SET state = 'released', updated_at = :now "  # noqa: S608  # a constant
            "FROM staged_references AS s WHERE p.entity = :entity AND p.key_hash = s.key_hash "
            f"AND p.reference_name = s.reference_name AND {_OPEN}"
        ),
        {"entity": entity, "now": now},
    )


def waiting_for(
    connection: sa.Connection, parent_entity: str, key_hashes: pl.Series
) -> pl.DataFrame:
    """The children, waiting or dead, of these parents: shape :data:`PENDING`.

    Where nobody waits for the entity its keys, perhaps a million, are not staged.
    """
    if not _has_open(connection, parent_entity, by="parent_entity"):
        return pl.DataFrame(schema=PENDING)
    stage_keys(connection, key_hashes)
    return load_frame(
        connection,
        f"{_SELECT} JOIN staged_keys AS s ON p.parent_key_hash = s.key_hash "
        f"WHERE p.parent_entity = :parent_entity AND {_OPEN}",
        PENDING,
        {"parent_entity": parent_entity},
    )


def due(connection: sa.Connection, entity: str, by: datetime | None) -> pl.DataFrame:
    """The waiting children of *entity* whose time has come, or all (None): shape :data:`PENDING`."""
    return load_frame(
        connection,
        f"{_SELECT} WHERE p.entity = :entity AND p.state = 'waiting' "
        "AND (p.due_at IS NULL OR p.due_at <= coalesce(:by, 'infinity'::timestamptz))",
        PENDING,
        {"entity": entity, "by": by},
    )


def open_pending(connection: sa.Connection, entity: str, who: bytes | None = None) -> pl.DataFrame:
    """All children of *entity* that wait or are dead: shape :data:`PENDING`; with *who* that one's lines."""
    one = "" if who is None else "AND p.key_hash = :who"
    return load_frame(
        connection,
        f"{_SELECT} WHERE p.entity = :entity AND {_OPEN} {one}",
        PENDING,
        {"entity": entity, "who": who},
    )


def open_keys(connection: sa.Connection, entity: str) -> pl.Series:
    """The key hashes of all children of *entity* that wait or are dead: Binary, distinct."""
    query = (
        f"SELECT DISTINCT encode(p.key_hash, 'hex') FROM bridge.pending_children AS p "  # noqa: S608  # a constant
        f"WHERE p.entity = :entity AND {_OPEN}"
    )
    schema = {columns.KEY_HASH: pl.Binary()}
    return load_frame(connection, query, schema, {"entity": entity})[columns.KEY_HASH]


def entities_to_release(connection: sa.Connection, now: datetime) -> list[str]:
    """Names of entities with a child whose next attempt is due, or whose parents have all landed.

    Whose parents landed is told once: where a retry began after that and did not release the child, it
    waits until it is due.
    """
    query = sa.text(
        f"""
        SELECT DISTINCT p.entity FROM bridge.pending_children AS p
        WHERE {_OPEN} AND ((p.state = 'waiting' AND p.due_at <= :now) OR (
            EXISTS (
                SELECT 1 FROM bridge.synced_records AS r
                JOIN bridge.sync_batches AS b ON b.uid = r.batch
                WHERE r.entity = p.parent_entity AND r.key_hash = p.parent_key_hash
                AND NOT r.deleted AND b.finished_at IS NOT NULL AND NOT EXISTS (
                    SELECT 1 FROM bridge.sync_batches AS q WHERE q.entity = p.entity
                    AND q.kind = 'retry' AND q.started_at > b.finished_at))
            AND NOT EXISTS (
                SELECT 1 FROM bridge.pending_children AS o
                WHERE o.entity = p.entity AND o.key_hash = p.key_hash AND o.kind = 'parked'
                AND o.state IN ('waiting', 'dead') AND NOT EXISTS (
                    SELECT 1 FROM bridge.synced_records AS r WHERE r.entity = o.parent_entity
                    AND r.key_hash = o.parent_key_hash AND NOT r.deleted))))
        ORDER BY 1
        """  # noqa: S608  # a constant
    )
    return list(connection.scalars(query, {"now": now}))


def postpone(connection: sa.Connection, entity: str, now: datetime) -> None:
    """Move what is due by one more delay: whoever takes it up may die before it counts the attempt."""
    connection.execute(
        sa.text(
            "UPDATE bridge.pending_children AS p "  # noqa: S608  # constants
            f"SET due_at = :now + {FIRST_S} * power({FACTOR}, p.attempts) * interval '1 second' "
            "WHERE p.entity = :entity AND p.state = 'waiting' AND p.due_at <= :now"
        ),
        {"entity": entity, "now": now},
    )


def count_open(connection: sa.Connection, entity: str) -> dict[str, int]:
    """How many records of the entity wait, by ``waiting`` and ``dead``; and ``deletes`` that wait."""
    query = sa.text(
        "SELECT count(DISTINCT p.key_hash) FILTER (WHERE p.state = 'waiting'), "
        "count(DISTINCT p.key_hash) FILTER (WHERE p.state = 'dead'), "
        "(SELECT count(*) FROM bridge.pending_deletes AS d WHERE d.entity = :entity) "
        "FROM bridge.pending_children AS p WHERE p.entity = :entity"
    )
    row = connection.execute(query, {"entity": entity}).one()
    return {"waiting": row[0], "dead": row[1], "deletes": row[2]}


def wait_delete(
    connection: sa.Connection, entity: str, frame: pl.DataFrame, batch: UUID, now: datetime
) -> None:
    """Let deletes (``#key_hash``, ``#hub_uid``) wait for the records' children to go."""
    lines = frame.select(
        pl.col(columns.KEY_HASH).alias("key_hash"), pl.col(columns.HUB_UID).alias("hub_uid")
    )
    stage(connection, "staged_deletes", "key_hash bytea, hub_uid uuid", lines)
    connection.execute(
        sa.text(
            "INSERT INTO bridge.pending_deletes (entity, key_hash, hub_uid, batch, created_at) "
            "SELECT :entity, key_hash, hub_uid, :batch, :now FROM staged_deletes "
            "ON CONFLICT (entity, key_hash) DO UPDATE SET hub_uid = excluded.hub_uid, "
            "batch = excluded.batch"
        ),
        {"entity": entity, "batch": batch, "now": now},
    )


def waiting_deletes(connection: sa.Connection, entity: str) -> pl.DataFrame:
    """The entity's deletes that wait: shape :data:`WAITING_DELETES`."""
    return load_frame(
        connection,
        "SELECT encode(key_hash, 'hex'), hub_uid FROM bridge.pending_deletes "
        "WHERE entity = :entity",
        WAITING_DELETES,
        {"entity": entity},
    )


def cancel_deletes(connection: sa.Connection, entity: str, key_hashes: pl.Series) -> int:
    """Forget deletes that were done, or whose record is back in the source; returns how many.

    Few deletes wait, if any, and a whole table's keys may be asked about: the few are fetched.
    """
    waiting = waiting_deletes(connection, entity)[columns.KEY_HASH]
    if waiting.is_empty():
        return 0
    stage_keys(connection, waiting.filter(waiting.is_in(key_hashes.implode())))
    done = connection.execute(
        sa.text(
            "DELETE FROM bridge.pending_deletes AS d USING staged_keys AS s "
            "WHERE d.entity = :entity AND d.key_hash = s.key_hash"
        ),
        {"entity": entity},
    )
    return done.rowcount


def _has_open(
    connection: sa.Connection, entity: str, by: Literal["entity", "parent_entity"] = "entity"
) -> bool:
    query = sa.text(
        "SELECT EXISTS (SELECT FROM bridge.pending_children AS p "  # noqa: S608  # a constant
        f"WHERE p.{by} = :entity AND {_OPEN})"
    )
    return bool(connection.execute(query, {"entity": entity}).scalar_one())
