"""What inserting, updating and deleting have in common: intents before, calls at once, history after.

Belongs here: the journal's order, the bound on calls.
Does not belong here: what is written (``sender``, ``deleter``).

Source: product.md 5.
"""

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from uuid import UUID

import polars as pl
import sqlalchemy as sa

from syncflow_core.bridge import events, journal
from syncflow_core.bridge.journal import WriteOp
from syncflow_core.bridge.leases import Lease
from syncflow_core.columns import KEY_HASH
from syncflow_core.entity import Entity
from syncflow_core.errors import RejectedError, UnavailableError
from syncflow_core.logs import Threads
from syncflow_core.outcomes import Outcome, not_sent, outcome_frame
from syncflow_core.privacy import Privacy
from syncflow_core.stages.work import Connections

CALL_ROWS: Final = 1_000
"""Most rows of one write call (contract.md)."""
GROUP_ROWS: Final = 10_000
"""Rows whose intents are opened, and whose outcomes are saved, in one transaction each."""
CALLS_AT_ONCE: Final = 4
NO_RIGHT: Final = frozenset({401, 403})
ROUNDS: Final = 4
"""How often one record is tried within a batch: insert, found there, update, and once more."""


@dataclass
class Writer:
    """Writes records of one entity in one batch.

    Args:
        connections: The target and the database.
        entity: Whose records.
        batch: The batch that the accounts go to.
        lease: Checked in the transaction of every write.
        now: The clock for what is kept.
    """

    connections: Connections
    entity: Entity
    batch: UUID
    lease: Lease
    now: Callable[[], datetime]
    counts: Counter[str] = field(default_factory=Counter)
    """Records by the accounts' names, and ``failed_deletes``."""
    _counting: threading.Lock = field(default_factory=threading.Lock)

    @property
    def privacy(self) -> Privacy:
        """What of the records is hidden wherever people look."""
        return self.connections.privacy_of(self.entity)

    def count(self, name: str, number: int) -> None:
        """Add to the counts, and to what is told of a batch that fails; several saves do so at once."""
        with self._counting:
            self.counts[name] += number
            self.connections.done[self.batch][name] += number

    def open_intents(self, calls: Sequence[tuple[WriteOp, pl.Series]]) -> list[UUID]:
        """Write down, in one transaction, what each call is about to write: operation and key hashes."""
        with self.connections.database.begin() as connection:
            self.lease.check(connection)
            return journal.write_intents(
                connection,
                entity=self.entity.name,
                batch=self.batch,
                calls=calls,
                fence=self.lease.fence,
                now=self.now(),
            )

    def close_intents(
        self, connection: sa.Connection, intents: Sequence[UUID], now: datetime
    ) -> None:
        """Close the intents, in the transaction that saves their outcomes."""
        journal.close_intents(connection, intents, "done", now)

    def at_once(self, calls: Sequence[Callable[[], pl.DataFrame]]) -> list[pl.DataFrame]:
        """The calls' answers in order, a bounded number of them under way at once."""
        if len(calls) == 1:
            return [calls[0]()]
        with Threads(CALLS_AT_ONCE, thread_name_prefix="push") as pool:
            return list(pool.map(lambda call: call(), calls))

    def halved(
        self, chunk: pl.DataFrame, call: Callable[[pl.DataFrame], pl.DataFrame]
    ) -> pl.DataFrame:
        """One write call's outcomes, ``OUTCOME``; one that is refused as a whole is halved until the bad row is alone.

        Raises:
            RejectedError: The account has no right to write: no row is to blame.
        """
        try:
            return call(chunk)
        except UnavailableError as error:
            return not_sent(chunk.height, str(error))
        except RejectedError as error:
            if error.status in NO_RIGHT:
                raise
            if chunk.height == 1:
                alone = Outcome(index=0, status="failed", code=error.status, error=str(error))
                return outcome_frame([alone])
            middle = chunk.height // 2
            return pl.concat([self.halved(chunk[:middle], call), self.halved(chunk[middle:], call)])

    def tell(
        self,
        connection: sa.Connection,
        rows: pl.DataFrame,
        event: pl.Expr,
        now: datetime,
        detail: pl.Expr | None = None,
    ) -> None:
        """One line of history for each row; *detail* is JSON text, null where there is none."""
        nothing = pl.lit(None, pl.String)
        lines = rows.select(
            KEY_HASH, event.alias("event"), (nothing if detail is None else detail).alias("detail")
        )
        events.record(connection, self.entity.name, lines, self.batch, now)

    def away(self, reason: str) -> UnavailableError:
        """The error for a target that stopped answering."""
        return UnavailableError(reason, system="schedulehub", entity=self.entity.name)
