"""Read a page of a table: filters, order and offset in, JSON texts out.

Belongs here: what ``execute`` asks for, and the SQL that answers it.
Does not belong here: HTTP (``apismith``), writing tables (``store``).

Rows lie as ready JSON text and are joined by PostgreSQL, so a page costs this process one copy. A page
without filters and of the default order, asked for or not, starts at the boundary before its offset: the last page of ten
million rows costs as much as the first.

Source: contract.md, "APISmith: reads the ERP".
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Literal, cast

from psycopg import sql
from pydantic import BaseModel, ConfigDict, Field

from syncflow_core.sandbox.database import Connection, Utf8Loader
from syncflow_core.sandbox.store import BOUNDARY, Table

MOST_ROWS = 10_000
_COMPARE = {
    "=": sql.SQL("="),
    "!=": sql.SQL("<>"),
    ">": sql.SQL(">"),
    ">=": sql.SQL(">="),
    "<": sql.SQL("<"),
    "<=": sql.SQL("<="),
}
_DIRECTION = {"asc": sql.SQL("ASC"), "desc": sql.SQL("DESC")}


class Filter(BaseModel):
    """One condition; several are joined by AND."""

    model_config = ConfigDict(extra="forbid")

    field: str
    operator: Literal["=", "!=", ">", ">=", "<", "<=", "in"] = "="
    value: Any = None


class Sort(BaseModel):
    """One column of the order."""

    model_config = ConfigDict(extra="forbid")

    field: str
    direction: Literal["asc", "desc"] = "asc"


class Execute(BaseModel):
    """What ``POST /runtime/{slug}/execute`` takes: offset and limit, or page and page_size."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "offset": 0,
                    "limit": 1000,
                    "filters": [{"field": "ROWVERSION", "operator": ">=", "value": 1000000}],
                    "sort": [{"field": "ROWVERSION", "direction": "asc"}],
                }
            ]
        },
    )

    offset: Annotated[int, Field(ge=0)] = 0
    limit: Annotated[int, Field(ge=0, le=MOST_ROWS)] = 1_000
    page: Annotated[int, Field(ge=1)] | None = None
    page_size: Annotated[int, Field(ge=1, le=MOST_ROWS)] | None = None
    filters: list[Filter] = []
    sort: list[Sort] = []

    @property
    def first(self) -> int:
        """Offset of the first row asked for."""
        return self.offset if self.page is None else (self.page - 1) * self.size

    @property
    def size(self) -> int:
        """The most rows that the page holds."""
        if self.page is None and self.page_size is None:
            return self.limit
        return self.page_size or 1_000


class BadQueryError(Exception):
    """The query names a column that is not there, or a value that its type does not take."""


@dataclass(frozen=True)
class Page:
    """One page: its rows joined by the separator asked for, and the total of the query."""

    rows: bytes
    total: int


class Reader:
    """Reads pages; remembers boundaries and filtered counts for a table's version."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._boundaries: dict[str, tuple[int, list[list[str]]]] = {}
        self._counts: dict[str, tuple[int, dict[str, int]]] = {}

    def read(self, connection: Connection, table: Table, query: Execute, separator: str) -> Page:
        """The page's rows as JSON texts.

        Raises:
            BadQueryError: See there.
        """
        selected = self._select(connection, table, query, sql.SQL("doc"))
        with connection.cursor(binary=True) as cursor:
            cursor.adapters.register_loader("text", Utf8Loader)
            # Never prepared: a generic plan knows neither limit nor boundary and would sort the table.
            cursor.execute(
                sql.SQL("SELECT string_agg(doc, {}) FROM ({}) AS page").format(
                    sql.Literal(separator), selected
                ),
                prepare=False,
            )
            found = cursor.fetchone()
        rows = b"" if found is None or found[0] is None else cast("bytes", found[0])
        return Page(rows, self.total(connection, table, query))

    def read_columns(
        self, connection: Connection, table: Table, query: Execute
    ) -> dict[str, list[str | None]]:
        """The page's rows column by column, each value as the text of its JSON value."""
        names = [column["name"] for column in table.columns]
        values = sql.SQL(", ").join(
            sql.SQL("doc::json ->> {}").format(sql.Literal(name)) for name in names
        )
        found = connection.execute(
            self._select(connection, table, query, values), prepare=False
        ).fetchall()
        return {name: [cast("Any", row)[at] for row in found] for at, name in enumerate(names)}

    def total(self, connection: Connection, table: Table, query: Execute) -> int:
        """Rows of the whole query: the maintained count, or one counted once per version and filter."""
        if not query.filters:
            return table.row_count
        where = self._where(table, query.filters)
        text = where.as_string(connection)
        with self._lock:
            version, counts = self._counts.get(table.name, (0, {}))
            if version != table.version:
                counts = {}
                self._counts[table.name] = (table.version, counts)
            if text in counts:
                return counts[text]
        statement = sql.SQL("SELECT count(*) FROM {} WHERE {}").format(table.place, where)
        row = connection.execute(statement, prepare=False).fetchone()
        counts[text] = int(str(row[0])) if row else 0
        return counts[text]

    def _select(
        self, connection: Connection, table: Table, query: Execute, columns: sql.Composable
    ) -> sql.Composed:
        offset = query.first
        conditions: list[sql.Composable] = []
        if query.filters:
            conditions.append(self._where(table, query.filters))
        elif offset >= BOUNDARY and _is_default(query.sort, table):
            offset, start = self._start(connection, table, offset)
            conditions.append(start)
        terms: list[sql.Composable] = [
            sql.SQL("{} {}").format(self._value(table, item.field), _DIRECTION[item.direction])
            for item in query.sort
        ]
        terms += [sql.Identifier(name) for name in table.key_order]
        return sql.SQL("SELECT {} FROM {} WHERE {} ORDER BY {} OFFSET {} LIMIT {}").format(
            columns,
            table.place,
            sql.SQL(" AND ").join(conditions) if conditions else sql.SQL("true"),
            sql.SQL(", ").join(terms),
            sql.Literal(offset),
            sql.Literal(query.size),
        )

    def _start(
        self, connection: Connection, table: Table, offset: int
    ) -> tuple[int, sql.Composable]:
        """The rows left to skip behind the boundary, and the condition that starts there."""
        marks = self._marks(connection, table)
        if not marks:
            return offset, sql.SQL("true")
        mark = min(offset // BOUNDARY, len(marks) - 1)
        types = {"number": sql.SQL("numeric"), "text": sql.SQL("text")}
        casts = [*(types[kind] for kind in table.key_kinds), sql.SQL("bigint")]
        values = [
            sql.SQL("{}::{}").format(sql.Literal(value), cast_to)
            for value, cast_to in zip(marks[mark], casts, strict=True)
        ]
        columns = [sql.Identifier(name) for name in table.key_order]
        return offset - mark * BOUNDARY, sql.SQL("({}) >= ({})").format(
            sql.SQL(", ").join(columns), sql.SQL(", ").join(values)
        )

    def _marks(self, connection: Connection, table: Table) -> list[list[str]]:
        with self._lock:
            version, marks = self._boundaries.get(table.name, (0, []))
            if version == table.version:
                return marks
            rows = (
                connection.execute(
                    "SELECT at FROM erp.boundaries WHERE table_name = %s AND version = %s ORDER BY mark",
                    [table.name, table.version],
                ).fetchall()
                or connection.execute(self._count_off(table), prepare=False).fetchall()
            )
            marks = [cast("list[str]", row[0]) for row in rows]
            self._boundaries[table.name] = (table.version, marks)
            return marks

    def _count_off(self, table: Table) -> sql.Composed:
        """The boundaries of a table that single edits have changed since it was settled."""
        order = sql.SQL(", ").join(map(sql.Identifier, table.key_order))
        texts = sql.SQL(", ").join(
            sql.SQL("{}::text").format(sql.Identifier(name)) for name in table.key_order
        )
        return sql.SQL(
            "SELECT at FROM (SELECT row_number() OVER (ORDER BY {}) - 1 AS row, ARRAY[{}] AS at"
            " FROM {}) AS rows WHERE row % {} = 0 ORDER BY row"
        ).format(order, texts, table.place, sql.Literal(BOUNDARY))

    def _where(self, table: Table, filters: Sequence[Filter]) -> sql.Composable:
        return sql.SQL(" AND ").join(self._condition(table, item) for item in filters)

    def _condition(self, table: Table, item: Filter) -> sql.Composable:
        left = self._value(table, item.field)
        if item.operator == "in":
            if not isinstance(item.value, list):
                raise BadQueryError(f"filters: {item.field}: 'in' takes a list")
            values = [self._literal(table, item.field, value) for value in item.value]
            if not values:
                return sql.SQL("false")
            return sql.SQL("{} IN ({})").format(left, sql.SQL(", ").join(values))
        if item.value is None:
            if item.operator not in {"=", "!="}:
                raise BadQueryError(f"filters: {item.field}: {item.operator} does not take null")
            return sql.SQL("{} IS NULL" if item.operator == "=" else "{} IS NOT NULL").format(left)
        right = self._literal(table, item.field, item.value)
        return sql.SQL("{} {} {}").format(left, _COMPARE[item.operator], right)

    def _value(self, table: Table, name: str) -> sql.Composable:
        if name in table.business_key:
            return sql.Identifier(f"k{list(table.business_key).index(name) + 1}")
        if name == table.rowversion_column:
            return sql.Identifier("rv")
        if not table.data_type(name):
            raise BadQueryError(f"{table.name} has no column {name!r}")
        text = sql.SQL("(doc::json ->> {})").format(sql.Literal(name))
        if table.is_number(name):
            return sql.SQL("erp.as_number({})").format(text)
        if "RAW" in table.data_type(name):
            return sql.SQL('(upper({}) COLLATE "C")').format(text)
        return sql.SQL('({} COLLATE "C")').format(text)

    def _literal(self, table: Table, name: str, value: object) -> sql.Composable:
        if not isinstance(value, str | int | float):
            raise BadQueryError(f"filters: {name} does not compare with {value!r}")
        if table.is_number(name):
            try:
                return sql.SQL("{}::numeric").format(sql.Literal(f"{Decimal(str(value)):f}"))
            except InvalidOperation as error:
                raise BadQueryError(f"filters: {name}: {value!r} is no number") from error
        text = sql.Literal(table.comparable(name, value))
        if name == table.rowversion_column and table.rowversion_kind == "timestamp":
            return sql.SQL("{}::timestamp").format(text)
        return text


def _is_default(order: Sequence[Sort], table: Table) -> bool:
    """Whether rows come by their keys, ascending, as they do when no order is asked for."""
    asked = [item.field for item in order]
    ascending = all(item.direction == "asc" for item in order)
    return ascending and asked == list(table.business_key)[: len(asked)]
