"""Where an entity stands: its last batch, what was not delivered and why, what waits for a person.

Belongs here: gathering what an operator asks first in the morning.
Does not belong here: printing (``cli.status``), one record's story (``trace``).

Source: product.md 10, ``status``.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from syncflow_core.bridge import batches, failed, journal, pending, plans, records, state
from syncflow_core.bridge.batches import Batch
from syncflow_core.bridge.failed import Cluster
from syncflow_core.bridge.leases import is_abandoned
from syncflow_core.bridge.plans import Plan
from syncflow_core.bridge.state import State
from syncflow_core.entity import Entity


@dataclass(frozen=True)
class Standing:
    """One entity as it stands now."""

    entity: str
    enabled: bool
    """Whether it is synced."""
    last: Batch | None
    """Its newest batch; plans are left out, and what another run had turned away."""
    abandoned: bool
    """Whether that one's process has died: it is shown as running until the next sync settles it."""
    state: State
    known: int | None
    """Records that the target holds; None where nobody asked, for counting takes as long as they are many."""
    failures: Sequence[Cluster]
    """Open dead letters by what they have in common, the most frequent first."""
    waiting: int
    """Records that wait for a parent, their attempts not over."""
    dead: int
    """Records that wait for a parent and are told to a person."""
    waiting_deletes: int
    """Deletes that wait for children."""
    in_doubt: int
    """Writes without an outcome; the next batch asks for it."""
    withheld: Plan | None
    """What the brake holds back."""

    @property
    def is_open(self) -> bool:
        """Whether anything is under way, undelivered, in doubt or withheld."""
        running = self.last is not None and self.last.finished_at is None
        numbers = (self.waiting, self.dead, self.waiting_deletes, self.in_doubt)
        return running or bool(self.failures or any(numbers) or self.withheld)

    @property
    def failed(self) -> int:
        """Open dead letters."""
        return sum(cluster.count for cluster in self.failures)


def standing(
    connection: sa.Connection, entity: Entity, *, enabled: bool = True, counted: bool = True
) -> Standing:
    """Where the entity stands, read in one transaction.

    Args:
        connection: In a transaction.
        entity: Its declaration.
        enabled: Whether it is synced.
        counted: Whether to count its records in any case; else where some have failed alone.
    """
    name = entity.name
    last = batches.history(
        connection, entities=[name], kinds=batches.SYNCS, refused=False, limit=1
    ) or batches.history(connection, entities=[name], kinds=batches.SYNCS, limit=1)
    waits = pending.count_open(connection, name)
    intents = journal.open_intents(connection, name)
    failures = failed.clusters(connection, name)
    return Standing(
        entity=name,
        enabled=enabled,
        last=last[0] if last else None,
        abandoned=bool(
            last and last[0].status == "running" and is_abandoned(connection, name, last[0].uid)
        ),
        state=state.load_state(connection, name, entity.api),
        known=records.count_known(connection, name) if counted or failures else None,
        failures=failures,
        waiting=waits["waiting"],
        dead=waits["dead"],
        waiting_deletes=waits["deletes"],
        in_doubt=sum(len(intent.key_hashes) for intent in intents),
        withheld=plans.waiting_plan(connection, name),
    )
