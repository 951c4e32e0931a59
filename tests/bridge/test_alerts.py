"""What is found wrong in a real database, and that each change is kept until it was told."""

from datetime import UTC, datetime, timedelta
from itertools import count
from uuid import UUID

import polars as pl
import pytest

from syncflow_core.alerts import SCANS_LEAST, Alert, Change, Condition
from syncflow_core.breaker import FAILURES
from syncflow_core.bridge import alerts, batches, failed, journal, plans, records
from syncflow_core.bridge.alerts import advance, find_conditions, load_alerts, telling
from syncflow_core.bridge.batches import Counts, Kind, Status
from syncflow_core.bridge.database import Database
from syncflow_core.bridge.entities import apply_entities
from syncflow_core.bridge.leases import Lease
from syncflow_core.bridge.outages import STALE_S, SharedBreaker
from syncflow_core.bridge.plans import PLANNED
from syncflow_core.entity import Entity
from syncflow_core.errors import UnavailableError
from syncflow_core.telling import tell

NOON = datetime(2026, 3, 27, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
KEYS = pl.Series("#key_hash", [bytes([n] * 16) for n in range(10)], dtype=pl.Binary)


class Bridge:
    """A bridge database with one entity, whose batches come and go."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.now = NOON
        with database.begin() as connection:
            apply_entities(connection, [Entity(name="orders")])

    def batch(
        self,
        status: Status,
        kind: Kind = "full",
        rows: int = 10,
        part: str | None = None,
        **proof: bool,
    ) -> UUID:
        self.now += HOUR
        with self.database.begin() as connection:
            uid = batches.open_batch(
                connection,
                entity="orders",
                entity_version=1,
                kind=kind,
                now=self.now,
                partition=part,
            )
            batches.close_batch(
                connection,
                uid,
                status,
                Counts(fetched=rows, unchanged=rows),
                now=self.now,
                proof=proof,
                error="hub refused 'tiger'" if status == "failed" else None,
            )
        return uid

    def known(self, number: int) -> None:
        lines = pl.DataFrame({"#key_hash": KEYS[:number]}).with_columns(
            pl.lit(bytes(32)).alias("#data_hash"), pl.lit(None, pl.String).alias("#parent_refs")
        )
        uid = self.batch("completed")
        with self.database.begin() as connection:
            records.save_acknowledged(connection, "orders", lines, uid)

    def letters(self, number: int, batch: UUID, rule: str = "range") -> None:
        lines = pl.DataFrame({"#key_hash": KEYS[:number]}).with_columns(
            pl.lit("normalize").alias("stage"),
            pl.lit(rule).alias("rule"),
            *(pl.lit("tiger").alias(name) for name in ("message", "value", "raw", "#reference")),
            pl.lit("name").alias("column"),
            pl.lit(3, dtype=pl.UInt8).alias("layer"),
        )
        with self.database.begin() as connection:
            failed.file_failed(connection, "orders", lines, batch, self.now)

    def resolve(self) -> None:
        with self.database.begin() as connection:
            failed.resolve_failed(connection, "orders", KEYS, "went through", self.now)

    def wrong(self) -> dict[str, Condition]:
        with self.database.begin() as connection:
            found = find_conditions(connection, self.now, failed_share=0.3)
        return {item.kind: item for item in reversed(found)}


@pytest.fixture
def bridge(database: Database) -> Bridge:
    return Bridge(database)


def test_a_sync_that_failed_is_wrong_until_another_reads_and_a_retry_is_no_reading(
    bridge: Bridge,
) -> None:
    uid = bridge.batch("failed", unavailable=True)
    found = bridge.wrong()
    bridge.batch("completed", kind="retry")
    after_retry = set(bridge.wrong())
    bridge.batch("completed", kind="incremental")
    after = set(bridge.wrong())
    bridge.batch("failed", kind="retry")

    assert set(found) == {"failed"}
    assert found["failed"].message == "its last sync (full) failed: a system did not answer"
    assert (found["failed"].batch, found["failed"].subject) == (uid, "orders")
    assert (after_retry, after, set(bridge.wrong())) == ({"failed"}, set(), {"failed"})


def test_a_sync_that_a_person_stopped_is_not_wrong_and_one_that_something_else_ended_is(
    bridge: Bridge,
) -> None:
    bridge.batch("stopped", asked_to_stop=True)
    asked = set(bridge.wrong())
    bridge.batch("stopped", kind="slice", part="slice-1")

    assert (asked, set(bridge.wrong())) == (set(), {"stopped"})


def test_an_entity_with_dead_letters_is_degraded_however_well_its_next_batch_ends(
    bridge: Bridge,
) -> None:
    bridge.known(10)
    bridge.letters(2, bridge.batch("partial"))
    few = bridge.wrong()
    bridge.batch("completed", kind="incremental")
    still = set(bridge.wrong())
    bridge.letters(4, bridge.batch("partial"), "hub_Tiger & Sons")
    many = bridge.wrong()
    bridge.batch("completed", kind="incremental")
    bridge.resolve()

    assert set(few) == still == {"partial"}
    assert few["partial"].message == "2 records are not delivered: 2 x normalize range"
    assert set(many) == {"partial", "dead_letters"}
    assert many["partial"].message == "4 records are not delivered: 4 x normalize other"
    assert many["dead_letters"].message == "4 dead letters are more than 30% of 10 records"
    assert bridge.wrong() == {}


def test_no_value_and_no_word_of_another_system_is_in_what_is_told(bridge: Bridge) -> None:
    bridge.letters(2, bridge.batch("failed"), "tiger bites")

    found = bridge.wrong()

    assert set(found) == {"failed", "partial", "dead_letters"}
    told = [
        Change(
            Alert(UUID(int=1), item.kind, item.subject, item.message, NOON), "firing", "x"
        ).payload
        for item in found.values()
    ]
    assert "tiger" not in str(told)


def test_what_is_withheld_is_wrong_until_a_person_approves_it(bridge: Bridge) -> None:
    uid = bridge.batch("withheld")
    with bridge.database.begin() as connection:
        plan = plans.save_plan(
            connection,
            entity="orders",
            kind="withheld",
            batch=uid,
            counts={"updates": 3, "deletes": 200},
            records=PLANNED.to_frame(),
            samples=[{"op": "delete", "record": "tiger"}],
            reason="tiger",
            run_id="run-1",
            now=bridge.now,
        )
    waits = bridge.wrong()
    with bridge.database.begin() as connection:
        plans.approve_plan(connection, plan, by="somebody", now=bridge.now)

    assert waits["withheld"].message == (
        f"3 updates and 200 deletes wait for approval: syncflow apply {plan}"
    )
    assert (set(waits), bridge.wrong()) == ({"withheld"}, {})


def test_a_system_is_away_until_it_answers_somebody_however_late(bridge: Bridge) -> None:
    breaker = SharedBreaker(bridge.database, "schedulehub")
    breaker.answered()
    for _ in range(FAILURES):
        breaker.failed()
    away = bridge.wrong()
    with bridge.database.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE bridge.target_limits SET state = jsonb_build_object('probe_at', "
            "(state ->> 'probe_at')::float8 - %s)",
            (2 * STALE_S,),
        )
    late = bridge.wrong()
    other = SharedBreaker(bridge.database, "schedulehub")
    at_once = other.wait_s()
    other.answered()

    assert [found["system_away"].subject for found in (away, late)] == ["schedulehub"] * 2
    assert (at_once, bridge.wrong()) == (0.0, {})


def test_writes_without_an_outcome_are_in_doubt_where_nobody_is_at_work(bridge: Bridge) -> None:
    uid = bridge.batch("completed")
    with bridge.database.begin() as connection:
        journal.write_intents(
            connection,
            entity="orders",
            batch=uid,
            calls=[("insert", KEYS), ("update", KEYS[:2])],
            fence=1,
            now=bridge.now,
        )
    fresh = set(bridge.wrong())
    bridge.now += HOUR
    with Lease.acquire(bridge.database, "orders"):
        held = set(bridge.wrong())
    found = bridge.wrong()

    assert (fresh, held, set(found)) == (set(), set(), {"in_doubt"})
    assert found["in_doubt"].message.startswith("12 writes have no outcome")


def test_children_that_have_given_up_are_told(bridge: Bridge) -> None:
    with bridge.database.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO bridge.pending_children (entity, key_hash, reference_name, parent_entity, "
            "parent_key_hash, payload, kind, state, created_at, updated_at) "
            "SELECT 'orders', decode(lpad(n::text, 32, '0'), 'hex'), 'site', 'orders', '\\x00', '{}', "
            "'parked', CASE WHEN n < 3 THEN 'dead' ELSE 'waiting' END, now(), now() "
            "FROM generate_series(0, 5) AS n"
        )

    found = bridge.wrong()

    assert set(found) == {"given_up"}
    assert found["given_up"].message.startswith("3 records wait for a parent")


def test_a_scan_is_compared_with_scans_of_the_same_and_an_empty_one_is_empty(
    bridge: Bridge,
) -> None:
    for rows in (1000, 1010, 990):
        bridge.batch("completed", rows=rows)
        bridge.batch("completed", kind="slice", part="slice-1", rows=140)
    bridge.batch("completed", kind="slice", part="slice-2", rows=10)
    other_slice = bridge.wrong()
    bridge.batch("completed", kind="slice", part="slice-1", rows=10)
    slice_ = bridge.wrong()
    bridge.batch("completed", rows=400)
    few = bridge.wrong()
    bridge.batch("failed", rows=1)
    bridge.batch("completed", rows=0)
    nothing_known = bridge.wrong()
    bridge.known(1)
    bridge.batch("completed", rows=0)
    empty = bridge.wrong()
    bridge.batch("completed", rows=1000)

    assert SCANS_LEAST == 3
    assert (other_slice, set(slice_)) == ({}, {"count_deviation"})
    assert slice_["count_deviation"].message == "slice-1 read 10 rows; 140 were usual"
    assert few["count_deviation"].message == "a whole scan read 400 rows; 1000 were usual"
    assert (nothing_known, set(empty), bridge.wrong()) == ({}, {"empty_source"}, {})


def test_an_entity_that_is_disabled_is_nobodys_trouble(bridge: Bridge) -> None:
    bridge.letters(2, bridge.batch("failed"))
    with bridge.database.begin() as connection:
        apply_entities(connection, [Entity(name="orders", enabled=False)])

    assert bridge.wrong() == {}


class Receiver:
    """A notifier that takes what it is told, or is away."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.away = False
        self.got: list[str] = []

    def tell(self, change: Change) -> None:
        if self.away:
            raise UnavailableError("away")
        self.got.append(f"{change.state} {change.alert.kind}")


def test_a_receiver_that_was_away_is_told_all_in_order_and_the_other_is_told_once(
    database: Database,
) -> None:
    one, two = Receiver("webhook"), Receiver("mail")
    seen: list[Condition] = []
    hours = count()

    def look() -> int:
        moment = NOON + HOUR * next(hours)
        return tell(database, lambda *_: seen, [one, two], "x", now=lambda: moment).left

    one.away = True
    left = []
    for now in ([Condition("failed", "a", "x")], [], [Condition("failed", "a", "x")]):
        seen[:] = now
        left += [look(), look()]
    one.away = False
    seen.clear()
    left += [look(), look()]
    with database.begin() as connection:
        kept = load_alerts(connection)

    assert two.got == ["firing failed", "recovered failed"] * 2
    assert one.got == two.got
    assert left == [1, 1, 2, 2, 3, 3, 0, 0]
    assert kept == []


def test_who_dies_between_telling_and_noting_tells_the_same_again(database: Database) -> None:
    class Died(BaseException):
        """The process is gone."""

    class Dying(Receiver):
        def tell(self, change: Change) -> None:
            self.got.append(change.id)
            if len(self.got) == 1:
                raise Died

    dying, seen = Dying("webhook"), [Condition("failed", "a", "x")]

    with pytest.raises(Died):
        tell(database, lambda *_: seen, [dying], "x", now=lambda: NOON)
    for _ in range(2):
        tell(database, lambda *_: seen, [dying], "x", now=lambda: NOON)

    assert len(dying.got) == 2
    assert dying.got[0] == dying.got[1]


def test_there_is_one_teller_at_a_time(database: Database, migrated_url: str) -> None:
    receiver = Receiver("webhook")
    with Database(migrated_url) as other, telling(other) as first:
        second = tell(
            database, lambda *_: [Condition("failed", "a", "x")], [receiver], "x", now=lambda: NOON
        )
    third = tell(
        database, lambda *_: [Condition("failed", "a", "x")], [receiver], "x", now=lambda: NOON
    )

    assert (first, second.elsewhere, second.changes) == (True, True, [])
    assert (third.elsewhere, receiver.got) == (False, ["firing failed"])


def test_what_many_look_at_at_once_stands_once(database: Database) -> None:
    seen = [Condition("failed", name, "x") for name in ("a", "b", "a")]
    with database.begin() as connection:
        advance(connection, seen, NOON)
        advance(connection, seen, NOON)
        standing = load_alerts(connection)
        advance(connection, seen[:1], NOON)
        alerts.forget_told(connection, ["webhook"])
        kept = load_alerts(connection)

    assert sorted((alert.subject, alert.ended_at) for alert in standing) == [
        ("a", None),
        ("b", None),
    ]
    assert sorted((alert.subject, alert.ended_at) for alert in kept) == [("a", None), ("b", NOON)]
