"""SyncFlow over Dagster's own webserver and daemon: plans through the REST API, and processes that die."""

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import psycopg
import pytest
from forked import Forked
from local import LOCAL
from machine import free_port, until
from place import MAIN, Place, lines
from servers import Servers, await_answer, end, serving
from tables import effects, faults, hub, items, table

from syncflow_core.bridge.batches import Batch, history
from syncflow_core.entity import Brake, Entity, Field
from syncflow_core.sandbox.effects import inserted_twice, updated_twice

COLUMNS = {"ID": "VARCHAR2(9)", "NAME": "VARCHAR2(9)"}


@pytest.fixture(scope="module")
def place(shared_place: Place) -> Place:
    table(shared_place, "itm", COLUMNS, items(10))
    shared_place.apply([Entity(name="itm", brake=Brake(rows=2, share=0.1))])
    assert shared_place.command("sync", "itm").returncode == 0  # makes the home, Dagster's too
    return shared_place


@pytest.fixture(scope="module")
def servers(place: Place) -> Iterator[Servers]:
    """Dagster's own webserver and daemon, and the API before them."""
    with serving(place) as running:
        yield running


@pytest.fixture
def api(place: Place, servers: Servers) -> Iterator[httpx.Client]:
    """The API with an admin's token."""
    token = place.command("token", "anna", "--role", "admin").stdout.strip()
    headers = {"Authorization": f"Bearer {token}"}
    base = f"http://127.0.0.1:{servers.port}/api/v1"
    with httpx.Client(base_url=base, headers=headers, trust_env=False, timeout=60) as client:
        yield client


@pytest.fixture(autouse=True)
def settled(servers: Servers) -> None:
    """Nothing of the test before goes on: one entity is synced once at a time."""
    servers.settle()


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


def changed(place: Place, name: str) -> int:
    """Every row of the source says so; how many effects the hub had before."""
    table(place, "itm", COLUMNS, items(10, name))
    place.apply([Entity(name="itm", brake=Brake(rows=100, share=1))])
    return effects(place)


def launched_slowly(place: Place, servers: Servers) -> str:
    """A run of ``sync_itm`` that waits for the source; its id."""
    slow = {"match": {"path": "/execute"}, "action": {"delay_s": 4}}
    faults(place.sandbox.apismith_url, slow)
    run = servers.launch("sync_itm")
    until(lambda: len(running_batches(place)) == 1)
    return run


def running_batches(place: Place) -> list[Batch]:
    with place.database.begin() as connection:
        return history(connection, statuses=["running"])


def test_XW15_a_run_outlives_the_daemon_and_the_webserver_or_is_done_once_by_the_next(
    place: Place, servers: Servers
) -> None:
    before = changed(place, "xw15")
    run = launched_slowly(place, servers)
    for name in ("daemon", "webserver"):
        servers.processes[name].kill()  # not its group: what it started lives on
        servers.processes[name].wait()
    until(lambda: running_batches(place) == [])
    faults(place.sandbox.apismith_url)
    own = effects(place) - before

    next_one = place.command("sync", "itm", "--full")
    until(lambda: servers.status_of(run).value in {"SUCCESS", "FAILURE"})
    for name in ("daemon", "webserver"):
        servers.stop(name)
        servers.start(name)
    servers.await_answers()

    assert next_one.returncode == 0, next_one.stderr
    whole = effects(place) - before
    assert own in {0, whole}
    assert (servers.status_of(run) is dg.DagsterRunStatus.SUCCESS) == (own == whole)
    assert {json.loads(text)["name"] for text in hub(place, "itm").values()} == {"xw15"}
    assert inserted_twice(place.url) == updated_twice(place.url) == []


def test_XW15_a_run_whose_worker_is_killed_is_followed_at_once_and_ended_in_dagster(
    place: Place, servers: Servers
) -> None:
    before = changed(place, "worker")
    run = launched_slowly(place, servers)
    with place.database.begin() as connection:
        holder = connection.exec_driver_sql(
            "SELECT holder FROM bridge.leases WHERE released_at IS NULL"
        ).scalar_one()
    worker = int(holder.partition(" process ")[2].split()[0])
    copied_from = Path(f"/proc/{parent_of(worker)}/cmdline").read_text(encoding="utf-8")
    os.kill(worker, signal.SIGKILL)
    faults(place.sandbox.apismith_url)

    next_one = place.command("sync", "itm", "--full")

    assert "multiprocessing.forkserver" in copied_from
    assert next_one.returncode == 0, next_one.stderr
    assert effects(place) > before
    assert {json.loads(text)["name"] for text in hub(place, "itm").values()} == {"worker"}
    assert inserted_twice(place.url) == updated_twice(place.url) == []
    until(lambda: servers.status_of(run) is dg.DagsterRunStatus.FAILURE)
    assert running_batches(place) == []


def parent_of(process: int) -> int:
    stat = Path(f"/proc/{process}/stat").read_text(encoding="ascii")
    return int(stat.rpartition(")")[2].split()[1])


@contextmanager
def silent(place: Place, system: str) -> Iterator[None]:
    """One of the three says nothing for as long as the block lasts."""
    paths = {"apismith": "/itm/execute", "schedulehub": "/itm/batch/"}
    if system in paths:
        url = getattr(place.sandbox, f"{system}_url")
        faults(url, {"match": {"path": paths[system]}, "action": {"hang": True}})
        try:
            yield
        finally:
            faults(url)
        return
    with psycopg.connect(place.url) as session:
        session.execute("LOCK bridge.synced_records IN ACCESS EXCLUSIVE MODE")
        yield


# in fetch it is terminated by the browser's test
@pytest.mark.parametrize(("system", "op"), [("bridge", "delta"), ("schedulehub", "push")])
def test_a_run_is_terminated_within_seconds_whoever_says_nothing(
    place: Place, servers: Servers, system: str, op: str
) -> None:
    changed(place, f"stop-{op}")
    with silent(place, system):
        run = servers.launch("sync_itm")
        until(lambda: f"itm.{op}" in servers.begun(run))
        asked = time.monotonic()
        servers.terminate(run)
        until(lambda: servers.status_of(run) is dg.DagsterRunStatus.CANCELED)
        took = time.monotonic() - asked

    assert took < 25, "no time limit of its own has ended it"
    with place.database.begin() as connection:
        (batch,) = history(connection, dagster_run_id=run)
    assert batch.status == "stopped", batch.error
    assert place.command("sync", "itm", "--full").returncode == 0
    assert {json.loads(text)["name"] for text in hub(place, "itm").values()} == {f"stop-{op}"}
    assert inserted_twice(place.url) == updated_twice(place.url) == []


def test_a_failed_sync_of_the_command_line_goes_on_from_the_op_that_failed(
    place: Place, servers: Servers
) -> None:
    changed(place, "again")
    url = place.sandbox.schedulehub_url
    faults(url, {"match": {"path": "/itm/batch/"}, "action": {"status": 403}})
    assert place.command("sync", "itm", "--full", DAGSTER_HOME=str(servers.home)).returncode == 1
    faults(url)
    (failed,) = servers.instance.get_runs(limit=1)

    run = servers.again(failed.run_id)
    until(lambda: servers.status_of(run) is dg.DagsterRunStatus.SUCCESS)

    assert failed.tags["dagster/will_retry"] == "false"
    assert servers.begun(run) == {"itm.push"}
    assert {json.loads(text)["name"] for text in hub(place, "itm").values()} == {"again"}


def test_an_entity_that_is_applied_is_in_the_ui_without_a_restart(
    place: Place, servers: Servers, api: httpx.Client
) -> None:
    assert api.get("/health").is_success  # it is the API that looks for what has changed

    def shown() -> set[str]:
        nodes = servers.ask("{ assetNodes { assetKey { path } } }")["assetNodes"]
        return {"/".join(node["assetKey"]["path"]) for node in nodes}

    before = shown()
    place.apply([Entity(name="newcomer", api="itm")])
    deadline = time.monotonic() + 60
    while "newcomer" not in shown():
        assert time.monotonic() < deadline
        time.sleep(0.2)

    assert "newcomer" not in before
    assert "schedulehub/newcomer" in shown()


def ended(client: httpx.Client, batch: str) -> dict[str, Any]:
    """The batch as the API shows it, once it has ended."""
    until(lambda: status(client, batch)["finished_at"] is not None)
    return status(client, batch)


def status(client: httpx.Client, batch: str) -> dict[str, Any]:
    answer = client.get(f"/sync/status/{batch}")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_a_sync_that_the_api_starts_is_the_same_in_api_dagster_and_command_line(
    place: Place, servers: Servers, api: httpx.Client
) -> None:
    changed(place, "api")
    key = {"Idempotency-Key": "first"}

    started = api.post("/sync/start", json={"entities": ["itm"]}, headers=key)
    there = status(api, started.json()["batch_uid"])
    again = api.post("/sync/start", json={"entities": ["itm"]}, headers=key)
    other = api.post("/sync/start", json={"entities": ["itm"], "slice": 1}, headers=key)
    done = ended(api, started.json()["batch_uid"])

    assert (started.status_code, again.status_code, other.status_code) == (202, 202, 422)
    assert again.json() == started.json()
    assert there["status"] in {"pending", "running"}
    assert (done["status"], done["counts"]["updated"]) == ("completed", 10)
    until(lambda: servers.status_of(done["run_id"]) is dg.DagsterRunStatus.SUCCESS)
    assert servers.begun(done["run_id"]) >= {"itm.fetch", "itm.push"}
    (line,) = lines(place.command("status", "itm", "--json").stdout)
    assert line["last_batch"]["batch"] == done["batch_uid"]
    assert line["last_batch"]["counts"] == done["counts"]
    listed = api.get("/sync/history", params={"run_id": done["run_id"]}).json()["items"]
    assert [batch["batch_uid"] for batch in listed] == [done["batch_uid"]]


def test_history_is_looked_through_page_by_page(place: Place, api: httpx.Client) -> None:
    assert place.command("sync", "itm").returncode == 0
    whole = [batch["batch_uid"] for batch in api.get("/sync/history").json()["items"]]

    seen: list[str] = []
    page = api.get("/sync/history", params={"limit": 2}).json()
    while True:
        seen += [batch["batch_uid"] for batch in page["items"]]
        if page["next"] is None:
            break
        page = api.get("/sync/history", params={"limit": 2, "after": page["next"]}).json()

    assert seen == whole
    assert len(seen) == len(set(seen)) >= 3


def test_a_sync_that_the_api_stops_ends_as_stopped(
    place: Place, servers: Servers, api: httpx.Client
) -> None:
    changed(place, "halt")
    with silent(place, "schedulehub"):
        batch = api.post("/sync/start", json={"entities": ["itm"]}).json()["batch_uid"]
        until(lambda: "itm.push" in servers.begun(status(api, batch)["run_id"] or ""))
        stopping = api.post(f"/sync/stop/{batch}")
        done = ended(api, batch)
    again = api.post(f"/sync/stop/{batch}")

    assert (stopping.status_code, stopping.json()["status"]) == (202, "stopping")
    assert done["status"] == "stopped"
    assert (again.status_code, "has ended" in again.json()["detail"]) == (409, True)
    assert place.command("sync", "itm", "--full").returncode == 0


def test_the_api_stops_what_the_command_line_runs(place: Place, api: httpx.Client) -> None:
    changed(place, "mine")
    with silent(place, "schedulehub"):
        running = place.process("sync", "itm", "--full")
        until(lambda: running_batches(place) != [])
        (batch,) = running_batches(place)
        stopping = api.post(f"/sync/stop/{batch.uid}")
        running.communicate(timeout=60)

    assert stopping.status_code == 202, stopping.text
    assert running.returncode == 143
    assert status(api, str(batch.uid))["status"] == "stopped"
    assert place.command("sync", "itm", "--full").returncode == 0


def test_failed_records_are_listed_clustered_and_tried_again_by_what_they_share(
    place: Place, api: httpx.Client
) -> None:
    wide = {**COLUMNS, "QTY": "VARCHAR2(9)"}
    rows = [{"ID": f"I{n}", "NAME": "a", "QTY": "one" if n < 2 else str(n)} for n in range(4)]
    table(place, "qty", wide, rows)
    fields = [Field(source="QTY", type="integer")]
    place.apply([Entity(name="qty", fields=fields)])
    assert place.command("sync", "qty").returncode == 1

    listed = api.get("/failed-records", params={"entity": "qty"}).json()["items"]
    clusters = api.get("/failed-records/clusters", params={"entity": "qty"}).json()["items"]
    ones = [letter["uid"] for letter in listed if letter["stage"] == "normalize"]
    table(place, "qty", wide, [{**row, "QTY": str(n)} for n, row in enumerate(rows)])
    run = api.post("/sync/retry-failed", json={"ids": ones[:1]}).json()["run_id"]
    until(lambda: retried(api, run))
    left = api.get("/failed-records", params={"entity": "qty"}).json()["items"]

    assert [(line["stage"], line["column"], line["count"]) for line in clusters] == [
        ("normalize", "QTY", 2)
    ]
    assert {letter["value"] for letter in listed if letter["uid"] in ones} == {"one"}
    assert {letter["uid"] for letter in listed} - {letter["uid"] for letter in left} == {ones[0]}


def retried(client: httpx.Client, run: str) -> bool:
    """Whether the run's batches have all ended."""
    items = client.get("/sync/history", params={"run_id": run}).json()["items"]
    return bool(items) and all(batch["finished_at"] for batch in items)


def test_a_mapping_shows_what_it_would_change_before_it_does(
    place: Place, api: httpx.Client
) -> None:
    changed(place, "map")
    assert place.command("sync", "itm", "--full").returncode == 0
    (entity,) = [e for e in api.get("/entities").json()["items"] if e["name"] == "itm"]
    upper = {"fields": [{"source": "NAME", "transform": ["upper"]}]}

    asked = api.put(f"/mappings/{entity['uid']}", json=upper, params={"dry_run": True})
    plan = await_plan(api, asked.json()["run_id"])
    untouched = api.get(f"/mappings/{entity['uid']}").json()
    done = api.put(f"/mappings/{entity['uid']}", json=upper)
    synced = place.command("sync", "itm", "--full")

    assert (asked.status_code, done.status_code) == (202, 200), asked.text + done.text
    assert plan["counts"]["updates"] == 10
    assert (untouched["fields"], untouched["version"]) == ([], entity["version"])
    assert done.json()["version"] == entity["version"] + 1
    assert synced.returncode == 0
    assert {json.loads(text)["name"] for text in hub(place, "itm").values()} == {"MAP"}
    api.delete(f"/mappings/{entity['uid']}")


def test_an_entity_is_purged_through_a_plan_and_is_disabled_then(
    place: Place, api: httpx.Client
) -> None:
    table(place, "old", COLUMNS, items(4))
    place.apply([Entity(name="old", deletes="ignore")])
    assert place.command("sync", "old").returncode == 0
    (entity,) = [e for e in api.get("/entities").json()["items"] if e["name"] == "old"]

    asked = api.delete(f"/entities/{entity['uid']}", params={"purge": True})
    plan = await_plan(api, asked.json()["run_id"])
    before = len(hub(place, "old"))
    api.post(f"/plans/{plan['uid']}/apply")
    until(lambda: not api.get(f"/entities/{entity['uid']}").json()["enabled"])

    assert (asked.status_code, plan["counts"]["deletes"], before) == (202, 4, 4)
    assert hub(place, "old") == {}


def test_ui_and_api_are_served_by_one_process_where_that_is_wanted(
    place: Place, servers: Servers
) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    arguments = ["api", "--ui", "--port", str(port)]
    running = Forked(MAIN, arguments, servers.environment, servers.home)
    try:
        await_answer(f"{url}/api/v1/health")
        ui = LOCAL.get(f"{url}/server_info").json()
        page = LOCAL.get(f"{url}/assets")
        nothing = LOCAL.get(f"{url}/api/v1/nothing")
    finally:
        end(running)
    said = running.stderr.read().decode()
    running.close()
    refused = place.command("api", "--ui", "--host", "0.0.0.0")  # noqa: S104  # that is what it must refuse

    assert f"served on {url}/api/v1" in said
    assert "dagster_version" in ui
    assert (page.status_code, "text/html" in page.headers["content-type"]) == (200, True)
    assert nothing.headers["content-type"] == "application/problem+json"
    assert (refused.returncode, "no login" in refused.stderr) == (2, True)
