"""``plans`` and ``plan_records``: what a batch would do, or withheld, until a person has decided.

Belongs here: keeping plans, their records, the approval.
Does not belong here: making a plan or judging it against today (``stages.plan``), the brake (``brake``).

Source: product.md 4, "Brake"; product.md 1.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import polars as pl
import sqlalchemy as sa

from syncflow_core import columns
from syncflow_core.bridge.bulk import copy_in, load_frame, stage_keys
from syncflow_core.bridge.entities import refuse_disabled
from syncflow_core.bridge.identifiers import new_uid
from syncflow_core.bridge.tables import plan_records, plans
from syncflow_core.bridge.tables.words import PlanKind, PlanStatus
from syncflow_core.errors import ConfigError

PLANNED: Final = pl.Schema(
    {
        columns.KEY_HASH: pl.Binary(),
        columns.OP: pl.String(),
        columns.REFERENCE: pl.String(),
        columns.DATA_HASH: pl.Binary(),
        columns.PARENT_REFS: pl.String(),
    }
)
"""One line per record that a plan would write."""


@dataclass(frozen=True)
class Plan:
    """One row of ``plans``."""

    uid: UUID
    entity: str
    batch: UUID | None
    kind: PlanKind
    """``sync``: all that a sync would do, applied exactly. ``withheld``: what the brake held back."""
    status: PlanStatus
    counts: Mapping[str, int]
    """``inserts updates deletes pending known fetched rejected``."""
    ceiling: Mapping[str, int] | None
    """What the approval allows at most: ``updates`` and ``deletes``."""
    samples: Sequence[Mapping[str, Any]]
    """``op``, ``record`` and, of updates, ``field``, ``old``, ``new``."""
    created_at: datetime
    approved_at: datetime | None
    approved_by: str | None
    applied_batch: UUID | None
    dagster_run_id: str | None
    reason: str | None


def save_plan(  # noqa: PLR0913  # each is a column of its own
    connection: sa.Connection,
    *,
    entity: str,
    kind: PlanKind,
    batch: UUID,
    counts: Mapping[str, int],
    records: pl.DataFrame,
    samples: Sequence[Mapping[str, object]],
    reason: str | None,
    run_id: str | None,
    now: datetime,
    instead_of: UUID | None = None,
) -> UUID:
    """Keep a plan; the entity's earlier plan of the same kind, if it was not applied, expires.

    Args:
        connection: In a transaction.
        entity: Its name.
        kind: What the plan is.
        batch: The batch that made it.
        counts: Numbers by what would happen.
        records: Shape :data:`PLANNED`.
        samples: Some records for people.
        reason: Why it was withheld.
        run_id: The Dagster run.
        now: Aware.
        instead_of: A plan that asks for all of this and perhaps for more: it keeps its uid, and who has
            looked at it may still approve it. An approval of it that led to nothing lapses.

    Returns:
        The plan's uid.
    """
    row = {
        "batch": batch,
        "counts": dict(counts),
        "samples": list(samples),
        "reason": reason,
        "dagster_run_id": run_id,
    }
    expire_plans(connection, entity, kind, but=instead_of)
    uid = instead_of or new_uid(now.timestamp)
    if instead_of is None:
        connection.execute(
            plans.insert().values(uid=uid, entity=entity, kind=kind, created_at=now, **row)
        )
    else:
        lapsed = {"status": "open", "ceiling": None, "approved_at": None, "approved_by": None}
        connection.execute(plans.update().where(plans.c.uid == uid).values(**row, **lapsed))
        connection.execute(plan_records.delete().where(plan_records.c.plan == uid))
    lines = records.sort(columns.KEY_HASH).select(
        pl.lit(str(uid)).alias("plan"),
        pl.col(columns.KEY_HASH).alias("key_hash"),
        pl.col(columns.OP).cast(pl.String).alias("op"),
        pl.col(columns.REFERENCE).alias("reference"),
        pl.col(columns.DATA_HASH).alias("data_hash"),
        pl.col(columns.PARENT_REFS).alias("parent_refs"),
    )
    copy_in(connection, "bridge.plan_records", lines)
    return uid


def expire_plans(
    connection: sa.Connection, entity: str, kind: PlanKind, *, but: UUID | None = None
) -> None:
    """Let the entity's plans of this kind expire that were not applied; their records are forgotten.

    An approval that led to nothing expires with them: what it was given for is not what is there now.
    """
    waiting = plans.c.status.in_(("open", "approved")) & (plans.c.entity == entity)
    mine = plans.c.kind == kind
    if but is not None:
        mine &= plans.c.uid != but
    gone = list(
        connection.scalars(
            plans.update().where(waiting, mine).values(status="expired").returning(plans.c.uid)
        )
    )
    connection.execute(plan_records.delete().where(plan_records.c.plan.in_(gone)))


def expire_plan(connection: sa.Connection, uid: UUID) -> None:
    """Let one plan expire that does not fit any more, approved or not."""
    connection.execute(plans.update().where(plans.c.uid == uid).values(status="expired"))
    connection.execute(plan_records.delete().where(plan_records.c.plan == uid))


def waiting_plan(connection: sa.Connection, entity: str) -> Plan | None:
    """The entity's plan of what is withheld, approved or not; None where nothing is."""
    waiting = list_plans(connection, entity=entity, kind="withheld", limit=1)
    return waiting[0] if waiting else None


def load_plan(connection: sa.Connection, uid: UUID, *, for_update: bool = False) -> Plan:
    """The plan of this uid; *for_update* it stays as it is until the transaction ends.

    Raises:
        ConfigError: There is none.
    """
    query = plans.select().where(plans.c.uid == uid)
    row = connection.execute(query.with_for_update() if for_update else query).mappings().first()
    if row is None:
        raise ConfigError(f"there is no plan {uid} (syncflow plan lists those that are open)")
    return _plan(row)


def list_plans(
    connection: sa.Connection,
    *,
    entity: str | None = None,
    run_id: str | None = None,
    kind: PlanKind | None = None,
    statuses: Sequence[PlanStatus] = ("open", "approved"),
    limit: int = 100,
) -> list[Plan]:
    """Plans, newest first; every filter given must hold."""
    query = plans.select().where(plans.c.status.in_(statuses))
    if entity is not None:
        query = query.where(plans.c.entity == entity)
    if kind is not None:
        query = query.where(plans.c.kind == kind)
    if run_id is not None:
        query = query.where(plans.c.dagster_run_id == run_id)
    rows = connection.execute(query.order_by(plans.c.created_at.desc()).limit(limit))
    return [_plan(row) for row in rows.mappings()]


def load_records(connection: sa.Connection, uid: UUID) -> pl.DataFrame:
    """What the plan would write: shape :data:`PLANNED`."""
    return load_frame(
        connection,
        "SELECT encode(key_hash, 'hex'), op, reference, encode(data_hash, 'hex'), parent_refs "
        "FROM bridge.plan_records WHERE plan = :plan",
        PLANNED,
        {"plan": uid},
    )


def approve_plan(connection: sa.Connection, uid: UUID, *, by: str, now: datetime) -> Plan:
    """Say yes to an open plan: its own numbers are the ceiling from here on.

    Raises:
        ConfigError: There is no such plan, it is not open any more, or its entity is disabled.
    """
    plan = load_plan(connection, uid, for_update=True)
    if plan.status == "expired":
        raise ConfigError(
            f"plan {uid} of {plan.entity} is out of date: another one was made since, or nothing "
            "is withheld any more",
            entity=plan.entity,
        )
    if plan.status == "applied":
        raise ConfigError(f"plan {uid} of {plan.entity} was applied before", entity=plan.entity)
    refuse_disabled(connection, [plan.entity])
    ceiling = {name: plan.counts.get(name, 0) for name in ("updates", "deletes")}
    connection.execute(
        plans.update()
        .where(plans.c.uid == uid)
        .values(status="approved", approved_at=now, approved_by=by, ceiling=ceiling)
    )
    return load_plan(connection, uid)


def close_plan(connection: sa.Connection, uid: UUID, batch: UUID) -> None:
    """Note that the plan was applied by this batch; its records are forgotten."""
    connection.execute(
        plans.update().where(plans.c.uid == uid).values(status="applied", applied_batch=batch)
    )
    connection.execute(plan_records.delete().where(plan_records.c.plan == uid))


def planned_inserts(
    connection: sa.Connection, run_id: str, entity: str, key_hashes: pl.Series
) -> pl.Series:
    """Those of *key_hashes* that plans of this Dagster run would insert: Binary, distinct."""
    stage_keys(connection, key_hashes)
    found = load_frame(
        connection,
        "SELECT encode(r.key_hash, 'hex') FROM staged_keys JOIN bridge.plan_records AS r "
        "USING (key_hash) JOIN bridge.plans AS p ON p.uid = r.plan "
        "WHERE p.entity = :entity AND p.dagster_run_id = :run_id AND r.op = 'insert'",
        {columns.KEY_HASH: pl.Binary()},
        {"entity": entity, "run_id": run_id},
    )
    return found[columns.KEY_HASH]


def withheld_of(connection: sa.Connection, entity: str, key_hash: bytes) -> list[Plan]:
    """The open plans that hold a write of this record back."""
    query = (
        plans.select()
        .join(plan_records, plan_records.c.plan == plans.c.uid)
        .where(
            plans.c.entity == entity,
            plans.c.kind == "withheld",
            plans.c.status.in_(("open", "approved")),
            plan_records.c.key_hash == key_hash,
        )
    )
    return [_plan(row) for row in connection.execute(query).mappings()]


def _plan(row: sa.RowMapping) -> Plan:
    names = [item for item in Plan.__dataclass_fields__ if item != "samples"]
    return Plan(samples=row["samples"] or [], **{name: row[name] for name in names})
