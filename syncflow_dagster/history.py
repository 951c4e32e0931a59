"""What SyncFlow has Dagster's own storages do otherwise: nothing else of them is changed.

Belongs here: the order in which a failure is written, events that are written together, what is asked
once instead of with each event, connections that are kept.
Does not belong here: where the history lies (``instance_storage``).

Source: dagster 1.13, ``_core/storage/event_log/sql_event_log.py``, ``_core/storage/runs/sql_run_storage.py``.
"""

import datetime as dt
import os
import sqlite3
import time
from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import sqlalchemy as sa
import sqlalchemy.exc
from dagster import DagsterEventType, EventLogEntry
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from dagster._core.storage.event_log import EventLogStorage, SqlEventLogStorage
from dagster._core.storage.event_log.schema import (
    AssetCheckExecutionsTable,
    SqlEventLogStorageTable,
)
from dagster._core.storage.event_log.sqlite import SqliteEventLogStorage
from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME
from dagster._core.storage.runs import RunStorage, SqlRunStorage
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage, PostgresEventLogStorage
from dagster_postgres.utils import create_pg_engine, retry_pg_connection_fn
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry, NullPool, StaticPool

IDLE_S: Final = 0.1
"""A server is not started again within it: a connection that was used so lately is as it was."""

DEFERRED: Final = frozenset(
    {
        DagsterEventType.ASSET_CHECK_EVALUATION,
        DagsterEventType.LOADED_INPUT,
        DagsterEventType.STEP_OUTPUT,
        DagsterEventType.HANDLED_OUTPUT,
        DagsterEventType.RESOURCE_INIT_STARTED,
        DagsterEventType.RESOURCE_INIT_SUCCESS,
    }
)
"""Events that wait for the next one of their run, which is never far behind: no op's work lies between."""

PLAIN: Final = frozenset(
    {
        DagsterEventType.STEP_START,
        DagsterEventType.STEP_INPUT,
        DagsterEventType.STEP_SUCCESS,
    }
)
"""Events that are rows and nothing else, so that one statement stores them with those before."""

TOGETHER: Final = frozenset(
    {
        DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED,
        DagsterEventType.ASSET_MATERIALIZATION,
        DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
    }
)
"""Events that Dagster gives to its storage many at once: what a run plans, the slices of one step."""

CHECKED: Final = frozenset(
    {DagsterEventType.ASSET_CHECK_EVALUATION, DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED}
)
"""Events that are also looked for by their check."""

INDEXED: Final = TOGETHER | CHECKED
"""These, and those that are looked for by their asset."""

TABLES: Final = frozenset({"event_logs", "instance_info", "jobs", "runs"})
"""Where these are, Dagster has made all of its tables."""

SHARDS: Final = 8
"""Files of Dagster's history in SQLite whose engines a process keeps."""

BATCH: Final = 1_000
"""Events that Dagster gives to its storage at once."""


def tune(runs: RunStorage, events: EventLogStorage) -> None:
    """Change how these storages do what they do; what is in them afterwards is the same.

    Raises:
        TypeError: They are not in an SQL database.
    """
    if not isinstance(runs, SqlRunStorage) or not isinstance(events, SqlEventLogStorage):
        raise TypeError("Dagster's history lies in SQLite or PostgreSQL")
    for storage, question in (
        (runs, "has_run_stats_index_cols"),
        (runs, "has_backfill_id_column"),
        (events, "has_asset_key_col"),
        (events, "_has_asset_key_col_on_connection"),
        (events, "has_table"),
    ):
        _ask_once(storage, question)
    # Dagster gives a run's planned events, and the slices that a step has materialized, in one call
    os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", str(BATCH))
    together = _Together(runs, events)
    seams: Any = events  # it has none for this
    if isinstance(events, SqliteEventLogStorage):
        files = _Files(events)
        seams._connect, seams.dispose = files.connect, files.dispose  # noqa: SLF001  # as above
    seams.store_event, seams.store_event_batch = together.store_event, together.store_event_batch


class _Together:
    """In the place of a storage's two ways to store events."""

    def __init__(self, runs: SqlRunStorage, events: SqlEventLogStorage) -> None:
        self._runs = runs
        self._events = events
        self._store_one = events.store_event
        self._store_many = events.store_event_batch
        old = sqlite3.sqlite_version_info < (3, 35)  # of Red Hat 9, for one: without RETURNING
        self._returns = isinstance(events, PostgresEventLogStorage) or not old
        self._waiting: defaultdict[str, list[EventLogEntry]] = defaultdict(list)

    def store_event(self, event: EventLogEntry) -> None:
        said = event.dagster_event
        kind = None if said is None else said.event_type
        if kind in DEFERRED and event.run_id and (kind not in CHECKED or self._returns):
            self._waiting[event.run_id].append(event)
            return
        if kind in PLAIN:
            self._store([*self._waiting.pop(event.run_id, []), event])
            return
        self._store_waiting(event.run_id)
        if said is not None and said.is_run_failure:
            # Dagster writes the event first. Its daemon, when it reads the event before the run has its
            # status, takes the run for one that goes on, and its position is past it: it is never retried.
            at = dt.datetime.fromtimestamp(event.timestamp, dt.UTC)
            self._runs.handle_run_event(event.run_id, said, at)
        self._store_one(event)

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        self._store_waiting(events[0].run_id)
        kinds = {event.get_dagster_event().event_type for event in events}
        if kinds <= TOGETHER and self._returns:
            self._store(events)
        else:
            self._store_many(events)

    def _store_waiting(self, run_id: str) -> None:
        if before := self._waiting.pop(run_id, []):
            self._store(before)

    def _store(self, events: Sequence[EventLogEntry]) -> None:
        """Store events of one run in their order, of which some are also looked for by their asset or check."""
        indexed = [event for event in events if event.dagster_event_type in INDEXED]
        sharded = self._events.is_run_sharded  # a file for each run, and one for all of them
        if sharded or not indexed:
            with self._events.run_connection(events[0].run_id) as connection:
                connection.execute(SqlEventLogStorageTable.insert(), self._rows(events))
        if indexed:
            self._store_indexed(indexed if sharded else events)

    def _store_indexed(self, events: Sequence[EventLogEntry]) -> None:
        rows = self._rows(events)
        number = SqlEventLogStorageTable.c.id
        insert = SqlEventLogStorageTable.insert().returning(number, sort_by_parameter_order=True)
        with self._events.index_connection() as connection:
            numbers = connection.execute(insert, rows).scalars().all()
        planned: list[dict[str, Any]] = []
        newest = {}
        for event, row, stored in zip(events, rows, numbers, strict=True):
            if event.dagster_event_type == DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED:
                planned += _planned_checks(event, row, stored)
            elif event.dagster_event_type == DagsterEventType.ASSET_CHECK_EVALUATION:
                self._events.store_asset_check_event(event, stored)
            elif event.dagster_event_type in TOGETHER:
                key = event.dagster_event_type, event.get_dagster_event().asset_key
                newest[key] = (event, stored)
        if planned:
            with self._events.index_connection() as connection:
                connection.execute(AssetCheckExecutionsTable.insert(), planned)
        if newest:
            self._events.store_asset_event_tags(events, numbers)
        for event, stored in newest.values():
            self._events.store_asset_event(event, stored)

    def _rows(self, events: Sequence[EventLogEntry]) -> list[dict[str, Any]]:
        return [self._events._event_to_row(event) for event in events]  # noqa: SLF001  # as Dagster stores one


def _planned_checks(
    event: EventLogEntry, row: Mapping[str, Any], stored: int
) -> Iterator[dict[str, Any]]:
    """The rows of a check that is planned, as Dagster stores them, which has a statement made for each."""
    check = event.get_dagster_event().asset_check_planned_data
    slices = check.partitions_subset.get_partition_keys() if check.partitions_subset else [None]
    for partition in slices:
        yield {
            "asset_key": check.asset_key.to_string(),
            "check_name": check.check_name,
            "partition": partition,
            "run_id": event.run_id,
            "execution_status": AssetCheckExecutionRecordStatus.PLANNED.value,
            "evaluation_event": row["event"],
            "evaluation_event_timestamp": row["timestamp"],
            "evaluation_event_storage_id": stored,
        }


class _Files:
    """In the place of a SQLite storage's ways to connect to its files, with the engines of the time before.

    A run's file is closed each time, as by Dagster itself: whoever watches the run sees the file change then.
    The index is kept open.
    """

    def __init__(self, events: SqliteEventLogStorage) -> None:
        self._events = events
        self._dispose = events.dispose
        self._engines: OrderedDict[str, sa.Engine] = OrderedDict()

    @contextmanager
    def connect(self, shard: str) -> Iterator[sa.Connection]:
        with self._events._db_lock, self._engine(shard).begin() as connection:  # noqa: SLF001  # it has no seam
            yield connection

    def dispose(self) -> None:
        self._dispose()
        for engine in self._engines.values():
            engine.dispose()
        self._engines.clear()

    def _engine(self, shard: str) -> sa.Engine:
        there = self._events._initialized_dbs  # noqa: SLF001  # as above; a wipe empties it
        if shard not in self._engines or shard not in there:
            kept = shard == INDEX_SHARD_NAME
            engine = sa.create_engine(
                self._events.conn_string_for_shard(shard),
                poolclass=StaticPool if kept else NullPool,
                # one thread at a time has it: the storage's lock is held
                connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS, "check_same_thread": False},
            )
            self._events._initdb(engine)  # noqa: SLF001  # as above
            there.add(shard)
            self._engines[shard] = engine
            if len(self._engines) > SHARDS:
                oldest = next(name for name in self._engines if name != INDEX_SHARD_NAME)
                self._engines.pop(oldest).dispose()
        self._engines.move_to_end(shard)
        return self._engines[shard]


def _ask_once(storage: object, question: str) -> None:
    """Have a storage look once whether its database has a table or column: with each event it asked again.

    A "no" is asked again, for a migration may bring it.
    """
    ask = getattr(storage, question)
    there: set[tuple[object, ...]] = set()

    def answer(*about: object) -> bool:
        # on which connection is no matter
        named = tuple(item for item in about if isinstance(item, str))
        if named not in there and ask(*about):
            there.add(named)
        return named in there

    setattr(storage, question, answer)


def in_postgresql(address: str, inst_data: ConfigurableClassData | None) -> DagsterPostgresStorage:
    """Dagster's storage in PostgreSQL, with a few connections that it keeps.

    Dagster's own opens one for every statement, and six to see whether its tables are there. A run of two
    entities opened 200 of them, which was half of its time. Nor does an event wait for the disk: a server that
    crashes may lose the last moments of Dagster's history, and nothing of the bridge.

    Args:
        address: The server's, with SQLAlchemy's name of the driver.
        inst_data: What Dagster keeps of the configuration.
    """
    storage = DagsterPostgresStorage(address, should_autocreate_tables=False, inst_data=inst_data)
    engine = create_pg_engine(
        address,
        isolation_level="AUTOCOMMIT",
        pool_size=4,
        max_overflow=20,
        connect_args={"options": "-c synchronous_commit=off"},
    )
    _ping_idle(engine)
    parts: list[Any] = [storage.run_storage, storage.event_log_storage, storage.schedule_storage]
    for part in parts:
        part._engine = engine  # noqa: SLF001  # it has no seam for this
        # Dagster's own keeps no connection that would have to be closed
        part.dispose = engine.dispose
    there = retry_pg_connection_fn(lambda: set(sa.inspect(engine).get_table_names()))
    if not there >= TABLES:
        DagsterPostgresStorage(address)  # makes what is missing
    return storage


def _ping_idle(engine: sa.Engine) -> None:
    """Have the pool look whether a connection lives before it gives it out, unless it was used a moment ago.

    SQLAlchemy's own ``pool_pre_ping`` asks each time, which is a fifth of what Dagster's events take.
    """

    @sa.event.listens_for(engine, "checkin")
    def used(_: object, record: ConnectionPoolEntry) -> None:
        record.info["used"] = time.monotonic()

    @sa.event.listens_for(engine, "checkout")
    def ping(connection: DBAPIConnection, record: ConnectionPoolEntry, _: object) -> None:
        before = record.info.get("used")
        if before is None or time.monotonic() - before < IDLE_S:
            return
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as error:
            raise sqlalchemy.exc.InvalidatePoolError from error  # the pool connects anew
