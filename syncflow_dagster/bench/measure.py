"""Timing and reporting, the same for every benchmark.

Belongs here: one measured step, the table, the JSON file.
Does not belong here: what is measured (its own module).
"""

import ctypes
import gc
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import msgspec
from rich.table import Table

from syncflow_core.errors import ConfigError
from syncflow_dagster.terminal import console


@dataclass(frozen=True)
class Beside:
    """CPU seconds that others spent on the same work."""

    sandbox: float = 0.0
    """Its two servers."""
    database: float = 0.0
    """PostgreSQL: all of its processes, for SyncFlow and for the sandbox."""

    def __add__(self, other: "Beside") -> "Beside":
        return Beside(self.sandbox + other.sandbox, self.database + other.database)

    def __sub__(self, other: "Beside") -> "Beside":
        return Beside(self.sandbox - other.sandbox, self.database - other.database)


def nobody() -> Beside:
    """Nobody else works on it."""
    return Beside()


@dataclass
class Step:
    """One stage, measured ``n`` times."""

    name: str
    rows: int
    """That it works on in each repetition."""
    seconds: list[float] = field(default_factory=list)
    """Wall seconds of each repetition; what it does in several pieces is added up."""
    cpu_seconds: list[float] = field(default_factory=list)
    """CPU seconds of the process that does it."""
    beside: list[Beside] = field(default_factory=list)
    """What the others spent meanwhile."""
    megabytes: float = 0.0
    """The most memory that the process held at once during any repetition; 0 where the system cannot tell."""

    stages: dict[str, list[float]] = field(default_factory=dict)
    """Wall seconds of its stages in each repetition, where it has any."""

    @property
    def median(self) -> float:
        """Wall seconds, the median."""
        return statistics.median(self.seconds)


@dataclass(frozen=True)
class Measured:
    """What one piece of a step took."""

    seconds: float
    cpu_seconds: float = 0.0
    megabytes: float = 0.0
    beside: Beside = Beside()


class Benchmark:
    """The steps of one benchmark, in the order first measured.

    Args:
        name: Of the benchmark.
        rows: That each step works on, where it does not say otherwise.
        parameters: What else was chosen, for the report.
    """

    def __init__(
        self, name: str, rows: int, parameters: Mapping[str, object] | None = None
    ) -> None:
        self.name, self.rows = name, rows
        self.parameters = dict(parameters or {})
        self.megabytes = 0.0
        """Of the pages, as they come over the wire."""
        self.steps: dict[str, Step] = {}
        self._repetition = 0

    def begin(self) -> None:
        """Begin a repetition: what a step takes from here on is added up until the next one begins."""
        self._repetition += 1

    @contextmanager
    def step(
        self, name: str, rows: int | None = None, beside: Callable[[], Beside] = nobody
    ) -> Iterator[None]:
        """Measure the block as a piece of this repetition's step, which works on *rows*.

        Args:
            name: Of the step.
            rows: None: as many as the benchmark.
            beside: Tells what the others have spent so far.
        """
        forget_peak()
        before = beside()
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        taken = time.perf_counter() - wall
        self.add(
            name,
            Measured(taken, time.process_time() - cpu, peak_since(), beside() - before),
            rows,
        )

    def add(self, name: str, taken: Measured, rows: int | None = None) -> None:
        """Add a piece that was measured elsewhere to this repetition's step."""
        step = self.steps.setdefault(name, Step(name, self.rows if rows is None else rows))
        step.megabytes = max(step.megabytes, taken.megabytes)
        if len(step.seconds) < max(self._repetition, 1):
            step.seconds.append(0.0)
            step.cpu_seconds.append(0.0)
            step.beside.append(Beside())
        step.seconds[-1] += taken.seconds
        step.cpu_seconds[-1] += taken.cpu_seconds
        step.beside[-1] += taken.beside

    def add_stage(self, step: str, stage: str, seconds: float) -> None:
        """Add what a stage took to this repetition's step, which was measured before."""
        taken = self.steps[step].stages.setdefault(stage, [])
        if len(taken) < len(self.steps[step].seconds):
            taken.append(0.0)
        taken[-1] += seconds

    @property
    def peak(self) -> float:
        """The most memory, in MB of 1,024 x 1,024 bytes, that a process held at once in any step."""
        return max(step.megabytes for step in self.steps.values())

    def report(
        self,
        floor: str,
        together: Sequence[str],
        save: Path | None,
        compare: Path | None = None,
    ) -> None:
        """Print the table, with each step's ratio to the step ``floor``, and save the numbers as JSON.

        Args:
            floor: The step that the others are measured by.
            together: Steps whose sum has a line too.
            save: The JSON file.
            compare: The JSON file of another time: each step's ratio to what it took then is printed.

        Raises:
            ConfigError: ``compare`` cannot be read, or is another benchmark's.
        """
        before = _medians(compare, self.name) if compare else {}
        chosen = "".join(f", {name} {value}" for name, value in self.parameters.items())
        pages = f", {self.megabytes:,.0f} MB of pages" if self.megabytes else ""
        table = Table(
            title=f"{self.name}: {self.rows:,} rows{pages}{chosen}",
            box=None,
        )
        table.add_column("step")
        for heading in (
            "rows",
            "seconds",
            "spread",
            "CPU s",
            "sandbox's",
            "database's",
            "rows/s",
            "MB/s",
            "peak MB",
            f"ratio to {floor}",
            *([f"ratio to {compare.name}"] if compare else []),
        ):
            table.add_column(heading, justify="right")
        base = self.steps[floor].median
        for step in self.steps.values():
            self._row(table, step.name, step.median, base, step, before.get(step.name))
        if together:
            sum_of = sum(self.steps[n].median for n in together)
            self._row(table, " + ".join(together), sum_of, base, None)
        screen = console()
        screen.print(table)
        if stages := self._stages():
            screen.print(stages)
        screen.print(
            f"peak memory of the process in any step, data and all, {self.peak:,.0f} MB; {machine()}",
            markup=False,
        )
        if save is not None:
            self.save(save)

    def save(self, file: Path) -> None:
        """Write the numbers to a JSON file, and say where."""
        file.write_bytes(msgspec.json.format(msgspec.json.encode(self._content()), indent=2))
        console().print(f"saved in {file}", markup=False)

    def _row(  # the columns of one line
        self,
        table: Table,
        name: str,
        seconds: float,
        base: float,
        step: Step | None,
        before: float | None = None,
    ) -> None:
        rows = self.rows if step is None else step.rows
        cells = [name, f"{rows:,}", f"{seconds:.2f}"]
        if step is None:
            cells += [""] * 4
        else:
            cells += [
                f"{min(step.seconds):.2f}-{max(step.seconds):.2f}",
                _told(statistics.median(step.cpu_seconds), ".2f"),
                _told(statistics.median(item.sandbox for item in step.beside), ".2f"),
                _told(statistics.median(item.database for item in step.beside), ".2f"),
            ]
        cells += [
            f"{rows / seconds:,.0f}" if seconds else "",
            f"{self.megabytes / seconds:,.0f}" if self.megabytes and seconds else "",
            "" if step is None else _told(step.megabytes, ",.0f"),
            f"{seconds / base:.2f}",
            *([f"{seconds / before:.2f}"] if before else []),
        ]
        table.add_row(*cells)

    def _stages(self) -> Table | None:
        """A line for each step that has stages: the median of each, and what is left of the whole."""
        steps = [step for step in self.steps.values() if step.stages]
        if not steps:
            return None
        table = Table(title="seconds by stage, medians", box=None)
        table.add_column("step")
        names = list(steps[0].stages)
        for name in (*names, "the rest", "whole"):
            table.add_column(name, justify="right")
        for step in steps:
            taken = [statistics.median(step.stages[name]) for name in names]
            cells = [*taken, step.median - sum(taken), step.median]
            table.add_row(step.name, *(f"{value:.2f}" for value in cells))
        return table

    def _content(self) -> dict[str, object]:
        return {
            "benchmark": self.name,
            "rows": self.rows,
            "parameters": self.parameters,
            "megabytes": round(self.megabytes, 1),
            "machine": machine(),
            "versions": {
                name: version(name)
                for name in ("polars", "polars-hash", "msgspec", "dagster", "psycopg", "syncflow")
            },
            "peak_megabytes": round(self.peak),
            "steps": [
                {
                    "step": step.name,
                    "rows": step.rows,
                    "seconds": [round(value, 4) for value in step.seconds],
                    "cpu_seconds": [round(value, 4) for value in step.cpu_seconds],
                    "sandbox_cpu_seconds": [round(item.sandbox, 2) for item in step.beside],
                    "database_cpu_seconds": [round(item.database, 2) for item in step.beside],
                    "peak_megabytes": round(step.megabytes),
                    "stages": {
                        name: [round(value, 4) for value in values]
                        for name, values in step.stages.items()
                    },
                }
                for step in self.steps.values()
            ],
        }


def _told(value: float, form: str) -> str:
    """A number that was measured; nothing for 0."""
    return format(value, form) if value else ""


def _medians(file: Path, name: str) -> dict[str, float]:
    """Wall seconds of each step of another time, the median.

    Raises:
        ConfigError: The file cannot be read, or is another benchmark's.
    """
    try:
        content = msgspec.json.decode(file.read_bytes())
        if content["benchmark"] != name:
            raise ConfigError(f"{file}: is of the benchmark {content['benchmark']}, not {name}")
        return {step["step"]: statistics.median(step["seconds"]) for step in content["steps"]}
    except (OSError, msgspec.DecodeError, LookupError, TypeError) as error:
        raise ConfigError(f"{file}: is no file that a benchmark saved: {error}") from error


def cpu_of(pids: Sequence[int]) -> float:
    """CPU seconds that these processes have used so far; 0 where nobody can tell."""
    return sum(_cpu(pid)[0] for pid in pids)


def cpu_of_family(parent: int) -> float:
    """CPU seconds of a process and of all its children, those that have ended too; 0 where nobody can tell."""
    living = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    children = [pid for pid in living if parent_of(pid) == parent]
    own, ended = _cpu(parent)
    return own + ended + cpu_of(children)


def parent_of(pid: int) -> int:
    """The process that started this one; 0 where nobody can tell."""
    fields = _stat(pid)
    return int(fields[1]) if fields else 0


def _cpu(pid: int) -> tuple[float, float]:
    """CPU seconds of a process, and of its children that have ended."""
    fields = _stat(pid) or ["0"] * 15
    own, ended = (sum(map(int, fields[at : at + 2])) for at in (11, 13))
    tick = os.sysconf("SC_CLK_TCK")
    return own / tick, ended / tick


def _stat(pid: int) -> list[str]:
    """What the kernel says of a process, behind its name, which may hold anything (proc_pid_stat(5))."""
    with suppress(OSError):  # no Linux, or it has ended
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
        return text.rpartition(")")[2].split()
    return []


def forget_peak() -> None:
    """Let the peak of memory be measured from here on, without what earlier steps have freed."""
    gc.collect()
    with suppress(OSError, AttributeError):  # another C library keeps what it likes
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    with suppress(OSError):  # no Linux: then it is not measured
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_since(pid: int | None = None) -> float:
    """The most memory that the process held since ``forget_peak``, in MB; 0 where nobody can tell.

    Args:
        pid: Of another process that still runs: the most since it began.
    """
    try:
        status = Path(f"/proc/{pid or 'self'}/status").read_text(encoding="ascii")
    except OSError:
        return 0.0
    found = next((line for line in status.splitlines() if line.startswith("VmHWM:")), "VmHWM: 0 kB")
    return int(found.split()[1]) / 1024


def machine() -> str:
    """What this runs on, and how busy it is."""
    load = os.getloadavg()[0]
    return (
        f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, "
        f"load {load:.1f} when it ended"
    )
