"""``synced_records``: what the hub last acknowledged.

A law: a line is written only after the hub has said yes, in the transaction that closes the
push's intent.

Belongs here: loading the known records, saving acknowledged ones.
Does not belong here: comparing them with anything (``delta``).

Source: product.md 1 and 4; design.md, "The way of a record" 4.
"""

from typing import Final
from uuid import UUID

import polars as pl
import psycopg
import sqlalchemy as sa

from syncflow_core import columns
from syncflow_core.bridge.bulk import copy_in, load_frame, stage, stage_keys
from syncflow_core.bridge.database import Database
from syncflow_core.digests import DIGESTS
from syncflow_core.privacy import NAMED

_KNOWN_NAMES: Final = dict(
    zip(("key_hash", "data_hash", "rowversion", "parent_refs"), columns.KNOWN, strict=True)
)
_SAVED: Final = {
    columns.KEY_HASH: "key_hash",
    columns.DATA_HASH: "data_hash",
    columns.PARENT_REFS: "parent_refs",
    columns.ROWVERSION: "rowversion",
    columns.HUB_UID: "hub_uid",
    columns.REFERENCE: "reference",
    columns.KEY_SOURCE: "key_source",
    DIGESTS: "field_digests",
}
# no references at all are NULL on the wire: a million times the same two characters cost a tenth
_KNOWN: Final = (
    "SELECT key_hash, data_hash, rowversion, nullif(parent_refs, '{}') AS parent_refs "
    "FROM bridge.synced_records WHERE entity = $1 AND NOT deleted"
)
FEW: Final = 10_000
"""So many are read in a session of the pool: Arrow's driver has one of its own, and learns the server's types first."""
_STAGED: Final = (
    "entity text, key_hash bytea, data_hash bytea, parent_refs text, rowversion text, "
    "hub_uid uuid, reference text, key_source text, field_digests bytea, batch uuid"
)


def load_known(database: Database, entity: str) -> pl.DataFrame:
    """All records of the entity that the hub acknowledged and holds alive.

    Only what the delta compares: what else is needed of a few records is :func:`load_known_of`'s.

    Returns:
        Shape ``columns.KNOWN``, one line per key hash, in no order.
    """
    with database.read() as connection:
        few = load_frame(
            connection,
            "SELECT encode(key_hash, 'hex'), encode(data_hash, 'hex'), rowversion, parent_refs "
            "FROM bridge.synced_records WHERE entity = :entity AND NOT deleted LIMIT :most",
            columns.KNOWN,
            {"entity": entity, "most": FEW + 1},
        )
    return few if few.height <= FEW else _known(database.frame(_KNOWN, [entity]))


def load_keys(database: Database, entity: str, low: bytes, high: bytes | None) -> pl.Series:
    """The key hashes from *low* on and below *high* (None: all from there on) that have a line: Binary.

    Whether each is alive is not asked: the index alone answers, wherever a page has not changed of late.
    """
    query = "SELECT key_hash FROM bridge.synced_records WHERE entity = $1 AND key_hash >= $2"
    bounds: list[object] = [entity, low]
    if high is not None:
        query, bounds = f"{query} AND key_hash < $3", [*bounds, high]
    found = database.frame(query, bounds)["key_hash"]
    return found.cast(pl.Binary).alias(columns.KEY_HASH)


def load_known_among(database: Database, entity: str, key_hashes: pl.Series) -> pl.DataFrame:
    """Those of *key_hashes*, which are distinct, that the hub holds alive: as :func:`load_known`."""
    if len(key_hashes) <= FEW:
        with database.begin(reads=True) as connection:
            few = load_known_of(connection, entity, key_hashes)
        return few.filter(~pl.col("deleted")).select(columns.KNOWN.names())
    # an array, unlike a join, is one walk along the index, from leaf to leaf where the next key is not far
    among = " AND key_hash = ANY (ARRAY (SELECT key_hash FROM sought))"
    return _known(database.frame(_KNOWN + among, [entity], sought=key_hashes))


def _known(frame: pl.DataFrame) -> pl.DataFrame:
    return (
        frame.rename(_KNOWN_NAMES)
        .cast(columns.KNOWN)
        .with_columns(pl.col(columns.PARENT_REFS).fill_null("{}"))
    )


def load_expected(database: Database, entity: str) -> pl.DataFrame:
    """What the hub must show of every record that is alive there, as it was acknowledged.

    Returns:
        ``#key_hash``, ``#data_hash`` (the one that was sent), ``#parent_refs``, ``#reference`` and
        ``#key_source``.
    """
    frame = database.frame(
        "SELECT key_hash, coalesce(hub_hash, data_hash) AS data_hash, parent_refs, reference, "
        "key_source FROM bridge.synced_records WHERE entity = $1 AND NOT deleted",
        [entity],
    )
    return frame.rename(
        {
            "key_hash": columns.KEY_HASH,
            "data_hash": columns.DATA_HASH,
            "parent_refs": columns.PARENT_REFS,
            "reference": columns.REFERENCE,
            "key_source": columns.KEY_SOURCE,
        }
    )


def load_known_of(connection: sa.Connection, entity: str, key_hashes: pl.Series) -> pl.DataFrame:
    """Those of *key_hashes* that the hub ever acknowledged, in the shape ``columns.KNOWN_WHOLE``."""
    stage_keys(connection, key_hashes)
    return load_frame(
        connection,
        "SELECT encode(key_hash, 'hex'), encode(data_hash, 'hex'), rowversion, parent_refs, "
        "hub_uid, deleted FROM staged_keys JOIN bridge.synced_records USING (key_hash) "
        "WHERE entity = :entity",
        columns.KNOWN_WHOLE,
        {"entity": entity},
    )


def load_key_sources(connection: sa.Connection, entity: str, key_hashes: pl.Series) -> pl.DataFrame:
    """``#key_hash``, ``#reference`` and ``#key_source`` of known records: the key as the source sent it."""
    stage_keys(connection, key_hashes)
    return load_frame(
        connection,
        "SELECT encode(key_hash, 'hex'), reference, key_source "
        "FROM staged_keys JOIN bridge.synced_records USING (key_hash) "
        "WHERE entity = :entity",
        {
            columns.KEY_HASH: pl.Binary(),
            columns.REFERENCE: pl.String(),
            columns.KEY_SOURCE: pl.String(),
        },
        {"entity": entity},
    )


def load_plain_references(connection: sa.Connection, entity: str) -> pl.DataFrame:
    """Known records whose reference hides nothing: ``#key_hash``, ``#reference``, ``#key_source``."""
    return load_frame(
        connection,
        "SELECT encode(key_hash, 'hex'), reference, key_source FROM bridge.synced_records "
        "WHERE entity = :entity AND reference !~ :hidden",
        {
            columns.KEY_HASH: pl.Binary(),
            columns.REFERENCE: pl.String(),
            columns.KEY_SOURCE: pl.String(),
        },
        {"entity": entity, "hidden": NAMED.pattern},
    )


def save_references(connection: sa.Connection, entity: str, frame: pl.DataFrame) -> None:
    """Write other references of known records, and keys where none is known: as ``load_plain_references``."""
    lines = frame.select(
        pl.col(columns.KEY_HASH).alias("key_hash"),
        pl.col(columns.REFERENCE).alias("reference"),
        pl.col(columns.KEY_SOURCE).alias("key_source"),
    )
    shape = "key_hash bytea, reference text, key_source text"
    stage(connection, "staged_references_of", shape, lines)
    connection.execute(
        sa.text(
            "UPDATE bridge.synced_records AS known SET reference = staged.reference, "
            "key_source = coalesce(known.key_source, staged.key_source) "
            "FROM staged_references_of AS staged WHERE known.entity = :entity "
            "AND known.key_hash = staged.key_hash"
        ),
        {"entity": entity},
    )


def any_reference(connection: sa.Connection, entity: str) -> str | None:
    """The reference of some known record of the entity: it names the key's fields."""
    query = sa.text(
        "SELECT reference FROM bridge.synced_records "
        "WHERE entity = :entity AND reference IS NOT NULL LIMIT 1"
    )
    found: str | None = connection.execute(query, {"entity": entity}).scalar_one_or_none()
    return found


def load_before(connection: sa.Connection, entity: str, key_hashes: pl.Series) -> pl.DataFrame:
    """``#key_hash``, ``#digests`` and ``#parent_refs`` of known records, to tell what changes in them."""
    stage_keys(connection, key_hashes)
    return load_frame(
        connection,
        "SELECT encode(key_hash, 'hex'), encode(field_digests, 'hex'), parent_refs "
        "FROM staged_keys JOIN bridge.synced_records USING (key_hash) "
        "WHERE entity = :entity AND NOT deleted",
        {
            columns.KEY_HASH: pl.Binary(),
            DIGESTS: pl.Binary(),
            columns.PARENT_REFS: pl.String(),
        },
        {"entity": entity},
    )


def acknowledged_among(connection: sa.Connection, entity: str, key_hashes: pl.Series) -> pl.Series:
    """Those of *key_hashes* that are in the hub and alive there: Binary, distinct."""
    stage_keys(connection, key_hashes)
    found = load_frame(
        connection,
        "SELECT encode(key_hash, 'hex') FROM staged_keys "
        "JOIN bridge.synced_records USING (key_hash) "
        "WHERE entity = :entity AND NOT deleted",
        {columns.KEY_HASH: pl.Binary()},
        {"entity": entity},
    )
    return found[columns.KEY_HASH]


def count_known(connection: sa.Connection, entity: str) -> int:
    """How many records of the entity are alive in the hub."""
    query = sa.text(
        "SELECT count(*) FROM bridge.synced_records WHERE entity = :entity AND NOT deleted"
    )
    return int(connection.execute(query, {"entity": entity}).scalar_one())


def insert_acknowledged(
    connection: sa.Connection, entity: str, frame: pl.DataFrame, batch: UUID
) -> bool:
    """Record what the hub acknowledged of records that have no line yet, deleted ones included, by COPY.

    In half of the time of :func:`save_acknowledged`, whose arguments these are.

    Returns:
        False where some record has a line: nothing is written then.
    """
    try:
        with connection.begin_nested():
            copy_in(connection, "bridge.synced_records", _lines(entity, frame, batch))
    except psycopg.errors.UniqueViolation:
        return False
    return True


def _lines(entity: str, frame: pl.DataFrame, batch: UUID) -> pl.DataFrame:
    present = {name: to for name, to in _SAVED.items() if name in frame.columns}
    return (
        frame.select(pl.col(name).alias(to) for name, to in present.items())
        .sort("key_hash")
        .with_columns(pl.lit(entity).alias("entity"), pl.lit(str(batch)).alias("batch"))
    )


def save_acknowledged(
    connection: sa.Connection, entity: str, frame: pl.DataFrame, batch: UUID
) -> None:
    """Record what the hub acknowledged; the records count as alive from here on.

    Args:
        connection: In the transaction that closes the push's intent.
        entity: Its name.
        frame: ``#key_hash`` (unique), ``#data_hash``, ``#parent_refs``, ``#rowversion``,
            ``#hub_uid``, ``#reference``, ``#key_source``; where the last four are null or missing,
            what is known stays. ``#digests`` where they are known.
        batch: The batch that pushed them.
    """
    stage(connection, "staged_records", _STAGED, _lines(entity, frame, batch))
    connection.exec_driver_sql(
        """
        INSERT INTO bridge.synced_records AS known (entity, key_hash, data_hash, parent_refs,
            rowversion, hub_uid, reference, key_source, field_digests, deleted, batch)
        SELECT entity, key_hash, data_hash, parent_refs, rowversion, hub_uid, reference,
            key_source, field_digests, false, batch
        FROM staged_records ORDER BY key_hash
        ON CONFLICT (entity, key_hash) DO UPDATE SET
            data_hash = excluded.data_hash,
            parent_refs = excluded.parent_refs,
            rowversion = coalesce(excluded.rowversion, known.rowversion),
            hub_uid = coalesce(excluded.hub_uid, known.hub_uid),
            reference = coalesce(excluded.reference, known.reference),
            key_source = coalesce(excluded.key_source, known.key_source),
            field_digests = excluded.field_digests,
            hub_hash = NULL,
            deleted = false,
            batch = excluded.batch
        """
    )


def save_rowversions(connection: sa.Connection, entity: str, frame: pl.DataFrame) -> None:
    """Advance the rowversion of records whose hash did not change: ``#key_hash``, ``#rowversion``."""
    lines = frame.select(
        pl.col(columns.KEY_HASH).alias("key_hash"), pl.col(columns.ROWVERSION).alias("rowversion")
    )
    stage(connection, "staged_rowversions", "key_hash bytea, rowversion text", lines)
    connection.execute(
        sa.text(
            "UPDATE bridge.synced_records AS known SET rowversion = staged.rowversion "
            "FROM staged_rowversions AS staged WHERE known.entity = :entity "
            "AND known.key_hash = staged.key_hash "
            "AND known.rowversion IS DISTINCT FROM staged.rowversion"
        ),
        {"entity": entity},
    )


def save_recomputed(connection: sa.Connection, entity: str, frame: pl.DataFrame) -> int:
    """Replace known data hashes by recomputed ones; ``hub_hash`` keeps what the hub goes on showing.

    Args:
        connection: In a transaction.
        entity: Its name.
        frame: ``#key_hash``, ``#data_hash`` and ``#digests``.

    Returns:
        How many records' hashes were replaced.
    """
    lines = frame.select(
        pl.col(columns.KEY_HASH).alias("key_hash"),
        pl.col(columns.DATA_HASH).alias("data_hash"),
        pl.col(DIGESTS).alias("field_digests"),
    )
    shape = "key_hash bytea, data_hash bytea, field_digests bytea"
    stage(connection, "staged_recomputed", shape, lines)
    done = connection.execute(
        sa.text(
            "UPDATE bridge.synced_records AS known SET data_hash = staged.data_hash, "
            "hub_hash = CASE WHEN known.data_hash = staged.data_hash THEN known.hub_hash "
            "ELSE coalesce(known.hub_hash, known.data_hash) END, "
            "field_digests = staged.field_digests "
            "FROM staged_recomputed AS staged WHERE known.entity = :entity "
            "AND known.key_hash = staged.key_hash AND NOT known.deleted"
        ),
        {"entity": entity},
    )
    return done.rowcount


def mark_deleted(
    connection: sa.Connection, entity: str, key_hashes: pl.Series, batch: UUID
) -> None:
    """Record that the hub acknowledged the delete of these records; their lines stay."""
    stage_keys(connection, key_hashes)
    connection.execute(
        sa.text(
            "UPDATE bridge.synced_records AS known SET deleted = true, batch = :batch "
            "FROM staged_keys AS staged "
            "WHERE known.entity = :entity AND known.key_hash = staged.key_hash"
        ),
        {"entity": entity, "batch": batch},
    )


def count_referring(connection: sa.Connection, entity: str, reference: str, parent: bytes) -> int:
    """How many live records of *entity* have this parent in this reference."""
    query = sa.text(
        "SELECT count(*) FROM bridge.synced_records WHERE entity = :entity AND NOT deleted "
        "AND parent_refs::jsonb ->> :reference = :parent"
    )
    named = {"entity": entity, "reference": reference, "parent": parent.hex()}
    return int(connection.execute(query, named).scalar_one())
