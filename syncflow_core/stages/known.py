"""Known: what the target last acknowledged of a batch's records, read while earlier stages still work.

Belongs here: reading ahead, and when what was read ahead still holds.
Does not belong here: the statements (``bridge.records``), comparing (``delta``).

Source: product.md 4, "Known records".
"""

import functools
from collections.abc import Callable

import polars as pl

from syncflow_core.bridge import journal, records
from syncflow_core.bridge.state import load_state
from syncflow_core.logs import Threads
from syncflow_core.stages.work import Connections, Staged


def read_ahead(connections: Connections, staged: Staged) -> None:
    """Begin to read all known records in a thread, for a batch that compares with all of them.

    Nobody else writes them while the batch holds its entity. A batch that must write some itself before it
    compares, since writes are in doubt or the target was never listed, reads them afterwards instead.
    """
    if staged.kind != "full" or staged.batch in connections.ahead:
        return
    entity = staged.shape.entity
    with connections.database.begin() as connection:
        before = load_state(connection, entity.name, entity.api)
        doubtful = journal.open_intents(connection, entity.name)
    if doubtful or before.adopted_at is None or not before.speaks_of(entity.collection):
        return
    thread = Threads(1, thread_name_prefix="known")
    connections.ahead[staged.batch] = thread.submit(
        records.load_known, connections.database, entity.name
    )
    thread.shutdown(wait=False)


def known_records(
    connections: Connections, staged: Staged, keys: pl.Series, *, written: bool
) -> tuple[pl.DataFrame, Callable[[], int]]:
    """What is known of the records that the batch may change; and what counts all that are known.

    A batch that read everything compares with all of them: who is not among the rows may be gone. A part
    of the rows is compared with its own records alone, so that memory follows the part; all are counted
    only where the brake wants to know, for that takes as long as all are many.

    Args:
        connections: The database, and what was read ahead.
        staged: The batch.
        keys: The key hashes of its rows.
        written: Whether the batch has written known records since it began: what was read ahead is old.
    """
    if staged.kind == "full":
        ahead = connections.ahead.pop(staged.batch, None)
        # one that failed is no reason to end the batch: the database may be there again
        usable = ahead is not None and ahead.exception() is None and not written
        known = (
            ahead.result()
            if ahead is not None and usable
            else records.load_known(connections.database, staged.name)
        )
        return known, lambda: known.height

    @functools.cache
    def count() -> int:
        with connections.database.begin() as connection:
            return records.count_known(connection, staged.name)

    return records.load_known_among(connections.database, staged.name, keys), count
