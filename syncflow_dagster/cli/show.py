"""What a person sees of a sync: bars while it runs, a table when it has ended.

Belongs here: drawing.
Does not belong here: deciding anything.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict

from rich.console import Console
from rich.measure import Measurement
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from syncflow_core.bridge.batches import Batch
from syncflow_core.printable import printable
from syncflow_dagster.progress import told
from syncflow_dagster.terminal import console

COLUMNS = (
    "fetched",
    "rejected",
    "inserted",
    "updated",
    "deleted",
    "unchanged",
    "pending",
    "failed",
    "withheld",
    "retried",
)


@contextmanager
def progress_bars(*, show: bool) -> Iterator[None]:
    """A bar for each entity on a terminal's standard error; a line for each stage done elsewhere."""
    screen = console(stderr=True)
    if not show:
        yield
        return
    if not screen.is_terminal:
        last: dict[str, str] = {}

        def line(entity: str, stage: str, done: int, total: int | None) -> None:
            if done == total and last.get(entity) != stage:
                last[entity] = stage
                screen.print(f"{entity}: {stage} {done}")

        with told(line):
            yield
        return
    with Progress(
        TextColumn("{task.fields[entity]:<14}"),
        TextColumn("{task.description:<10}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=screen,
        transient=True,
    ) as bars:
        tasks: dict[str, TaskID] = {}

        def draw(entity: str, stage: str, done: int, total: int | None) -> None:
            if entity not in tasks:
                tasks[entity] = bars.add_task(stage, entity=entity, total=total)
            bars.update(tasks[entity], description=stage, completed=done, total=total)

        with told(draw):
            yield


def batch_table(batches: Sequence[Batch], title: str | None = None) -> None:
    """A line for each batch: status, counts, seconds; what a person should know below it."""
    screen = console()
    used = [name for name in COLUMNS if any(asdict(batch.counts)[name] for batch in batches)]
    table = _batch_table(
        batches, title, [name for name in COLUMNS if name != "withheld" or name in used]
    )
    if _width(screen, table) > screen.width:
        table = _batch_table(batches, title, used)
    # a line that the terminal breaks can be read, a number that is cut cannot
    screen.width = max(screen.width, _width(screen, table))
    screen.print(table)
    for batch in batches:
        if batch.error:
            words = printable(f"{batch.entity}: {batch.error}")
            screen.print(words, style="red", markup=False)
        for note in (batch.proof or {}).get("notes", []):
            screen.print(printable(f"{batch.entity}: {note}"), style="dim", markup=False)


def _batch_table(batches: Sequence[Batch], title: str | None, counted: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for name in ("entity", "kind", "status"):
        table.add_column(name)
    for name in (*counted, "s"):
        table.add_column(name, justify="right")
    for batch in batches:
        if batch.kind == "retry" and not any(asdict(batch.counts).values()) and not batch.error:
            continue  # it looked for what it could release, and there was nothing
        counts = asdict(batch.counts)
        table.add_row(
            batch.entity,
            batch.kind,
            batch.status,
            *(f"{counts[name]:,}" if counts[name] else "." for name in counted),
            f"{batch.seconds.get('total', 0.0):.1f}",
        )
    return table


def _width(screen: Console, table: Table) -> int:
    """The columns of a terminal that the table needs."""
    return Measurement.get(screen, screen.options.update(max_width=10_000), table).maximum
