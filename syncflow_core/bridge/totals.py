"""``metric_totals``: the accounts of all batches that ever ended, added up; they only grow.

Each batch is added once, after it has ended, by whoever comes first: the call that shows the metrics,
or the job that forgets old batches, which adds them before they go. So no sync waits for a line that
all share, and what shows the totals reads a few lines for each entity, however many batches there were.

Belongs here: adding batches up, reading the totals.
Does not belong here: what a batch's accounts are (``batches``), names and texts of metrics
(``syncflow_dagster.api.families``).

Source: product.md 14 (metrics); Prometheus: counters never go down.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import sqlalchemy as sa

from syncflow_core.bridge.batches import SYNCS, Counts
from syncflow_core.bridge.tables import COUNTS
from syncflow_core.calls import Calls
from syncflow_core.histogram import Bounds, Histogram

Name = Literal["batches", "rows", "unaccounted", "stage_seconds", "batch_seconds", "calls", "waits"]
"""``batches`` by kind and status; ``rows`` by count; ``stage_seconds`` by stage; ``batch_seconds`` by
kind; ``calls`` by system, method and status; ``waits`` by system. ``unaccounted``: rows, never negative."""

STAGE_BOUNDS: Final[Bounds] = (
    *(0.01, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0),
    *(60.0, 300.0, 900.0, 3600.0, 14400.0),
)
"""Seconds: a stage of ten rows, and a night. A change needs ``metric_totals`` emptied."""

AT_ONCE: Final = 500
"""Batches that are added in one go: a tenth of a second."""

# the batches' own order of locks does not matter: whoever else adds up passes over those held here
_TAKE = sa.text(
    f"""
    UPDATE bridge.sync_batches AS b SET totalled = true
    FROM (SELECT uid FROM bridge.sync_batches WHERE NOT totalled AND finished_at IS NOT NULL
          ORDER BY finished_at LIMIT :most FOR UPDATE SKIP LOCKED) AS ended
    WHERE b.uid = ended.uid
    RETURNING b.entity, b.kind, b.status, b.seconds, b.calls, {", ".join(f"b.{n}" for n in COUNTS)}
    """  # noqa: S608  # constants
)
_ADD = sa.text(
    """
    INSERT INTO bridge.metric_totals AS t (entity, name, labels, numbers)
    VALUES (:entity, :name, :labels, :numbers)
    ON CONFLICT (entity, name, labels) DO UPDATE SET numbers =
        (SELECT array_agg(before + more ORDER BY place)
         FROM unnest(t.numbers, excluded.numbers) WITH ORDINALITY AS n (before, more, place))
    """
)
_LOAD = sa.text("SELECT entity, name, labels, numbers FROM bridge.metric_totals")

Key = tuple[str, Name, tuple[str, ...]]


@dataclass(frozen=True)
class Total:
    """One line: a count, or a histogram's numbers."""

    entity: str
    name: Name
    labels: tuple[str, ...]
    numbers: Sequence[float]


def add_up(connection: sa.Connection, most: int = AT_ONCE) -> int:
    """Add batches that have ended since to the totals, at most so many; how many there were."""
    rows = connection.execute(_TAKE, {"most": most}).mappings().all()
    sums: defaultdict[Key, list[float]] = defaultdict(list)
    for row in rows:
        for key, numbers in _accounts(row):
            before = sums[key] or [0.0] * len(numbers)
            sums[key] = [a + b for a, b in zip(before, numbers, strict=True)]
    if sums:
        # in one order, so that two that add up at once wait for each other, never both
        lines = [
            {"entity": entity, "name": name, "labels": list(labels), "numbers": sums[key]}
            for key in sorted(sums)
            for entity, name, labels in [key]
        ]
        connection.execute(_ADD, lines)
    return len(rows)


def load_totals(connection: sa.Connection) -> list[Total]:
    """All totals, as they were at one moment."""
    rows = connection.execute(_LOAD)
    return [Total(row.entity, row.name, tuple(row.labels), row.numbers) for row in rows]


def _accounts(row: sa.RowMapping) -> Iterator[tuple[Key, list[float]]]:
    """What one batch adds."""
    entity, kind = row["entity"], row["kind"]
    yield (entity, "batches", (kind, row["status"])), [1.0]
    if kind in SYNCS:  # what a plan would do was not done
        counts = Counts(**{name: row[name] for name in COUNTS})
        for name in COUNTS:
            if row[name]:
                yield (entity, "rows", (name,)), [float(row[name])]
        if counts.unaccounted:
            yield (entity, "unaccounted", ()), [float(abs(counts.unaccounted))]
    for stage, seconds in (row["seconds"] or {}).items():
        found = Histogram(STAGE_BOUNDS)
        found.observe(seconds)
        if stage == "total":
            yield (entity, "batch_seconds", (kind,)), found.numbers()
        else:
            yield (entity, "stage_seconds", (stage,)), found.numbers()
    calls = Calls.of_json(row["calls"])
    for asked, found in calls.answered.items():
        yield (entity, "calls", tuple(asked)), found.numbers()
    for system, found in calls.waited.items():
        yield (entity, "waits", (system,)), found.numbers()
