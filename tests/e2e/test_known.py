"""Known records that are read ahead, while other stages work; and again where that came to nothing."""

import signal
import threading
import time

import dagster as dg
import polars as pl
import psycopg
import pytest
import sqlalchemy as sa
from forked import Failpoint
from machine import until
from place import Place, outcome
from tables import hub, table

from syncflow_core.bridge import arrow, database, records
from syncflow_core.bridge.database import Database
from syncflow_core.entity import Brake, Entity
from syncflow_core.errors import UnavailableError
from syncflow_core.stages import known, sender

COLUMNS = {"ID": "NUMBER(9)", "NAME": "VARCHAR2(9)"}


@pytest.mark.parametrize("broken", [False, True], ids=["read", "broken off"])
def test_known_records_are_read_ahead_and_where_that_fails_when_they_are_compared(
    place: Place, monkeypatch: pytest.MonkeyPatch, *, broken: bool
) -> None:
    table(place, "itm", COLUMNS, [{"ID": n, "NAME": f"n{n}"} for n in range(20)])
    place.apply([Entity(name="itm")])
    place.sync()
    readers: list[str] = []
    load = records.load_known

    def told(database: Database, entity: str) -> pl.DataFrame:
        readers.append(threading.current_thread().name.partition("_")[0])
        if broken and len(readers) == 1:
            raise UnavailableError("the connection broke")
        return load(database, entity)

    monkeypatch.setattr(records, "load_known", told)

    run = place.sync()

    assert outcome(run, "itm") == {"fetched": 20, "normalized": 20, "unchanged": 20}
    assert readers == (["known", "MainThread"] if broken else ["known"])


def test_a_slice_is_compared_piece_by_piece_and_by_two_sessions(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known, "PART_ROWS", 7)
    monkeypatch.setattr(records, "FEW", 0)
    monkeypatch.setattr(arrow, "MANY_KEYS", 2)
    table(place, "itm", COLUMNS, [{"ID": n, "NAME": f"n{n}"} for n in range(20)])
    place.apply([Entity(name="itm")])
    place.sync(slice_=1, slices=2)
    changed = [{"ID": n, "NAME": f"n{n}" if n % 5 else "new"} for n in range(23)]
    table(place, "itm", COLUMNS, changed)

    run = place.sync(slice_=1, slices=2)

    # few rows, and slices overlap by more: each slice reads them all
    assert outcome(run, "itm") == {
        "fetched": 23,
        "normalized": 23,
        "inserted": 3,
        "updated": 4,
        "unchanged": 16,
    }


def test_records_that_come_back_among_new_ones_are_known_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "MANY_NEW", 2)
    rows = [{"ID": n, "NAME": f"n{n}"} for n in range(30)]
    place.apply([Entity(name="itm", brake=Brake(rows=100, share=1))])
    for present in (rows[:20], rows[:10], rows):
        table(place, "itm", COLUMNS, present)
        run = place.sync()
    quiet = place.sync()

    assert outcome(run, "itm") == {
        "fetched": 30,
        "normalized": 30,
        "inserted": 20,
        "unchanged": 10,
    }
    assert outcome(quiet, "itm") == {"fetched": 30, "normalized": 30, "unchanged": 30}
    assert len(hub(place, "itm")) == 30


def test_a_slice_shows_its_own_rows_as_row_count_and_counts_no_others(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    table(place, "itm", COLUMNS, [{"ID": n, "NAME": f"n{n}"} for n in range(1_000)])
    place.apply([Entity(name="itm")])
    place.sync(slice_=1, slices=2)
    counted: list[str] = []
    count = records.count_known

    def told(connection: sa.Connection, entity: str) -> int:
        counted.append(entity)
        return count(connection, entity)

    monkeypatch.setattr(records, "count_known", told)

    run = place.sync(slice_=2, slices=2)

    event = place.instance.get_latest_materialization_event(dg.AssetKey(["itm"]))
    assert event is not None
    assert event.asset_materialization is not None
    shown = event.asset_materialization.metadata["dagster/row_count"].value
    assert shown == run.batches[0].counts.fetched == 700
    assert counted == []


@pytest.mark.parametrize("how", [["--full"], ["--slice", "1"]], ids=["whole", "slice"])
def test_a_sync_that_waits_for_known_records_ends_when_it_is_told_to(
    place: Place, how: list[str]
) -> None:
    table(place, "itm", COLUMNS, [{"ID": n, "NAME": f"n{n}"} for n in range(20)])
    place.apply([Entity(name="itm")])
    place.sync()
    waits = (
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE wait_event_type = 'Lock' AND query LIKE '%synced_records%'"
    )
    with (
        psycopg.connect(place.url, autocommit=True) as looking,
        psycopg.connect(place.url) as session,
    ):
        session.execute("LOCK bridge.synced_records IN ACCESS EXCLUSIVE MODE")
        running = place.process("sync", "itm", *how)
        until(lambda: (looking.execute(waits).fetchone() or (0,))[0] > 0)
        asked = time.monotonic()
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=60)
        took = time.monotonic() - asked

    assert running.returncode == 130
    assert took < database.LOCK_TIMEOUT_S - 5, "the lock's own time limit has ended it"


def test_a_sync_that_is_told_to_end_between_two_ops_waits_for_no_known_records(
    place: Place,
) -> None:
    table(place, "itm", COLUMNS, [{"ID": n, "NAME": f"n{n}"} for n in range(20)])
    place.apply([Entity(name="itm")])
    place.sync()
    second = Failpoint(
        "syncflow_dagster.frame_io.FrameIOManager.load_input", nth=2, signal=signal.SIGINT
    )
    with psycopg.connect(place.url) as session:
        session.execute("LOCK bridge.synced_records IN ACCESS EXCLUSIVE MODE")
        asked = time.monotonic()
        running = place.process("sync", "itm", "--full", at=second)
        running.communicate(timeout=60)
        took = time.monotonic() - asked

    assert running.returncode == 130
    assert took < database.LOCK_TIMEOUT_S - 5, "the lock's own time limit has ended it"
