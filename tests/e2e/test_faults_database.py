"""The fault matrix, the bridge database: away, killed, cut off, locked, full, read only, in the middle of a sync."""

import itertools
import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import psycopg
import pytest
import sqlalchemy as sa
from forked import Failpoint
from machine import until_stopped
from place import Place, lines
from proxy import nth, proxied
from tables import effects, hub, table

from syncflow_core.bridge import batches
from syncflow_core.bridge.batches import Batch
from syncflow_core.bridge.database import Database
from syncflow_core.entity import Brake, Entity
from syncflow_core.errors import UnavailableError
from syncflow_core.sandbox.store import Row
from syncflow_dagster import launch, ops
from syncflow_dagster.abandoned import PROCESS_TAG
from syncflow_dagster.cli.ending import exit_status
from syncflow_dagster.launch import run_sync

COLUMNS = {"ID": "NUMBER(9)", "NAME": "VARCHAR2(200)"}
ROWS = 1_500
ENTITIES = [Entity(name="fdb", brake=Brake(rows=100_000, share=1)), Entity(name="fdc")]
GENERATIONS = itertools.count(1)


def source(place: Place, name: str) -> None:
    rows: list[Row] = [{"ID": n, "NAME": name} for n in range(ROWS)]
    table(place, "fdb", COLUMNS, rows)


@pytest.fixture(scope="module")
def first(shared_place: Place) -> Place:
    shared_place.apply(ENTITIES)
    source(shared_place, "first")
    table(shared_place, "fdc", COLUMNS, [{"ID": 1, "NAME": "a"}])
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


@pytest.mark.parametrize(
    ("at", "when", "end"),
    [("normalize_rows", "after", signal.SIGKILL), ("fetch", "before", signal.SIGINT)],
)
def test_XD02_a_database_that_ends_in_a_sync_is_there_again_for_the_next(
    first: Place, at: str, when: Literal["before", "after"], end: signal.Signals
) -> None:
    name = f"ends_at_{at}"
    home = first.home / name
    own = {"SYNCFLOW_HOME": str(home), "SYNCFLOW_DATABASE_URL": ""}
    table(first, name, COLUMNS, [{"ID": n, "NAME": "a"} for n in range(ROWS)])
    declared = first.home / f"{name}.yaml"
    declared.write_text(f"version: 1\nentities:\n  - {{name: {name}}}\n", encoding="utf-8")
    first.command("migrate", **own)
    assert first.command("entities", "apply", str(declared), **own).returncode == 0
    before = effects(first)
    point = Failpoint(f"syncflow_dagster.ops.{at}", when, signal=signal.SIGSTOP)
    worker = first.process("sync", name, at=point, **own)
    until_stopped(worker.pid)
    (postmaster,) = (int(path.read_text().split()[0]) for path in home.rglob("postmaster.pid"))
    os.kill(postmaster, end)
    os.kill(worker.pid, signal.SIGCONT)
    _, said = worker.communicate(timeout=60)

    recovered = first.command("sync", name, "--json", **own)
    quiet = first.command("sync", name, "--full", "--json", **own)

    assert worker.returncode in {0, 1, 4}, (
        "it went on with the database that is there again, or not"
    )
    assert "Traceback" not in said
    assert recovered.returncode == 0, recovered.stderr
    assert lines(quiet.stdout)[0]["counts"]["unchanged"] == ROWS
    assert effects(first) - before == ROWS == len(hub(first, name))


@contextmanager
def away_from(stage: str, place: Place, *, at_the_end: Callable[[], object]) -> Iterator[Database]:
    """A database that cuts every connection once a sync in this process comes to a stage.

    Args:
        stage: ``fetch`` or ``push``, which the ops look up when they run.
        place: Whose database it is.
        at_the_end: What happens when the run has ended; False leaves the database away.
    """
    address = sa.make_url(place.url)
    assert address.port is not None
    work, was_stopped = getattr(ops, stage), launch._was_stopped
    with proxied(address.port) as proxy:

        def cut_off(*given: object, **named: object) -> object:
            proxy.rule = lambda *_: "cut"
            proxy.cut()
            return work(*given, **named)

        during = pytest.MonkeyPatch()

        def ended(database: Database, run_id: str) -> bool:
            during.setattr(ops, stage, work)
            during.setattr(launch, "_was_stopped", was_stopped)
            if at_the_end() is not False:
                proxy.rule = lambda *_: "pass"
            return was_stopped(database, run_id)

        url = address.set(port=proxy.port).render_as_string(hide_password=False)
        with Database(url) as database:
            during.setenv("SYNCFLOW_DATABASE_URL", url)
            during.setattr(ops, stage, cut_off)
            during.setattr(launch, "_was_stopped", ended)
            try:
                yield database
            finally:
                during.undo()


def test_XD01_a_database_away_as_a_sync_begins_is_told_of_each_entity(changed: Place) -> None:
    with away_from("fetch", changed, at_the_end=lambda: True) as database:
        ended = run_sync(changed.instance, database, ENTITIES, ["fdb", "fdc"], slices=2)
        words = f"the database at 127.0.0.1:{sa.make_url(database.url).port}"

    assert [batch.status for batch in ended.batches] == ["failed", "failed"]
    assert all(words in (batch.error or "") for batch in ended.batches)
    assert exit_status(ended.batches) == 4


def test_XD01_a_batch_that_the_database_was_not_told_of_is_closed_by_the_next_sync(
    changed: Place,
) -> None:
    with (
        away_from("fetch", changed, at_the_end=lambda: False) as database,
        pytest.raises(UnavailableError),
    ):
        run_sync(changed.instance, database, ENTITIES, ["fdb"], slices=2)
    (left,) = live(changed)
    run_id = left.dagster_run_id
    assert run_id is not None
    # as if the process had ended, which is this one
    tag = f"{socket.gethostname()} {os.getpid()} gone {run_id}"
    changed.instance.add_run_tags(run_id, {PROCESS_TAG: tag})

    assert changed.sync("fdb").succeeded
    with changed.database.read() as connection:
        closed = batches.load_batch(connection, left.uid)
    assert closed.status == "failed"
    assert "the database at 127.0.0.1" in (closed.error or "")
    assert not live(changed)


def test_XD01_a_sync_that_another_one_took_for_dead_says_what_it_died_of(changed: Place) -> None:
    taken: list[str | None] = []

    def taken_over() -> None:
        assert changed.command("sync", "fdb", "--full").returncode == 0
        with changed.database.read() as connection:
            (died,) = batches.history(connection, statuses=["failed"], limit=1)
        taken.append(died.error)

    with away_from("push", changed, at_the_end=taken_over) as database:
        ended = run_sync(changed.instance, database, ENTITIES, ["fdb"], slices=2)

    assert "a new sync took over" in (taken[0] or ""), "as the other one could not know better"
    (batch,) = ended.batches
    assert "the database at 127.0.0.1" in (batch.error or "")
    assert exit_status(ended.batches) == 4


def live(place: Place) -> list[Batch]:
    """Batches that wait or run."""
    with place.database.read() as connection:
        return batches.history(connection, statuses=["pending", "running"])
