"""The modules of the table groups, on a real database."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from uuid import UUID, uuid4

import polars as pl
import pytest
import sqlalchemy as sa
from polars.testing import assert_frame_equal

from syncflow_core import columns
from syncflow_core.backoff import ATTEMPTS
from syncflow_core.bridge import (
    batches,
    events,
    failed,
    journal,
    pending,
    records,
    schedules,
    state,
    sweeps,
)
from syncflow_core.bridge.batches import Counts
from syncflow_core.bridge.database import Database
from syncflow_core.bridge.entities import apply_entities
from syncflow_core.bridge.identifiers import new_uid
from syncflow_core.bridge.schedules import Progress
from syncflow_core.bridge.state import ScanProof, State
from syncflow_core.bridge.sweeps import Slice
from syncflow_core.bridge.tables import scan_proofs
from syncflow_core.entity import Entity
from syncflow_core.errors import ConfigError

NOW = datetime(2025, 12, 8, 10, 30, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
HUB = "01939a1b-0000-7000-8000-000000000001"


def key(number: int) -> bytes:
    return number.to_bytes(16)


def keys(*numbers: int) -> pl.Series:
    return pl.Series("#key_hash", [key(number) for number in numbers], dtype=pl.Binary)


def numbers(found: pl.Series) -> list[int]:
    return sorted(int.from_bytes(value) for value in found)


@pytest.fixture
def batch(database: Database) -> UUID:
    """A running batch of the entity ``orders``; ``lines`` is there too."""
    with database.begin() as connection:
        apply_entities(connection, [Entity(name="orders"), Entity(name="lines")])
        return batches.open_batch(
            connection, entity="orders", entity_version=1, kind="full", now=NOW
        )


def acknowledged(*of: int, **more: Any) -> pl.DataFrame:
    values: dict[str, Any] = {"#data_hash": bytes(32), "#parent_refs": "{}", **more}
    return pl.DataFrame({"#key_hash": keys(*of)}).with_columns(
        pl.lit(value).alias(name) for name, value in values.items()
    )


# records


def test_what_was_acknowledged_is_known(database: Database, batch: UUID) -> None:
    frame = acknowledged(
        1, 2, **{"#rowversion": "7", "#hub_uid": HUB, "#reference": "a=1", "#key_source": "{}"}
    )
    with database.begin() as connection:
        records.save_acknowledged(connection, "orders", frame, batch)
        some = records.load_known_of(connection, "orders", keys(2, 3))

    expected = pl.DataFrame(
        {
            "#key_hash": keys(1, 2),
            "#data_hash": [bytes(32)] * 2,
            "#rowversion": ["7"] * 2,
            "#parent_refs": ["{}"] * 2,
            "#hub_uid": [HUB] * 2,
            "deleted": [False] * 2,
        },
        schema=columns.KNOWN_WHOLE,
    )
    assert_frame_equal(
        records.load_known(database, "orders"),
        expected.select(columns.KNOWN.names()),
        check_row_order=False,
    )
    assert_frame_equal(some, expected.tail(1))
    assert records.load_known(database, "lines").schema == columns.KNOWN


def test_what_is_new_is_saved_by_copy_as_by_an_upsert(database: Database, batch: UUID) -> None:
    frame = acknowledged(3, 1, 2, **{"#hub_uid": HUB})
    with database.begin() as connection:
        assert records.insert_acknowledged(connection, "orders", frame, batch)
        records.save_acknowledged(connection, "lines", frame, batch)

    assert_frame_equal(
        records.load_known(database, "orders"),
        records.load_known(database, "lines"),
        check_row_order=False,
    )


def test_a_record_that_has_a_line_keeps_all_of_them_from_being_saved_as_new(
    database: Database, batch: UUID
) -> None:
    with database.begin() as connection:
        records.save_acknowledged(connection, "orders", acknowledged(2), batch)
        records.mark_deleted(connection, "orders", keys(2), batch)

        written = records.insert_acknowledged(connection, "orders", acknowledged(1, 2, 3), batch)
        alive = records.acknowledged_among(connection, "orders", keys(1, 2, 3))
        records.save_acknowledged(connection, "orders", acknowledged(1, 2, 3), batch)

    assert not written
    assert alive.is_empty()
    assert records.load_known(database, "orders").height == 3


def test_an_update_replaces_hashes_and_keeps_what_it_does_not_bring(
    database: Database, batch: UUID
) -> None:
    first = acknowledged(1, **{"#hub_uid": HUB, "#reference": "a=1", "#key_source": '{"A":1}'})
    with database.begin() as connection:
        records.save_acknowledged(connection, "orders", first, batch)
        records.save_acknowledged(
            connection, "orders", acknowledged(1, **{"#data_hash": b"\x01" * 32}), batch
        )
        known = records.load_known_of(connection, "orders", keys(1))
        source = records.load_key_sources(connection, "orders", keys(1))

    assert known["#data_hash"].to_list() == [b"\x01" * 32]
    assert known["#hub_uid"].to_list() == [HUB]
    assert source.rows() == [(key(1), "a=1", '{"A":1}')]


def test_a_deleted_record_is_known_but_not_acknowledged_until_it_is_back(
    database: Database, batch: UUID
) -> None:
    with database.begin() as connection:
        records.save_acknowledged(connection, "orders", acknowledged(1, 2), batch)
        records.mark_deleted(connection, "orders", keys(2, 9), batch)
        gone = records.acknowledged_among(connection, "orders", keys(1, 2, 9))
        count = records.count_known(connection, "orders")
        known = records.load_known_of(connection, "orders", keys(2))
        records.save_acknowledged(connection, "orders", acknowledged(2), batch)
        back = records.acknowledged_among(connection, "orders", keys(1, 2, 9))

    assert (numbers(gone), count, known["deleted"].to_list()) == ([1], 1, [True])
    assert numbers(back) == [1, 2]


def test_what_is_known_is_alive(database: Database, batch: UUID) -> None:
    with database.begin() as connection:
        records.save_acknowledged(connection, "orders", acknowledged(1, 2), batch)
        records.mark_deleted(connection, "orders", keys(2), batch)

    assert numbers(records.load_known(database, "orders")["#key_hash"]) == [1]


@pytest.mark.parametrize("few", [0, 2, 3])
def test_few_records_and_many_are_read_alike(
    database: Database, batch: UUID, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "FEW", few)
    with database.begin() as connection:
        bare, whole = acknowledged(1, 2), {"#rowversion": "7", "#parent_refs": '{"up": "ä"}'}
        records.save_acknowledged(connection, "orders", bare, batch)
        records.save_acknowledged(connection, "orders", acknowledged(3, **whole), batch)
        records.mark_deleted(connection, "orders", keys(2), batch)

    every = records.load_known(database, "orders").sort("#key_hash")
    some = records.load_known_among(database, "orders", keys(2, 3, 9))
    none = records.load_known_among(database, "orders", keys())

    expected = pl.DataFrame(
        {
            "#key_hash": keys(1, 3),
            "#data_hash": [bytes(32)] * 2,
            "#rowversion": [None, "7"],
            "#parent_refs": ["{}", '{"up": "ä"}'],
        },
        schema=columns.KNOWN,
    ).sort("#key_hash")
    assert_frame_equal(every, expected)
    assert_frame_equal(some, expected.filter(pl.col("#rowversion") == "7"))
    assert_frame_equal(none, expected.clear())


def test_a_rowversion_advances_without_a_change(database: Database, batch: UUID) -> None:
    with database.begin() as connection:
        records.save_acknowledged(
            connection, "orders", acknowledged(1, **{"#rowversion": "1"}), batch
        )
        records.save_rowversions(connection, "orders", acknowledged(1, **{"#rowversion": "2"}))
        known = records.load_known_of(connection, "orders", keys(1))

    assert known["#rowversion"].to_list() == ["2"]


# batches


def test_a_batch_closes_once_with_its_accounts(database: Database, batch: UUID) -> None:
    counts = Counts(fetched=10, rejected=1, inserted=9)
    with database.begin() as connection:
        first = batches.close_batch(
            connection, batch, "partial", counts, now=LATER, seconds={"total": 2.0}
        )
        second = batches.close_batch(connection, batch, "failed", Counts(), now=LATER)
        found = batches.load_batch(connection, batch)

    assert (first, second) == (True, False)
    assert (found.status, found.counts, found.rows_per_second) == ("partial", counts, 5.0)
    assert (found.started_at, found.finished_at) == (NOW, LATER)
    assert batch.version == 7


def test_accounts_close_when_every_fetched_row_has_an_outcome() -> None:
    counts = Counts(
        fetched=28,
        rejected=1,
        inserted=2,
        updated=3,
        unchanged=4,
        pending=5,
        failed=6,
        withheld=7,
        deleted=100,
        retried=100,
        withheld_deletes=100,
    )

    assert counts.unaccounted == 0
    assert (counts + Counts(fetched=1)).unaccounted == 1


def test_history_is_newest_first_and_filtered(database: Database, batch: UUID) -> None:
    with database.begin() as connection:
        newer = batches.open_batch(
            connection,
            entity="lines",
            entity_version=1,
            kind="slice",
            now=LATER,
            partition="slice-2",
        )
        everything = [item.uid for item in batches.history(connection)]
        lines = [item.uid for item in batches.history(connection, entities=["lines"])]
        first = batches.history(connection, limit=1)[0]
        behind = batches.history(connection, limit=1, after=(first.started_at, first.uid))
        page = [item.uid for item in behind]
        earlier = [item.uid for item in batches.history(connection, until=LATER)]
        done = batches.history(connection, statuses=["completed"])

    assert (everything, lines, page, earlier, done) == (
        [newer, batch],
        [newer],
        [batch],
        [batch],
        [],
    )


def test_an_unknown_batch_is_said_to_be_unknown(database: Database) -> None:
    unknown = uuid4()
    with database.begin() as connection, pytest.raises(ConfigError, match=str(unknown)):
        batches.load_batch(connection, unknown)


def test_dead_batches_are_closed_but_not_the_holders_own(database: Database, batch: UUID) -> None:
    with database.begin() as connection:
        own = batches.open_batch(
            connection, entity="orders", entity_version=1, kind="full", now=LATER
        )
        dead = batches.close_dead_batches(
            connection, "orders", "its process died", now=LATER, but=own
        )
        found = batches.load_batch(connection, batch)

        assert [item.uid for item in dead] == [batch]
        assert (found.status, found.error) == ("failed", "its process died")
        assert batches.load_batch(connection, own).status == "running"


def test_new_uids_are_version_7_and_sort_by_their_time() -> None:
    clock = iter(range(1, 50))
    uids = [new_uid(lambda: float(next(clock))) for _ in range(49)]

    assert uids == sorted(uids)
    assert {(uid.version, uid.variant) for uid in uids} == {(7, "specified in RFC 4122")}


# failed records


def refused(
    *of: int | None, rule: str = "number", value: str | None = "x", stage: str = "normalize"
) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "#key_hash": pl.Series([None if n is None else key(n) for n in of], dtype=pl.Binary),
            "raw_digest": pl.Series([b"d" * 16 for _ in of], dtype=pl.Binary),
        }
    ).with_columns(
        pl.lit(stage).alias("stage"),
        pl.lit(3, pl.UInt8).alias("layer"),
        pl.lit(rule).alias("rule"),
        pl.lit("QTY").alias("column"),
        pl.lit(value, pl.String).alias("value"),
        pl.lit("is no number").alias("message"),
        pl.lit('{"QTY":"x"}').alias("raw"),
    )


def test_a_record_that_fails_again_has_one_open_row_with_two_attempts(
    database: Database, batch: UUID
) -> None:
    with database.begin() as connection:
        failed.file_failed(connection, "orders", refused(1, None), batch, NOW)
        failed.file_failed(connection, "orders", refused(1, rule="range"), batch, LATER)
        found = failed.open_failed(connection, "orders").sort("attempts")

    assert found.schema == failed.FAILED
    assert found["attempts"].to_list() == [1, 2]
    assert found["rule"].to_list() == ["number", "range"]
    assert found["first_seen"].to_list() == [NOW, NOW]
    assert found["last_seen"].to_list() == [NOW, LATER]


def test_several_lines_of_one_key_make_one_row(database: Database, batch: UUID) -> None:
    with database.begin() as connection:
        written = failed.file_failed(connection, "orders", refused(1, 1, 2), batch, NOW)

        assert (written, failed.open_failed(connection, "orders").height) == (2, 2)


def test_a_resolved_record_that_fails_again_gets_a_new_row(database: Database, batch: UUID) -> None:
    with database.begin() as connection:
        failed.file_failed(connection, "orders", refused(1), batch, NOW)
        closed = failed.resolve_failed(connection, "orders", keys(1, 2), "synced", LATER)
        failed.file_failed(connection, "orders", refused(1), batch, LATER)
        rows = connection.scalar(sa.text("SELECT count(*) FROM bridge.failed_records"))

        assert (closed, rows, failed.open_failed(connection, "orders").height) == (1, 2, 1)


def test_rows_without_a_key_are_resolved_when_a_scan_does_not_meet_them(
    database: Database, batch: UUID
) -> None:
    with database.begin() as connection:
        failed.file_failed(connection, "orders", refused(None, 1), batch, NOW)
        same = failed.resolve_unseen(connection, "orders", [uuid4(), batch], "gone", LATER)
        other = failed.resolve_unseen(connection, "orders", [uuid4()], "gone", LATER)

    assert (same, other) == (0, 1)


def test_what_the_hub_refused_is_due_with_growing_delays_and_at_last_no_more(
    database: Database, batch: UUID
) -> None:
    delays = []
    with database.begin() as connection:
        for _ in range(ATTEMPTS):
            failed.file_failed(connection, "orders", refused(1, stage="push"), batch, NOW)
            delays.append(failed.open_failed(connection, "orders")["due_at"][0])
        soon = failed.open_failed(connection, "orders", due_by=LATER)

    assert [None if at is None else (at - NOW).total_seconds() for at in delays] == [
        60, 240, 960, 3840, None
    ]  # fmt: skip
    assert soon.is_empty()


def test_what_a_rule_refused_is_not_due_by_itself_and_any_text_survives(
    database: Database, batch: UUID
) -> None:
    odd = 'tab\t "quote" back\\slash \n'
    with database.begin() as connection:
        failed.file_failed(connection, "orders", refused(1, value=odd), batch, NOW)
        due = failed.open_failed(connection, "orders", due_by=LATER)
        every = failed.open_failed(connection, "orders", limit=5)

    assert (due.height, every["value"].to_list()) == (0, [odd])


# pending children and deletes


def children(of: Sequence[int], parent: int, **more: Any) -> pl.DataFrame:
    values: dict[str, Any] = {
        "reference_name": "order",
        "parent_entity": "orders",
        "parent_key_hash": key(parent),
        "payload": '{"a":1}',
        "kind": "parked",
        "due_at": NOW,
        **more,
    }
    frame = pl.DataFrame({"#key_hash": keys(*of)}).with_columns(
        pl.lit(value).alias(name) for name, value in values.items()
    )
    missing = [name for name in pending.PARKED if name not in frame.columns]
    return frame.with_columns(
        pl.lit(None, pending.PARKED[name]).alias(name) for name in missing
    ).select(pl.col(name).cast(kind) for name, kind in pending.PARKED.items())


def test_a_child_is_found_by_its_parent_and_when_it_is_due(database: Database, batch: UUID) -> None:
    with database.begin() as connection:
        pending.park(connection, "lines", children([1, 2], 10), batch, NOW)
        pending.park(connection, "lines", children([3], 11, due_at=LATER), batch, NOW)
        of_parent = pending.waiting_for(connection, "orders", keys(10))
        due_now = pending.due(connection, "lines", NOW)
        all_open = pending.open_pending(connection, "lines")

    assert of_parent.schema == pending.PENDING
    assert numbers(of_parent["#key_hash"]) == [1, 2]
    assert numbers(due_now["#key_hash"]) == [1, 2]
    assert numbers(all_open["#key_hash"]) == [1, 2, 3]


def test_parking_again_keeps_the_attempts_unless_the_parent_is_another(
    database: Database, batch: UUID
) -> None:
    with database.begin() as connection:
        pending.park(connection, "lines", children([1], 10), batch, NOW)
        tried = pending.due(connection, "lines", NOW).with_columns(
            pl.lit(4).alias("attempts"), pl.lit("dead").alias("state")
        )
        pending.defer(connection, "lines", tried, NOW)
        pending.park(connection, "lines", children([1], 10, payload="{}"), batch, LATER)
        same = pending.open_pending(connection, "lines").select("attempts", "state", "payload")
        pending.park(connection, "lines", children([1], 11), batch, LATER)
        other = pending.open_pending(connection, "lines").select("attempts", "state")

    assert same.rows() == [(4, "dead", "{}")]
    assert other.rows() == [(0, "waiting")]


def test_a_dead_child_is_still_released_when_its_parent_lands(
    database: Database, batch: UUID
) -> None:
    with database.begin() as connection:
        pending.park(connection, "lines", children([1], 10, due_at=None), batch, NOW)
        dead = pending.open_pending(connection, "lines").with_columns(
            pl.lit(5).alias("attempts"), pl.lit("dead").alias("state")
        )
        pending.defer(connection, "lines", dead, NOW)
        before = pending.entities_to_release(connection, LATER)
        records.save_acknowledged(connection, "orders", acknowledged(10), batch)
        during = pending.entities_to_release(connection, LATER)
        batches.close_batch(connection, batch, "completed", Counts(), now=LATER)
        after = pending.entities_to_release(connection, LATER)
        pending.close_pending(connection, "lines", keys(1), "released", LATER)

        assert (before, during, after) == ([], [], ["lines"])
        assert pending.open_pending(connection, "lines").is_empty()


def test_a_delete_waits_until_it_is_done_or_cancelled(database: Database, batch: UUID) -> None:
    wanted = acknowledged(1, 2, **{"#hub_uid": HUB})
    with database.begin() as connection:
        pending.wait_delete(connection, "orders", wanted, batch, NOW)
        pending.wait_delete(connection, "orders", wanted, batch, LATER)
        cancelled = pending.cancel_deletes(connection, "orders", keys(1))
        left = pending.waiting_deletes(connection, "orders")

    assert cancelled == 1
    assert left.rows() == [(key(2), HUB)]


# journal, events, state, schedule


def test_an_intent_is_open_until_its_first_outcome(database: Database, batch: UUID) -> None:
    with database.begin() as connection:
        (uid, _) = journal.write_intents(
            connection,
            entity="orders",
            batch=batch,
            calls=[("insert", keys(1, 2)), ("delete", keys(3))],
            fence=3,
            now=NOW,
        )
        found = {intent.op: intent for intent in journal.open_intents(connection, "orders")}
        intent, other = found["insert"], found["delete"]
        journal.close_intents(connection, [uid], "settled", LATER)
        journal.close_intents(connection, [uid, other.uid], "done", LATER)
        outcomes = connection.scalars(
            sa.text("SELECT outcome FROM bridge.push_journal ORDER BY op DESC")
        ).all()
        left = journal.open_intents(connection, "orders")

    assert (intent.uid, intent.op, numbers(intent.key_hashes)) == (uid, "insert", [1, 2])
    assert (other.op, numbers(other.key_hashes)) == ("delete", [3])
    assert (outcomes, left) == (["settled", "done"], [])


def test_a_records_story_is_told_in_order(database: Database, batch: UUID) -> None:
    def happened(event: str, detail: str | None) -> pl.DataFrame:
        return pl.DataFrame({"#key_hash": keys(1), "event": [event]}).with_columns(
            pl.lit(detail, pl.String).alias("detail")
        )

    with database.begin() as connection:
        events.record(connection, "orders", happened("inserted", None), batch, NOW)
        events.record(connection, "orders", happened("updated", '{"fields":["qty"]}'), batch, LATER)
        story = events.story(connection, "orders", key(1))
        newest = events.story(connection, "orders", key(1), limit=1)

    assert [(item.event, item.at, item.batch, item.detail) for item in story] == [
        ("inserted", NOW, batch, {}),
        ("updated", LATER, batch, {"fields": ["qty"]}),
    ]
    assert newest == story[1:]


def test_state_begins_empty_and_is_replaced(database: Database, batch: UUID) -> None:
    with database.begin() as connection:
        empty = state.load_state(connection, "orders", "orders_api")
        moved = replace(empty, watermark="9", last_batch=batch, counts={"fetched": 1})
        state.save_state(connection, "orders", "orders_api", moved, NOW)
        again = replace(moved, watermark="10", last_full_scan_at=LATER, counts=None)
        state.save_state(connection, "orders", "orders_api", again, LATER)

        assert empty == State()
        assert state.load_state(connection, "orders", "orders_api") == again
        assert state.load_state(connection, "orders", "other_api") == State()


def test_a_scan_done_again_replaces_its_proof(database: Database, batch: UUID) -> None:
    torn = ScanProof(2, 10, 9, 11, 1, complete=False, note="the total changed")
    whole = ScanProof(2, 11, 11, 11, 1, complete=True, digest=b"d")
    with database.begin() as connection:
        state.save_proof(connection, batch, torn)
        state.save_proof(connection, batch, ScanProof(1, None, 5, None, 1, complete=True))
        state.save_proof(connection, batch, whole)
        kept = scan_proofs.select().order_by(scan_proofs.c.slice)
        proofs = connection.execute(kept).mappings().all()

    assert [row["slice"] for row in proofs] == [1, 2]
    assert dict(proofs[1]) == {**asdict(whole), "batch": batch}


def test_a_slice_that_is_done_is_saved_beside_the_declared_window(
    database: Database, batch: UUID
) -> None:
    first, second = date(2025, 12, 7), date(2025, 12, 8)
    with database.begin() as connection:
        for number, rows, night in ((1, 10, first), (2, 30, second), (3, 20, second)):
            seen = Slice(number, 7, batch, rows, complete=True, unkeyed=0, head=(), tail=())
            sweeps.save_slice(connection, "orders", seen, keys(number), NOW)
            schedules.note_slice(connection, "orders", number, night=night, ends=False, now=NOW)
        (under_way,) = schedules.load_nights(connection, ["orders"])
        sweeps.end_sweep(connection, "orders", NOW)
        schedules.note_slice(connection, "orders", 7, night=second, ends=True, now=NOW)
        others, ended = schedules.load_nights(connection)

    assert under_way.progress == Progress(
        slice_size=30,
        current_offset=60,
        sweep_number=0,
        last_slice=3,
        last_night=second,
        sweep_night=first,
        next_run_at=None,
    )
    assert ended.progress == Progress(None, 0, 1, 7, second, None, None)
    assert (ended.window_start, ended.window_end, ended.nights) == (time(19), time(7), 7)
    assert (others.entity, others.progress) == (
        "lines",
        Progress(None, 0, 0, None, None, None, None),
    )
