"""Withhold: keep what the brake holds back as a plan that a person can look at and approve.

Belongs here: the plan of a withheld batch, and the history of the records that wait in it.
Does not belong here: when the brake holds (``brake``), plans that were asked for (``plan``).

Source: product.md 4, "Brake".
"""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from syncflow_core.bridge import events, plans, records
from syncflow_core.bridge.leases import Lease
from syncflow_core.bridge.plans import PLANNED
from syncflow_core.columns import DATA_HASH, KEY_HASH, OP, PARENT_REFS, REFERENCE, ROW
from syncflow_core.stages.samples import SAMPLES, samples_of
from syncflow_core.stages.work import Connections, Staged


@dataclass(frozen=True)
class Held:
    """What is held back: verdicts of rows, and known records."""

    updates: pl.DataFrame
    deletes: pl.DataFrame


def withhold(  # each is a part of the plan
    connections: Connections,
    staged: Staged,
    held: Held,
    known: int,
    reason: str | None,
    lease: Lease,
    now: datetime,
) -> list[str]:
    """Keep the plan of what is held back, and say where it is; where nothing is, an earlier one expires.

    A batch that did not read everything says nothing of what an earlier one held back besides: the plan
    goes on holding it. A plan that does not grow keeps its uid. Records that the earlier plan held too
    have their line of history already.
    """
    whole = staged.kind == "full" and staged.complete
    if held.updates.is_empty() and held.deletes.is_empty():
        if whole:
            with connections.database.begin() as connection:
                lease.check(connection)
                plans.expire_plans(connection, staged.name, "withheld", but=staged.order.plan)
        return []
    rows = connections.frames.read(
        staged.frames["distinct"], columns=[ROW, KEY_HASH, DATA_HASH, PARENT_REFS, REFERENCE]
    )
    planned = _held_back(connections, staged, held, rows)
    samples = samples_of(
        connections, staged, planned, connections.frames.parts(staged.frames["distinct"])
    )
    with connections.database.begin() as connection:
        lease.check(connection)
        earlier = plans.waiting_plan(connection, staged.name)
        before = PLANNED.to_frame()
        if earlier is not None:
            before = plans.load_records(connection, earlier.uid)
        fresh = planned.join(before, on=[KEY_HASH, OP], how="anti")
        if not whole:
            besides = before.filter(~pl.col(KEY_HASH).is_in(rows[KEY_HASH].implode())).join(
                planned, on=KEY_HASH, how="anti"
            )
            planned = pl.concat([planned, besides])
            samples += [
                {"op": op, "record": reference}
                for op, reference in besides.head(SAMPLES).select(OP, REFERENCE).iter_rows()
            ]
            if besides.height:
                reason = f"{reason}; {besides.height} more since an earlier batch"
        numbers = Counter(planned[OP].to_list())
        uid = plans.save_plan(
            connection,
            entity=staged.name,
            kind="withheld",
            batch=staged.batch,
            counts={
                "updates": numbers["update"],
                "deletes": numbers["delete"],
                "known": known,
                "fetched": staged.counts["fetched"],
            },
            records=planned,
            samples=samples,
            reason=reason,
            run_id=staged.order.run_id,
            now=now,
            instead_of=earlier.uid if earlier is not None and fresh.is_empty() else None,
        )
        detail = pl.concat_str(pl.lit('{"op":"'), pl.col(OP), pl.lit('"}'))
        events.record(
            connection,
            staged.name,
            fresh.select(KEY_HASH, pl.lit("withheld").alias("event"), detail.alias("detail")),
            staged.batch,
            now,
        )
    return [f"withheld: {reason}; plan {uid} (syncflow apply {uid})"]


def _held_back(
    connections: Connections, staged: Staged, held: Held, rows: pl.DataFrame
) -> pl.DataFrame:
    """What this batch holds back: shape ``plans.PLANNED``."""
    updates = held.updates.select(ROW).join(rows, on=ROW, how="left")
    with connections.database.begin() as connection:
        named = records.load_key_sources(connection, staged.name, held.deletes[KEY_HASH])
    deletes = held.deletes.select(KEY_HASH, DATA_HASH, PARENT_REFS).join(
        named.select(KEY_HASH, REFERENCE), on=KEY_HASH, how="left"
    )
    shown = shown_references(connections, staged)
    return pl.concat(
        [planned_frame(updates, "update").with_columns(shown), planned_frame(deletes, "delete")]
    )


def shown_references(connections: Connections, staged: Staged) -> pl.Expr:
    """The references of staged rows as they may be kept and shown."""
    privacy = connections.privacy_of(staged.shape.entity)
    return privacy.references(pl.col(REFERENCE), pl.col(KEY_HASH), staged.shape.key_fields)


def planned_frame(rows: pl.DataFrame, op: str) -> pl.DataFrame:
    """Rows as ``plans.PLANNED``."""
    return rows.select(KEY_HASH, pl.lit(op).alias(OP), REFERENCE, DATA_HASH, PARENT_REFS)
