"""``syncflow bench whole``: an entity from the first request to the saved state, and the floor beneath it.

Belongs here: what is synced in which order, in this process and by the command, and what each stage took.
Does not belong here: timing and reporting (``measure``), the single stages (``normalize``, ``delta``, ``push``).

The rows are the sandbox's wide table of sixteen columns. Its two servers run in processes of their own,
PostgreSQL where the bridge's is: all of them share this machine with the sync. The floor is the same
pages asked for and parsed by the same client, as many at once, and nothing else.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from syncflow_core.apismith import Source
from syncflow_core.bridge.batches import Batch
from syncflow_core.bridge.database import Database
from syncflow_core.bridge.entities import apply_entities
from syncflow_core.entity import Entity
from syncflow_core.errors import SyncFlowError
from syncflow_core.sandbox import Sandbox, erp
from syncflow_core.sandbox import database as tables
from syncflow_core.sandbox.days import pass_day
from syncflow_core.scan import scan
from syncflow_core.settings import read_settings
from syncflow_core.stages.work import STAGES
from syncflow_dagster.bench.measure import Benchmark, Measured, cpu_of
from syncflow_dagster.bench.rows import WIDE
from syncflow_dagster.bench.scratch import scratch_database
from syncflow_dagster.choices import Mode
from syncflow_dagster.cli.sandbox import environment
from syncflow_dagster.cli.session import session
from syncflow_dagster.cli.show import console
from syncflow_dagster.cli.sync import quiet_dagster
from syncflow_dagster.launch import run_sync

FLOOR: Final = "floor: fetch and parse"
FIRST: Final = "first load"
NOTHING: Final = "nothing changed"
COMMAND: Final = "command, cold"
INCREMENTAL: Final = "incremental"


@dataclass(frozen=True)
class Choice:
    """What the arguments say."""

    rows: int = 1_000_000
    times: int = 3
    changed: float = 0.01
    """Share of the rows that change before a sync of changes; a tenth of it comes, a tenth goes."""
    entities: int = 1
    """How many entities share the rows; all of them in one run, or in as many commands at once."""
    by_slice: bool = False
    """Each of the seven slices in a run of its own."""
    save: Path | None = None
    compare: Path | None = None


def run(choice: Choice) -> None:
    """Measure and report."""
    quiet_dagster()
    changes = f"{choice.changed:.0%} changed"
    benchmark = Benchmark(
        "whole",
        choice.rows,
        parameters={
            "changed": choice.changed,
            "entities": choice.entities,
            "by slice": choice.by_slice,
        },
    )
    with _place(choice) as place:
        warm = Benchmark("warm", choice.rows)
        warm.begin()
        _floor(warm, place)
        _syncs(warm, place, FIRST, "full")
        for number in range(choice.times):
            console().print(f"repetition {number + 1} of {choice.times}", markup=False)
            benchmark.begin()
            _floor(benchmark, place)
            _empty(place)
            _syncs(benchmark, place, FIRST, "full")
            _day(place)
            _syncs(benchmark, place, changes, "full")
            _syncs(benchmark, place, NOTHING, "full")
            _day(place)
            if not choice.by_slice:
                _syncs(benchmark, place, INCREMENTAL, "incremental")
                _day(place)
                _commands(benchmark, place)
    benchmark.report(FLOOR, (), choice.save, choice.compare)


@dataclass
class _Place:
    """What the syncs of the benchmark go to and come from."""

    choice: Choice
    database: Database
    sandbox: Sandbox
    names: tuple[str, ...]


@contextmanager
def _place(choice: Choice) -> Iterator[_Place]:
    """A database, both servers with the rows, and a home of its own for Dagster and the frames."""
    with ExitStack() as stack:
        database = stack.enter_context(scratch_database())
        home = stack.enter_context(tempfile.TemporaryDirectory(prefix="syncflow-bench-"))
        tables.prepare(database.url)
        with tables.connect(database.url) as connection:
            erp.seed_bench(connection, rows=choice.rows // choice.entities)
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
        names = tuple(f"{WIDE}_{number:02}" for number in range(choice.entities))
        with database.begin() as connection:
            apply_entities(
                connection, [Entity(name=name, api=WIDE, collection=name) for name in names]
            )
        yield _Place(choice, database, sandbox, names)


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


def _floor(benchmark: Benchmark, place: _Place) -> None:
    """Ask for the pages of every entity, parse them, and keep nothing."""
    with Source.open(read_settings()) as source, benchmark.step(FLOOR, servers=place.sandbox.pids):
        for _ in place.names:
            pages = scan(source, source.describe(WIDE))
            rows = sum(page.rows for page in pages)
            if rows != pages.proof.counted or not pages.proof.complete:
                raise SyncFlowError(f"the floor read {rows:,} rows: {pages.proof.note}")


def _syncs(benchmark: Benchmark, place: _Place, step: str, mode: Mode) -> None:
    """Sync all entities in this process, in one run, or in one for each slice."""
    with session() as opened:
        slices = range(1, opened.settings.slices + 1) if place.choice.by_slice else [None]
        for slice_ in slices:
            with benchmark.step(step, servers=place.sandbox.pids):
                done = run_sync(
                    opened.instance,
                    opened.database,
                    opened.entities,
                    place.names,
                    mode=mode,
                    slice_=slice_,
                    slices=opened.settings.slices,
                )
            for batch in done.batches:
                _refuse_unfinished(batch.entity, batch.status, batch.error)
            _stages(benchmark, step, done.batches)


def _stages(benchmark: Benchmark, step: str, batches: tuple[Batch, ...]) -> None:
    """What each stage took, over all entities of the run; Dagster's own share is what is left."""
    for stage in STAGES:
        benchmark.add_stage(step, stage, sum(batch.seconds.get(stage, 0.0) for batch in batches))


def _commands(benchmark: Benchmark, place: _Place) -> None:
    """Sync by the command, in a process that begins with nothing loaded; one for each entity, at once."""
    program = "from syncflow_dagster.cli import main; main()"
    arguments = [sys.executable, "-c", program, "sync", "--full", "--json"]
    before, began = cpu_of(place.sandbox.pids), time.perf_counter()
    children = [
        subprocess.Popen([*arguments, name], stdout=subprocess.PIPE)  # noqa: S603  # our own command
        for name in place.names
    ]
    cpu, peak = 0.0, 0.0
    for child in children:
        assert child.stdout is not None  # noqa: S101  # piped above
        with child.stdout as output:
            line = json.loads(output.read())
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        _refuse_unfinished(line["entity"], line["status"], None)
        cpu += used.ru_utime + used.ru_stime
        peak = max(peak, used.ru_maxrss / 1024)
    seconds = time.perf_counter() - began
    servers = cpu_of(place.sandbox.pids) - before
    benchmark.add(COMMAND, Measured(seconds, cpu, peak, servers))


def _refuse_unfinished(entity: str, status: str, error: str | None) -> None:
    if status != "completed":
        raise SyncFlowError(f"{entity} ended {status}: {error or 'see its batch'}", entity=entity)


def _day(place: _Place) -> None:
    """A day passes: some rows change, a tenth as many come, and go."""
    share = place.choice.changed
    with tables.connect(place.database.url) as connection:
        pass_day(connection, changed=share, inserted=share / 10, deleted=share / 10, tables=(WIDE,))


def _empty(place: _Place) -> None:
    """The hub and the bridge know no record."""
    with place.database.begin() as connection:
        connection.execute(
            sa.text(
                "TRUNCATE bridge.synced_records, bridge.push_journal, bridge.record_events, "
                "bridge.scan_proofs, bridge.erp_sync_state, bridge.sweep_slices, hub.records, hub.effects"
            )
        )
