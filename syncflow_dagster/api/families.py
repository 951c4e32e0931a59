"""Every metric: its name, its type, its labels, what it says; and how the bridge's numbers become one.

Belongs here: the one list of metrics, of which ``docs/reference/metrics.md`` is made.
Does not belong here: the numbers (``syncflow_core.bridge.totals``, ``gauges``), the call (``metrics``).

Labels are entities, systems and words of a short list: never keys, runs or messages. What has not
happened yet is told as 0 for every enabled entity: else its first time would be no increase.

Source: product.md 9 and 14; Prometheus, "Metric and label naming".
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import Final, Literal, NamedTuple

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric

from syncflow_core.bridge.batches import OUTCOMES, SYNCS
from syncflow_core.bridge.gauges import Gauge
from syncflow_core.bridge.tables.words import ENDED_WELL
from syncflow_core.bridge.totals import STAGE_BOUNDS, Name, Total
from syncflow_core.calls import BOUNDS
from syncflow_core.histogram import Bounds, Histogram

Labels = tuple[str, ...]
ENDED: Final = (*ENDED_WELL, "failed", "stopped")
DELETES: Final = {"deleted": "deleted", "withheld_deletes": "withheld"}
"""Counts of deletes, and the outcome that each is."""


class Family(NamedTuple):
    """One metric. A counter's name ends in ``_total`` besides."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: Labels
    words: str


_BATCHES: Final = Family(
    "syncflow_batches",
    "counter",
    ("entity", "kind", "status"),
    "Batches that have ended, by kind and status.",
)
_FETCHED: Final = Family(
    "syncflow_rows_fetched", "counter", ("entity",), "Rows that batches have fetched."
)
_ROWS: Final = Family(
    "syncflow_rows",
    "counter",
    ("entity", "outcome"),
    "Fetched rows by what became of them; each has exactly one outcome.",
)
_RETRIED: Final = Family(
    "syncflow_rows_retried",
    "counter",
    ("entity",),
    "Rows of earlier batches that were delivered later.",
)
_DELETED: Final = Family(
    "syncflow_deletes",
    "counter",
    ("entity", "outcome"),
    "Deletes that the hub has acknowledged (deleted), or that the brake held back (withheld).",
)
_UNACCOUNTED: Final = Family(
    "syncflow_unaccounted_rows",
    "gauge",
    ("entity",),
    "Fetched rows without an outcome, over all batches that ever ended; anything but 0 is a fault of SyncFlow's.",
)
_STAGES: Final = Family(
    "syncflow_stage_duration_seconds",
    "histogram",
    ("entity", "stage"),
    "How long each stage of a batch took.",
)
_DURATION: Final = Family(
    "syncflow_batch_duration_seconds",
    "histogram",
    ("entity", "kind"),
    "How long the stages of a batch took together.",
)
_CALLS: Final = Family(
    "syncflow_http_call_duration_seconds",
    "histogram",
    ("system", "method", "status"),
    "HTTP calls of batches that have ended, from sending to the end of the answer; status none: no answer.",
)
_WAITS: Final = Family(
    "syncflow_limiter_wait_seconds",
    "histogram",
    ("system",),
    "How long each of these calls waited for its turn: for a slot of the limiter, and as Retry-After asked.",
)
_BUILD: Final = Family(
    "syncflow_build_info", "gauge", ("version",), "Always 1; the label says the version."
)
_ENTITY: Final = ("entity",)
_GAUGES: Final = {
    "entities": ((), "Entities that are enabled."),
    "sync_interval_seconds": (
        _ENTITY,
        "How often the clock syncs the entity; no number where only people do.",
    ),
    "last_batch_age_seconds": (
        _ENTITY,
        "Since the last batch that read the entity's source and ended well; without one, since it was declared.",
    ),
    "last_scan_age_seconds": (
        _ENTITY,
        "Since the last whole scan that was proven complete; no number before the first.",
    ),
    "watermark_age_seconds": (
        _ENTITY,
        "Since the newest acknowledged change of the source; no number where rowversions are no timestamps.",
    ),
    "batches_live": (("entity", "status"), "Batches that run, or wait for their run."),
    "failed_records": (_ENTITY, "Dead letters that are open."),
    "failed_records_oldest_age_seconds": (
        _ENTITY,
        "Since the oldest open dead letter was filed; 0 without one.",
    ),
    "pending_children": (
        ("entity", "state"),
        "Records that wait for a parent; dead: told to a person after five attempts.",
    ),
    "pending_children_oldest_age_seconds": (
        ("entity", "state"),
        "Since the oldest of them began to wait; 0 without one.",
    ),
    "pending_deletes": (_ENTITY, "Deletes that wait until the record's children are gone."),
    "in_doubt_calls": (
        _ENTITY,
        "Write calls without an outcome: under way, or left by a process that died.",
    ),
    "in_doubt_records": (_ENTITY, "Records of these calls."),
    "in_doubt_oldest_age_seconds": (
        _ENTITY,
        "Since the oldest of these calls began; 0 without one.",
    ),
    "withheld_plans": (_ENTITY, "Plans of what the brake held back that wait for a person."),
    "withheld_plans_oldest_age_seconds": (
        _ENTITY,
        "Since the oldest of them was made; 0 without one.",
    ),
    "breaker_open": (
        ("system",),
        "1 where the system stopped answering while a run asked it, be it long ago, else 0.",
    ),
    "limiter_slots": (
        ("system",),
        "Requests at once that the system gets from all runs; fewer while it says that it has too much to do.",
    ),
    "sweep_nights": (
        _ENTITY,
        "Nights that a sweep takes; like what follows only where the night window is enabled.",
    ),
    "sweep_slices": (_ENTITY, "Slices of a sweep."),
    "sweep_slices_done": (_ENTITY, "Slices that the sweep under way has read to their end."),
    "sweep_offset_rows": (_ENTITY, "Rows that the sweep under way has read."),
    "sweep_number": (_ENTITY, "Sweeps that have ended."),
    "sweep_slice_age_seconds": (
        _ENTITY,
        "Since the evening of the last slice; before the first, since the entity was declared.",
    ),
}
FAMILIES: Final[Sequence[Family]] = (
    *(_BATCHES, _FETCHED, _ROWS, _RETRIED, _DELETED, _UNACCOUNTED),
    *(_STAGES, _DURATION, _CALLS, _WAITS, _BUILD),
    *(
        Family(f"syncflow_{name}", "gauge", labels, words)
        for name, (labels, words) in _GAUGES.items()
    ),
)
"""All of them, in the order in which they are told."""


def metrics_of(
    totals: Iterable[Total], gauges: Mapping[str, Gauge], version: str
) -> Iterator[Metric]:
    """The metrics that these numbers make."""
    found: defaultdict[Name, list[Total]] = defaultdict(list)
    for total in totals:
        found[total.name].append(total)
    enabled = [labels[0] for labels in gauges["failed_records"]]
    yield _counter(
        _BATCHES,
        product(enabled, SYNCS, ENDED),
        {(t.entity, *t.labels): t.numbers[0] for t in found["batches"]},
    )
    yield from _rows(found["rows"], enabled)
    unaccounted: dict[Labels, float] = {(name,): 0.0 for name in enabled}
    unaccounted |= {(t.entity,): t.numbers[0] for t in found["unaccounted"]}
    yield _gauge(_UNACCOUNTED, unaccounted)
    yield _histogram(_STAGES, STAGE_BOUNDS, _by_entity(found["stage_seconds"]))
    yield _histogram(_DURATION, STAGE_BOUNDS, _by_entity(found["batch_seconds"]))
    yield _histogram(_CALLS, BOUNDS, _over_entities(found["calls"]))
    yield _histogram(_WAITS, BOUNDS, _over_entities(found["waits"]))
    yield _gauge(_BUILD, {(version,): 1.0})
    for name, (labels, words) in _GAUGES.items():
        yield _gauge(Family(f"syncflow_{name}", "gauge", labels, words), gauges[name])


def _rows(totals: Iterable[Total], enabled: Sequence[str]) -> Iterator[Metric]:
    """Rows and deletes by outcome."""
    counts = {(t.entity, t.labels[0]): t.numbers[0] for t in totals}
    names = [(name,) for name in enabled]

    def of(count: str) -> dict[Labels, float]:
        return {(entity,): n for (entity, kind), n in counts.items() if kind == count}

    yield _counter(_FETCHED, names, of("fetched"))
    yield _counter(
        _ROWS,
        product(enabled, OUTCOMES),
        {labels: n for labels, n in counts.items() if labels[1] in OUTCOMES},
    )
    yield _counter(_RETRIED, names, of("retried"))
    yield _counter(
        _DELETED,
        product(enabled, DELETES.values()),
        {(entity, DELETES[k]): n for (entity, k), n in counts.items() if k in DELETES},
    )


def _by_entity(totals: Iterable[Total]) -> dict[Labels, Sequence[float]]:
    return {(total.entity, *total.labels): total.numbers for total in totals}


def _over_entities(totals: Iterable[Total]) -> dict[Labels, Sequence[float]]:
    """One system serves all entities: their numbers together."""
    sums: dict[Labels, Sequence[float]] = {}
    for total in totals:
        before = sums.get(total.labels) or [0.0] * len(total.numbers)
        sums[total.labels] = [a + b for a, b in zip(before, total.numbers, strict=True)]
    return sums


def _counter(
    family: Family, zeros: Iterable[Labels], numbers: Mapping[Labels, float]
) -> CounterMetricFamily:
    metric = CounterMetricFamily(family.name, family.words, labels=family.labels)
    for labels, number in sorted({**dict.fromkeys(zeros, 0.0), **numbers}.items()):
        metric.add_metric(labels, number)
    return metric


def _gauge(family: Family, numbers: Gauge) -> GaugeMetricFamily:
    metric = GaugeMetricFamily(family.name, family.words, labels=family.labels)
    for labels, number in sorted(numbers.items()):
        metric.add_metric(labels, number)
    return metric


def _histogram(
    family: Family, bounds: Bounds, numbers: Mapping[Labels, Sequence[float]]
) -> HistogramMetricFamily:
    metric = HistogramMetricFamily(family.name, family.words, labels=family.labels)
    for labels, kept in sorted(numbers.items()):
        found = Histogram.of_numbers(bounds, kept)
        metric.add_metric(labels, list(found.below()), found.total)
    return metric
