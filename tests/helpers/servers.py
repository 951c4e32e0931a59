"""Dagster's own servers over one test's SyncFlow: webserver, daemon and API, each a process group."""

import functools
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg
import httpx
from dagster._core.storage.tags import AUTO_RETRY_RUN_ID_TAG, WILL_RETRY_TAG
from forked import Forked
from local import LOCAL
from machine import free_port, until
from place import MAIN, Place

from syncflow_dagster.home import shipped

LAUNCH = """
    mutation ($params: ExecutionParams!) {
      launchRun(executionParams: $params) { ... on LaunchRunSuccess { run { runId } } }
    }
"""

AGAIN = """
    mutation ($params: ReexecutionParams!) {
      launchRunReexecution(reexecutionParams: $params) {
        __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
      }
    }
"""
TERMINATE = """
    mutation ($run: String!) {
      terminateRun(runId: $run) { __typename ... on TerminateRunFailure { message } }
    }
"""


class Servers:
    """Webserver, daemon and API of one home, each a process group of its own."""

    def __init__(self, place: Place) -> None:
        self.home = place.home / "home" / "dagster"
        self.environment = {**place.environment, "DAGSTER_HOME": str(self.home)}
        workspace = ["-w", str(shipped("workspace.yaml"))]
        self.ui, self.port = free_port(), free_port()
        url = f"http://127.0.0.1:{self.ui}"
        self.commands = {
            "webserver": ["dagster_webserver.cli:main", "-p", str(self.ui), *workspace],
            "daemon": ["dagster._daemon.cli:main", "run", *workspace],
            "api": [MAIN, "api", "--port", str(self.port), "--dagster-url", url],
        }
        self.processes: dict[str, Forked] = {}

    @functools.cached_property
    def instance(self) -> dg.DagsterInstance:
        """Dagster's storage, as the servers have it: opened once, for it is asked again and again."""
        return dg.DagsterInstance.from_config(str(self.home))

    def start(self, name: str) -> None:
        main, *arguments = self.commands[name]
        self.processes[name] = Forked(main, arguments, self.environment, self.home, silent=True)

    def stop(self, name: str) -> None:
        """It, and whatever it started."""
        end(self.processes[name])
        self.processes[name].close()

    def await_answers(self) -> None:
        await_answer(f"http://127.0.0.1:{self.ui}/server_info")
        if "api" in self.processes:
            await_answer(f"http://127.0.0.1:{self.port}/api/v1/health")

    def launch(self, job: str) -> str:
        selector = {
            "repositoryLocationName": "syncflow",
            "repositoryName": "__repository__",
            "jobName": job,
        }
        params = {"selector": selector}
        launched = self.ask(LAUNCH, params=params)["launchRun"]
        return str(launched["run"]["runId"])

    def again(self, run: str) -> str:
        """Re-execute a run from the op that failed; the new run's id."""
        params = {"parentRunId": run, "strategy": "FROM_FAILURE"}
        answer = self.ask(AGAIN, params=params)["launchRunReexecution"]
        assert answer["__typename"] == "LaunchRunSuccess", answer
        return str(answer["run"]["runId"])

    def terminate(self, run: str) -> None:
        answer = self.ask(TERMINATE, run=run)["terminateRun"]
        assert answer["__typename"] == "TerminateRunSuccess", answer

    def ask(self, query: str, **variables: object) -> dict[str, Any]:
        """What Dagster's webserver answers to a GraphQL query."""
        answer = LOCAL.post(
            f"http://127.0.0.1:{self.ui}/graphql",
            json={"query": query, "variables": variables},
            timeout=60,
        )
        return dict(answer.json()["data"])

    def settle(self) -> None:
        """Wait until no run goes on, and none that failed is still to be taken up by Dagster itself."""
        until(lambda: self.unsettled() == [], lambda: f"still to end: {self.unsettled()}")

    def unsettled(self) -> list[tuple[str, str, dict[str, str]]]:
        """Runs that go on, or that failed and are still to be taken up: id, status, tags."""
        return [
            (run.run_id, run.status.value, dict(run.tags))
            for run in self.instance.get_runs()
            if not run.is_finished
            or (run.tags.get(WILL_RETRY_TAG) == "true" and AUTO_RETRY_RUN_ID_TAG not in run.tags)
        ]

    def status_of(self, run: str) -> dg.DagsterRunStatus:
        found = self.instance.get_run_by_id(run)
        assert found is not None
        return found.status

    def begun(self, run: str) -> set[str]:
        """The ops of the run that have begun."""
        return {item.step_key for item in self.instance.get_run_step_stats(run) if item.start_time}

    def printed(self, run: str) -> str:
        """The run's standard error, as the UI shows it."""
        captured = self.instance.all_logs(run, of_type=dg.DagsterEventType.LOGS_CAPTURED)
        (data,) = (event.get_dagster_event().logs_captured_data for event in captured)
        logs = self.instance.compute_log_manager
        key = logs.build_log_key_for_run(run, data.file_key)
        return (logs.get_log_data(key).stderr or b"").decode()


@contextmanager
def serving(place: Place, *, api: bool = True) -> Iterator[Servers]:
    """All three, or Dagster's own two, until the block ends; whatever they started ends with them."""
    running = Servers(place)
    try:
        for name in running.commands:
            if api or name != "api":
                running.start(name)
        running.await_answers()
        yield running
    finally:
        running.instance.dispose()
        for name in running.processes:
            running.stop(name)


def end(process: "subprocess.Popen[bytes] | Forked") -> None:
    """The process and whatever it started: code servers, run workers."""
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for number in (15, 9):
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                os.killpg(process.pid, number)
            except ProcessLookupError:
                return
            time.sleep(0.1)


def await_answer(url: str) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        try:
            if LOCAL.get(url, timeout=5).is_success:
                return
        except httpx.TransportError:
            pass  # not up yet
        time.sleep(0.2)
    raise AssertionError(f"{url} did not answer")
