"""Known: what the target last acknowledged of a batch's records, all of them or those of its rows.

Belongs here: reading ahead, when what was read ahead still holds, and reading part by part.
Does not belong here: the statements (``bridge.records``), comparing (``delta``).

Source: product.md 4, "Known records".
"""

import functools
import itertools
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass

import polars as pl

from syncflow_core.bridge import journal, records
from syncflow_core.bridge.database import Database
from syncflow_core.bridge.state import load_state
from syncflow_core.columns import KEY_HASH
from syncflow_core.frames import PART_ROWS
from syncflow_core.logs import begun
from syncflow_core.stages.work import Connections, Staged


def read_ahead(connections: Connections, staged: Staged) -> None:
    """Begin to read all known records in a thread, for a batch that compares with all of them.

    Nobody else writes them while the batch holds its entity. A batch that must write some itself before it
    compares, since writes are in doubt or the target was never listed, reads them afterwards instead.
    """
    if staged.kind != "full" or staged.batch in connections.ahead:
        return
    entity = staged.shape.entity
    with connections.database.read() as connection:
        before = load_state(connection, entity.name, entity.api)
        doubtful = journal.open_intents(connection, entity.name)
    if doubtful or before.adopted_at is None or not before.speaks_of(entity.collection):
        return
    connections.ahead[staged.batch] = begun(
        "known", records.load_known, connections.database, entity.name
    )


@dataclass(frozen=True)
class Known:
    """What the target last acknowledged of one batch's entity, read as the batch compares."""

    database: Database
    entity: str
    every: pl.DataFrame | None
    """``columns.KNOWN``: all records that are alive, where the batch compares with all of them."""

    def beside(self, incoming: pl.DataFrame) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
        """Rows, and what is known of them as ``columns.KNOWN``, until all rows had their turn.

        Records that are sought by their keys come for a part of the rows at a time, so that memory
        follows neither the rows of the batch nor the records of the entity; the next part's are sought
        while one has its turn.

        Args:
            incoming: Rows with ``#key_hash``, which is unique.
        """
        if self.every is not None:
            yield incoming, self.every
            return
        # neighbours in the order of the keys lie side by side in the index, and mostly in the table
        order = incoming[KEY_HASH].arg_sort()
        parts = [order.slice(at, PART_ROWS) for at in range(0, max(1, incoming.height), PART_ROWS)]

        def sought(part: pl.Series) -> Future[pl.DataFrame]:
            keys = incoming[KEY_HASH][part]
            return begun("known", records.load_known_among, self.database, self.entity, keys)

        coming = sought(parts[0])
        for part, following in itertools.zip_longest(parts, parts[1:]):
            found = coming.result()
            if following is not None:
                coming = sought(following)
            yield incoming[part], found

    @functools.cached_property
    def count(self) -> int:
        """How many are alive; asked for where the brake wants to know, for it takes as long as they are many."""
        if self.every is not None:
            return self.every.height
        with self.database.begin() as connection:
            return records.count_known(connection, self.entity)


def known_records(connections: Connections, staged: Staged, *, written: bool) -> Known:
    """What is known of the records that the batch may change.

    A batch that read everything compares with all of them: who is not among the rows may be gone. A part
    of the rows is compared with its own records alone.

    Args:
        connections: The database, and what was read ahead.
        staged: The batch.
        written: Whether the batch has written known records since it began: what was read ahead is old.
    """
    every = None
    if staged.kind == "full":
        ahead = connections.ahead.pop(staged.batch, None)
        # one that failed is no reason to end the batch: the database may be there again
        usable = ahead is not None and ahead.exception() is None and not written
        every = (
            ahead.result()
            if ahead is not None and usable
            else records.load_known(connections.database, staged.name)
        )
    return Known(connections.database, staged.name, every)
