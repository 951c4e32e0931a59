"""``alerts``: what is wrong now, found in the other tables, and who was told of it.

A line stands from the moment something is found wrong until every notifier has taken that it is over.
It is written before anybody is told, and a notifier's mark after it has taken the change: who dies
between the two repeats, with the same id, and loses nothing.

Belongs here: finding, keeping, marking; one teller at a time.
Does not belong here: what counts as a change, words and limits (``alerts``), sending (``notify``).

Source: product.md 14.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from itertools import groupby
from typing import Final
from uuid import UUID

import psycopg
import sqlalchemy as sa

from syncflow_core.alerts import (
    SCANS,
    STATES,
    Alert,
    Changes,
    Condition,
    State,
    compare,
    mark,
    rule_name,
    usual_rows,
)
from syncflow_core.bridge.address import translated
from syncflow_core.bridge.database import Database
from syncflow_core.bridge.identifiers import new_uid
from syncflow_core.bridge.leases import free_entities, is_abandoned
from syncflow_core.bridge.outages import systems_away
from syncflow_core.bridge.tables import alerts
from syncflow_core.bridge.tables.words import ENDED_WELL, quoted

LOCK: Final = 0x53464C414C455254  # "SFLALERT"
SETTLED_S: Final = 60
"""A write without an outcome is younger than this while the next sync is about to ask for it."""
RULES_MOST: Final = 3
"""So many rules are named in one message, the most frequent ones."""

# The last that was read, and a retry after it: an older retry says nothing of what came since.
_LAST: Final = sa.text(
    """
    SELECT e.name, b.* FROM bridge.entities AS e
    CROSS JOIN LATERAL (
        SELECT max(started_at) AS at FROM (
            SELECT started_at FROM bridge.sync_batches WHERE entity = e.name
            AND kind IN ('full', 'incremental', 'slice') AND finished_at IS NOT NULL
            AND NOT coalesce((proof ->> 'refused')::boolean, false)
            ORDER BY started_at DESC LIMIT 1) AS newest) AS read
    CROSS JOIN LATERAL (
        SELECT DISTINCT ON (kind = 'retry') uid, kind, status, dagster_run_id, finished_at,
            coalesce((proof ->> 'parent_not_synced')::boolean, false) AS parent_not_synced,
            coalesce((proof ->> 'unavailable')::boolean, false) AS unavailable,
            coalesce((proof ->> 'died')::boolean, false) AS died,
            coalesce((proof ->> 'asked_to_stop')::boolean, false) AS asked_to_stop,
            EXISTS (SELECT FROM bridge.plans WHERE entity = e.name AND status = 'approved') AS approved
        FROM bridge.sync_batches WHERE entity = e.name
        AND kind IN ('full', 'incremental', 'slice', 'retry') AND finished_at IS NOT NULL
        AND started_at >= coalesce(read.at, '-infinity')
        AND NOT coalesce((proof ->> 'refused')::boolean, false)
        ORDER BY kind = 'retry', started_at DESC, uid DESC) AS b
    WHERE e.enabled ORDER BY e.name, b.kind = 'retry'
    """
)
# A process that has died holds no lease; what it was doing is settled by the next sync.
_RUNNING: Final = sa.text(
    "SELECT b.entity, b.uid, b.kind, b.dagster_run_id, b.started_at FROM bridge.sync_batches AS b "
    "JOIN bridge.entities AS e ON e.name = b.entity AND e.enabled WHERE b.status = 'running' "
    "AND b.started_at < :now - :settled_s * interval '1 second' ORDER BY b.entity, b.started_at"
)
_LETTERS: Final = sa.text(
    """
    SELECT f.*, b.dagster_run_id FROM (
        SELECT entity, stage, rule, count(*) AS number, min(first_seen) AS since,
            max(last_batch::text) AS batch
        FROM bridge.failed_records WHERE resolved_at IS NULL GROUP BY entity, stage, rule) AS f
    JOIN bridge.entities AS e ON e.name = f.entity AND e.enabled
    LEFT JOIN bridge.sync_batches AS b ON b.uid = f.batch::uuid
    ORDER BY f.entity, f.number DESC, f.stage, f.rule
    """
)
# No further than it takes to know that there are enough; by the key, or all entities' records are read.
_KNOWN: Final = sa.text(
    "SELECT count(*) FROM (SELECT FROM bridge.synced_records "
    "WHERE entity = :entity AND NOT deleted ORDER BY key_hash LIMIT :most) AS found"
)
_WITHHELD: Final = sa.text(
    """
    SELECT p.entity, p.uid, p.batch, p.dagster_run_id, p.created_at,
        coalesce((p.counts ->> 'updates')::bigint, 0) AS updates,
        coalesce((p.counts ->> 'deletes')::bigint, 0) AS deletes
    FROM bridge.plans AS p JOIN bridge.entities AS e ON e.name = p.entity
    WHERE p.kind = 'withheld' AND p.status = 'open' AND e.enabled ORDER BY p.entity, p.created_at
    """
)
_DOUBT: Final = sa.text(
    "SELECT entity, sum(cardinality(key_hashes)) AS records, min(opened_at) AS since "
    "FROM bridge.push_journal WHERE closed_at IS NULL "
    "AND opened_at < :now - :settled_s * interval '1 second' GROUP BY entity ORDER BY entity"
)
_GIVEN_UP: Final = sa.text(
    "SELECT p.entity, count(DISTINCT p.key_hash) AS records, min(p.updated_at) AS since "
    "FROM bridge.pending_children AS p JOIN bridge.entities AS e ON e.name = p.entity "
    "WHERE p.state = 'dead' AND e.enabled GROUP BY p.entity ORDER BY p.entity"
)
_ENDED_WELL: Final = f"status IN ({quoted(ENDED_WELL)})"
# Slices are compared with the same slice of earlier sweeps. What was not proven, or empty, is not usual.
_SCANS: Final = sa.text(
    f"""
    SELECT e.name, s.*, ARRAY(
        SELECT fetched FROM bridge.sync_batches AS b WHERE b.entity = e.name AND b.kind = s.kind
        AND b.kind IN ('full', 'slice') AND (b.kind = 'full' OR b.partition = s.partition)
        AND b.started_at < s.started_at AND b.fetched > 0 AND b.{_ENDED_WELL}
        AND NOT EXISTS (SELECT FROM bridge.scan_proofs AS q WHERE q.batch = b.uid AND NOT q.complete)
        ORDER BY b.started_at DESC LIMIT :scans) AS earlier
    FROM bridge.entities AS e
    CROSS JOIN LATERAL (
        SELECT uid, kind, partition, fetched, dagster_run_id, started_at, finished_at
        FROM bridge.sync_batches AS b WHERE b.entity = e.name AND b.kind IN ('full', 'slice')
        AND b.{_ENDED_WELL}
        AND NOT EXISTS (SELECT FROM bridge.scan_proofs AS q WHERE q.batch = b.uid AND NOT q.complete)
        ORDER BY b.started_at DESC, b.uid DESC LIMIT 1) AS s
    WHERE e.enabled ORDER BY e.name
    """  # noqa: S608  # constants
)


def find_conditions(
    connection: sa.Connection, now: datetime, *, failed_share: float
) -> list[Condition]:
    """All that is wrong now as far as the bridge database tells; nights excepted, which have a clock.

    Args:
        connection: In a transaction.
        now: Aware.
        failed_share: Of an entity's records, how many may be dead letters.
    """
    return [
        *_undelivered(connection, failed_share),
        *_withheld(connection),
        *_ended_badly(connection),
        *(
            Condition("system_away", system, "it stopped answering while a run asked it")
            for system in systems_away(connection)
        ),
        *_died(connection, now),
        *_in_doubt(connection, now),
        *(
            Condition(
                "given_up",
                row.entity,
                f"{row.records} records wait for a parent that has not come in all their attempts",
                since=row.since,
            )
            for row in connection.execute(_GIVEN_UP)
        ),
        *_odd_scans(connection),
    ]


def _undelivered(connection: sa.Connection, share: float) -> Iterator[Condition]:
    """Dead letters: any at all leave the entity degraded, however well its next batch ends."""
    for entity, found in groupby(connection.execute(_LETTERS), lambda row: str(row.entity)):
        rows = list(found)
        number = sum(row.number for row in rows)
        rules = ", ".join(
            f"{row.number} x {rule_name(row.stage)} {rule_name(row.rule)}"
            for row in rows[:RULES_MOST]
        )
        more = f" and {len(rows) - RULES_MOST} rules more" if len(rows) > RULES_MOST else ""
        last = max(rows, key=lambda row: row.batch or "")
        yield Condition(
            "partial",
            entity,
            f"{number} records are not delivered: {rules}{more}",
            min(row.since for row in rows),
            UUID(last.batch) if last.batch else None,
            last.dagster_run_id,
        )
        enough = int(number / share) + 1
        known = connection.scalar(_KNOWN, {"entity": entity, "most": enough}) or 0
        if number > known * share:
            message = f"{number} dead letters are more than {share:.0%} of {known} records"
            yield Condition("dead_letters", entity, message)


def _ended_badly(connection: sa.Connection) -> Iterator[Condition]:
    """Of each entity: its last batch, and the retry after it."""
    for row in connection.execute(_LAST):
        said = _said_of(row)
        if said is not None:
            message = f"its last sync ({row.kind}) {said}"
            yield Condition(
                row.status, row.name, message, row.finished_at, row.uid, row.dagster_run_id
            )


def _said_of(row: sa.Row[*tuple[object, ...]]) -> str | None:
    """What is told of a batch; None where it ended as it should, or as a person wished.

    Its error is not: the words of another system may be in it.
    """
    if row.status == "failed":
        reason = (
            (row.died and "its process died")
            or (row.parent_not_synced and "a parent was not synced")
            or (row.unavailable and "a system did not answer")
            or f"syncflow status {row.name} tells why"
        )
        return f"failed: {reason}"
    if row.status == "stopped":
        return None if row.asked_to_stop else "was ended before it was done"
    if row.status == "withheld":
        return None if row.approved else "ended withheld"
    return "ended partial" if row.status == "partial" else None


def _withheld(connection: sa.Connection) -> Iterator[Condition]:
    for row in connection.execute(_WITHHELD):
        yield Condition(
            "withheld",
            row.entity,
            f"{row.updates} updates and {row.deletes} deletes wait for approval: syncflow apply {row.uid}",
            row.created_at,
            row.batch,
            row.dagster_run_id,
        )


def _died(connection: sa.Connection, now: datetime) -> Iterator[Condition]:
    found = connection.execute(_RUNNING, {"now": now, "settled_s": SETTLED_S}).all()
    for row in found:
        if is_abandoned(connection, row.entity, row.uid):
            message = (
                f"its last sync ({row.kind}) failed: its process died; the next one settles it"
            )
            at = (row.started_at, row.uid, row.dagster_run_id)
            yield Condition("failed", row.entity, message, *at)


def _in_doubt(connection: sa.Connection, now: datetime) -> Iterator[Condition]:
    found = connection.execute(_DOUBT, {"now": now, "settled_s": SETTLED_S}).all()
    free = free_entities(connection) if found else set()
    for row in found:
        if row.entity in free:
            message = f"{row.records} writes have no outcome; its next sync asks ScheduleHub for it"
            yield Condition("in_doubt", row.entity, message, row.since)


def _odd_scans(connection: sa.Connection) -> Iterator[Condition]:
    for row in connection.execute(_SCANS, {"scans": SCANS}):
        at = (row.finished_at, row.uid, row.dagster_run_id)
        what = "a whole scan" if row.kind == "full" else row.partition or "a slice"
        if row.kind == "full" and row.fetched == 0:
            if connection.scalar(_KNOWN, {"entity": row.name, "most": 1}):
                message = "a whole scan read no row, and records are known; none was deleted"
                yield Condition("empty_source", row.name, message, *at)
            continue
        usual = usual_rows(row.fetched, row.earlier)
        if usual is not None:
            message = f"{what} read {row.fetched} rows; {usual} were usual"
            yield Condition("count_deviation", row.name, message, *at)


@contextmanager
def telling(database: Database) -> Iterator[bool]:
    """Be the one who tells, as long as the block lasts; False where another one is."""
    with translated(database.url):
        session = database.own_session()
        try:
            row = session.execute("SELECT pg_try_advisory_lock(%s)", (LOCK,)).fetchone()
            yield row is not None and bool(row[0])
        finally:
            with suppress(psycopg.Error):  # at once; the end of the session takes a moment
                session.execute("SELECT pg_advisory_unlock_all()")
            session.close()


def advance(connection: sa.Connection, seen: Sequence[Condition], now: datetime) -> Changes:
    """Make the lines that stand those of what is wrong now.

    What is over keeps its line until that was told.

    Args:
        connection: In a transaction of whoever is :func:`telling`.
        seen: What is wrong now.
        now: Aware.
    """
    changes = compare(seen, (alert for alert in load_alerts(connection) if alert.ended_at is None))
    for condition in changes.fired:
        connection.execute(
            alerts.insert().values(
                uid=new_uid(now.timestamp),
                kind=condition.kind,
                subject=condition.subject,
                message=condition.message,
                since=condition.since or now,
                batch=condition.batch,
                dagster_run_id=condition.run_id,
            )
        )
    for uid, condition in changes.stays:
        connection.execute(
            alerts.update()
            .where(alerts.c.uid == uid, alerts.c.message != condition.message)
            .values(
                message=condition.message,
                batch=condition.batch,
                dagster_run_id=condition.run_id,
            )
        )
    connection.execute(alerts.update().where(alerts.c.uid.in_(changes.over)).values(ended_at=now))
    return changes


def load_alerts(connection: sa.Connection) -> list[Alert]:
    """All lines in the order in which they are told: what is over and not told, then what stands."""
    return [
        Alert(
            uid=row.uid,
            kind=row.kind,
            subject=row.subject,
            message=row.message,
            since=row.since,
            ended_at=row.ended_at,
            batch=row.batch,
            run_id=row.dagster_run_id,
            told=frozenset(row.told),
        )
        for row in connection.execute(alerts.select().order_by(alerts.c.ended_at, alerts.c.uid))
    ]


def note_told(connection: sa.Connection, uid: UUID, notifier: str, state: State) -> None:
    """Save that a notifier has taken a change."""
    connection.execute(
        sa.text(
            "UPDATE bridge.alerts SET told = told || jsonb_build_object(CAST(:mark AS text), now()) "
            "WHERE uid = :uid"
        ),
        {"uid": uid, "mark": mark(notifier, state)},
    )


def forget_told(connection: sa.Connection, notifiers: Sequence[str]) -> None:
    """Remove what is over, and every one of these notifiers was told so."""
    marks = [mark(notifier, state) for notifier in notifiers for state in STATES]
    connection.execute(
        sa.text(
            "DELETE FROM bridge.alerts WHERE ended_at IS NOT NULL "
            "AND told ?& CAST(:marks AS text[])"
        ),
        {"marks": marks},
    )
