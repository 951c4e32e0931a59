"""The fault matrix, workers: a sync that dies, stops or is stopped at a named point, and what follows it.

The syncs that die are processes of their own; the point is the call of a function in them.
"""

import itertools
import json
import os
import signal
import time
from collections.abc import Iterator
from uuid import UUID

import dagster as dg
import pytest
from forked import Failpoint, Forked
from machine import processes_of, until
from place import Place, lines
from proxy import Deed, Side, proxied
from tables import effects, faults, hits, hub, link, references, table

from syncflow_core.bridge.batches import history, load_batch
from syncflow_core.bridge.failed import open_failed
from syncflow_core.bridge.journal import open_intents
from syncflow_core.bridge.leases import Lease
from syncflow_core.entity import Brake, Entity
from syncflow_core.sandbox.store import Row

LOOSE = Brake(rows=100_000, share=1)
COLUMNS = {"ID": "VARCHAR2(20)", "UP": "VARCHAR2(20)", "NAME": "VARCHAR2(20)"}
ROWS = 40
ONCE = 2 * 3 * ROWS
"""What a generation writes in all: updates, inserts and deletes of both tables."""
GENERATIONS = itertools.count(1)


def source(place: Place, generation: int) -> None:
    """Rows that change with each generation, rows that are new in it, and none of those new before."""
    for name, above in (("mas", None), ("det", "mas")):
        rows: list[Row] = [
            {"ID": f"{name}{n}", "UP": above and f"{above}{n}", "NAME": f"g{generation}"}
            for block in (0, generation * 1_000)
            for n in range(block, block + ROWS)
        ]
        table(place, name, COLUMNS, rows)


@pytest.fixture(scope="module")
def first(shared_place: Place) -> Iterator[Place]:
    references(shared_place, ("det", "up", "mas"))
    shared_place.apply(
        [
            Entity(name="mas", brake=LOOSE),
            Entity(name="det", brake=LOOSE, parents={"up": link("mas", "up")}),
        ]
    )
    source(shared_place, next(GENERATIONS))
    shared_place.command("sync", "--all", "--full")
    yield shared_place
    before = effects(shared_place)
    quiet = lines(shared_place.command("sync", "mas", "det", "--full", "--json").stdout)
    assert [line["counts"]["unchanged"] for line in quiet] == [2 * ROWS] * 2
    assert effects(shared_place) == before
    assert unfinished_runs(shared_place) == []


@pytest.fixture
def changed(first: Place) -> Iterator[Place]:
    """The source is a generation ahead; at the end all of it has arrived, once."""
    generation = next(GENERATIONS)
    source(first, generation)
    before, told = effects(first), history_of(first)
    yield first
    recovered = first.command("sync", "--all", "--full", "--json")
    assert recovered.returncode == 0, recovered.stderr
    assert effects(first) == before + ONCE, "each record once"
    assert history_of(first) == told + ONCE, "each with its line of history, whoever learned of it"
    for name in ("mas", "det"):
        held = [json.loads(text) for text in hub(first, name).values()]
        assert len(held) == 2 * ROWS
        assert {record["name"] for record in held} == {f"g{generation}"}
        with first.database.begin() as connection:
            assert open_intents(connection, name) == []
            assert open_failed(connection, name).is_empty()
            assert [b for b in history(connection, entities=[name]) if b.finished_at is None] == []
    assert unfinished_runs(first) == []


def history_of(place: Place) -> int:
    """How many writes the history of records tells."""
    query = "SELECT count(*) FROM bridge.record_events WHERE event IN ('inserted', 'updated', 'deleted')"
    with place.database.begin() as connection:
        return int(connection.exec_driver_sql(query).scalar_one())


def unfinished_runs(place: Place) -> list[str]:
    """Ids of Dagster runs that are neither ended nor going on: nobody runs any when this is asked."""
    with dg.DagsterInstance.from_config(str(place.home / "home" / "dagster")) as instance:
        return [run.run_id for run in instance.get_runs() if not run.is_finished]


POINTS = {
    "XW01 a page was read": Failpoint("syncflow_core.scan.Scan._execute", "after"),
    "XW02 the last page was read": Failpoint("syncflow_core.stages.fetch._read", "after"),
    "XW03 before identity": Failpoint("syncflow_dagster.ops.identify"),
    "XW04 the delta is known": Failpoint("syncflow_core.stages.delta.classify", "after"),
    "XW05 half of the delta is stored": Failpoint("syncflow_core.stages.delta._with_uids", nth=2),
    "XW06 before the first write": Failpoint("syncflow_core.stages.writer.Writer.at_once"),
    "XW08 before its outcome is saved": Failpoint("syncflow_core.stages.sender.Sender._save"),
    "XW08 before a delete's outcome is saved": Failpoint(
        "syncflow_core.stages.deleter.Deleter._save"
    ),
    "XW09 before children are released": Failpoint("syncflow_core.stages.push.release_children"),
    "XW10 before the batch is closed": Failpoint("syncflow_dagster.ops.track"),
    "XW10 after the batch is closed": Failpoint("syncflow_dagster.ops.track", "after"),
}


@pytest.mark.parametrize("point", POINTS)
def test_a_worker_killed_at_a_point_is_followed_by_one_that_does_the_rest(
    changed: Place, point: str
) -> None:
    dying = changed.process("sync", "--all", "--full", at=POINTS[point])

    _, said = dying.communicate(timeout=60)

    assert dying.returncode == -signal.SIGKILL, f"the point was never reached: {said}"


def test_XW07_XP03_a_worker_killed_between_a_request_and_its_answer_asks_before_it_writes(
    changed: Place,
) -> None:
    asked = False

    def rule(side: Side, piece: bytes) -> Deed:
        nonlocal asked
        if side == "there" and b"/batch/update" in piece:
            asked = True
        return "hold" if asked and side == "back" else "pass"

    port = int(changed.sandbox.schedulehub_url.rpartition(":")[2])
    before = effects(changed)
    with proxied(port) as proxy:
        proxy.rule = rule
        url = f"http://127.0.0.1:{proxy.port}"
        dying = changed.process("sync", "--all", "--full", SYNCFLOW_SCHEDULEHUB_URL=url)
        until(lambda: proxy.struck > 0)
        dying.kill()
        dying.communicate(timeout=60)

    assert effects(changed) > before, "the hub did it, and nobody heard"
    until(lambda: "its process has died; the next" in changed.command("status").stdout)


def test_XW11_a_worker_told_to_end_while_it_pushes_finishes_what_is_in_flight(
    changed: Place,
) -> None:
    told = Failpoint("syncflow_core.stages.sender.Sender._save", signal=signal.SIGTERM)
    before = effects(changed)

    stopped = changed.process("sync", "--all", "--full", "--json", at=told)
    out, said = stopped.communicate(timeout=60)

    assert stopped.returncode == 128 + signal.SIGTERM, said
    assert {line["status"] for line in lines(out)} == {"stopped"}
    assert 0 < effects(changed) - before < ONCE
    with changed.database.begin() as connection:
        assert open_intents(connection, "mas") == [], "what was in flight is accounted for"
        ended = history(connection, statuses=["stopped"])
    assert {(batch.proof or {})["asked_to_stop"] for batch in ended} == {True}


@pytest.mark.parametrize("path", ["/execute", "/batch/"])
def test_XW11_a_worker_told_to_end_while_a_system_says_nothing_does_not_wait_for_it(
    changed: Place, path: str
) -> None:
    silent = {"match": {"path": path}, "action": {"hang": True}}
    sandbox = changed.sandbox
    url = sandbox.apismith_url if path == "/execute" else sandbox.schedulehub_url
    faults(url, silent)
    stopped = changed.process(
        "sync", "mas", "--full", "--json", constants={"syncflow_dagster.interrupts.GRACE_S": 0.5}
    )
    until(lambda: hits(url) > 0)

    os.kill(stopped.pid, signal.SIGTERM)
    out, said = stopped.communicate(timeout=20)  # it would wait for 30 s of silence, five times
    faults(url)

    assert stopped.returncode == 128 + signal.SIGTERM, said
    assert [line["status"] for line in lines(out)] == ["stopped"]
    assert changed.command("sync", "--all", "--full").returncode == 0


def cut_off(*_: object, **__: object) -> None:
    """The signal comes, and what it cuts off has the last word."""
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    finally:
        raise ConnectionResetError("cut off")


def test_XW11_an_error_of_what_the_signal_cut_off_does_not_take_its_place(changed: Place) -> None:
    stopped = changed.process(
        "sync", "mas", "--full", "--json", constants={"syncflow_dagster.ops.track": cut_off}
    )
    out, said = stopped.communicate(timeout=60)

    assert stopped.returncode == 128 + signal.SIGTERM, said
    assert [line["status"] for line in lines(out)] == ["stopped"]


@pytest.mark.parametrize(
    "point",
    [
        Failpoint("syncflow_core.stages.sender.Sender._call", signal=signal.SIGSTOP),
        Failpoint("syncflow_core.stages.writer.Writer.at_once", signal=signal.SIGSTOP),
        Failpoint("syncflow_core.bridge.leases.Lease.confirm", signal=signal.SIGSTOP),
    ],
    ids=["before the intent", "before the calls", "before the last look"],
)
def test_XW12_a_worker_that_stood_still_while_another_took_over_writes_and_calls_nothing(
    changed: Place, point: Failpoint
) -> None:
    frozen = changed.process(
        "sync",
        "--all",
        "--full",
        at=point,
        constants={"syncflow_core.bridge.leases.FRESH_S": 0.2},
    )
    until(lambda: is_stopped(frozen))
    before = effects(changed)
    Lease.acquire(changed.database, "mas", frozen_s=0.3, wait_s=20).release()
    taken_over = changed.command("sync", "--all", "--full")
    after = effects(changed)

    frozen.send_signal(signal.SIGCONT)
    _, said = frozen.communicate(timeout=60)

    assert taken_over.returncode == 0, taken_over.stderr
    assert after == before + ONCE
    assert effects(changed) == after, "nothing was called after that"
    assert frozen.returncode not in {0, None}
    assert "Traceback" not in said


def is_stopped(process: Forked) -> bool:
    with open(f"/proc/{process.pid}/stat", encoding="ascii") as file:  # noqa: PTH123  # /proc
        return file.read().rpartition(")")[2].split()[0] == "T"


def test_XW13_a_worker_without_memory_is_followed_like_one_that_was_killed(changed: Place) -> None:
    starving = changed.process(
        "sync", "--all", "--full", at=Failpoint("syncflow_dagster.ops.normalize_rows", starve=True)
    )

    starving.communicate(timeout=60)

    assert starving.returncode != 0


def test_XT03_a_clock_that_jumps_back_and_on_changes_nothing(changed: Place) -> None:
    command = ["sync", "--all", "--full", "--json"]

    jumping = Forked("poison:jumps", command, changed.environment, changed.home)
    out, said = jumping.communicate(timeout=60)

    assert jumping.returncode == 0, said
    assert {line["status"] for line in lines(out)} == {"completed"}
    with changed.database.begin() as connection:
        found = [load_batch(connection, UUID(line["batch"])) for line in lines(out)]
    moments = [
        at.timestamp() for batch in found for at in (batch.started_at, batch.finished_at) if at
    ]
    assert max(moments) - min(moments) > 80_000, "it never jumped"
    assert all(0 < batch.seconds["total"] < 60 for batch in found)


def test_XW16_a_record_that_kills_its_worker_is_filed_after_three_and_the_others_go_on(
    first: Place,
) -> None:
    rows: list[Row] = [{"ID": f"P{n}", "NAME": "a"} for n in range(300)]
    rows[150]["NAME"] = "POISON"
    table(first, "psn", {"ID": "VARCHAR2(9)", "NAME": "VARCHAR2(9)"}, rows)
    first.apply([Entity(name="psn")])

    def sync(main: str = "poison:dies_of_sending") -> int:
        process = Forked(main, ["sync", "psn", "--full"], first.environment, first.home)
        process.communicate(timeout=60)
        assert process.returncode is not None
        return process.returncode

    statuses = [sync() for _ in range(4)]
    arrived = len(hub(first, "psn"))
    with first.database.begin() as connection:
        letters = open_failed(connection, "psn")
    again = sync()
    rows[150]["NAME"] = "mended"
    table(first, "psn", {"ID": "VARCHAR2(9)", "NAME": "VARCHAR2(9)"}, rows)
    mended = sync()

    assert statuses == [-signal.SIGKILL] * 3 + [1]
    assert (arrived, again, mended) == (299, 1, 0)
    assert letters["rule"].to_list() == ["worker_died"]
    assert letters["#reference"].to_list() == ["id=P150"]
    assert len(hub(first, "psn")) == 300
    before = effects(first)
    assert sync() == 0
    assert effects(first) == before


def test_XW16_a_record_that_breaks_the_normalization_is_rejected_alone(first: Place) -> None:
    rows: list[Row] = [{"ID": f"P{n}", "NAME": "a"} for n in range(50)]
    rows[20]["NAME"] = "POISON"
    table(first, "brk", {"ID": "VARCHAR2(9)", "NAME": "VARCHAR2(9)"}, rows)
    first.apply([Entity(name="brk")])
    command = ["sync", "brk", "--full", "--json"]

    process = Forked("poison:breaks_on_reading", command, first.environment, first.home)
    out, _ = process.communicate(timeout=60)
    with first.database.begin() as connection:
        letters = open_failed(connection, "brk")
    mended = first.command("sync", "brk", "--full")

    (line,) = lines(out)
    assert (line["status"], line["counts"]["inserted"], line["counts"]["rejected"]) == (
        "partial",
        49,
        1,
    )
    assert letters["rule"].to_list() == ["broke"]
    assert letters["message"].to_list() == ["SyncFlow itself failed on this row: cannot happen"]
    assert letters["#reference"].to_list() == ["id=P20"]
    assert mended.returncode == 0, mended.stderr


def test_XW14_after_a_crash_of_the_whole_machine_the_next_sync_does_the_rest(
    first: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = first.home / "crashing"
    own = {"SYNCFLOW_HOME": str(home), "SYNCFLOW_DATABASE_URL": ""}  # with a database of its own
    rows: list[Row] = [{"ID": f"C{n}", "NAME": "a"} for n in range(2_500)]
    table(first, "csh", {"ID": "VARCHAR2(9)", "NAME": "VARCHAR2(9)"}, rows)
    declared = first.home / "csh.yaml"
    declared.write_text("version: 1\nentities:\n  - {name: csh}\n", encoding="utf-8")
    first.command("migrate", **own)
    assert first.command("entities", "apply", str(declared), **own).returncode == 0
    before = effects(first)
    point = Failpoint("syncflow_core.stages.sender.Sender._save", signal=signal.SIGSTOP)
    worker = first.process("sync", "csh", at=point, **own)
    until(lambda: is_stopped(worker))
    for pid in processes_of(home):
        os.kill(pid, signal.SIGKILL)
    worker.kill()
    worker.communicate(timeout=60)
    crashed = effects(first) - before

    recovered = first.command("sync", "csh", "--json", **own)
    quiet = first.command("sync", "csh", "--full", "--json", **own)

    assert crashed > 0
    assert recovered.returncode == 0, recovered.stderr
    assert lines(quiet.stdout)[0]["counts"]["unchanged"] == len(rows)
    assert effects(first) - before == len(rows) == len(hub(first, "csh"))
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        assert [run.status.value for run in instance.get_runs()] == [
            "SUCCESS",
            "SUCCESS",
            "FAILURE",
        ]
