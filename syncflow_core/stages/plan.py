"""Plan: say what a sync would do, record by record, and hold an approved plan against today.

Belongs here: making a plan of what was staged, with old and new values; whether it still fits.
Does not belong here: what the brake withheld (``withhold``), keeping plans (``bridge.plans``).

A plan is staged like any sync and ends before the push. Nothing is pushed, nothing is filed, the
watermark stays; what it decided is kept as the plan's records.

Source: product.md 4 and 10.
"""

from collections import Counter
from collections.abc import Callable
from datetime import datetime

import polars as pl

from syncflow_core.bridge import batches, plans, records
from syncflow_core.bridge.batches import Counts
from syncflow_core.bridge.plans import PLANNED, Plan
from syncflow_core.columns import DATA_HASH, KEY_HASH, OP, PARENT_REFS, REFERENCE
from syncflow_core.errors import SyncFlowError
from syncflow_core.stages.samples import samples_of
from syncflow_core.stages.track import status_of
from syncflow_core.stages.withhold import planned_frame, shown_references
from syncflow_core.stages.work import STAGES, Connections, Staged, hold, let_go, timed, wave_names


def make_plan(connections: Connections, staged: Staged, *, now: Callable[[], datetime]) -> Plan:
    """Keep what was staged as a plan, and close its batch; nothing is pushed.

    Args:
        connections: The target is asked what it holds of some of the updates.
        staged: After ``resolve``, of an order that is a dry run.
        now: The clock for what is kept.
    """
    seconds: dict[str, float] = {}
    with timed(connections, seconds, "plan"):
        lease = hold(connections, staged.order)
        planned = _planned(connections, staged)
        numbers = Counter(planned[OP].to_list())
        counts = _would_be(staged, numbers)
        waves = (
            part
            for name in wave_names(staged)
            for part in connections.frames.parts(staged.frames[name])
        )
        samples = samples_of(connections, staged, planned, waves)
        with connections.database.begin() as connection:
            lease.check(connection)
            known = records.count_known(connection, staged.name)
            uid = plans.save_plan(
                connection,
                entity=staged.name,
                kind="sync",
                batch=staged.batch,
                counts={
                    "inserts": numbers["insert"],
                    "updates": numbers["update"],
                    "deletes": numbers["delete"],
                    "pending": counts.pending,
                    "unchanged": counts.unchanged,
                    "rejected": counts.rejected,
                    "fetched": counts.fetched,
                    "known": known,
                },
                records=planned,
                samples=samples,
                reason="; ".join(staged.notes) or None,
                run_id=staged.order.run_id,
                now=now(),
            )
            spent = {**staged.seconds, **seconds}
            batches.close_batch(
                connection,
                staged.batch,
                status_of(counts, 0),
                counts,
                now=now(),
                seconds={**spent, "total": sum(spent.get(name, 0.0) for name in STAGES)},
                proof={
                    "complete": staged.complete,
                    "notes": list(staged.notes),
                    # what was read, for the batch that applies the plan reads the same
                    "kind": staged.kind if staged.kind in {"full", "incremental"} else None,
                    "slices": list(staged.order.slices),
                    "of": staged.order.of,
                    "purge": staged.order.purge,
                    "declared": staged.order.declared is not None,
                },
                calls=connections.tally.take(staged.batch),
            )
            plan = plans.load_plan(connection, uid)
    let_go(connections, staged.batch)
    connections.frames.forget(str(staged.batch))
    return plan


def check_plan(connections: Connections, staged: Staged) -> None:
    """Refuse to push anything but what the approved plan says, record by record.

    A plan of what was withheld is a ceiling, which the brake has held already; one that was asked for
    is applied exactly.

    Raises:
        SyncFlowError: Source or target changed since; the message says how much. The plan has
            expired.
    """
    if staged.order.plan is None:
        return
    with connections.database.begin() as connection:
        plan = plans.load_plan(connection, staged.order.plan)
        wanted = plans.load_records(connection, plan.uid)
    if plan.kind == "withheld":
        return
    more, fewer = _unlike(connections, staged, _planned(connections, staged), wanted)
    if more.is_empty() and fewer.is_empty():
        return
    with connections.database.begin() as connection:
        plans.expire_plan(connection, plan.uid)
    raise SyncFlowError(
        f"plan {plan.uid} does not fit any more: {_spoken(more)} were not planned, {_spoken(fewer)} "
        f"were and are not to be made now{_example(more, fewer)}; nothing was pushed: syncflow plan "
        f"{staged.name} makes a new one",
        entity=staged.name,
    )


def _unlike(
    connections: Connections, staged: Staged, found: pl.DataFrame, wanted: pl.DataFrame
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """What is to be written beyond the plan, and what the plan says that is neither to do nor done.

    Whether a record is inserted or updated does not matter, only what it then holds: a child that waited
    may have been released when its parent's plan was applied.
    """
    deletes = pl.col(OP) == "delete"
    same = ["#deletes", KEY_HASH, DATA_HASH, PARENT_REFS]
    found, wanted = (frame.with_columns(deletes.alias("#deletes")) for frame in (found, wanted))
    more = found.join(wanted, on=same, how="anti", nulls_equal=True)
    fewer = wanted.join(found, on=same, how="anti", nulls_equal=True)
    with connections.database.begin() as connection:
        known = records.load_known_of(connection, staged.name, fewer[KEY_HASH])
    live = known.filter(~pl.col("deleted"))
    written = live.select(pl.lit(value=False).alias("#deletes"), KEY_HASH, DATA_HASH, PARENT_REFS)
    gone = ~pl.col(KEY_HASH).is_in(live[KEY_HASH].implode())
    undone = fewer.join(written, on=same, how="anti", nulls_equal=True).filter(~(deletes & gone))
    return more, undone


def _planned(connections: Connections, staged: Staged) -> pl.DataFrame:
    """What is to be written: shape ``plans.PLANNED``."""
    frames = connections.frames
    shown = shown_references(connections, staged)
    waves = [
        part.select(KEY_HASH, pl.col(OP).cast(pl.String), shown, DATA_HASH, PARENT_REFS)
        for name in wave_names(staged)
        for part in frames.parts(staged.frames[name])
    ]
    gone = frames.read(staged.frames["gone"])
    with connections.database.begin() as connection:
        named = records.load_key_sources(connection, staged.name, gone[KEY_HASH])
    deletes = gone.select(KEY_HASH, DATA_HASH, PARENT_REFS).join(
        named.select(KEY_HASH, REFERENCE), on=KEY_HASH, how="left"
    )
    return pl.concat([PLANNED.to_frame(), *waves, planned_frame(deletes, "delete")])


def _would_be(staged: Staged, numbers: Counter[str]) -> Counts:
    """The batch's accounts if it were pushed."""
    parked = staged.frames["parked"].rows if "parked" in staged.frames else 0
    return Counts(
        fetched=staged.counts["fetched"],
        normalized=staged.counts["normalized"],
        rejected=staged.counts["rejected"],
        unchanged=staged.counts["unchanged"],
        inserted=numbers["insert"],
        updated=numbers["update"],
        deleted=numbers["delete"],
        pending=parked,
    )


def _spoken(rows: pl.DataFrame) -> str:
    numbers = Counter(rows[OP].to_list())
    return ", ".join(f"{count} {op}s" for op, count in sorted(numbers.items())) or "none"


def _example(more: pl.DataFrame, fewer: pl.DataFrame) -> str:
    rows = pl.concat([more, fewer]).head(1)
    return f" (the {rows[OP][0]} of {rows[REFERENCE][0]}, for one)" if rows.height else ""
