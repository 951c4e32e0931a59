"""PostgreSQL under the sandbox: the schemas ``erp`` and ``hub``, and a small pool of connections.

Belongs here: opening connections, and the tables that both servers and the comparison read.
Does not belong here: what lies in them (``store``, ``erp``, ``records``).

Source: product.md 11.
"""

import contextlib
import queue
import struct
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, LiteralString

import psycopg
from psycopg import postgres
from psycopg.abc import Buffer
from psycopg.adapt import Dumper, Loader
from psycopg.pq import Format

Connection = psycopg.Connection[tuple[object, ...]]

PREPARE_LOCK = 0x5F10  # advisory lock: two starts at once must not create the schemas twice

ERP: LiteralString = """
CREATE SCHEMA IF NOT EXISTS erp;
CREATE TABLE IF NOT EXISTS erp.tables (
    name text PRIMARY KEY,
    uid uuid NOT NULL,
    title text NOT NULL,
    columns json NOT NULL,
    business_key text[] NOT NULL,
    key_fields text[] NOT NULL,
    key_kinds text[] NOT NULL,
    rowversion_column text,
    rowversion_kind text NOT NULL,
    delta_strategy text NOT NULL,
    parents json NOT NULL,
    has_truth boolean NOT NULL,
    active boolean NOT NULL DEFAULT true,
    version bigint NOT NULL DEFAULT 1,
    row_count bigint NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS erp.boundaries (
    table_name text NOT NULL REFERENCES erp.tables ON DELETE CASCADE,
    version bigint NOT NULL,
    mark bigint NOT NULL,
    at text[] NOT NULL,
    PRIMARY KEY (table_name, version, mark)
);
CREATE TABLE IF NOT EXISTS erp.state (name text PRIMARY KEY, value bigint NOT NULL);
CREATE OR REPLACE FUNCTION erp.as_number(value text) RETURNS numeric
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    value := replace(btrim(value), ',', '');
    IF right(value, 1) = '-' THEN
        value := '-' || left(value, -1);
    END IF;
    RETURN value::numeric;
EXCEPTION WHEN others THEN
    RETURN NULL;
END $$;
"""

HUB: LiteralString = """
CREATE SCHEMA IF NOT EXISTS hub;
CREATE TABLE IF NOT EXISTS hub.collections (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE
);
CREATE TABLE IF NOT EXISTS hub.parents (
    collection text NOT NULL,
    reference text NOT NULL,
    parent text NOT NULL,
    PRIMARY KEY (collection, reference)
);
CREATE TABLE IF NOT EXISTS hub.records (
    uid uuid PRIMARY KEY,
    collection int NOT NULL,
    key_hash bytea NOT NULL,
    data_hash text,
    rowversion text,
    deleted boolean NOT NULL DEFAULT false,
    doc text NOT NULL,
    CONSTRAINT uq_records_key_hash UNIQUE (key_hash, collection)
);
CREATE TABLE IF NOT EXISTS hub.links (
    child uuid NOT NULL,
    reference text NOT NULL,
    parent uuid NOT NULL,
    PRIMARY KEY (child, reference)
);
CREATE INDEX IF NOT EXISTS ix_links_parent ON hub.links (parent);
CREATE TABLE IF NOT EXISTS hub.effects (
    seq bigint GENERATED ALWAYS AS IDENTITY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    request_id text,
    collection int NOT NULL,
    uid uuid NOT NULL,
    key_hash bytea NOT NULL,
    effect text NOT NULL CHECK (effect IN ('insert', 'update', 'delete', 'revive')),
    changed boolean NOT NULL,
    data_hash text,
    rowversion text
);
"""


@dataclass(frozen=True)
class Column:
    """Values in PostgreSQL's binary form (a uuid's 16 bytes, a text's UTF-8), as one array of a statement.

    The statement says of which type (``%b::text[]``). A list is dumped value by value, which costs the
    hub as much as everything else that it does with a record.
    """

    kind: Literal["bytea", "text", "uuid"]
    values: Sequence[bytes | None]


class _ColumnDumper(Dumper):
    """An array of one dimension: its header, then each value behind its length; -1 is NULL."""

    format = Format.BINARY

    def dump(self, column: Column) -> bytes:
        element = postgres.types[column.kind].oid
        values = column.values
        if not values:
            return struct.pack("!iiI", 0, 0, element)
        head = struct.pack("!iiIii", 1, None in values, element, len(values), 1)
        null = struct.pack("!i", -1)
        length = struct.Struct("!i").pack
        parts = [head]
        for value in values:
            if value is None:
                parts.append(null)
            else:
                parts += (length(len(value)), value)
        return b"".join(parts)


class Utf8Loader(Loader):
    """Text as the bytes that came: pages are sent on, so nothing needs to be decoded."""

    format = Format.BINARY

    def load(self, data: Buffer) -> bytes:
        """The value's bytes."""
        return bytes(data)


def plain_url(database_url: str) -> str:
    """The URL as libpq reads it, driver names of SQLAlchemy removed."""
    scheme, _, rest = database_url.partition("://")
    return f"{scheme.partition('+')[0]}://{rest}"


def connect(database_url: str) -> Connection:
    """A new connection that commits by itself unless a transaction is opened.

    No commit waits for the disk: a crash of PostgreSQL can take back what was acknowledged in the last
    fraction of a second.

    Args:
        database_url: Any spelling that design.md accepts.
    """
    connection = psycopg.connect(plain_url(database_url), autocommit=True)
    connection.adapters.register_dumper(Column, _ColumnDumper)
    connection.execute("SET TIME ZONE 'UTC'")
    connection.execute("SET synchronous_commit = off")
    return connection


def prepare(database_url: str) -> None:
    """The schemas ``erp`` and ``hub`` with their tables exist; what they hold is untouched."""
    with connect(database_url) as connection, connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", [PREPARE_LOCK])
        connection.execute("SET LOCAL client_min_messages = warning")
        connection.execute(ERP)
        connection.execute(HUB)


class Pool:
    """At most ``size`` connections, opened when first needed, shared by threads."""

    def __init__(self, database_url: str, size: int) -> None:
        self._url = database_url
        self._idle: queue.LifoQueue[Connection] = queue.LifoQueue()
        self._permits = threading.Semaphore(size)

    @contextlib.contextmanager
    def connection(self) -> Iterator[Connection]:
        """A connection for the block; one that broke is closed, the others are kept."""
        with self._permits:
            connection = self._take()
            try:
                yield connection
            finally:
                if connection.closed or connection.broken:
                    connection.close()
                else:
                    self._idle.put(connection)

    def close(self) -> None:
        """Every idle connection is closed."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._idle.get_nowait().close()

    def _take(self) -> Connection:
        with contextlib.suppress(queue.Empty):
            while True:
                connection = self._idle.get_nowait()
                if not connection.closed:
                    return connection
        return connect(self._url)
