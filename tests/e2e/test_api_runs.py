"""Plans through the REST API, over Dagster's own webserver and daemon: the UI shows the same runs."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from place import SYNCFLOW, Place, lines
from tables import hub, table

from syncflow_core.entity import Brake, Entity
from syncflow_core.sandbox.store import Row
from syncflow_dagster.home import shipped

pytestmark = pytest.mark.e2e

COLUMNS = {"ID": "VARCHAR2(9)", "NAME": "VARCHAR2(9)"}


def items(count: int, name: str = "a") -> list[Row]:
    return [{"ID": f"I{n}", "NAME": name} for n in range(count)]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def api(place: Place) -> Iterator[httpx.Client]:
    """The API with an operator's token; webserver and daemon behind it."""
    table(place, "itm", COLUMNS, items(10))
    place.apply([Entity(name="itm", brake=Brake(rows=2, share=0.1))])
    assert place.command("sync", "itm").returncode == 0  # makes the home, Dagster's too
    home = place.home / "home" / "dagster"
    environment = {**place.environment, "DAGSTER_HOME": str(home)}
    ui, port = free_port(), free_port()
    workspace = str(shipped("workspace.yaml"))
    commands = [
        [sys.executable, "-m", "dagster_webserver", "-p", str(ui), "-w", workspace],
        [sys.executable, "-m", "dagster._daemon", "run", "-w", workspace],
        [SYNCFLOW, "api", "--port", str(port), "--dagster-url", f"http://127.0.0.1:{ui}"],
    ]
    with ExitStack() as stack:
        for command in commands:
            process = subprocess.Popen(
                command,
                env=environment,
                cwd=home,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            stack.callback(end, process)
        for url in (f"http://127.0.0.1:{ui}/server_info", f"http://127.0.0.1:{port}/api/v1/health"):
            await_answer(url)
        token = place.command("token", "anna", "--role", "operator").stdout.strip()
        headers = {"Authorization": f"Bearer {token}"}
        base = f"http://127.0.0.1:{port}/api/v1"
        with httpx.Client(base_url=base, headers=headers, trust_env=False, timeout=60) as client:
            client.params = httpx.QueryParams()
            yield client


def end(process: "subprocess.Popen[bytes]") -> None:
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
            if httpx.get(url, trust_env=False, timeout=5).is_success:
                return
        except httpx.TransportError:
            pass  # not up yet
        time.sleep(0.2)
    raise AssertionError(f"{url} did not answer")


def await_plan(client: httpx.Client, run: str) -> dict[str, Any]:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        found = client.get("/plans", params={"run_id": run}).json()["items"]
        if found:
            return dict(found[0])
        time.sleep(0.2)
    raise AssertionError("the run made no plan")


def test_a_plan_is_made_approved_and_applied_through_the_api(
    place: Place, api: httpx.Client
) -> None:
    table(place, "itm", COLUMNS, [*items(9)[1:], {"ID": "N", "NAME": "n"}])

    started = api.post("/plans", json={"entities": ["itm"], "mode": "full"})
    plan = await_plan(api, started.json()["run_id"])
    shown = api.get(f"/plans/{plan['uid']}").json()
    listed = place.command("plan", plan["uid"], "--json")
    applied = api.post(f"/plans/{plan['uid']}/apply")
    deadline = time.monotonic() + 90
    while len(hub(place, "itm")) != 9 and time.monotonic() < deadline:
        time.sleep(0.2)
    while api.get(f"/plans/{plan['uid']}").json()["status"] != "applied":
        assert time.monotonic() < deadline
        time.sleep(0.2)
    again = api.post(f"/plans/{plan['uid']}/apply")

    assert (started.status_code, applied.status_code, again.status_code) == (202, 202, 409)
    assert (plan["counts"]["inserts"], plan["counts"]["deletes"]) == (1, 2)
    assert lines(listed.stdout)[0]["samples"] == shown["samples"]
    assert {row["record"] for row in shown["samples"]} == {"id=N", "id=I0", "id=I9"}
    assert api.get(f"/plans/{plan['uid']}").json()["approved_by"] == "anna"
    assert "id=N" in hub(place, "itm")
    assert json.loads(hub(place, "itm")["id=N"])["name"] == "n"
