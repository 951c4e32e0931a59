"""How long the past is kept: what is closed goes after a set time, what is open stays.

Belongs here: forgetting old lines of every table that grows with time.
Does not belong here: when that happens (``syncflow_dagster.tidying``).

Source: product.md 1 ("kept for a set time"); faults.md XD11.
"""

from datetime import datetime
from typing import Final

import sqlalchemy as sa

from syncflow_core.bridge.tables import metadata, sync_batches
from syncflow_core.bridge.totals import add_up

_PAST: Final = {
    "record_events": "at < :before",
    "push_journal": "closed_at < :before",
    "failed_records": "resolved_at < :before",
    "pending_children": "state IN ('released', 'cancelled') AND updated_at < :before",
    "plans": "status IN ('applied', 'expired') AND created_at < :before",
    "reconciliations": "finished_at < :before",
    "start_requests": "created_at < :before",
    "alerts": "ended_at < :before",
}
"""What of each table is past."""


def forget_past(connection: sa.Connection, before: datetime) -> dict[str, int]:
    """Remove what was closed before then, and batches of before then that nothing speaks of any more.

    Their accounts are in the totals first: what is counted never goes down.

    Returns:
        How many lines went, by table.
    """
    gone = {
        table: connection.execute(
            sa.text(f"DELETE FROM bridge.{table} WHERE {past}"),  # noqa: S608  # constants
            {"before": before},
        ).rowcount
        for table, past in _PAST.items()
    }
    proofs = sa.text(
        "DELETE FROM bridge.scan_proofs WHERE batch IN "
        "(SELECT uid FROM bridge.sync_batches WHERE finished_at < :before)"
    )
    gone["scan_proofs"] = connection.execute(proofs, {"before": before}).rowcount
    named = [
        ~sa.exists().where(column == sync_batches.c.uid)
        for table in metadata.tables.values()
        for column in table.c
        if column.references(sync_batches.c.uid)
    ]
    while add_up(connection):
        pass
    # one that another is adding up just now goes the next time
    past = (sync_batches.c.finished_at < before, sync_batches.c.totalled)
    old = sync_batches.delete().where(*past, *named)
    gone["sync_batches"] = connection.execute(old).rowcount
    return {table: number for table, number in gone.items() if number}
