"""The partitions of every entity: slices of its rows.

Belongs here: slice keys, and telling slices from a run.
Does not belong here: which rows a slice is (``syncflow_core.stages.fetch``).

Source: design.md, "Dagster"; decision 0007.
"""

import functools
from collections.abc import Iterable

import dagster as dg

LOCATION = "syncflow"
"""The code location's name in ``workspace.yaml``."""
REPOSITORY = "__repository__"
"""What Dagster calls the definitions in it."""
RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"


def slice_key(number: int) -> str:
    """The partition key of a slice, from 1.

    >>> slice_key(3)
    'slice-3'
    """
    return f"slice-{number}"


def slice_number(key: str) -> int:
    """The slice of a partition key.

    >>> slice_number("slice-3")
    3
    """
    return int(key.removeprefix("slice-"))


@functools.cache
def partitions(slices: int) -> dg.StaticPartitionsDefinition:
    """The same slices for every entity, so that one run can take a slice of parents and children."""
    return dg.StaticPartitionsDefinition([slice_key(number) for number in range(1, slices + 1)])


def range_tags(numbers: Iterable[int]) -> dict[str, str]:
    """The run tags that make one run of neighbouring slices."""
    ordered = sorted(numbers)
    return {RANGE_START: slice_key(ordered[0]), RANGE_END: slice_key(ordered[-1])}
