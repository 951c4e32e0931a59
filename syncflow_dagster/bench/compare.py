"""``syncflow bench compare``: the same rows by SyncFlow and by what a user would take instead.

Belongs here: the tools, what each does and does not do, what is run in which order, the table of ratios.
Does not belong here: the tools' programs (``others``), SyncFlow's own stages (``whole``).

All go to the same sandbox and the same PostgreSQL, in one run, one after the other on the same state of
the source. Each tool syncs in a process of its own that has imported everything before the clock starts;
SyncFlow's sync runs warm in this one. What a tool has written is held against SyncFlow's records each time.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import sqlalchemy as sa
from rich.table import Table

from syncflow_core.errors import ConfigError, SyncFlowError
from syncflow_dagster.bench.measure import Benchmark, Measured, Step, cpu_of, machine, peak_since
from syncflow_dagster.bench.others.child import Task
from syncflow_dagster.bench.place import Place, bench_place
from syncflow_dagster.bench.whole import measure_sync
from syncflow_dagster.logs import quiet_dagster
from syncflow_dagster.terminal import console

SYNCFLOW: Final = "SyncFlow"
FIRST: Final = "first load"
ROOT: Final = Path(__file__).parents[2]
"""Where the package lies: the programs are found there under any interpreter."""


@dataclass(frozen=True)
class Choice:
    """What the arguments say."""

    rows: int = 1_000_000
    times: int = 1
    changed: float = 0.01
    """Share of the rows that change before each later sync; a tenth of it comes, a tenth goes."""
    plain_rows: int | None = None
    drt_rows: int | None = None
    """Only so many of the rows for a tool that takes long; None is all."""
    python: Path | None = None
    """The interpreter that has dlt and drt-core; without one they are left out."""
    save: Path | None = None


@dataclass(frozen=True)
class Tool:
    """What is compared, and what its sync amounts to."""

    name: str
    program: str
    """Module of ``others``."""
    does: str
    does_not: str
    wrong: str
    """SQL: how much of what it wrote is not as SyncFlow's records say; 0 is right."""


_LIVE: Final = """(SELECT hub.records.* FROM hub.records JOIN hub.collections ON id = collection
    WHERE collections.name = '{}' AND NOT deleted)"""
_OURS: Final = _LIVE.format("bench_00")
_CHOSEN: Final = "(CAST(:rows AS bigint) IS NULL OR {} <= :rows)"

DOES: Final = (
    "every row read and checked page by page; five layers of rules; both hashes; delta against what the "
    "hub acknowledged; inserts, updates and deletes pushed in batches; a journal that is settled after a "
    "crash; a history of each record; dead letters; parents; the brake; retries, limits and outages; Dagster"
)
DLT: Final = Tool(
    "dlt",
    "with_dlt",
    does="reads the pages as Arrow tables by the columns' types; stages them as Parquet; merges them by ID "
    "into a table of PostgreSQL (cdc: with deletes; by rowversion: upsert); keeps cursor and load history",
    does_not="pushes to no hub: its time is that of a copy of the table; no rules for values beyond types (a "
    "value that its type does not take ends the load); no key or data hash as a hub wants them; no deletes "
    "by rowversion; no brake",
    wrong=f"""SELECT abs((SELECT count(*) + sum(rowversion::numeric) FROM dlt.bench)
        - (SELECT count(*) + sum(rowversion::numeric) FROM {_OURS} AS ours))""",  # noqa: S608  # constants
)
DRT: Final = Tool(
    "drt-core",
    "with_drt",
    does="reads the table that dlt made, by SQL; pushes inserts and updates to the hub in batches of 1,000, "
    "bodies by a template",
    does_not="reads no APISmith (its REST source only sends GET), so dlt's time comes first; no rules for "
    "values but SQL and templates, decimals as floats; no memory of what the hub holds (its snapshot diff "
    "needs a key that its REST destination has not): hashes, delta and the hub's uids are SQL that the user "
    "writes, here over the hub's own table, which nobody else has; no deletes; does not look into a 207: a "
    "row that the hub refused counts as delivered; no journal, no parents, no renewed token",
    wrong=f"""SELECT count(*) FROM dlt.bench LEFT JOIN {_LIVE.format("bench_drt")} AS pushed
        ON key_hash = decode(md5('id=' || id), 'hex') AND pushed.rowversion = bench.rowversion::text
        WHERE key_hash IS NULL AND {_CHOSEN.format("bench.id")}""",  # noqa: S608  # constants
)
PLAIN: Final = Tool(
    "plain Python",
    "plain",
    does="the same rules for these sixteen columns, the same hashes, known hashes in PostgreSQL, inserts, "
    "updates and deletes in batches of 1,000, a watermark; one record after the other, one call at a time",
    does_not="no journal: a call without an answer ends it, and the hub refuses its inserts (409) in every "
    "later sync; rejected rows are only counted, and while there is one nothing is deleted; no retries, no "
    "renewed token, no proof that a scan was complete but its count, no brake, no history, no parents, no "
    "other entity than this one",
    wrong=f"""SELECT count(*) FROM (SELECT * FROM {_OURS} AS all_ours
            WHERE {_CHOSEN.format("(doc::json ->> 'id')::bigint")}) AS ours
        FULL JOIN {_LIVE.format("bench_plain")} AS pushed USING (key_hash)
        WHERE ours.data_hash IS DISTINCT FROM pushed.data_hash
           OR ours.rowversion IS DISTINCT FROM pushed.rowversion""",  # noqa: S608  # constants
)


def run(choice: Choice) -> None:
    """Measure and report.

    Raises:
        ConfigError: The interpreter that was named has no dlt or no drt-core.
        SyncFlowError: A tool ended with an error, or wrote something else than SyncFlow.
    """
    quiet_dagster()
    versions = _versions(choice.python) if choice.python else {}
    tools = [DLT, DRT, PLAIN] if choice.python else [PLAIN]
    benchmark = Benchmark("compare", choice.rows, {"changed": choice.changed, **versions})
    by_rowversion = f"{choice.changed:.0%} changed, by rowversion"
    in_full = f"{choice.changed:.0%} changed, all read"
    with bench_place(choice.rows) as place:
        measure_sync(Benchmark("warm", choice.rows), place, FIRST, "full")
        for number in range(choice.times):
            console().print(f"repetition {number + 1} of {choice.times}", markup=False)
            benchmark.begin()
            _empty(place)
            _step(benchmark, place, choice, tools, FIRST)
            place.pass_day(choice.changed)
            _step(benchmark, place, choice, tools, by_rowversion, incremental=True)
            place.pass_day(choice.changed)
            _step(benchmark, place, choice, tools, in_full)
    _report(benchmark, [FIRST, by_rowversion, in_full], tools)
    if choice.save is not None:
        benchmark.save(choice.save)


def _versions(python: Path) -> dict[str, str]:
    """Versions of the tools under this interpreter."""
    program = "import importlib.metadata as m; print(m.version('dlt'), m.version('drt-core'))"
    try:
        said = subprocess.run(  # noqa: S603  # the interpreter that a person named
            [python, "-c", program], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise ConfigError(f"{python} has no dlt and drt-core (`make compare`): {error}") from error
    return dict(zip(("dlt", "drt-core"), said.stdout.split(), strict=True))


def _empty(place: Place) -> None:
    """Nobody knows a record."""
    place.empty()
    with place.database.begin() as connection:
        connection.execute(sa.text("DROP SCHEMA IF EXISTS dlt, dlt_staging, plain CASCADE"))
    for folder in ("dlt", "drt"):
        shutil.rmtree(Path(place.home, folder), ignore_errors=True)


def _step(
    benchmark: Benchmark,
    place: Place,
    choice: Choice,
    tools: Sequence[Tool],
    step: str,
    *,
    incremental: bool = False,
) -> None:
    """SyncFlow, then each tool, on the source as it is now."""
    measure_sync(benchmark, place, f"{SYNCFLOW}: {step}", "incremental" if incremental else "full")
    for tool in tools:
        rows = {DRT: choice.drt_rows, PLAIN: choice.plain_rows}.get(tool)
        task = Task(
            apismith_url=place.sandbox.apismith_url,
            schedulehub_url=place.sandbox.schedulehub_url,
            username=place.sandbox.username,
            password=place.sandbox.password,
            database_url=place.database.url,
            home=place.home,
            collection=f"bench_{'drt' if tool is DRT else tool.program}",
            rows=rows,
            incremental=incremental,
        )
        python = (
            sys.executable if tool is PLAIN else str(choice.python and choice.python.absolute())
        )
        with place.database.begin() as connection:  # plans by what the tables hold now
            connection.execute(sa.text("ANALYZE"))
        taken = _measured([python, "-m", f"{__package__}.others.{tool.program}"], place, task)
        benchmark.add(f"{tool.name}: {step}", taken, rows or choice.rows)
        with place.database.begin() as connection:
            wrong = connection.execute(sa.text(tool.wrong), {"rows": rows}).scalar_one()
        if wrong:
            raise SyncFlowError(f"{tool.name}, {step}: {wrong} records are not as SyncFlow's are")


def _measured(command: Sequence[str], place: Place, task: Task) -> Measured:
    """Do the task in a process of its own.

    Raises:
        SyncFlowError: It ended without an answer.
    """
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(  # noqa: S603  # our own program
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=place.home,
            env=_environment(place),
        ) as child,
    ):
        assert child.stdin is not None  # noqa: S101  # piped above
        assert child.stdout is not None  # noqa: S101  # it is a pipe
        _said(child.stdout, command, errors)
        before, cpu = place.beside(), cpu_of([child.pid])
        began = time.perf_counter()
        child.stdin.write(task.line().encode())
        child.stdin.flush()
        _said(child.stdout, command, errors)
        return Measured(
            time.perf_counter() - began,
            cpu_of([child.pid]) - cpu,
            peak_since(child.pid),
            place.beside() - before,
        )


def _said(output: IO[bytes], command: Sequence[str], errors: IO[bytes]) -> None:
    """Wait for the process's next line."""
    if not output.readline():
        errors.seek(0)
        end = errors.read().decode(errors="replace")[-2_000:]
        raise SyncFlowError(f"{' '.join(command)} ended without an answer: {end}")


def _environment(place: Place) -> Mapping[str, str]:
    """Nothing of SyncFlow's settings, nothing told to anybody, no file outside the place's home."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SYNCFLOW_")}
    return {
        **kept,
        "HOME": place.home,
        "PYTHONPATH": str(ROOT),
        "NO_PROXY": "127.0.0.1",
        "DO_NOT_TRACK": "1",  # drt's telemetry
        "RUNTIME__DLTHUB_TELEMETRY": "false",
    }


def _report(benchmark: Benchmark, steps: Sequence[str], tools: Sequence[Tool]) -> None:
    """Print a line for each step and tool, with its time for a row as a ratio to SyncFlow's."""
    chosen = "".join(f", {name} {value}" for name, value in benchmark.parameters.items())
    table = Table(title=f"compare: {benchmark.rows:,} rows{chosen}", box=None)
    table.add_column("step")
    table.add_column("tool")
    for heading in (
        "rows",
        "seconds",
        "spread",
        "rows/s",
        f"ratio to {SYNCFLOW}",
        "CPU s",
        "sandbox's",
        "database's",
        "peak MB",
    ):
        table.add_column(heading, justify="right")
    for step in steps:
        ours = benchmark.steps[f"{SYNCFLOW}: {step}"]
        for number, name in enumerate((SYNCFLOW, *(tool.name for tool in tools))):
            taken = benchmark.steps[f"{name}: {step}"]
            table.add_row(
                "" if number else step,
                name,
                f"{taken.rows:,}",
                f"{taken.median:.2f}",
                f"{min(taken.seconds):.2f}-{max(taken.seconds):.2f}",
                f"{taken.rows / taken.median:,.0f}",
                f"{_for_a_row(taken) / _for_a_row(ours):.2f}",
                f"{statistics.median(taken.cpu_seconds):.2f}",
                f"{statistics.median(item.sandbox for item in taken.beside):.2f}",
                f"{statistics.median(item.database for item in taken.beside):.2f}",
                f"{taken.megabytes:,.0f}",
            )
        if DRT in tools:
            both = sum(_for_a_row(benchmark.steps[f"{tool.name}: {step}"]) for tool in (DLT, DRT))
            ratio = f"{both / _for_a_row(ours):.2f}"
            table.add_row("", "dlt, then drt-core", "", "", "", f"{1 / both:,.0f}", ratio)
    told = Table(box=None)
    for heading in ("tool", "does", "does not"):
        told.add_column(heading)
    told.add_row(SYNCFLOW, DOES, "")
    for tool in tools:
        told.add_row("", "", "")
        told.add_row(tool.name, tool.does, tool.does_not)
    screen = console()
    screen.print(table)
    screen.print(told)
    screen.print(
        "The ratio is of the time for a row of the source: a tool on fewer rows pays its fixed costs on fewer. "
        "SyncFlow goes first: the hub that the others write to holds its records already.",
        markup=False,
    )
    if len(tools) == 1:
        screen.print("dlt and drt-core are left out: `make compare` installs them.", markup=False)
    screen.print(machine(), markup=False)


def _for_a_row(step: Step) -> float:
    """Seconds for a row of the source, the median."""
    return step.median / step.rows
