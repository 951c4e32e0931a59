"""Normalization: five layers from the source's text to each target field's canonical text.

1. ``coerce``  types: NULL words, booleans, binary, durations, nested JSON (``nested``)
2. ``text``    strings: white space, control characters, Unicode form, length
3. ``number``  numbers: any spelling, exact, range and precision
4. ``moment``  dates: any form (``formats``, ``calendar``), UTC once a zone is known (``zone``)
5. ``mapping`` target fields: transformations, value lists, defaults, required

Belongs here: the way in. ``lanes`` runs the layers, ``reading`` is what they share.
Does not belong here: rules.

Source: product.md 2; decision 0002 (canonical text).
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import polars as pl

from syncflow_core.errors import ConfigError
from syncflow_core.fields import Shape
from syncflow_core.normalize.lanes import NAMES, Step, Work, explain_row

__all__ = ["LayerMetrics", "Normalized", "Step", "explain", "misdeclared", "normalize"]

MISDECLARED_ROWS: Final = 1_000
"""Rows of a run from which a field that rejects most of its values stops the batch."""
MISDECLARED_VALUES: Final = 20
"""Values of a field from which most of them say something of its declaration: fewer are bad rows."""


@dataclass(frozen=True)
class LayerMetrics:
    """What one layer did: ``changed`` counts values, ``rejected`` the rows whose first broken rule is here."""

    layer: int
    name: str
    rows: int
    changed: int
    rejected: int
    seconds: float


@dataclass(frozen=True)
class Normalized:
    """A raw frame's rows, each in exactly one of the two frames.

    ``accepted`` has ``#row``, ``#rowversion``, ``#rowversion_source``, ``#key_source`` and the target
    fields in the shape's order, all text but ``#row``; ``rejected`` has the columns of
    ``columns.REJECTED``. Both keep the raw frame's order.
    """

    accepted: pl.DataFrame
    rejected: pl.DataFrame
    layers: tuple[LayerMetrics, ...]
    folds: int
    """Local times that exist twice and were taken as the earlier one."""
    field_counts: dict[str, tuple[int, int]]
    """Per target field: values that came (NULLs not counted), values rejected. Sums over parts."""


def normalize(
    raw: pl.DataFrame, shape: Shape, *, clock: Callable[[], float] = time.perf_counter
) -> Normalized:
    """Every row accepted, with all target fields in canonical text, or rejected with the rule it broke.

    Args:
        raw: ``#row`` and the source's columns as text. A column that it lacks is all NULL.
        shape: The entity, as declared and as the source describes it.
        clock: Seconds, for the layers' metrics.

    Raises:
        ConfigError: A format, zone, regular expression or default that makes no sense.
    """
    work = Work(raw, shape, clock)
    work.run()
    rowversions = work.file_rowversion()
    rejected = work.rejected()
    layers = tuple(
        LayerMetrics(
            layer,
            NAMES[layer - 1],
            raw.height,
            tally.changed,
            rejected.filter(pl.col("layer") == layer).height,
            tally.seconds,
        )
        for layer, tally in work.tallies.items()
    )
    return Normalized(
        work.accepted(rejected, rowversions), rejected, layers, work.folds, work.field_counts()
    )


def explain(raw_row: Mapping[str, str | None], shape: Shape) -> list[Step]:
    """What each layer made of each field of one row, in layer order: value before, after, and the rule."""
    return explain_row(raw_row, shape)


def misdeclared(
    field_counts: Mapping[str, tuple[int, int]], rows: int, *, entity: str | None = None
) -> None:
    """Refuse a run in which most values of a field break its declaration: the declaration is wrong.

    Args:
        field_counts: ``Normalized.field_counts``, summed over all parts of the run.
        rows: All rows of the run; below 1,000 nothing is concluded.
        entity: The entity's name, for the error.

    Raises:
        ConfigError: More than half of one field's values, of 20 or more, were rejected; every such
            field is named.
    """
    if rows < MISDECLARED_ROWS:
        return
    faults = [
        f"{name} ({rejected:,} of {values:,})"
        for name, (values, rejected) in field_counts.items()
        if values >= MISDECLARED_VALUES and 2 * rejected > values
    ]
    if faults:
        raise ConfigError(
            f"the declaration does not fit the source's values: most were rejected in {', '.join(faults)};"
            " correct the field's type or formats",
            entity=entity,
        )
