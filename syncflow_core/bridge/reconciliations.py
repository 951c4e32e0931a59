"""``reconciliations``: how records compared with hub and source, and when.

Belongs here: keeping and reading what a reconciliation found.
Does not belong here: reconciling (``stages.reconcile``).

Source: product.md 13.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import sqlalchemy as sa

from syncflow_core.bridge.tables import reconciliations


@dataclass(frozen=True)
class Reconciliation:
    """What one comparison found."""

    uid: UUID
    entity: str
    kind: Literal["whole", "sample"]
    started_at: datetime
    finished_at: datetime
    dagster_run_id: str | None
    compared: int
    counts: Mapping[str, int]
    """``hub_missing hub_extra hub_different source_missing source_extra source_different``, and
    ``pending`` and ``rejected``, which have their reasons elsewhere."""
    accuracy: float
    """Records that are as they must be, as a share of those compared."""
    bound: float
    """What the accuracy of the whole is at least, at 95 % confidence."""
    samples: Sequence[Mapping[str, Any]]
    """``side``, ``kind`` and ``record`` of differences."""
    repaired: bool

    @property
    def differences(self) -> int:
        """Records that differ, on either side."""
        return sum(n for name, n in self.counts.items() if name.startswith(("hub_", "source_")))


def save_reconciliation(connection: sa.Connection, found: Reconciliation) -> None:
    """Keep what was found."""
    row = asdict(found)
    row |= {"counts": dict(found.counts), "samples": [dict(item) for item in found.samples]}
    connection.execute(reconciliations.insert().values(**row))


def last_reconciliation(
    connection: sa.Connection, entity: str, kind: Literal["whole", "sample"] | None = None
) -> Reconciliation | None:
    """The newest one of the entity, of any kind where none is named."""
    query = reconciliations.select().where(reconciliations.c.entity == entity)
    if kind is not None:
        query = query.where(reconciliations.c.kind == kind)
    row = (
        connection.execute(query.order_by(reconciliations.c.started_at.desc()).limit(1))
        .mappings()
        .first()
    )
    names = [item.name for item in fields(Reconciliation)]
    return None if row is None else Reconciliation(**{name: row[name] for name in names})
