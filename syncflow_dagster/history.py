"""What SyncFlow has Dagster's own storages do otherwise: nothing else of them is changed.

Belongs here: the order in which a failure is written, events that are written together, what is asked
once instead of with each event, connections that are kept.
Does not belong here: where the history lies (``instance_storage``).

Source: dagster 1.13, ``_core/storage/event_log/sql_event_log.py``, ``_core/storage/runs/sql_run_storage.py``.
"""

import datetime as dt
import os
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

import sqlalchemy as sa
import sqlalchemy.exc
from dagster import DagsterEventType, EventLogEntry
from dagster._core.storage.event_log import EventLogStorage, SqlEventLogStorage
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable
from dagster._core.storage.event_log.sqlite import SqliteEventLogStorage
from dagster._core.storage.runs import RunStorage, SqlRunStorage
from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage
from dagster_postgres.utils import create_pg_engine, retry_pg_connection_fn
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

IDLE_S: Final = 0.1
"""A server is not started again within it: a connection that was used so lately is as it was."""

DEFERRED: Final = frozenset(
    {
        DagsterEventType.LOADED_INPUT,
        DagsterEventType.STEP_INPUT,
        DagsterEventType.STEP_OUTPUT,
        DagsterEventType.HANDLED_OUTPUT,
        DagsterEventType.RESOURCE_INIT_STARTED,
        DagsterEventType.RESOURCE_INIT_SUCCESS,
    }
)
"""Events that wait for the next one of their run: a step's start, end or result is never far behind."""

PLAIN: Final = frozenset({DagsterEventType.STEP_START, DagsterEventType.STEP_SUCCESS})
"""Events that are rows and nothing else, so that one statement stores them with those before."""

PLANNED: Final = frozenset(
    {
        DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
        DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED,
    }
)

TABLES: Final = frozenset({"event_logs", "instance_info", "jobs", "runs"})
"""Where these are, Dagster has made all of its tables."""

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
    store = events.store_event
    waiting: defaultdict[str, list[EventLogEntry]] = defaultdict(list)

    def store_event(event: EventLogEntry) -> None:
        said = event.dagster_event
        kind = None if said is None else said.event_type
        if kind in DEFERRED:
            waiting[event.run_id].append(event)
            return
        before = waiting.pop(event.run_id, [])
        if before and kind in PLAIN:
            _store_rows(events, [*before, event])
            return
        if before:
            _store_rows(events, before)
        if said is not None and said.is_run_failure:
            # Dagster writes the event first. Its daemon, when it reads the event before the run has its
            # status, takes the run for one that goes on, and its position is past it: it is never retried.
            at = dt.datetime.fromtimestamp(event.timestamp, dt.UTC)
            runs.handle_run_event(event.run_id, said, at)
        store(event)

    events.store_event = store_event  # type: ignore[method-assign]  # it has no seam for this
    # Dagster gives a run's planned events, and the slices that a step has materialized, in one call
    os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", str(BATCH))
    if not isinstance(events, SqliteEventLogStorage):  # that one writes each into several files
        _plan_together(events)


def _plan_together(events: SqlEventLogStorage) -> None:
    """Have what a new run is going to do written by one statement."""
    store = events.store_event_batch

    def store_event_batch(entries: Sequence[EventLogEntry]) -> None:
        kinds = {entry.get_dagster_event().event_type for entry in entries}
        if not kinds <= PLANNED:
            store(entries)
            return
        rows = [events._event_to_row(entry) for entry in entries]  # noqa: SLF001  # as below
        ids = SqlEventLogStorageTable.c.id
        insert = SqlEventLogStorageTable.insert().returning(ids, sort_by_parameter_order=True)
        with events.run_connection(entries[0].run_id) as connection:
            numbered = list(zip(entries, connection.execute(insert, rows).scalars(), strict=True))
        assets = {}
        for entry, number in numbered:
            if entry.dagster_event_type == DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED:
                events.store_asset_check_event(entry, number)
            else:
                assets[entry.get_dagster_event().asset_key] = (entry, number)
        for (
            entry,
            number,
        ) in assets.values():  # of an asset's slices any one says that it is planned
            events.store_asset_event(entry, number)

    events.store_event_batch = store_event_batch  # type: ignore[method-assign,assignment]  # as above


def _store_rows(events: SqlEventLogStorage, entries: list[EventLogEntry]) -> None:
    """Store events that are of one run, in their order."""
    rows = [events._event_to_row(entry) for entry in entries]  # noqa: SLF001  # as Dagster stores one of them
    with events.run_connection(entries[0].run_id) as connection:
        connection.execute(SqlEventLogStorageTable.insert(), rows)


def _ask_once(storage: object, question: str) -> None:
    """Have a storage look once whether its database has a table or column: with each event it asked again.

    A "no" is asked again, for a migration may bring it.
    """
    ask = getattr(storage, question)
    there: set[tuple[object, ...]] = set()

    def answer(*about: object) -> bool:
        named = tuple(
            item for item in about if isinstance(item, str)
        )  # the connection is no matter
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
