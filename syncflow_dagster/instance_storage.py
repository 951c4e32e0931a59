"""Where Dagster keeps its own: history, logs and artifacts, decided by SyncFlow's environment.

``dagster.yaml`` knows no "this variable, else that folder" (``env:`` has no default), and its
relative paths depend on DAGSTER_HOME, which ``dagster dev`` sets to a folder that it removes. These
classes are what it names instead; each makes one of Dagster's own.

Belongs here: choosing the place.
Does not belong here: making the home (``home``), the bridge database (``syncflow_core.bridge``).

Source: design.md, "Fixed interfaces", Dagster and Environment; dagster issue 33958 (the scheme).
"""

import datetime as dt
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self

import sqlalchemy as sa
import sqlalchemy.exc
from dagster import EventLogEntry
from dagster._config import UserConfigSchema
from dagster._core.storage.base_storage import DagsterStorage
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager
from dagster._core.storage.root import LocalArtifactStorage
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from dagster._serdes import ConfigurableClass, ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage
from dagster_postgres.utils import create_pg_engine
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

from syncflow_core.private import make_folder
from syncflow_core.settings import read_settings

IDLE_S: Final = 0.1
"""A server is not started again within it: a connection that was used so lately is as it was."""


def dagster_folder(name: str) -> Path:
    """The folder of this name in Dagster's part of SYNCFLOW_HOME, absolute; made where it is missing."""
    return make_folder(read_settings().home_path / "dagster" / name)


class SyncFlowStorage(DagsterStorage, ConfigurableClass):
    """Dagster's history: in PostgreSQL where SYNCFLOW_DATABASE_URL is set, else SQLite under the home.

    Never made itself: what ``dagster.yaml`` gets from it is one of Dagster's own storages.
    """

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """No configuration."""
        return {}

    @classmethod
    def from_config_value(  # type: ignore[override]  # one of two other classes, by the environment
        cls,
        inst_data: ConfigurableClassData | None,
        config_value: Mapping[str, Any],  # noqa: ARG003  # Dagster passes the empty configuration
    ) -> DagsterStorage:
        """The storage that the environment asks for."""
        url = read_settings().database_url
        if url is None:
            folder = str(dagster_folder("history"))
            return _failed_first(DagsterSqliteStorage.from_local(folder, inst_data=inst_data))
        # SQLAlchemy 2.1 takes psycopg 3 for a bare "postgresql://"; dagster-postgres speaks psycopg2.
        _, _, rest = url.get_secret_value().partition("://")
        address = f"postgresql+psycopg2://{rest}"
        return _failed_first(_pooled(DagsterPostgresStorage(address, inst_data=inst_data), address))


def _failed_first(storage: DagsterStorage) -> DagsterStorage:
    """The storage whose runs have failed before the event is there that says so.

    Dagster writes the event first. Its daemon, when it reads the event before the run has its status,
    takes the run for one that goes on, and its position is past it: the run is never tried again.
    """
    events = storage.event_log_storage
    store = events.store_event

    def store_event(event: EventLogEntry) -> None:
        said = event.dagster_event
        if said is not None and said.is_run_failure:
            at = dt.datetime.fromtimestamp(event.timestamp, dt.UTC)
            storage.run_storage.handle_run_event(event.run_id, said, at)
        store(event)

    events.store_event = store_event  # type: ignore[method-assign]  # it has no seam for this
    return storage


def _pooled(storage: DagsterPostgresStorage, address: str) -> DagsterPostgresStorage:
    """The storage with a few connections that it keeps: Dagster's own opens one for every statement.

    A run of two entities opened 200 of them, which was half of its time. Nor does an event wait for the
    disk: a server that crashes may lose the last moments of Dagster's history, and nothing of the bridge.
    """
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


class SyncFlowComputeLogs(LocalComputeLogManager):
    """What ops print: files under the home."""

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """No configuration."""
        return {}

    @classmethod
    def from_config_value(
        cls,
        inst_data: ConfigurableClassData | None,
        config_value: Mapping[str, Any],  # noqa: ARG003  # as above
    ) -> Self:
        """Dagster's own log manager over the home's folder."""
        return cls(str(dagster_folder("logs")), inst_data=inst_data)


class SyncFlowArtifacts(LocalArtifactStorage):
    """Dagster's local artifacts: files under the home."""

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """No configuration."""
        return {}

    @classmethod
    def from_config_value(
        cls,
        inst_data: ConfigurableClassData | None,
        config_value: Mapping[str, Any],  # noqa: ARG003  # as above
    ) -> Self:
        """Dagster's own artifact storage over the home's folder."""
        return cls(str(dagster_folder("artifacts")), inst_data=inst_data)
