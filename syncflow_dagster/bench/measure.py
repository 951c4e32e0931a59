"""Timing and reporting, the same for every benchmark.

Belongs here: one measured step, the table, the JSON file.
Does not belong here: what is measured (its own module).
"""

import os
import platform
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import msgspec
from rich.table import Table

from syncflow_dagster.cli.show import console


@dataclass
class Step:
    """One stage, measured ``n`` times."""

    name: str
    rows: int
    """That it works on in each repetition."""
    seconds: list[float] = field(default_factory=list)
    """Wall seconds of each repetition; what it does in several pieces is added up."""
    cpu_seconds: list[float] = field(default_factory=list)
    megabytes: float = 0.0
    """The most memory that the process held at once during any repetition; 0 where the system cannot tell."""

    @property
    def median(self) -> float:
        """Wall seconds, the median."""
        return statistics.median(self.seconds)


@dataclass(frozen=True)
class Measured:
    """What one piece of a step took."""

    seconds: float
    cpu_seconds: float
    megabytes: float


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
    def step(self, name: str, rows: int | None = None) -> Iterator[None]:
        """Measure the block as a piece of this repetition's step, which works on *rows*."""
        forget_peak()
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.add(
            name,
            Measured(time.perf_counter() - wall, time.process_time() - cpu, peak_since()),
            rows,
        )

    def add(self, name: str, taken: Measured, rows: int | None = None) -> None:
        """Add a piece that was measured elsewhere to this repetition's step."""
        step = self.steps.setdefault(name, Step(name, self.rows if rows is None else rows))
        step.megabytes = max(step.megabytes, taken.megabytes)
        if len(step.seconds) < max(self._repetition, 1):
            step.seconds.append(0.0)
            step.cpu_seconds.append(0.0)
        step.seconds[-1] += taken.seconds
        step.cpu_seconds[-1] += taken.cpu_seconds

    @property
    def peak(self) -> float:
        """The most memory, in MB of 1,024 x 1,024 bytes, that a process held at once in any step."""
        return max(step.megabytes for step in self.steps.values())

    def report(self, floor: str, together: Sequence[str], save: Path | None) -> None:
        """Print the table, with each step's ratio to the step ``floor``, and save the numbers as JSON."""
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
            "rows/s",
            "MB/s",
            "peak MB",
            f"ratio to {floor}",
        ):
            table.add_column(heading, justify="right")
        base = self.steps[floor].median
        for step in self.steps.values():
            self._row(table, step.name, step.median, base, step)
        self._row(
            table, " + ".join(together), sum(self.steps[n].median for n in together), base, None
        )
        screen = console()
        screen.print(table)
        screen.print(
            f"peak memory of the process in any step, data and all, {self.peak:,.0f} MB; {machine()}",
            markup=False,
        )
        if save is not None:
            save.write_bytes(msgspec.json.format(msgspec.json.encode(self._content()), indent=2))
            screen.print(f"saved in {save}", markup=False)

    def _row(self, table: Table, name: str, seconds: float, base: float, step: Step | None) -> None:
        rows = self.rows if step is None else step.rows
        table.add_row(
            name,
            f"{rows:,}",
            f"{seconds:.2f}",
            "" if step is None else f"{min(step.seconds):.2f}-{max(step.seconds):.2f}",
            "" if step is None else f"{statistics.median(step.cpu_seconds):.2f}",
            f"{rows / seconds:,.0f}",
            f"{self.megabytes / seconds:,.0f}" if self.megabytes else "",
            "" if step is None else f"{step.megabytes:,.0f}",
            f"{seconds / base:.2f}",
        )

    def _content(self) -> dict[str, object]:
        return {
            "benchmark": self.name,
            "rows": self.rows,
            "parameters": self.parameters,
            "megabytes": round(self.megabytes, 1),
            "machine": machine(),
            "versions": {
                name: version(name) for name in ("polars", "polars-hash", "msgspec", "syncflow")
            },
            "peak_megabytes": round(self.peak),
            "steps": [
                {
                    "step": step.name,
                    "rows": step.rows,
                    "seconds": [round(value, 4) for value in step.seconds],
                    "cpu_seconds": [round(value, 4) for value in step.cpu_seconds],
                    "peak_megabytes": round(step.megabytes),
                }
                for step in self.steps.values()
            ],
        }


def forget_peak() -> None:
    """Let the peak of memory be measured from here on."""
    with suppress(OSError):  # no Linux: then it is not measured
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_since() -> float:
    """The most memory that the process held since ``forget_peak``, in MB; 0 where nobody can tell."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
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
