"""Where whole syncs are measured: a database, the sandbox's servers over the wide table, a home.

Belongs here: making it, the days that pass in it, emptying it.
Does not belong here: what is synced in it (``whole``, ``compare``).
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import sqlalchemy as sa

from syncflow_core.bridge.database import Database
from syncflow_core.bridge.entities import apply_entities
from syncflow_core.entity import Entity
from syncflow_core.sandbox import Sandbox, erp
from syncflow_core.sandbox import database as tables
from syncflow_core.sandbox.days import pass_day
from syncflow_dagster.bench.measure import Beside, cpu_of, cpu_of_family, parent_of
from syncflow_dagster.bench.rows import WIDE
from syncflow_dagster.bench.scratch import scratch_database
from syncflow_dagster.sandbox import environment


@dataclass(frozen=True)
class Place:
    """What the syncs of a benchmark go to and come from."""

    database: Database
    sandbox: Sandbox
    home: str
    names: tuple[str, ...]
    """The entities."""

    def beside(self) -> Beside:
        """What the sandbox and PostgreSQL, where it runs on this machine, have spent so far."""
        with self.database.begin() as connection:
            session = int(connection.scalar(sa.text("SELECT pg_backend_pid()")) or 0)
            here = connection.scalar(
                sa.text("SELECT inet_server_addr() IS NULL OR inet_server_addr() << '127.0.0.0/8'")
            )
        return Beside(
            sandbox=cpu_of(self.sandbox.pids),
            database=cpu_of_family(parent_of(session)) if here else 0.0,
        )

    def pass_day(self, changed: float) -> None:
        """A day passes: this share of the rows changes, a tenth as many come, and go."""
        few = changed / 10
        with tables.connect(self.database.url) as connection:
            pass_day(connection, changed=changed, inserted=few, deleted=few, tables=(WIDE,))

    def empty(self) -> None:
        """The hub and the bridge know no record."""
        with self.database.begin() as connection:
            connection.execute(
                sa.text(
                    "TRUNCATE bridge.synced_records, bridge.push_journal, bridge.record_events, "
                    "bridge.scan_proofs, bridge.erp_sync_state, bridge.sweep_slices, hub.records, hub.effects"
                )
            )


@contextmanager
def bench_place(rows: int, entities: int = 1) -> Iterator[Place]:
    """A database, both servers with the rows, and a home of its own for Dagster and the frames.

    Args:
        rows: Of all entities.
        entities: How many there are; each syncs the same table to a collection of its own.
    """
    with ExitStack() as stack:
        database = stack.enter_context(scratch_database())
        home = stack.enter_context(tempfile.TemporaryDirectory(prefix="syncflow-bench-"))
        tables.prepare(database.url)
        with tables.connect(database.url) as connection:
            erp.seed_bench(connection, rows=rows // entities)
        sandbox = stack.enter_context(Sandbox.start(database.url))
        stack.enter_context(
            _environment(
                {
                    **environment(sandbox),
                    "SYNCFLOW_HOME": home,
                    "SYNCFLOW_DATABASE_URL": database.url,
                    "DAGSTER_HOME": None,
                }
            )
        )
        names = tuple(f"{WIDE}_{number:02}" for number in range(entities))
        with database.begin() as connection:
            apply_entities(
                connection, [Entity(name=name, api=WIDE, collection=name) for name in names]
            )
        yield Place(database, sandbox, home, names)


@contextmanager
def _environment(values: dict[str, str | None]) -> Iterator[None]:
    """The variables have these values (None: are not set) for the block, and those of before afterwards."""
    before = {name: os.environ.get(name) for name in values}
    _set(values)
    try:
        yield
    finally:
        _set(before)


def _set(values: dict[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
