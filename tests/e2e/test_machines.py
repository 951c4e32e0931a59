"""Run workers on two machines: they share PostgreSQL and the place of the frames, and nothing else.

A worker is what Dagster's run launchers start in a container or a pod: ``dagster api execute_run``.
"""

import json
import signal
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import psycopg
import pytest
from buckets import S3
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import create_execution_plan
from dagster._core.execution.plan.state import KnownExecutionState
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
from dagster._grpc.types import ExecuteRunArgs
from dagster._serdes import serialize_value
from forked import Failpoint, Forked
from place import Place
from tables import effects, hub, table

from syncflow_core.bridge.batches import Batch, history
from syncflow_core.bridge.entities import load_entities
from syncflow_core.entity import Entity
from syncflow_core.sandbox.store import Row
from syncflow_core.settings import read_settings
from syncflow_dagster.definitions import build
from syncflow_dagster.home import open_instance
from syncflow_dagster.partitions import slice_key

COLUMNS = {"ID": "VARCHAR2(9)", "NAME": "VARCHAR2(9)"}
SLICES = 7


def rows(first: int, last: int, name: str = "a") -> list[Row]:
    return [{"ID": f"I{n:05}", "NAME": name} for n in range(first, last)]


@dataclass(frozen=True)
class Machine:
    """One with a home and a folder of its own."""

    place: Place
    folder: Path
    frames: Mapping[str, str]
    """The variables that say where frames lie."""

    def work(
        self, run: dg.DagsterRun, instance: dg.DagsterInstance, at: Failpoint | None = None
    ) -> int:
        """Execute a run to its end, or to the worker's; how the worker ended."""
        self.folder.mkdir(exist_ok=True)
        environment = {
            **self.place.environment,
            "SYNCFLOW_HOME": str(self.folder / "home"),
            **self.frames,
        }
        assert run.job_code_origin is not None
        arguments = ExecuteRunArgs(
            job_origin=run.job_code_origin, run_id=run.run_id, instance_ref=instance.get_ref()
        )
        worker = Forked(
            "dagster._cli:main",
            ["api", "execute_run", serialize_value(arguments)],
            environment,
            self.folder,
            at,
        )
        worker.communicate(timeout=120)
        return worker.wait()


@pytest.fixture
def machines(request: pytest.FixtureRequest, place: Place, tmp_path: Path) -> list[Machine]:
    """Two; they share a folder, or a bucket where a test asks for one."""
    place.cut_into(SLICES)
    frames = {"SYNCFLOW_FRAMES_URI": str(place.home / "frames")}
    if getattr(request, "param", "folder") == "bucket":
        s3: S3 = request.getfixturevalue("s3")
        frames = {"SYNCFLOW_FRAMES_URI": s3.bucket(), **s3.environment}
    return [Machine(place, tmp_path / name, frames) for name in ("one", "two")]


@pytest.fixture
def instance(machines: list[Machine]) -> Iterator[dg.DagsterInstance]:
    """Dagster's, in the PostgreSQL that the machines share."""
    assert machines[0].place.environment["SYNCFLOW_DATABASE_URL"]
    with open_instance(read_settings()) as opened:
        yield opened


def prepared(
    place: Place, instance: dg.DagsterInstance, slice_: int, before: dg.DagsterRun | None = None
) -> dg.DagsterRun:
    """A run of one slice, or of what is left of the run before, for a worker to execute."""
    with place.database.begin() as connection:
        entities = load_entities(connection)
    job = build(entities, SLICES, own_checks_only=True).resolve_job_def("sync_itm")
    origin = JobPythonOrigin(
        job.name,
        RepositoryPythonOrigin(
            "python", ModuleCodePointer("syncflow_dagster.definitions", "defs", None)
        ),
    )
    plan = None
    if before is not None:
        steps, known = KnownExecutionState.build_resume_retry_reexecution(instance, before)
        plan = create_execution_plan(
            InMemoryJob(job),
            run_config=before.run_config,
            step_keys_to_execute=list(steps),
            known_state=known,
            tags=before.tags,
        )
    return instance.create_run_for_job(
        job,
        execution_plan=plan,
        tags={"dagster/partition": slice_key(slice_)},
        job_code_origin=origin,
        parent_run_id=before.run_id if before else None,
        root_run_id=before.run_id if before else None,
    )


def found(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dg.DagsterRun:
    """The run as it is now."""
    now = instance.get_run_by_id(run.run_id)
    assert now is not None
    return now


def batches(place: Place) -> list[Batch]:
    with place.database.begin() as connection:
        return history(connection, limit=100)


def test_a_sweep_is_shared_out_among_machines(
    place: Place, machines: list[Machine], instance: dg.DagsterInstance
) -> None:
    place.apply([Entity(name="itm")])
    table(place, "itm", COLUMNS, rows(0, 3_000))
    assert place.sync("itm").succeeded
    table(place, "itm", COLUMNS, [*rows(0, 1_000), *rows(1_005, 2_500), *rows(2_500, 3_000, "b")])

    def night(number: int) -> list[int]:
        return [
            machines[number].work(prepared(place, instance, slice_), instance)
            for slice_ in range(number + 1, SLICES + 1, 2)
        ]

    with ThreadPoolExecutor(2) as both:
        ended = list(both.map(night, range(2)))

    assert ended == [[0] * 4, [0] * 3]
    assert {batch.status for batch in batches(place)} == {"completed"}
    held = hub(place, "itm")
    assert len(held) == 2_995
    assert sum(json.loads(document)["name"] == "b" for document in held.values()) == 500
    assert effects(place) == 3_000 + 500 + 5


@pytest.mark.parametrize("machines", ["folder", "bucket"], indirect=True)
def test_another_machine_takes_up_what_a_dead_one_staged(
    place: Place, machines: list[Machine], instance: dg.DagsterInstance
) -> None:
    place.apply([Entity(name="itm")])
    table(place, "itm", COLUMNS, rows(0, 700))
    first = prepared(place, instance, 1)
    dying = Failpoint("syncflow_core.stages.sender.Sender.send")

    assert machines[0].work(first, instance, dying) == -signal.SIGKILL
    instance.report_run_failed(found(instance, first), "its worker died")  # as run monitoring does
    rest = prepared(place, instance, 1, found(instance, first))
    assert machines[1].work(rest, instance) == 0

    assert [batch.status for batch in batches(place)] == ["completed", "failed"]
    with psycopg.connect(place.url) as connection:
        row = connection.execute("SELECT count(*) FROM bridge.scan_proofs").fetchone()
    assert row == (1,)  # the second machine has not read anything
    assert len(hub(place, "itm")) == effects(place) == 300
