"""How much there is of everything: a day's batches and rows, what failed, what waits, what goes on.

Belongs here: counting.
Does not belong here: one entity's standing (``standing``), figures over time (the metrics).

Source: product.md 9, ``/stats``.
"""

from typing import Any, Final

import sqlalchemy as sa

from syncflow_core.bridge.tables import COUNTS

_DAY: Final = "started_at > now() - interval '1 day'"
_ROWS: Final = ", ".join(f"coalesce(sum({name}), 0)::bigint AS {name}" for name in COUNTS)


def load_stats(connection: sa.Connection) -> dict[str, Any]:
    """entities, batches, rows, failed, pending, plans, in_doubt, running."""

    def number(query: str) -> int:
        return int(connection.scalar(sa.text(query)) or 0)

    def by(query: str) -> dict[str, int]:
        return {str(row[0]): int(row[1]) for row in connection.execute(sa.text(query))}

    rows = connection.execute(
        sa.text(
            f"SELECT {_ROWS} FROM bridge.sync_batches WHERE {_DAY} AND kind <> 'plan'"  # noqa: S608  # constants
        )
    )
    return {
        "entities": number("SELECT count(*) FROM bridge.entities WHERE enabled"),
        "batches": by(
            f"SELECT status, count(*) FROM bridge.sync_batches WHERE {_DAY} GROUP BY 1 ORDER BY 1"  # noqa: S608  # constants
        ),
        "rows": dict(rows.mappings().one()),
        "failed": number("SELECT count(*) FROM bridge.failed_records WHERE resolved_at IS NULL"),
        "pending": by(
            "SELECT state, count(*) FROM bridge.pending_children "
            "WHERE state IN ('waiting', 'dead') GROUP BY 1 ORDER BY 1"
        ),
        "plans": by(
            "SELECT kind, count(*) FROM bridge.plans WHERE status IN ('open', 'approved') "
            "GROUP BY 1 ORDER BY 1"
        ),
        "in_doubt": number(
            "SELECT coalesce(sum(cardinality(key_hashes)), 0) FROM bridge.push_journal "
            "WHERE closed_at IS NULL"
        ),
        "running": number("SELECT count(*) FROM bridge.sync_batches WHERE status = 'running'"),
    }
