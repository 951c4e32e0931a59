"""``erp_sync_state`` and ``scan_proofs``: how far an entity has come, and what a scan proved.

Belongs here: reading and advancing both.
Does not belong here: which rowversion is the newer (``rowversion``), when absence means deletion
(``delta``).

Source: product.md 1 and 4.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from syncflow_core.bridge.tables import erp_sync_state, scan_proofs


@dataclass(frozen=True)
class State:
    """How far an entity has come; all None before its first sync."""

    watermark: str | None = None
    """Last rowversion acknowledged."""
    watermark_at: datetime | None = None
    """The moment that it is, where it is a timestamp."""
    last_full_scan_at: datetime | None = None
    last_batch: UUID | None = None
    adopted_at: datetime | None = None
    collection: str | None = None
    """The target's collection that was adopted; None: it was before this was kept."""
    encoding_version: int | None = None
    entity_version: int | None = None
    """Encoding and entity version that the hashes in ``synced_records`` were computed with."""
    counts: Mapping[str, int] | None = None
    """The accounts of the last batch, and ``rows``: those of the source when it was last read whole."""

    @property
    def rows(self) -> int:
        """Rows of the source when it was last read whole; 0: it never was."""
        return (self.counts or {}).get("rows", 0)

    def speaks_of(self, collection: str) -> bool:
        """Whether what is known is known of this collection of the target."""
        return self.collection in {None, collection}


@dataclass(frozen=True)
class ScanProof:
    """What one slice's scan (0: the whole entity's) saw, and whether that was everything."""

    slice: int
    declared_total: int | None
    counted: int
    final_total: int | None
    pages: int
    complete: bool
    digest: bytes | None = None
    note: str | None = None


def load_state(connection: sa.Connection, entity: str, source: str) -> State:
    """The entity's state with this source (APISmith's slug)."""
    table = erp_sync_state.c
    names = [item.name for item in fields(State)]
    query = sa.select(*(table[name] for name in names)).where(
        table.entity == entity, table.source == source
    )
    row = connection.execute(query).mappings().first()
    return State() if row is None else State(**row)


def save_state(
    connection: sa.Connection, entity: str, source: str, state: State, now: datetime
) -> None:
    """Replace the entity's state; begin with ``dataclasses.replace`` of what :func:`load_state` gave."""
    row = {item.name: getattr(state, item.name) for item in fields(State)}
    row["counts"] = None if state.counts is None else dict(state.counts)
    row["updated_at"] = now
    statement = insert(erp_sync_state).values(entity=entity, source=source, **row)
    connection.execute(
        statement.on_conflict_do_update(index_elements=["entity", "source"], set_=row)
    )


def save_proof(connection: sa.Connection, batch: UUID, proof: ScanProof) -> None:
    """Write what a scan proved; a scan done again replaces its first proof."""
    row = {item.name: getattr(proof, item.name) for item in fields(ScanProof)}
    statement = insert(scan_proofs).values(batch=batch, **row)
    connection.execute(statement.on_conflict_do_update(index_elements=["batch", "slice"], set_=row))
