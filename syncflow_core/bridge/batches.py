"""``sync_batches``: one row per execution of one entity, and its accounts.

Belongs here: opening, closing and reading batches; the sum that must come out even.
Does not belong here: deciding a status (``stages``), the completeness of a scan (``state``).

Source: product.md 1; product.md, "Accounts, statuses, exits".
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from typing import Any, Final, Self
from uuid import UUID

import sqlalchemy as sa

from syncflow_core.bridge.identifiers import new_uid
from syncflow_core.bridge.tables import entity_contracts, sync_batches
from syncflow_core.bridge.tables.words import ENDED_WELL, BatchKind, BatchStatus
from syncflow_core.calls import Calls
from syncflow_core.errors import ConfigError

Kind = BatchKind
Status = BatchStatus
LIVE = ("pending", "running")
STOPPED: Final = "stopped by a person or a signal"
"""What a batch says that was told to end."""
SYNCS: Final[tuple[Kind, ...]] = ("full", "incremental", "slice", "retry")
"""The kinds of batches that deliver."""
OUTCOMES: Final = (
    *("rejected", "inserted", "updated", "unchanged"),
    *("pending", "failed", "withheld"),
)
"""What becomes of a row that was fetched: each has exactly one."""

_INSERT = sa.dialects.postgresql.insert(sync_batches)
# made once: what stands for the columns sent takes longer to make than the statement to run
_OPEN = _INSERT.on_conflict_do_update(
    index_elements=["uid"],
    set_={
        name: _INSERT.excluded[name]
        for name in (
            "status",
            "kind",
            "entity_version",
            "dagster_run_id",
            "started_at",
            "fence",
            "watermark_before",
        )
    },
    where=sync_batches.c.status.in_(LIVE),
)


@dataclass(frozen=True)
class Counts:
    """A batch's accounts, in records."""

    fetched: int = 0
    normalized: int = 0
    rejected: int = 0
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    unchanged: int = 0
    pending: int = 0
    failed: int = 0
    withheld: int = 0
    withheld_deletes: int = 0
    retried: int = 0

    @property
    def unaccounted(self) -> int:
        """Fetched rows without an outcome; anything but 0 is a fault of SyncFlow's.

        Source: product.md, "Accounts, statuses, exits".
        """
        return self.fetched - sum(int(getattr(self, name)) for name in OUTCOMES)

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            **{
                item.name: getattr(self, item.name) + getattr(other, item.name)
                for item in fields(self)
            }
        )


@dataclass(frozen=True)
class Batch:
    """One row of ``sync_batches``."""

    uid: UUID
    entity: str
    entity_version: int
    kind: Kind
    status: Status
    started_at: datetime
    finished_at: datetime | None
    dagster_run_id: str | None
    partition: str | None
    counts: Counts
    rows_per_second: float | None
    watermark_before: str | None
    watermark_after: str | None
    seconds: Mapping[str, float] = field(default_factory=dict)
    proof: Mapping[str, Any] | None = None
    fence: int | None = None
    error: str | None = None

    @classmethod
    def of(cls, row: sa.RowMapping) -> Self:
        """The batch in a row of the table."""
        counts = Counts(**{item.name: row[item.name] for item in fields(Counts)})
        own = {
            item.name: row[item.name]
            for item in fields(cls)
            if item.name not in {"counts", "seconds"}
        }
        return cls(counts=counts, seconds=row["seconds"] or {}, **own)


def open_batch(  # noqa: PLR0913  # each is a column of its own
    connection: sa.Connection,
    *,
    entity: str,
    entity_version: int,
    kind: Kind,
    now: datetime,
    status: Status = "running",
    dagster_run_id: str | None = None,
    partition: str | None = None,
    watermark_before: str | None = None,
    fence: int | None = None,
    uid: UUID | None = None,
) -> UUID:
    """Write a batch that has begun (or waits, ``pending``) and return its uid.

    *uid* may be one that was handed out before the batch began. Opening the same one again makes a
    pending batch run; it keeps its uid and entity.
    """
    opened = uid or new_uid(now.timestamp)
    connection.execute(
        _OPEN,
        {
            "uid": opened,
            "entity": entity,
            "entity_version": entity_version,
            "kind": kind,
            "status": status,
            "dagster_run_id": dagster_run_id,
            "partition": partition,
            "started_at": now,
            "watermark_before": watermark_before,
            "fence": fence,
        },
    )
    return opened


def close_batch(  # noqa: PLR0913  # each is a column of its own
    connection: sa.Connection,
    uid: UUID,
    status: Status,
    counts: Counts,
    *,
    now: datetime,
    seconds: Mapping[str, float] | None = None,
    watermark_after: str | None = None,
    proof: Mapping[str, Any] | None = None,
    error: str | None = None,
    calls: Calls | None = None,
) -> bool:
    """Write a batch's end and accounts; False, and nothing written, where it had ended before.

    ``rows_per_second`` is fetched rows over ``seconds["total"]``, null without a time. *calls* are
    those that were not added before.
    """
    if calls:
        add_calls(connection, uid, calls)
    total = (seconds or {}).get("total", 0.0)
    done = connection.execute(
        sync_batches.update()
        .where(sync_batches.c.uid == uid, sync_batches.c.status.in_(LIVE))
        .values(
            status=status,
            finished_at=now,
            seconds=dict(seconds or {}),
            watermark_after=watermark_after,
            proof=None if proof is None else dict(proof),
            error=error,
            rows_per_second=counts.fetched / total if total > 0 else None,
            **asdict(counts),
        )
    )
    return done.rowcount == 1


def correct_batch(
    connection: sa.Connection, uid: UUID, *, proof: Mapping[str, Any], error: str
) -> None:
    """Write down what ended a batch, where whoever closed it could not know."""
    connection.execute(
        sync_batches.update()
        .where(sync_batches.c.uid == uid)
        .values(proof=dict(proof), error=error)
    )


def name_run(connection: sa.Connection, uids: Sequence[UUID], run_id: str) -> None:
    """Write down which run the batches that were asked for belong to."""
    connection.execute(
        sync_batches.update()
        .where(sync_batches.c.uid.in_(uids), sync_batches.c.status.in_(LIVE))
        .values(dagster_run_id=run_id)
    )


def add_calls(connection: sa.Connection, uid: UUID, calls: Calls) -> None:
    """Add to what a batch that goes on has asked of the two systems."""
    mine = (sync_batches.c.uid == uid) & sync_batches.c.status.in_(LIVE)
    found = connection.execute(
        sa.select(sync_batches.c.calls).where(mine).with_for_update()
    ).first()
    if found is None:
        return  # whoever closed it has told its story
    before = Calls.of_json(found.calls)
    before.add(calls)
    connection.execute(sync_batches.update().where(mine).values(calls=before.as_json()))


def load_batch(connection: sa.Connection, uid: UUID) -> Batch:
    """The batch of this uid.

    Raises:
        ConfigError: There is none.
    """
    row = (
        connection.execute(sync_batches.select().where(sync_batches.c.uid == uid))
        .mappings()
        .first()
    )
    if row is None:
        raise ConfigError(f"there is no batch {uid}")
    return Batch.of(row)


def history(  # noqa: PLR0913  # each narrows by another column
    connection: sa.Connection,
    *,
    entities: Sequence[str] | None = None,
    statuses: Sequence[Status] | None = None,
    kinds: Sequence[Kind] | None = None,
    dagster_run_id: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    after: tuple[datetime, UUID] | None = None,
    refused: bool = True,
    limit: int = 50,
) -> list[Batch]:
    """Batches, newest first; every filter given must hold.

    *after* is start and uid of the last one of the page before: the next page begins behind it. Without
    *refused* those are left out that another run had turned away (``errors.SyncFlowError.refused``).
    """
    table = sync_batches.c
    conditions = [
        *([table.entity.in_(entities)] if entities is not None else []),
        *([table.status.in_(statuses)] if statuses is not None else []),
        *([table.kind.in_(kinds)] if kinds is not None else []),
        *([table.dagster_run_id == dagster_run_id] if dagster_run_id is not None else []),
        *([table.started_at >= since] if since is not None else []),
        *([table.started_at < until] if until is not None else []),
        *(
            [sa.tuple_(table.started_at, table.uid) < sa.tuple_(*map(sa.literal, after))]
            if after is not None
            else []
        ),
        *(
            []
            if refused
            else [sa.not_(sa.func.coalesce(table.proof["refused"].as_boolean(), sa.false()))]
        ),
    ]
    query = (
        sync_batches.select()
        .where(*conditions)
        .order_by(table.started_at.desc(), table.uid.desc())
        .limit(limit)
    )
    return [Batch.of(row) for row in connection.execute(query).mappings()]


def was_read_whole(connection: sa.Connection, entity: str, version: int) -> bool:
    """Whether a whole scan came to its end under this version of the declaration and the last contract."""
    table = sync_batches.c
    contract = (
        sa.select(sa.func.max(entity_contracts.c.accepted_at))
        .where(entity_contracts.c.entity == entity)
        .scalar_subquery()
    )
    whole = (
        sync_batches.select()
        .where(
            table.entity == entity,
            table.entity_version == version,
            table.kind == "full",
            table.started_at >= sa.func.coalesce(contract, table.started_at),
            table.status.in_(ENDED_WELL),
        )
        .exists()
    )
    return bool(connection.execute(sa.select(whole)).scalar_one())


def close_dead_batches(
    connection: sa.Connection,
    entity: str,
    reason: str,
    *,
    now: datetime,
    but: UUID | None = None,
) -> list[Batch]:
    """End the entity's running batches as ``failed``, and return them as they were.

    Only the holder of the entity's lease may ask: nobody else runs a batch of this entity then.
    Pending ones (asked for, not begun) and *but* (the holder's own) stay.
    """
    table = sync_batches.c
    dead = (table.entity == entity) & (table.status == "running")
    if but is not None:
        dead &= table.uid != but
    found = connection.execute(sync_batches.select().where(dead).with_for_update()).mappings().all()
    connection.execute(
        sync_batches.update()
        .where(dead)
        .values(status="failed", finished_at=now, error=reason, proof={"died": True})
    )
    return [Batch.of(row) for row in found]


def died_among(connection: sa.Connection, uids: Iterable[UUID]) -> set[UUID]:
    """Those of these batches whose process died."""
    table = sync_batches.c
    died = table.proof["died"].as_boolean()
    return set(connection.scalars(sa.select(table.uid).where(table.uid.in_(list(uids)), died)))
