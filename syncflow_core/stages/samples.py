"""Samples of a plan: some of the records that it would write, with old and new values.

Belongs here: choosing them, and telling what changes.
Does not belong here: keeping plans (``plan``, ``withhold``), what a batch has done (``sender``).

Source: product.md 4, "Plan".
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

import polars as pl

from syncflow_core.columns import KEY_HASH, OP, PARENT_REFS, REFERENCE
from syncflow_core.errors import UnavailableError
from syncflow_core.fields import Shape
from syncflow_core.privacy import Privacy
from syncflow_core.stages.work import Connections, Staged

SAMPLES: Final = 20
"""Records that a plan shows of each operation."""


def samples_of(
    connections: Connections,
    staged: Staged,
    planned: pl.DataFrame,
    rows: Iterable[pl.DataFrame],
) -> list[dict[str, object]]:
    """Some records of each operation; of updates every field that changes, with both values.

    Args:
        connections: The target is asked what it holds; where it is away, values are left out.
        staged: The batch.
        planned: Shape ``plans.PLANNED``, references as they may be shown.
        rows: Parts of the rows that are to be written, with their fields.
    """
    found: list[dict[str, object]] = [
        {"op": op, "record": reference}
        for op in ("insert", "delete")
        for reference in planned.filter(pl.col(OP) == op)[REFERENCE].sort().head(SAMPLES)
    ]
    updates = planned.filter(pl.col(OP) == "update").sort(REFERENCE).head(SAMPLES)
    if updates.is_empty():
        return found
    shape = staged.shape
    privacy = connections.privacy_of(shape.entity)
    shown = dict(updates.select(KEY_HASH, REFERENCE).iter_rows())
    keys = updates[KEY_HASH]
    try:
        there = connections.target.query(shape.entity.collection, keys.to_list())
    except UnavailableError:
        return [*found, *({"op": "update", "record": name} for name in updates[REFERENCE])]
    held = {record.key_hash: record for record in there}
    for row in _chosen(rows, keys):
        record = held.get(bytes(row[KEY_HASH]))
        old = {} if record is None else record.fields
        refs = None if record is None else json.dumps(record.parent_refs, sort_keys=True)
        changes = [*_field_changes(row, old, shape, privacy), *_reference_changes(row, refs)]
        found += [
            {
                "op": "update",
                "record": shown[row[KEY_HASH]],
                "field": name,
                "old": before,
                "new": after,
            }
            for name, before, after in changes
        ]
    return found


def _chosen(rows: Iterable[pl.DataFrame], keys: pl.Series) -> Iterator[dict[str, Any]]:
    for part in rows:
        yield from part.filter(pl.col(KEY_HASH).is_in(keys.implode())).iter_rows(named=True)


def _field_changes(
    row: dict[str, Any], old: dict[str, str], shape: Shape, privacy: Privacy
) -> Iterator[tuple[str, str | None, str | None]]:
    """Name, old and new value of each field that differs, as a person reads them."""
    for item in shape.fields:
        before, after = _shown(old.get(item.name)), row[item.name]
        if before != after:
            kind = privacy.fields.get(item.name)
            yield (
                (item.name, before, None if after is None else str(after))
                if kind is None
                else (item.name, privacy.value(kind, before), privacy.value(kind, after))
            )


def _reference_changes(
    row: dict[str, Any], held: str | None
) -> Iterator[tuple[str, str | None, str | None]]:
    new: dict[str, str | None] = json.loads(str(row[PARENT_REFS]))
    old: dict[str, str | None] = json.loads(held or "{}")
    for name, parent in new.items():
        if old.get(name) != parent:
            yield f"parent_refs.{name}", old.get(name), parent


def _shown(value: str | None) -> str | None:
    """A hub's JSON value as canonical text: strings without quotes."""
    if value is None or value == "null":
        return None
    return str(json.loads(value)) if value.startswith('"') else value
