"""The ERP's tables in PostgreSQL: each row as the JSON text that APISmith serves, with typed key columns.

Belongs here: creating and loading a table, editing single rows, keeping count, version and boundaries.
Does not belong here: which rows there are (``erp``, ``days``), reading pages (``pages``).

The law of this module: whatever changes a table's rows raises its version and corrects its count in the
same transaction, so a reader can tell by the version alone whether what it remembers still holds.

Source: product.md 11; contract.md, "APISmith".
"""

import io
import json
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal, NotRequired, TypedDict, cast

import msgspec
import polars as pl
from psycopg import sql

from syncflow_core.sandbox.database import Connection

BOUNDARY = 1_000
"""Rows between two boundaries; a page skips fewer rows than this."""
_NUMBERS = ("NUMBER", "INTEGER", "FLOAT", "BINARY_FLOAT", "BINARY_DOUBLE")
_INT64 = 1 << 63
_NAMESPACE = uuid.UUID("6f0b3c52-6a43-5d0e-9a55-5d3a5b1f4a10")
_NAME = re.compile(r"^[a-z][a-z0-9_]{0,50}$")
_encoder = msgspec.json.Encoder(decimal_format="number")

Kind = Literal["number", "text", "timestamp", "none"]
Row = Mapping[str, object]


class ColumnInfo(TypedDict):
    """One column as contract.md describes it."""

    name: str
    data_type: str
    nullable: NotRequired[bool]
    precision: NotRequired[int | None]
    scale: NotRequired[int | None]
    max_length: NotRequired[int | None]


class ParentInfo(TypedDict):
    """The parent table and its key fields, each with this table's field that holds it (target names)."""

    entity: str
    key: dict[str, str]


@dataclass(frozen=True)
class Table:
    """What ``erp.tables`` knows of one table."""

    name: str
    columns: Sequence[ColumnInfo]
    business_key: Sequence[str]
    title: str = ""
    key_fields: Sequence[str] = ()
    rowversion_column: str | None = None
    delta_strategy: str = "hash"
    parents: Mapping[str, ParentInfo] = field(default_factory=dict)
    has_truth: bool = False
    active: bool = True
    version: int = 1
    row_count: int = 0

    @property
    def uid(self) -> str:
        """The API's uid: the same for the same name, in every installation."""
        return str(uuid.uuid5(_NAMESPACE, self.name))

    @property
    def place(self) -> sql.Identifier:
        """The table's name in SQL."""
        return sql.Identifier("erp", f"t_{self.name}")

    @property
    def key_kinds(self) -> list[Kind]:
        """How each key column compares."""
        return ["number" if self.is_number(name) else "text" for name in self.business_key]

    @property
    def rowversion_kind(self) -> Kind:
        """How two rowversions compare; ``none`` where the table has none."""
        if self.rowversion_column is None:
            return "none"
        if self.is_number(self.rowversion_column):
            return "number"
        named = self.data_type(self.rowversion_column)
        return "timestamp" if named.startswith(("DATE", "TIMESTAMP")) else "text"

    @property
    def key_order(self) -> list[str]:
        """The columns of the default order: the business key's, then ``id``."""
        return [*(f"k{number}" for number in range(1, len(self.business_key) + 1)), "id"]

    def data_type(self, column: str) -> str:
        """The column's Oracle type, upper case; ``""`` for a column that is not there."""
        found = (item["data_type"] for item in self.columns if item["name"] == column)
        return next(found, "").upper()

    def is_number(self, column: str) -> bool:
        """Whether the column compares as a number."""
        return self.data_type(column).startswith(_NUMBERS)

    def comparable(self, column: str, value: object) -> str | None:
        """The value as the key and rowversion columns hold it: RAW in upper case, for its case says nothing."""
        plain = _plain(value)
        return plain.upper() if plain and "RAW" in self.data_type(column) else plain


def load_table(
    connection: Connection,
    table: Table,
    rows: Iterable[Row] | pl.DataFrame,
    truth: Iterable[Row | None] | None = None,
) -> int:
    """The table exists anew with exactly these rows; answers how many.

    Args:
        connection: One that commits by itself; the load is one transaction.
        table: Its description; ``columns`` as in contract.md, names as in the rows.
        rows: One mapping per row, column name to value; a missing column is served as a missing key.
            ``Decimal`` and integers of any size become JSON numbers, digit by digit.
        truth: For each row what the hub must hold of it, or None for a row that must be rejected.
    """
    listed = rows.to_dicts() if isinstance(rows, pl.DataFrame) else list(rows)
    truths = None if truth is None else list(truth)
    if truths is not None and len(truths) != len(listed):
        raise ValueError(f"{len(listed)} rows but {len(truths)} truths")
    with connection.transaction():
        create(connection, table)
        append(connection, table, frame_of(table, listed, truths))
        index(connection, table)
    return len(listed)


def frame_of(
    table: Table, rows: Sequence[Row], truths: Sequence[Row | None] | None = None
) -> pl.DataFrame:
    """The rows as ``append`` takes them: key columns, rowversion, doc, truth."""
    data: dict[str, list[str | None]] = {
        f"k{number}": [table.comparable(name, row.get(name)) for row in rows]
        for number, name in enumerate(table.business_key, start=1)
    }
    version = table.rowversion_column
    data["rv"] = [
        None if version is None else table.comparable(version, row.get(version)) for row in rows
    ]
    data["doc"] = [encode(row) for row in rows]
    data["truth"] = (
        [None] * len(rows)
        if truths is None
        else [None if row is None else encode(row) for row in truths]
    )
    return pl.DataFrame(data, schema=dict.fromkeys(data, pl.String()))


def encode(row: Row) -> str:
    """One row as JSON text; numbers keep every digit."""
    return _encoder.encode({name: _exact(value) for name, value in row.items()}).decode()


def create(connection: Connection, table: Table) -> None:
    """The table is there and empty; one of the same name is gone."""
    if not _NAME.match(table.name):
        raise ValueError(f"{table.name!r} is no table name: lower case letters, digits and _")
    key_types = {"number": sql.SQL("numeric"), "text": sql.SQL('text COLLATE "C"')}
    version_types = {**key_types, "timestamp": sql.SQL("timestamp"), "none": sql.SQL("text")}
    keys = sql.SQL("").join(
        sql.SQL("{} {} NOT NULL, ").format(sql.Identifier(f"k{number}"), key_types[kind])
        for number, kind in enumerate(table.key_kinds, start=1)
    )
    connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(table.place))
    connection.execute("DELETE FROM erp.tables WHERE name = %s", [table.name])
    connection.execute(
        sql.SQL(
            "CREATE TABLE {} (id bigint GENERATED BY DEFAULT AS IDENTITY, {} rv {},"
            " serial bigint, rev int, flaw text, doc text NOT NULL, truth text)"
        ).format(table.place, keys, version_types[table.rowversion_kind])
    )
    connection.execute(
        "INSERT INTO erp.tables (name, uid, title, columns, business_key, key_fields, key_kinds,"
        " rowversion_column, rowversion_kind, delta_strategy, parents, has_truth, active, version)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s,"
        " (extract(epoch FROM clock_timestamp()) * 1e6)::bigint)",
        [
            table.name,
            table.uid,
            table.title or table.name,
            json.dumps(list(table.columns)),
            list(table.business_key),
            list(table.key_fields) or [name.lower() for name in table.business_key],
            table.key_kinds,
            table.rowversion_column,
            table.rowversion_kind,
            table.delta_strategy,
            json.dumps(dict(table.parents)),
            table.has_truth,
            table.active,
        ],
    )


def append(connection: Connection, table: Table, frame: pl.DataFrame) -> None:
    """The frame's rows are in the table; count and version are not touched (``settle`` does that).

    Args:
        connection: In a transaction.
        table: Where to.
        frame: ``k1`` ..., ``rv``, ``doc``, ``truth`` as text; ``serial``, ``rev``, ``flaw`` where made by ``erp``.
    """
    fills = {
        "text": pl.lit(""),
        "number": pl.lit("NaN"),
    }  # neither equals any key that a caller sends
    ready = frame.with_columns(
        pl.col(f"k{number}").fill_null(fills[kind])
        for number, kind in enumerate(table.key_kinds, start=1)
    )
    buffer = io.BytesIO()
    ready.write_csv(buffer, include_header=False)
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv)").format(
        table.place, sql.SQL(", ").join(map(sql.Identifier, ready.columns))
    )
    with connection.cursor().copy(statement) as copy:
        copy.write(buffer.getvalue())


def index(connection: Connection, table: Table) -> None:
    """Key order and rowversions are indexed, and the table is settled."""
    order = sql.SQL(", ").join(map(sql.Identifier, table.key_order))
    connection.execute(sql.SQL("CREATE INDEX ON {} ({})").format(table.place, order))
    if table.rowversion_column is not None:
        connection.execute(sql.SQL("CREATE INDEX ON {} (rv, {})").format(table.place, order))
    connection.execute(
        sql.SQL("CREATE INDEX ON {} (serial) WHERE serial IS NOT NULL").format(table.place)
    )
    settle(connection, table)
    connection.execute(sql.SQL("ANALYZE {}").format(table.place))


def settle(connection: Connection, table: Table) -> None:
    """Count, version and boundaries are those of the rows now in the table."""
    order = sql.SQL(", ").join(map(sql.Identifier, table.key_order))
    texts = sql.SQL(", ").join(
        sql.SQL("{}::text").format(sql.Identifier(n)) for n in table.key_order
    )
    connection.execute("DELETE FROM erp.boundaries WHERE table_name = %s", [table.name])
    connection.execute(
        sql.SQL(
            "UPDATE erp.tables SET version = version + 1, row_count = (SELECT count(*) FROM {})"
            " WHERE name = %s"
        ).format(table.place),
        [table.name],
    )
    connection.execute(
        sql.SQL(
            "INSERT INTO erp.boundaries SELECT %s, version, row / %s, at FROM erp.tables, LATERAL"
            " (SELECT row_number() OVER (ORDER BY {}) - 1 AS row, ARRAY[{}] AS at FROM {}) AS rows"
            " WHERE name = %s AND row %% %s = 0"
        ).format(order, texts, table.place),
        [table.name, BOUNDARY, table.name, BOUNDARY],
    )


def tables(connection: Connection, name: str | None = None) -> list[Table]:
    """All tables, or the one of this name, by name."""
    found = connection.execute(
        "SELECT name, columns, business_key, title, key_fields, rowversion_column, delta_strategy,"
        " parents, has_truth, active, version, row_count FROM erp.tables"
        " WHERE %s::text IS NULL OR name = %s ORDER BY name",
        [name, name],
    ).fetchall()
    return [Table(*cast("Any", row)) for row in found]


def table_named(connection: Connection, name: str) -> Table:
    """The table of this name.

    Raises:
        LookupError: There is none.
    """
    for table in tables(connection, name):
        return table
    raise LookupError(f"the ERP has no table {name!r}")


def insert_row(connection: Connection, name: str, row: Row, truth: Row | None = None) -> None:
    """The table has one row more; its key may be one that is there already."""
    with connection.transaction():
        table = table_named(connection, name)
        append(connection, table, frame_of(table, [row], [truth]))
        _touch(connection, name, 1)


def update_row(
    connection: Connection, name: str, key: Row, row: Row, truth: Row | None = None
) -> int:
    """Every row of this key is as given, rowversion and all; answers how many there were."""
    with connection.transaction():
        table = table_named(connection, name)
        columns = frame_of(table, [row], [truth]).row(0, named=True)
        sets = sql.SQL(", ").join(
            sql.SQL("{} = %s").format(sql.Identifier(column)) for column in columns
        )
        statement = sql.SQL("UPDATE {} SET {} WHERE {}").format(table.place, sets, _where(table))
        count = connection.execute(statement, [*columns.values(), *_key(table, key)]).rowcount
        _touch(connection, name, 0)
    return count


def delete_row(connection: Connection, name: str, key: Row) -> int:
    """No row of this key is left; answers how many there were."""
    with connection.transaction():
        table = table_named(connection, name)
        statement = sql.SQL("DELETE FROM {} WHERE {}").format(table.place, _where(table))
        count = connection.execute(statement, _key(table, key)).rowcount
        _touch(connection, name, -count)
    return count


def set_active(connection: Connection, name: str, *, active: bool) -> None:
    """The API is offered, or listed as inactive."""
    connection.execute("UPDATE erp.tables SET active = %s WHERE name = %s", [active, name])


def _touch(connection: Connection, name: str, change: int) -> None:
    connection.execute(
        "UPDATE erp.tables SET version = version + 1, row_count = row_count + %s WHERE name = %s",
        [change, name],
    )


def _where(table: Table) -> sql.Composable:
    columns = table.key_order[:-1]
    return sql.SQL(" AND ").join(sql.SQL("{} = %s").format(sql.Identifier(c)) for c in columns)


def _key(table: Table, key: Row) -> list[str | None]:
    return [table.comparable(name, key[name]) for name in table.business_key]


def _plain(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, Decimal):
        return f"{value:f}"
    return _encoder.encode(value).decode().strip('"')


def _exact(value: object) -> object:
    if isinstance(value, int) and not -_INT64 <= value < _INT64:
        return Decimal(value)
    return value
