"""Whole: all stages of one entity in a row, for batches that are not an asset's run.

Belongs here: the order of the stages, once.
Does not belong here: the stages; the asset's ops, which call the same stages one by one
(``syncflow_dagster.ops``).

Source: product.md, "The nine stages".
"""

from collections.abc import Callable
from datetime import datetime

from syncflow_core.stages.delta import find_changes
from syncflow_core.stages.fetch import fetch
from syncflow_core.stages.identity import identify
from syncflow_core.stages.normalize import normalize_rows
from syncflow_core.stages.push import push
from syncflow_core.stages.resolve import resolve_parents
from syncflow_core.stages.track import Report, track
from syncflow_core.stages.work import Connections, Order, Staged


def stage(connections: Connections, order: Order, *, now: Callable[[], datetime]) -> Staged:
    """Everything up to the push: what is to be written, and nothing written yet."""
    fetched = fetch(connections, order, now=now)
    identified = identify(connections, normalize_rows(connections, fetched))
    return resolve_parents(connections, find_changes(connections, identified, now=now))


def sync(
    connections: Connections, order: Order, *, now: Callable[[], datetime]
) -> tuple[Staged, Report]:
    """One entity's sync from its first request to its closed batch."""
    pushed = push(connections, stage(connections, order, now=now), now=now)
    return pushed, track(connections, pushed, now=now)
