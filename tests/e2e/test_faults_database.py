"""The fault matrix, the bridge database: away, killed, cut off, locked, full, read only, in the middle of a sync."""

import itertools
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from forked import Failpoint
from place import Place, lines
from proxy import nth, proxied
from tables import effects, hub, table

from syncflow_core.bridge import batches
from syncflow_core.entity import Brake, Entity
from syncflow_core.sandbox.store import Row
from syncflow_dagster import launch, ops

COLUMNS = {"ID": "NUMBER(9)", "NAME": "VARCHAR2(200)"}
ROWS = 1_500
GENERATIONS = itertools.count(1)


def source(place: Place, name: str) -> None:
    rows: list[Row] = [{"ID": n, "NAME": name} for n in range(ROWS)]
    table(place, "fdb", COLUMNS, rows)


@pytest.fixture(scope="module")
def first(shared_place: Place) -> Place:
    shared_place.apply([Entity(name="fdb", brake=Brake(rows=100_000, share=1))])
    source(shared_place, "first")
    shared_place.sync("fdb")
    return shared_place


@pytest.fixture
def changed(first: Place) -> Iterator[Place]:
    """Every row has changed; at the end all of it has arrived, once, and a sync is quiet."""
    name = f"g{next(GENERATIONS)}"
    source(first, name)
    before = effects(first)
    yield first
    recovered = first.sync("fdb").batches[0]
    assert recovered.status == "completed", recovered.error
    assert effects(first) == before + ROWS, "each record once"
    assert {json.loads(text)["name"] for text in hub(first, "fdb").values()} == {name}
    assert first.sync("fdb").batches[0].counts.unchanged == ROWS
    assert effects(first) == before + ROWS


@pytest.mark.parametrize("number", [4, 12, 20])
def test_XD03_a_commit_whose_answer_is_lost_is_done_once(changed: Place, number: int) -> None:
    address = sa.make_url(changed.url)
    assert address.port is not None
    with proxied(address.port) as proxy:
        proxy.rule = nth("back", b"COMMIT\0", number, "cut")
        url = address.set(port=proxy.port).render_as_string(hide_password=False)
        cut_off = changed.process("sync", "fdb", SYNCFLOW_DATABASE_URL=url)
        _, said = cut_off.communicate(timeout=60)

        assert proxy.struck == 1, said
    assert "Traceback" not in said


def test_XD05_a_deadlock_is_done_again_and_nobody_notices(changed: Place) -> None:
    with psycopg.connect(changed.url) as other:
        point = Failpoint(
            "syncflow_core.bridge.records.save_acknowledged", "after", signal=signal.SIGSTOP
        )
        worker = changed.process("sync", "fdb", "--json", at=point)
        until_stopped(worker.pid)
        # the worker holds its records and wants the journal's lines, this holds those and wants a record
        other.execute("UPDATE bridge.push_journal SET fence = fence WHERE closed_at IS NULL")
        os.kill(worker.pid, signal.SIGCONT)
        other.execute("SET deadlock_timeout = '10s'")
        try:
            other.execute("UPDATE bridge.synced_records SET batch = batch WHERE entity = 'fdb'")
        except psycopg.errors.DeadlockDetected:
            pytest.fail("the other one was chosen: the fault did not strike the worker")
        other.rollback()
        out, said = worker.communicate(timeout=60)

    assert worker.returncode == 0, said
    assert lines(out)[0]["counts"]["updated"] == ROWS
    with changed.database.begin() as connection:
        met = connection.exec_driver_sql(
            "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        ).scalar_one()
    assert met == 1


def until_stopped(pid: int) -> None:
    state = ""
    while state != "T":
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]


def test_XD06_a_table_that_somebody_has_locked_ends_in_an_error_that_says_so(
    changed: Place,
) -> None:
    with psycopg.connect(changed.url) as other:
        other.execute("LOCK TABLE bridge.synced_records IN ACCESS EXCLUSIVE MODE")
        waiting = changed.process(
            "sync",
            "fdb",
            "--json",
            constants={"syncflow_core.bridge.database.LOCK_TIMEOUT_S": 1},
        )
        out, said = waiting.communicate(timeout=60)

    assert waiting.returncode == 4, out + said
    assert "lock timeout" in said
    assert "Traceback" not in said


def test_XD08_a_database_that_takes_no_writes_is_said_before_anything_is_read(
    changed: Place,
) -> None:
    pages = effects(changed)
    database = sa.make_url(changed.url).database
    with psycopg.connect(changed.url, autocommit=True) as admin:
        admin.execute(
            f'ALTER DATABASE "{database}" SET default_transaction_read_only = on'.encode()
        )
        refused = changed.process("sync", "fdb")
        _, said = refused.communicate(timeout=60)
        admin.execute("SET default_transaction_read_only = off")
        admin.execute(f'ALTER DATABASE "{database}" RESET default_transaction_read_only'.encode())

    assert refused.returncode == 2, said
    assert "read-only transaction" in said
    assert "Traceback" not in said
    assert effects(changed) == pages


def test_XD07_staged_frames_without_room_fail_the_batch_with_words(changed: Place) -> None:
    full = changed.process(
        "sync", "fdb", "--json", at=Failpoint("syncflow_dagster.ops.fetch", full=True)
    )

    _, said = full.communicate(timeout=60)

    assert full.returncode == 1, said
    assert "cannot be written" in said
    assert "Traceback" not in said


def test_XD07_a_hand_over_that_cannot_be_written_fails_the_batch_with_words(
    changed: Place,
) -> None:
    frames = changed.home / "frames-without-hand-over"
    frames.mkdir()
    (frames / "handover").touch()  # no folder can be made there

    ended = changed.command("sync", "fdb", "--json", SYNCFLOW_FRAMES_URI=str(frames))

    assert ended.returncode == 1
    assert lines(ended.stdout)[0]["status"] == "failed"
    assert "hand-over: " in ended.stderr
    assert str(frames / "handover") in ended.stderr
    assert "Traceback" not in ended.stderr


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """A file system of so many megabytes; skips where nobody may mount one."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a file system of a set size can be mounted by root alone")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_XD07_a_database_without_room_fails_the_batch_and_goes_on_when_there_is(
    first: Place,
) -> None:
    home = first.home / "small"
    with small_disk(home, 160):
        own = {"SYNCFLOW_HOME": str(home), "SYNCFLOW_DATABASE_URL": ""}
        rows: list[Row] = [{"ID": n, "NAME": "x" * 150} for n in range(ROWS)]
        table(first, "ful", COLUMNS, rows)
        declared = first.home / "ful.yaml"
        declared.write_text("version: 1\nentities:\n  - {name: ful}\n", encoding="utf-8")
        first.command("migrate", **own)
        assert first.command("entities", "apply", str(declared), **own).returncode == 0
        ballast = home / "ballast"
        room = os.statvfs(home).f_bavail * os.statvfs(home).f_frsize
        ballast.write_bytes(bytes(room - 300_000))

        full = first.process("sync", "ful", **own)
        _, said = full.communicate(timeout=60)
        ballast.unlink()
        before = effects(first)
        recovered = first.command("sync", "ful", "--json", **own)
        quiet = first.command("sync", "ful", "--full", "--json", **own)

        assert full.returncode == 4, said
        assert "disk is full" in said or "No space left on device" in said
        assert "Traceback" not in said
        assert recovered.returncode == 0, recovered.stderr
        assert lines(quiet.stdout)[0]["counts"]["unchanged"] == ROWS
        assert len(hub(first, "ful")) == ROWS
        assert effects(first) - before <= ROWS


def test_XD02_a_database_killed_while_rows_are_staged_is_there_again_for_the_next(
    first: Place,
) -> None:
    home = first.home / "killed"
    own = {"SYNCFLOW_HOME": str(home), "SYNCFLOW_DATABASE_URL": ""}
    table(first, "kld", COLUMNS, [{"ID": n, "NAME": "a"} for n in range(ROWS)])
    declared = first.home / "kld.yaml"
    declared.write_text("version: 1\nentities:\n  - {name: kld}\n", encoding="utf-8")
    first.command("migrate", **own)
    assert first.command("entities", "apply", str(declared), **own).returncode == 0
    before = effects(first)
    point = Failpoint("syncflow_dagster.ops.normalize_rows", "after", signal=signal.SIGSTOP)
    worker = first.process("sync", "kld", at=point, **own)
    until_stopped(worker.pid)
    (postmaster,) = (int(path.read_text().split()[0]) for path in home.rglob("postmaster.pid"))
    os.kill(postmaster, signal.SIGKILL)
    os.kill(worker.pid, signal.SIGCONT)
    _, said = worker.communicate(timeout=60)

    recovered = first.command("sync", "kld", "--json", **own)
    quiet = first.command("sync", "kld", "--full", "--json", **own)

    assert worker.returncode in {0, 1, 4}, (
        "it went on with the database that is there again, or not"
    )
    assert "Traceback" not in said
    assert recovered.returncode == 0, recovered.stderr
    assert lines(quiet.stdout)[0]["counts"]["unchanged"] == ROWS
    assert effects(first) - before == ROWS == len(hub(first, "kld"))


def test_XD01_a_database_away_while_a_sync_begins_is_told_of_each_entity(
    first: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    first.apply([Entity(name="fdb"), Entity(name="fdc")])
    table(first, "fdc", COLUMNS, [{"ID": 1, "NAME": "a"}])
    address = sa.make_url(first.url)
    assert address.port is not None
    with proxied(address.port) as proxy:

        def away(*given: object, **named: object) -> object:
            proxy.rule = lambda *_: "cut"
            proxy.cut()
            return fetch(*given, **named)

        def back(*given: object) -> object:
            proxy.rule = lambda *_: "pass"
            return ended(*given)

        fetch, ended = ops.fetch, launch._was_stopped
        monkeypatch.setattr(ops, "fetch", away)
        monkeypatch.setattr(launch, "_was_stopped", back)
        url = address.set(port=proxy.port).render_as_string(hide_password=False)
        told = first.command("sync", "--all", "--json", SYNCFLOW_DATABASE_URL=url)

    assert told.returncode == 4, told.stderr
    found = lines(told.stdout)
    assert [line["status"] for line in found] == ["failed", "failed"]
    for name in ("fdb", "fdc"):
        assert f"{name}: the database at " in told.stderr
    assert "Traceback" not in told.stderr


def test_XD01_a_batch_that_could_not_be_closed_is_closed_by_the_next_sync(changed: Place) -> None:
    address = sa.make_url(changed.url)
    assert address.port is not None
    with proxied(address.port) as proxy:
        url = address.set(port=proxy.port).render_as_string(hide_password=False)
        point = Failpoint("syncflow_dagster.ops.fetch", signal=signal.SIGSTOP)
        worker = changed.process("sync", "fdb", at=point, SYNCFLOW_DATABASE_URL=url)
        until_stopped(worker.pid)
        proxy.rule = lambda *_: "cut"
        proxy.cut()
        os.kill(worker.pid, signal.SIGCONT)
        _, said = worker.communicate(timeout=60)
    with changed.database.read() as connection:
        (left,) = batches.history(connection, statuses=["pending"])

    assert worker.returncode == 4, said
    assert changed.command("sync", "fdb").returncode == 0
    with changed.database.read() as connection:
        assert batches.load_batch(connection, left.uid).status == "failed"
