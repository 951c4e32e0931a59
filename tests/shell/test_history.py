"""Dagster's history as SyncFlow keeps it, beside the same history as Dagster itself writes it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run_iterator
from machine import until

KEY = dg.AssetKey("made")
CHECKS = [dg.AssetCheckKey(KEY, name) for name in ("well", "soon")]
PARTITIONS = dg.StaticPartitionsDefinition(["one", "two", "three"])
RANGE = {
    "dagster/asset_partition_range_start": "one",
    "dagster/asset_partition_range_end": "three",
}

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@dg.op
def fetched() -> int:
    return 1


@dg.op(
    out={name: dg.Out(dg.Nothing) for name in ("result", "well", "soon")},
    config_schema={"fails": bool},
)
def pushed(context: dg.OpExecutionContext, rows: int) -> Iterator[object]:
    context.log.info("%d to push", rows)
    if context.op_config["fails"]:
        raise dg.Failure("as it was told to")
    yield dg.MaterializeResult(asset_key=KEY, metadata={"rows": rows}, tags={"kind": "full"})
    yield dg.AssetCheckResult(passed=True, asset_key=KEY, check_name="well")
    yield dg.AssetCheckResult(passed=False, asset_key=KEY, check_name="soon")


@dg.graph_asset(
    partitions_def=PARTITIONS,
    check_specs=[dg.AssetCheckSpec(key.name, asset=KEY) for key in CHECKS],
)
def made() -> object:
    done = pushed(fetched())
    return {
        "result": done.result,
        **{f"made_{key.name}": getattr(done, key.name) for key in CHECKS},
    }


QUIET: dict[str, object] = {"telemetry": {"enabled": False}}
Kept = tuple[dg.DagsterInstance, dg.DagsterInstance]


@pytest.fixture(params=["SQLite", "PostgreSQL"])
def kept(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Kept]:
    """An instance that writes as Dagster does, and SyncFlow's."""
    monkeypatch.setenv("SYNCFLOW_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SYNCFLOW_DATABASE_URL", raising=False)
    monkeypatch.delenv("DAGSTER_EVENT_BATCH_SIZE", raising=False)
    if request.param == "PostgreSQL":
        monkeypatch.setenv("SYNCFLOW_DATABASE_URL", request.getfixturevalue("migrated_url"))
    ours = {"module": "syncflow_dagster.instance_storage", "class": "SyncFlowStorage"}
    with ExitStack() as stack:
        yield (
            stack.enter_context(_local(tmp_path / "own", QUIET)),
            stack.enter_context(_local(tmp_path / "ours", {**QUIET, "storage": {"custom": ours}})),
        )


def _local(folder: Path, overrides: dict[str, object]) -> dg.DagsterInstance:
    folder.mkdir()
    return dg.DagsterInstance.local_temp(str(folder), overrides=overrides)


def job() -> dg.JobDefinition:
    return dg.Definitions(
        [made], resources={"io_manager": dg.mem_io_manager}, executor=dg.in_process_executor
    ).resolve_implicit_global_asset_job_def()


def config(*, fails: bool) -> dict[str, object]:
    return {"ops": {"made": {"ops": {"pushed": {"config": {"fails": fails}}}}}}


def run(instance: dg.DagsterInstance, *, fails: bool) -> str:
    """A run's id, ended."""
    done = job().execute_in_process(config(fails=fails), instance, tags=RANGE, raise_on_error=False)
    assert done.success is not fails
    return done.run_id


def planned(instance: dg.DagsterInstance) -> str:
    """The id of a run that is there and has not begun."""
    given = config(fails=False)
    return instance.create_run_for_job(
        job(), run_config=given, tags=RANGE, asset_selection={KEY}
    ).run_id


def told(instance: dg.DagsterInstance, run_id: str) -> list[tuple[str, str | None, str | None]]:
    """Each event of a run in its order: its kind, its step, its partition; the captured log is the run's own."""
    found = []
    for record in instance.get_records_for_run(run_id).records:
        event = record.event_log_entry.dagster_event
        if event is None:
            found.append((record.event_log_entry.user_message, None, None))
        elif event.event_type is not dg.DagsterEventType.LOGS_CAPTURED:
            found.append((event.event_type_value, event.step_key, event.partition))
    return found


def checked(instance: dg.DagsterInstance) -> list[tuple[object, ...]]:
    """What there is of each check, and the event that it names."""
    return [
        (key.name, item.status, item.partition, item.event and item.event.dagster_event_type)
        for key in CHECKS
        for item in instance.event_log_storage.get_asset_check_execution_history(key, limit=10)
    ]


@pytest.mark.parametrize(
    "act",
    [lambda at: run(at, fails=False), lambda at: run(at, fails=True), planned],
    ids=["a success", "a failure", "a plan"],
)
def test_the_history_is_the_same_and_in_the_same_order(
    kept: Kept, act: Callable[[dg.DagsterInstance], str]
) -> None:
    own, ours = kept
    (by_own, by_ours) = (told(instance, act(instance)) for instance in kept)

    assert len(by_own) > 3
    assert by_ours == by_own
    assert checked(ours) == checked(own)
    assert ours.get_asset_keys() == own.get_asset_keys() == [KEY]
    assert ours.get_materialized_partitions(KEY) == own.get_materialized_partitions(KEY)


def test_an_asset_says_which_run_is_its_last(kept: Kept) -> None:
    _, ours = kept
    done = run(ours, fails=False)
    last = planned(ours)

    (record,) = ours.get_asset_records([KEY])

    assert record.asset_entry.last_run_id == last
    materialized = record.asset_entry.last_materialization_record
    assert materialized is not None
    assert materialized.event_log_entry.run_id == done
    *_, (_, _, newest) = (item for item in told(ours, done) if item[0] == "ASSET_MATERIALIZATION")
    assert materialized.partition_key == newest


def test_an_ops_inputs_and_the_step_before_it_are_there_while_it_works(kept: Kept) -> None:
    """Also for a process that reads while the run goes on."""
    _, ours = kept
    seen: list[list[str]] = []

    @dg.op
    def first() -> int:
        return 1

    @dg.op(ins={"rows": dg.In(int)})
    def second(context: dg.OpExecutionContext, rows: int) -> None:
        assert rows == 1
        there = context.instance.get_records_for_run(context.run_id).records
        kinds = [item.event_log_entry.dagster_event_type for item in there]
        seen.append([kind.value for kind in kinds if kind is not None])

    @dg.job
    def both() -> None:
        second(first())

    both.execute_in_process(instance=ours)

    (kinds,) = seen
    assert "HANDLED_OUTPUT" in kinds
    assert kinds[-3:] == ["STEP_START", "LOADED_INPUT", "STEP_INPUT"]


def test_who_watches_a_run_is_told_of_all_that_happens(kept: Kept) -> None:
    """As the UI is, which shows a run while it goes on."""
    _, ours = kept
    config_of_run = config(fails=False)
    prepared = ours.create_run_for_job(job(), run_config=config_of_run, tags=RANGE)
    seen: list[str] = []
    before = len(ours.get_records_for_run(prepared.run_id).records)

    def see(entry: dg.EventLogEntry, _: str) -> None:
        seen.append(str(entry.dagster_event_type))

    ours.watch_event_logs(prepared.run_id, None, see)
    for _ in execute_run_iterator(InMemoryJob(job()), prepared, ours):
        pass
    there = ours.get_records_for_run(prepared.run_id).records
    until(lambda: len(seen) >= len(there))
    ours.end_watch_event_logs(prepared.run_id, see)

    assert len(there) > before
    assert seen == [str(item.event_log_entry.dagster_event_type) for item in there]
