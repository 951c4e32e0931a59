"""Frames into and out of PostgreSQL, whole columns at a time, inside the caller's transaction.

In by COPY in text form: of the ways that share a psycopg transaction it was the quickest measured, and
unlike CSV it tells NULL, the empty text and any other text apart on every PostgreSQL version.

Belongs here: COPY, staging tables, reading many rows at once.
Does not belong here: which tables (the modules of the table groups), reads outside a transaction
(``Database.frame``).

Source: product.md 1; decision 0005.
"""

import io
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

import polars as pl
import sqlalchemy as sa
from psycopg import sql

from syncflow_core.bridge.database import driver_of

CHUNK: Final = 5_000  # rows sent at once; measured against 20,000 and 100,000, see decision 0005
FEW: Final = 10_000  # rows that are not worth a thread
BLOCK: Final = 10_000  # records in one row of an answer
ESCAPES: Final = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r", "\x00": "\u2400"}
"""COPY's text form; PostgreSQL stores no NUL, its visible picture stands for it."""


def copy_in(connection: sa.Connection, table: str, frame: pl.DataFrame) -> None:
    """Append *frame* to *table* (``schema.name`` or a temporary table's name) by COPY.

    The frame's columns are the table's. Binary becomes ``bytea``; a text's NUL becomes U+2400, for
    PostgreSQL can store none.
    """
    if frame.is_empty():
        return
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(
        sql.Identifier(*table.split(".")), sql.SQL(", ").join(map(sql.Identifier, frame.columns))
    )
    with driver_of(connection.connection).cursor() as cursor, cursor.copy(statement) as copy:
        if frame.height <= FEW:
            copy.write(_text(frame))
            return
        # One chunk is made into text while PostgreSQL takes the one before: 4.4 s become 2.9 s
        # for 1M acknowledged records.
        with ThreadPoolExecutor(1) as writer:
            ahead: Future[bytes] | None = None
            for chunk in frame.iter_slices(CHUNK):
                text, ahead = ahead, writer.submit(_text, chunk)
                if text is not None:
                    copy.write(text.result())
            if ahead is not None:
                copy.write(ahead.result())


def load_frame(
    connection: sa.Connection,
    query: str,
    schema: Mapping[str, pl.DataType],
    parameters: Mapping[str, object] | None = None,
) -> pl.DataFrame:
    """The query's rows as a frame of *schema*, in no order, seen from inside the transaction.

    PostgreSQL sends thousands of records as one value, so that nothing is done per row in Python:
    1M keys in 0.7 s, where reading COPY row by row takes 2.6 s.

    Args:
        connection: In a transaction.
        query: Its columns are the schema's, in that order; parameters as ``:name``.
        schema: A Binary column is selected as ``encode(column, 'hex')``.
        parameters: By name.
    """
    aliases = [f"c{at}" for at in range(len(schema))]
    statement = sa.text(
        "SELECT string_agg(line, E'\\n') FROM (SELECT row_to_json(q)::text AS line, "  # noqa: S608  # the caller's own query
        f"row_number() OVER () / {BLOCK} AS block FROM ({query}) AS q ({', '.join(aliases)})) AS l "
        "GROUP BY block"
    )
    blocks = connection.scalars(statement, parameters or {}).all()
    if not blocks:
        return pl.DataFrame(schema=schema)
    pairs = list(zip(aliases, schema.items(), strict=True))
    frame = pl.read_ndjson(
        io.BytesIO("\n".join(blocks).encode()),
        schema={alias: _as_sent(kind) for alias, (_, kind) in pairs},
    )
    return frame.select(
        _from_sent(pl.col(alias), kind).alias(name) for alias, (name, kind) in pairs
    )


def stage(connection: sa.Connection, name: str, columns: str, frame: pl.DataFrame) -> None:
    """Put *frame* into the temporary table *name*, alone in it until the transaction ends.

    The table stays with the session and is emptied at each commit: making one for every
    call would fill PostgreSQL's catalogue with dead rows.

    Args:
        connection: In a transaction.
        name: One name for each shape of *columns*.
        columns: The table's columns as in CREATE TABLE.
        frame: Its columns are the table's.
    """
    connection.exec_driver_sql("SET LOCAL client_min_messages = warning")
    connection.exec_driver_sql(
        f"CREATE TEMP TABLE IF NOT EXISTS {name} ({columns}) ON COMMIT DELETE ROWS"
    )
    connection.exec_driver_sql(f"DELETE FROM {name}")  # noqa: S608  # a name of this package's
    copy_in(connection, name, frame)


def stage_keys(connection: sa.Connection, key_hashes: pl.Series) -> None:
    """Put distinct key hashes into the temporary table ``staged_keys``."""
    keys = key_hashes.unique().sort().alias("key_hash").to_frame()
    stage(connection, "staged_keys", "key_hash bytea", keys)
    connection.exec_driver_sql("ANALYZE staged_keys")


def _text(chunk: pl.DataFrame) -> bytes:
    """The rows in COPY's text form."""
    written = pl.DataFrame([_copy_text(column) for column in chunk]).write_csv(
        include_header=False, separator="\t", quote_style="never", null_value="\\N"
    )
    return written.encode()


def _copy_text(column: pl.Series) -> pl.Series:
    """The column as COPY's text form has it; numbers, booleans and times are written as they are."""
    if column.dtype == pl.Binary:
        return ("\\\\x" + column.bin.encode("hex")).alias(column.name)
    if column.dtype in (pl.Enum, pl.Categorical):
        column = column.cast(pl.String)
    if column.dtype == pl.String:
        whole = column.str.join("").item()
        if any(hazard in whole for hazard in ESCAPES):
            return column.str.replace_many(list(ESCAPES), list(ESCAPES.values()))
    return column


def _as_sent(kind: pl.DataType) -> pl.DataType:
    return pl.String() if kind == pl.Binary or isinstance(kind, pl.Datetime) else kind


def _from_sent(column: pl.Expr, kind: pl.DataType) -> pl.Expr:
    if kind == pl.Binary:
        return column.str.decode("hex")
    if isinstance(kind, pl.Datetime):
        return column.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%#z", time_unit="us", time_zone="UTC")
    return column
