"""The words that columns hold, each list once: for the constraints, the type checker and the API.

Belongs here: lists of words, and those of them that mean something together.
Does not belong here: what sets them (the modules of the table groups).
"""

from collections.abc import Sequence
from typing import Final, Literal

BatchKind = Literal["full", "incremental", "slice", "retry", "plan", "adopt"]
BatchStatus = Literal["pending", "running", "completed", "partial", "withheld", "failed", "stopped"]
PlanKind = Literal["sync", "withheld"]
PlanStatus = Literal["open", "approved", "applied", "expired"]
ChildKind = Literal["parked", "deferred"]
ChildState = Literal["waiting", "released", "dead", "cancelled"]

ENDED_WELL: Final[tuple[BatchStatus, ...]] = ("completed", "partial", "withheld")
"""Statuses of batches that came to their end, whatever became of single records."""


def quoted(words: Sequence[str]) -> str:
    """The words as SQL lists them.

    >>> quoted(ENDED_WELL)
    "'completed', 'partial', 'withheld'"
    """
    return ", ".join(f"'{word}'" for word in words)
