"""A histogram: how many values fell below each of some bounds, and their sum.

Belongs here: counting values, adding histograms, the numbers in the order in which they are kept.
Does not belong here: what is measured (``calls``, ``bridge.totals``), showing it (``syncflow_dagster.api.metrics``).

Source: Prometheus, "Histograms and summaries".
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import Self

Bounds = tuple[float, ...]
"""Upper ends, included, in order; what lies above the last one is counted by itself."""


class Histogram:
    """Values counted between *bounds*.

    >>> found = Histogram((0.1, 1.0))
    >>> for seconds in (0.05, 0.1, 0.5, 7.0):
    ...     found.observe(seconds)
    >>> found.counts, found.count
    ([2, 1, 1], 4)
    """

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self.counts)

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def add(self, other: "Histogram") -> None:
        """Count what *other*, of the same bounds, has counted."""
        self.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
        self.total += other.total

    def numbers(self) -> list[float]:
        """Every count, then the sum of the values: what adding up keeps right, number by number."""
        return [*map(float, self.counts), self.total]

    @classmethod
    def of_numbers(cls, bounds: Bounds, numbers: Sequence[float]) -> Self:
        """The histogram that ``numbers`` gave."""
        found = cls(bounds)
        if len(numbers) != len(found.counts) + 1:
            raise ValueError(f"{len(numbers)} numbers are no histogram of {len(bounds)} bounds")
        found.counts, found.total = [round(n) for n in numbers[:-1]], numbers[-1]
        return found

    def below(self) -> Iterable[tuple[str, int]]:
        """For each bound, ``+Inf`` last: its text and how many values do not exceed it."""
        seen = 0
        for bound, count in zip((*map(_text, self.bounds), "+Inf"), self.counts, strict=True):
            seen += count
            yield bound, seen

    def as_json(self) -> dict[str, object]:
        """``count``, ``seconds`` and the counts by upper end, those of nothing left out."""
        ends = (*map(_text, self.bounds), "+Inf")
        return {
            "count": self.count,
            "seconds": round(self.total, 6),
            "up_to": {end: count for end, count in zip(ends, self.counts, strict=True) if count},
        }

    @classmethod
    def of_json(cls, bounds: Bounds, kept: Mapping[str, object]) -> Self:
        """The histogram that ``as_json`` gave; ends that are no bounds any more count up to the next one."""
        found = cls(bounds)
        counts, seconds = kept["up_to"], kept["seconds"]
        if not isinstance(counts, dict) or not isinstance(seconds, int | float):
            raise TypeError("no histogram")
        for end, count in counts.items():
            found.counts[bisect_left(bounds, float(end))] += count
        found.total = float(seconds)
        return found


def _text(bound: float) -> str:
    """A bound as Prometheus writes it: always a decimal number."""
    return repr(float(bound))
