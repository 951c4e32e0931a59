"""One test's whole SyncFlow, driven in process or by command."""

import contextlib
import functools
import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa
from forked import Failpoint, Forked

from syncflow_core.bridge.batches import Batch
from syncflow_core.bridge.database import Database
from syncflow_core.bridge.entities import apply_entities, load_entities
from syncflow_core.entity import Entity
from syncflow_core.parents import lineage
from syncflow_core.sandbox import Sandbox
from syncflow_core.sandbox.database import Pool
from syncflow_dagster.choices import Mode
from syncflow_dagster.cli.app import main
from syncflow_dagster.history import CHECKED, DEFERRED, tune
from syncflow_dagster.launch import Run, run_sync
from syncflow_dagster.sandbox import environment

SLICES = 2
"""As good a range as the seven of an installation, each of which costs every sync some events."""

MAIN = "syncflow_dagster.cli.app:main"
"""What ``syncflow`` runs."""

SYNCFLOW = str(Path(sys.executable).parent / "syncflow")


@dataclass
class Place:
    """Where one test's SyncFlow lives."""

    home: Path
    url: str
    database: Database
    sandbox: Sandbox
    instance: dg.DagsterInstance
    environment: dict[str, str] = field(default_factory=dict)
    slices: int = SLICES
    tables: Pool = field(init=False)
    """Connections to the sandbox's tables."""

    def __post_init__(self) -> None:
        self.tables = Pool(self.url, 4)

    def cut_into(self, slices: int) -> None:
        """From here on entities have so many slices."""
        self.slices = slices
        self.environment["SYNCFLOW_SLICES"] = os.environ["SYNCFLOW_SLICES"] = str(slices)

    def apply(self, entities: Sequence[Entity]) -> None:
        with self.database.begin() as connection:
            apply_entities(connection, entities)

    def sync(
        self, *names: str, mode: Mode = "full", slice_: int | None = None, slices: int | None = None
    ) -> Run:
        """Sync in this process; every entity without names."""
        with self.database.read() as connection:
            entities = load_entities(connection)
        chosen = names or lineage(entities).order
        return run_sync(
            self.instance,
            self.database,
            entities,
            chosen,
            mode=mode,
            slice_=slice_,
            slices=slices or self.slices,
            wait_s=5,
        )

    def sweep(self, *names: str, slices: int) -> list[Run]:
        """Sync slice after slice, to the last; each of them costs a test a second."""
        return [self.sync(*names, slice_=number, slices=slices) for number in range(1, slices + 1)]

    def command(self, *arguments: str, **more: str) -> "subprocess.CompletedProcess[str]":
        """Run ``syncflow`` as a user does, but in this process: a new one costs seconds of imports."""
        told, warned = io.StringIO(), io.StringIO()
        root = logging.getLogger()
        handlers, before = list(root.handlers), dict(os.environ)
        with (
            pytest.MonkeyPatch.context() as monkeypatch,
            contextlib.redirect_stdout(told),
            contextlib.redirect_stderr(warned),
        ):
            monkeypatch.setattr(sys, "argv", ["syncflow", *arguments])
            monkeypatch.chdir(self.home)
            os.environ.clear()
            os.environ.update(self.environment | more)
            status: object = 0
            try:
                main()
            except SystemExit as ended:
                status = ended.code
            finally:
                os.environ.clear()
                os.environ.update(before)
                root.handlers[:] = handlers
        assert isinstance(status, int | None)
        return subprocess.CompletedProcess(
            arguments, status or 0, told.getvalue(), warned.getvalue()
        )

    def process(
        self,
        *arguments: str,
        at: Failpoint | None = None,
        constants: Mapping[str, object] | None = None,
        **more: str,
    ) -> Forked:
        """Start ``syncflow`` in a process of its own, for what is killed or runs beside another.

        Args:
            at: Where it ends or stops by itself.
            constants: Other values of constants, by dotted name.
        """
        environment = {**self.environment, **more}
        return Forked(MAIN, arguments, environment, self.home, at, constants=constants)


@contextmanager
def opened(url: str, folder: Path) -> Iterator[Place]:
    """One over a database that has all migrations; both sandbox servers end with the block."""
    with (
        Sandbox.start(url, one_process=True, spawn=_started) as sandbox,
        Database(url) as database,
        _history() as instance,
        pytest.MonkeyPatch.context() as monkeypatch,
    ):
        variables = {
            "SYNCFLOW_HOME": str(folder / "home"),
            "SYNCFLOW_DATABASE_URL": url,
            "SYNCFLOW_SLICES": str(SLICES),
            **environment(sandbox),
        }
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("DAGSTER_HOME", raising=False)
        place = Place(folder, url, database, sandbox, instance, {**os.environ, **variables})
        yield place
        place.tables.close()


@contextmanager
def _history() -> Iterator[dg.DagsterInstance]:
    """Dagster's instance in memory; its tables are made once, and emptied."""
    instance = _kept_instance()
    try:
        yield instance
    finally:
        instance.wipe()


@functools.cache
def _kept_instance() -> dg.DagsterInstance:
    """It keeps its connections, and leaves out the events of which a run has most and no test asks anything."""
    instance = dg.DagsterInstance.ephemeral()
    runs, events = instance.run_storage, instance.event_log_storage
    tune(runs, events)
    for storage, seam in (runs, "connect"), (events, "_connect"):
        engine = sa.create_engine(
            storage._engine.url, poolclass=sa.QueuePool, connect_args={"check_same_thread": False}
        )
        setattr(storage, seam, engine.begin)
    store = events.store_event

    def store_event(event: dg.EventLogEntry) -> None:
        if event.dagster_event_type not in DEFERRED - CHECKED:
            store(event)

    events.store_event = store_event
    return instance


def _started(arguments: list[str]) -> Any:
    """Not a ``Popen``, but it has what is used of one."""
    return _Server(arguments)


class _Server(Forked):
    """The sandbox's servers; their orderly end takes longer than what some tests do with them."""

    def __init__(self, arguments: list[str]) -> None:
        main = "syncflow_core.sandbox.server:main"
        super().__init__(main, arguments, dict(os.environ), Path.cwd(), errors=False)

    def terminate(self) -> None:
        self.kill()


def lines(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


def notes(batch: Batch) -> str:
    """What a person should know of the batch, in one line."""
    return " ".join((batch.proof or {}).get("notes", ()))


def outcome(run: Run, entity: str) -> dict[str, int]:
    """What a run's own batch of the entity counted, zeros left out."""
    batch = next(item for item in run.batches if item.entity == entity and item.kind != "retry")
    return {name: count for name, count in vars(batch.counts).items() if count}
