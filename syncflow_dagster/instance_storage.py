"""Where Dagster keeps its own: history, logs and artifacts, decided by SyncFlow's environment.

``dagster.yaml`` knows no "this variable, else that folder" (``env:`` has no default), and its
relative paths depend on DAGSTER_HOME, which ``dagster dev`` sets to a folder that it removes. These
classes are what it names instead; each makes one of Dagster's own.

Belongs here: choosing the place.
Does not belong here: making the home (``home``), what the storages do otherwise than Dagster's own
(``history``), how output is kept (``printed``), the bridge database (``syncflow_core.bridge``).

Source: design.md, "Fixed interfaces", Dagster and Environment; dagster issue 33958 (the scheme).
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from dagster._config import UserConfigSchema
from dagster._core.storage.base_storage import DagsterStorage
from dagster._core.storage.compute_log_manager import CapturedLogContext, ComputeIOType
from dagster._core.storage.local_compute_log_manager import (
    IO_TYPE_EXTENSION,
    LocalComputeLogManager,
)
from dagster._core.storage.root import LocalArtifactStorage
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from dagster._serdes import ConfigurableClass, ConfigurableClassData

from syncflow_core.private import make_file, make_folder
from syncflow_core.settings import read_settings
from syncflow_dagster.history import in_postgresql, tune
from syncflow_dagster.printed import kept


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
            local = DagsterSqliteStorage.from_local(folder, inst_data=inst_data)
            tune(local.run_storage, local.event_log_storage)
            return local
        # SQLAlchemy 2.1 takes psycopg 3 for a bare "postgresql://"; dagster-postgres speaks psycopg2.
        _, _, rest = url.get_secret_value().partition("://")
        address = f"postgresql+psycopg2://{rest}"
        shared = in_postgresql(address, inst_data)
        tune(shared.run_storage, shared.event_log_storage)
        return shared


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

    @contextmanager
    def capture_logs(self, log_key: Sequence[str]) -> Iterator[CapturedLogContext]:
        """Within the block, what this process prints is kept; Dagster starts four processes for it."""
        streams = ((sys.stdout, ComputeIOType.STDOUT), (sys.stderr, ComputeIOType.STDERR))
        with kept(
            [
                (stream, Path(self.get_captured_local_path(log_key, IO_TYPE_EXTENSION[kind])))
                for stream, kind in streams
            ]
        ):
            yield CapturedLogContext(log_key)
        make_file(Path(self.get_captured_local_path(log_key, "complete")))


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
