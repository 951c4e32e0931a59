"""Resolve: put the changed rows into an order that pushes parents first; park those whose parent is missing.

Belongs here: asking which parents the target holds, and staging the waves.
Does not belong here: the ordering (``parents``), pushing (``push``).

Source: product.md 6.
"""

from collections.abc import Sequence

import polars as pl

from syncflow_core.bridge import plans, records
from syncflow_core.columns import DATA_HASH, OP, PARENT_REFS, ROW
from syncflow_core.delta import KNOWN_DATA_HASH, KNOWN_PARENT_REFS
from syncflow_core.parents import parent_column, resolve, with_parent_refs
from syncflow_core.stages.work import Connections, Staged, hold, timed


def resolve_parents(connections: Connections, staged: Staged) -> Staged:
    """Order the changes by their parents.

    Returns:
        ``wave-0``, ``wave-1``, ...: rows to push, in this order. ``parked``: rows whose parent is
        neither acknowledged nor in this push. ``missing``: the parents they lack, and the references
        left out of rows in the waves. ``counts``: ``unchanged`` grown by rows whose only difference
        is a reference that still cannot be sent.
    """
    seconds: dict[str, float] = {}
    with timed(connections, seconds, "resolve"):
        hold(connections, staged.order)
        entity, frames = staged.shape.entity, connections.frames
        scope = str(staged.batch)
        if not entity.parents:
            return staged.having(frames={"wave-0": staged.frames["changes"]})
        changes = frames.read(staged.frames["changes"])
        acknowledged = {
            parent: _acknowledged(
                connections,
                staged,
                parent,
                [
                    changes[parent_column(name)]
                    for name, reference in entity.parents.items()
                    if reference.entity == parent
                ],
            )
            for parent in dict.fromkeys(item.entity for item in entity.parents.values())
        }
        resolved = resolve(
            changes,
            references=entity.parents,
            entity=entity.name,
            deferred=staged.deferred,
            acknowledged=acknowledged,
        )
        # a row sent before without a reference that is still missing needs nothing yet
        still = (
            (pl.col(OP) == "update")
            & pl.col(DATA_HASH).eq_missing(pl.col(KNOWN_DATA_HASH))
            & pl.col(PARENT_REFS).eq_missing(pl.col(KNOWN_PARENT_REFS))
        )
        idle = sum(wave.filter(still).height for wave in resolved.waves)
        waves = {
            f"wave-{number}": frames.write(scope, f"wave-{number}", [wave.filter(~still)])
            for number, wave in enumerate(resolved.waves)
        }
        staged = staged.having(
            frames={
                **waves,
                "parked": frames.write(
                    scope, "parked", [with_parent_refs(resolved.parked, entity.parents)]
                ),
                "missing": frames.write(scope, "missing", [resolved.missing]),
                "deferred": frames.write(
                    scope,
                    "deferred",
                    # with the references as they ought to be, for the second phase
                    [
                        changes.join(
                            resolved.missing.select(ROW).unique(), on=ROW, how="semi"
                        ).join(resolved.parked.select(ROW), on=ROW, how="anti")
                    ],
                ),
            },
            counts={"unchanged": staged.counts["unchanged"] + idle},
        )
        frames.drop(staged.frames["changes"])
    return staged.having(seconds=seconds)


def _acknowledged(
    connections: Connections, staged: Staged, parent: str, columns: Sequence[pl.Series]
) -> pl.Series:
    """Those of the parents referred to that the target holds, or would hold by a plan of this run."""
    wanted = pl.concat([column.rename("key_hash") for column in columns]).drop_nulls().unique()
    with connections.database.begin() as connection:
        there = records.acknowledged_among(connection, parent, wanted)
        if not staged.order.dry_run or staged.order.run_id is None:
            return there
        planned = plans.planned_inserts(connection, staged.order.run_id, parent, wanted)
        return pl.concat([there, planned]).unique()
