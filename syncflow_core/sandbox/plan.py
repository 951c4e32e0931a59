"""The hub's records as they are read: by key hash, by uid, page by page.

Belongs here: reading, and what reading remembers: collections, references, places to start a page from.
Does not belong here: writing records (``records``), HTTP (``schedulehub``).

Source: contract.md, "ScheduleHub: holds the plan".
"""

import json
import threading
import uuid
from collections.abc import Sequence
from typing import cast

from psycopg import sql

from syncflow_core.sandbox.database import Connection, Pool, Utf8Loader
from syncflow_core.sandbox.wire import hash_bytes

MARK = 1_000
"""Records between two remembered places of a collection; a page skips fewer than this."""
_COLUMNS = {
    "uid": sql.SQL("'\"' || uid || '\"'"),
    "is_deleted": sql.SQL("deleted::text"),
    "erp_key_hash": sql.SQL("'\"' || encode(key_hash, 'hex') || '\"'"),
    "erp_data_hash": sql.SQL("coalesce(to_json(data_hash)::text, 'null')"),
    "erp_rowversion": sql.SQL("coalesce(to_json(rowversion)::text, 'null')"),
}
_RECORD = sql.SQL(
    "'{\"uid\":\"' || uid || '\",\"is_deleted\":' || deleted || ',' || substr(doc, 2)"
)


class Plan:
    """All collections of the hub. Only this process writes them."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self._lock = threading.Lock()
        self._ids: dict[str, int] = {}
        self._parents: dict[tuple[str, str], int] | None = None
        self._marks: dict[int, tuple[int, int, list[uuid.UUID]]] = {}
        self._versions: dict[int, int] = {}

    def reset(self) -> None:
        """The hub is empty, its log of effects too; references stay."""
        with self.pool.connection() as connection:
            connection.execute("TRUNCATE hub.records, hub.links, hub.effects")
        with self._lock:
            self._marks, self._versions = {}, {}

    def set_reference(self, collection: str, name: str, parent: str) -> None:
        """References of this name from this collection are looked up in *parent*."""
        with self.pool.connection() as connection:
            connection.execute(
                "INSERT INTO hub.parents VALUES (%s, %s, %s)"
                " ON CONFLICT (collection, reference) DO UPDATE SET parent = excluded.parent",
                [collection, name, parent],
            )
        self._parents = None

    def counts(self) -> dict[str, dict[str, int]]:
        """Live and deleted records per collection, and effects in all."""
        with self.pool.connection() as connection:
            rows = connection.execute(
                "SELECT name, count(*) FILTER (WHERE NOT deleted), count(*) FILTER (WHERE deleted)"
                " FROM hub.records JOIN hub.collections ON id = collection GROUP BY name ORDER BY name"
            ).fetchall()
        return {str(n): {"live": int(str(a)), "deleted": int(str(d))} for n, a, d in rows}

    def find(self, collection: str, key_hash: str) -> bytes:
        """The live record of this key hash, as a JSON array of at most one."""
        where = sql.SQL("collection = {} AND key_hash = {} AND NOT deleted").format(
            self._id(collection), hash_bytes(key_hash)
        )
        return self._select(_RECORD, where, sql.SQL(""))

    def query(self, collection: str, key_hashes: Sequence[str]) -> bytes:
        """The records of these key hashes, soft-deleted ones too, as a JSON array."""
        hashes = sql.Literal([hash_bytes(value) for value in key_hashes])
        where = sql.SQL("collection = {} AND key_hash = ANY({}::bytea[])").format(
            self._id(collection), hashes
        )
        return self._select(_RECORD, where, sql.SQL(""))

    def read(self, collection: str, uid: str) -> bytes:
        """The record of this uid as JSON, or nothing."""
        where = sql.SQL("collection = {} AND uid = {}").format(self._id(collection), uuid.UUID(uid))
        return self._select(_RECORD, where, sql.SQL(""))[1:-1]

    def page(self, collection: str, offset: int, limit: int, fields: Sequence[str]) -> bytes:
        """``{"items","total"}`` of the live records, by uid."""
        identity = self._id(collection)
        total, skip, start = self._start(identity, offset)
        where = sql.SQL("collection = {} AND NOT deleted").format(identity)
        if start is not None:
            where = sql.SQL("{} AND uid >= {}").format(where, sql.Literal(start))
        tail = sql.SQL("ORDER BY uid OFFSET {} LIMIT {}").format(
            sql.Literal(skip), sql.Literal(limit)
        )
        items = self._select(_projected(fields) if fields else _RECORD, where, tail)
        return b'{"items":' + items + f',"total":{total}}}'.encode()

    def _select(
        self, columns: sql.Composable, where: sql.Composable, tail: sql.Composable
    ) -> bytes:
        statement = sql.SQL(
            "SELECT '[' || coalesce(string_agg(doc, ','), '') || ']'"
            " FROM (SELECT {} AS doc FROM hub.records WHERE {} {}) AS page"
        ).format(columns, where, tail)
        with self.pool.connection() as connection, connection.cursor(binary=True) as cursor:
            cursor.adapters.register_loader("text", Utf8Loader)
            cursor.execute(statement, prepare=False)
            row = cursor.fetchone()
        return cast("bytes", row[0]) if row is not None else b"[]"

    def _start(self, identity: int, offset: int) -> tuple[int, int, uuid.UUID | None]:
        """Live records of the collection, how many to skip, and from which uid."""
        with self._lock:
            version = self._versions.get(identity, 0)
            kept = self._marks.get(identity)
            if kept is None or kept[0] != version:
                with self.pool.connection() as connection:
                    rows = connection.execute(
                        "SELECT uid, total FROM (SELECT uid, row_number() OVER (ORDER BY uid) - 1"
                        " AS row, count(*) OVER () AS total FROM hub.records"
                        " WHERE collection = %s AND NOT deleted) AS rows"
                        " WHERE row %% %s = 0 ORDER BY row",
                        [identity, MARK],
                    ).fetchall()
                total = int(str(rows[0][1])) if rows else 0
                kept = (version, total, [cast("uuid.UUID", row[0]) for row in rows])
                self._marks[identity] = kept
        _, total, marks = kept
        if not marks:
            return total, offset, None
        mark = min(offset // MARK, len(marks) - 1)
        return total, offset - mark * MARK, marks[mark]

    def _uids_of(
        self, connection: Connection, identity: int, key_hashes: list[bytes]
    ) -> dict[bytes, str]:
        """The uids of the records of these key hashes, deleted ones too."""
        if not key_hashes:
            return {}
        rows = connection.execute(
            "SELECT key_hash, uid FROM hub.records WHERE collection = %s AND key_hash = ANY(%b)",
            [identity, key_hashes],
        )
        return {cast("bytes", key_hash): str(uid) for key_hash, uid in rows}

    def _changed(self, identity: int) -> None:
        with self._lock:
            self._versions[identity] = self._versions.get(identity, 0) + 1

    def _parent_of(self, collection: str, reference: str) -> int | None:
        """The collection in which this reference is looked up; None is any."""
        return self._load_parents().get((collection, reference))

    def _load_parents(self) -> dict[tuple[str, str], int]:
        """Called before a transaction takes its connection: reading them needs another."""
        parents = self._parents
        if parents is None:
            with self.pool.connection() as connection:
                rows = connection.execute(
                    "SELECT collection, reference, parent FROM hub.parents"
                ).fetchall()
            parents = {(str(c), str(r)): self._id(str(p)) for c, r, p in rows}
            self._parents = parents
        return parents

    def _id(self, collection: str) -> int:
        """The collection's number; a name not seen before gets one."""
        if collection not in self._ids:
            with self.pool.connection() as connection:
                row = connection.execute(
                    "INSERT INTO hub.collections (name) VALUES (%s)"
                    " ON CONFLICT (name) DO UPDATE SET name = excluded.name RETURNING id",
                    [collection],
                ).fetchone()
            self._ids[collection] = int(str(row[0])) if row else 0
        return self._ids[collection]


def _projected(fields: Sequence[str]) -> sql.Composable:
    """A JSON object of these fields; a field that the record does not have is null."""
    parts: list[sql.Composable] = []
    for number, name in enumerate(fields):
        value = _COLUMNS.get(name) or sql.SQL("coalesce((doc::json -> {})::text, 'null')").format(
            sql.Literal(name)
        )
        label = f"{',' if number else '{'}{json.dumps(name)}:"
        parts.append(sql.SQL("{} || {}").format(sql.Literal(label), value))
    return sql.SQL("{} || '}}'").format(sql.SQL(" || ").join(parts))
