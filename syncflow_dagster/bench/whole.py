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
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from syncflow_core.apismith import Source
from syncflow_core.bridge.batches import Batch
from syncflow_core.errors import SyncFlowError
from syncflow_core.scan import scan
from syncflow_core.settings import read_settings
from syncflow_core.stages.work import STAGES
from syncflow_dagster.bench.measure import Benchmark, Measured, peak_since
from syncflow_dagster.bench.place import Place, bench_place
from syncflow_dagster.bench.rows import WIDE
from syncflow_dagster.choices import Mode
from syncflow_dagster.launch import run_sync
from syncflow_dagster.logs import quiet_dagster
from syncflow_dagster.session import session
from syncflow_dagster.terminal import console

FLOOR: Final = "floor: fetch and parse"
FIRST: Final = "first load"
NOTHING: Final = "nothing changed"
ONE_BY_ONE: Final = "commands, one by one"
COMMAND: Final = "command, cold"
"""Of several entities: as many commands at once."""
MOST_COMMANDS: Final = 8
"""At once: each is a process with memory of its own."""
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
    with bench_place(choice.rows, choice.entities) as place:
        if not choice.by_slice:  # the first slices warm the others
            warm = Benchmark("warm", choice.rows)
            warm.begin()
            _floor(warm, place)
            measure_sync(warm, place, FIRST, "full")
        for number in range(choice.times):
            console().print(f"repetition {number + 1} of {choice.times}", markup=False)
            benchmark.begin()
            _floor(benchmark, place)
            place.empty()
            measure_sync(benchmark, place, FIRST, "full", by_slice=choice.by_slice)
            place.pass_day(choice.changed)
            measure_sync(benchmark, place, changes, "full", by_slice=choice.by_slice)
            measure_sync(benchmark, place, NOTHING, "full", by_slice=choice.by_slice)
            place.pass_day(choice.changed)
            if choice.by_slice:
                for slice_ in range(1, read_settings().slices + 1):
                    _commands(benchmark, place, COMMAND, place.names, slice_=slice_)
                continue
            measure_sync(benchmark, place, INCREMENTAL, "incremental")
            if choice.entities <= MOST_COMMANDS:
                place.pass_day(choice.changed)
                if choice.entities > 1:
                    for name in place.names:
                        _commands(benchmark, place, ONE_BY_ONE, [name])
                    place.pass_day(choice.changed)
                _commands(benchmark, place, COMMAND, place.names)
    benchmark.report(FLOOR, (), choice.save, choice.compare)


def _floor(benchmark: Benchmark, place: Place) -> None:
    """Ask for the pages of every entity, parse them, and keep nothing."""
    with Source.open(read_settings()) as source, benchmark.step(FLOOR, beside=place.beside):
        for _ in place.names:
            pages = scan(source, source.describe(WIDE))
            rows = sum(page.rows for page in pages)
            if rows != pages.proof.counted or not pages.proof.complete:
                raise SyncFlowError(f"the floor read {rows:,} rows: {pages.proof.note}")


def measure_sync(
    benchmark: Benchmark, place: Place, step: str, mode: Mode, *, by_slice: bool = False
) -> None:
    """Measure syncing all entities in this process, in one run, or in one for each slice."""
    with session() as opened:
        slices = range(1, opened.settings.slices + 1) if by_slice else [None]
        for slice_ in slices:
            with benchmark.step(step, beside=place.beside):
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


def _commands(
    benchmark: Benchmark,
    place: Place,
    step: str,
    names: Sequence[str],
    *,
    slice_: int | None = None,
) -> None:
    """Sync by the command, in processes that begin with nothing loaded: one for each entity, at once."""
    program = "from syncflow_dagster.cli import main; main()"
    reads = ["--full"] if slice_ is None else ["--slice", str(slice_)]
    arguments = [sys.executable, "-c", program, "sync", *reads, "--json"]
    before, began = place.beside(), time.perf_counter()
    children = [
        subprocess.Popen([*arguments, name], stdout=subprocess.PIPE)  # noqa: S603  # our own command
        for name in names
    ]
    cpu, peak = 0.0, 0.0
    for child in children:
        assert child.stdout is not None  # noqa: S101  # piped above
        with child.stdout as output:
            line = json.loads(
                output.readline()
            )  # its last: what it holds then is what it held at most
            peak = max(peak, peak_since(child.pid))
            output.read()
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        _refuse_unfinished(line["entity"], line["status"], None)
        cpu += used.ru_utime + used.ru_stime
    seconds = time.perf_counter() - began
    benchmark.add(step, Measured(seconds, cpu, peak, place.beside() - before))


def _refuse_unfinished(entity: str, status: str, error: str | None) -> None:
    if status != "completed":
        raise SyncFlowError(f"{entity} ended {status}: {error or 'see its batch'}", entity=entity)
