"""What there is now: depths and ages by entity, outages and limits by system, nights.

Every statement reads an index that holds nothing but what is open, the newest batches of an entity, or
a table of a few lines: none depends on how many records, events or batches there are.

Belongs here: the statements, and the numbers that they give.
Does not belong here: what has happened so far (``totals``), names and texts of metrics
(``syncflow_dagster.api.families``).

Source: product.md 14 (metrics).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

from syncflow_core.bridge.tables.words import ENDED_WELL, quoted

Gauge = Mapping[tuple[str, ...], float]
"""Numbers by the values of a metric's labels."""


@dataclass(frozen=True)
class _Look:
    """One statement: so many columns of labels, then one column for each name. Null: no number."""

    labels: int
    names: tuple[str, ...]
    query: str


_LOOKS: Final = (
    _Look(
        1,
        ("sync_interval_seconds",),
        """
        SELECT e.name, least(
            60.0 * (v.declaration #>> '{schedule,incremental_minutes}')::int,
            CASE WHEN n.enabled THEN 86400.0 * greatest(1, ceil(n.nights / :slices ::numeric)) END)
        FROM bridge.entities AS e
        JOIN bridge.entity_versions AS v ON v.entity = e.name AND v.version = e.version
        LEFT JOIN bridge.background_sync_schedule AS n ON n.entity = e.name
        WHERE e.enabled
        """,
    ),
    _Look(
        1,
        ("watermark_age_seconds", "last_scan_age_seconds"),
        """
        SELECT e.name, extract(epoch FROM now() - s.watermark_at),
            extract(epoch FROM now() - s.last_full_scan_at)
        FROM bridge.entities AS e, LATERAL (
            SELECT watermark_at, last_full_scan_at FROM bridge.erp_sync_state
            WHERE entity = e.name ORDER BY updated_at DESC LIMIT 1) AS s
        WHERE e.enabled
        """,
    ),
    _Look(
        1,
        ("last_batch_age_seconds",),
        f"""
        SELECT e.name, extract(epoch FROM now() - coalesce(b.finished_at, e.created_at))
        FROM bridge.entities AS e LEFT JOIN LATERAL (
            SELECT finished_at FROM bridge.sync_batches
            WHERE entity = e.name AND kind IN ('full', 'incremental', 'slice')
                AND status IN ({quoted(ENDED_WELL)})
            ORDER BY started_at DESC LIMIT 1) AS b ON true
        WHERE e.enabled
        """,  # noqa: S608  # constants
    ),
    _Look(
        2,
        ("batches_live",),
        """
        SELECT e.name, s.status, count(b.uid)
        FROM bridge.entities AS e CROSS JOIN (VALUES ('pending'), ('running')) AS s (status)
        LEFT JOIN bridge.sync_batches AS b ON b.entity = e.name AND b.status = s.status
            AND b.status IN ('pending', 'running')
        WHERE e.enabled GROUP BY 1, 2
        """,
    ),
    _Look(
        1,
        ("failed_records", "failed_records_oldest_age_seconds"),
        """
        SELECT e.name, count(f.uid), coalesce(extract(epoch FROM now() - min(f.first_seen)), 0)
        FROM bridge.entities AS e
        LEFT JOIN bridge.failed_records AS f ON f.entity = e.name AND f.resolved_at IS NULL
        WHERE e.enabled GROUP BY 1
        """,
    ),
    _Look(
        2,
        ("pending_children", "pending_children_oldest_age_seconds"),
        """
        SELECT e.name, s.state, count(DISTINCT p.key_hash),
            coalesce(extract(epoch FROM now() - min(p.created_at)), 0)
        FROM bridge.entities AS e CROSS JOIN (VALUES ('waiting'), ('dead')) AS s (state)
        LEFT JOIN bridge.pending_children AS p ON p.entity = e.name AND p.state = s.state
            AND p.state IN ('waiting', 'dead')
        WHERE e.enabled GROUP BY 1, 2
        """,
    ),
    _Look(
        1,
        ("pending_deletes",),
        """
        SELECT e.name, count(d.key_hash)
        FROM bridge.entities AS e LEFT JOIN bridge.pending_deletes AS d ON d.entity = e.name
        WHERE e.enabled GROUP BY 1
        """,
    ),
    _Look(
        1,
        ("in_doubt_calls", "in_doubt_records", "in_doubt_oldest_age_seconds"),
        """
        SELECT e.name, count(j.uid), coalesce(sum(cardinality(j.key_hashes)), 0),
            coalesce(extract(epoch FROM now() - min(j.opened_at)), 0)
        FROM bridge.entities AS e
        LEFT JOIN bridge.push_journal AS j ON j.entity = e.name AND j.closed_at IS NULL
        GROUP BY 1
        """,
    ),
    _Look(
        1,
        ("withheld_plans", "withheld_plans_oldest_age_seconds"),
        """
        SELECT e.name, count(p.uid), coalesce(extract(epoch FROM now() - min(p.created_at)), 0)
        FROM bridge.entities AS e
        LEFT JOIN bridge.plans AS p
            ON p.entity = e.name AND p.kind = 'withheld' AND p.status IN ('open', 'approved')
        WHERE e.enabled GROUP BY 1
        """,
    ),
    _Look(
        1,
        ("breaker_open", "limiter_slots"),
        """
        SELECT s.system,
            coalesce(t.state ? 'probe_at', false)::int,
            least(:slots, coalesce((t.state ->> 'at_once')::int, :slots))
        FROM (VALUES ('apismith'), ('schedulehub')) AS s (system)
        LEFT JOIN bridge.target_limits AS t ON t.system = s.system
        """,
    ),
    _Look(
        1,
        (
            "sweep_nights",
            "sweep_slices",
            "sweep_slices_done",
            "sweep_offset_rows",
            "sweep_number",
            "sweep_slice_age_seconds",
        ),
        """
        SELECT e.name, n.nights, :slices, (SELECT count(*) FROM bridge.sweep_slices AS w
            WHERE w.entity = e.name AND w.complete AND w.slices = :slices),
            n.current_offset, n.sweep_number,
            extract(epoch FROM now() - coalesce(n.last_night::timestamp AT TIME ZONE 'UTC',
                e.created_at))
        FROM bridge.entities AS e JOIN bridge.background_sync_schedule AS n ON n.entity = e.name
        WHERE e.enabled AND n.enabled
        """,
    ),
    _Look(0, ("entities",), "SELECT count(*) FROM bridge.entities WHERE enabled"),
)
NAMES: Final = tuple(name for look in _LOOKS for name in look.names)


def load_gauges(connection: sa.Connection, *, slices: int, slots: int) -> dict[str, Gauge]:
    """Every gauge by name; of entities, those alone that are enabled.

    Args:
        connection: In a transaction.
        slices: How many make a sweep.
        slots: How many requests at once a system gets from all runs.
    """
    settings = {"slices": slices, "slots": slots}
    found: dict[str, dict[tuple[str, ...], float]] = {name: {} for name in NAMES}
    for look in _LOOKS:
        named = {name: value for name, value in settings.items() if f":{name}" in look.query}
        for row in connection.execute(sa.text(look.query), named):
            labels = tuple(row[: look.labels])
            for name, value in zip(look.names, row[look.labels :], strict=True):
                if value is not None:
                    found[name][labels] = float(value)
    return dict(found)
