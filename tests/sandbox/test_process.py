import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest
from local import LOCAL

from syncflow_core.sandbox import Sandbox, SandboxError

SUPERVISOR = """
import json, sys
import polars as pl
from syncflow_core.sandbox import Sandbox
pl.select(pl.lit(1))  # takes SIGINT's handler over, as seeding does
with Sandbox.start(sys.argv[1]) as sandbox:
    print(json.dumps([sandbox.apismith_url, sandbox.schedulehub_url]), flush=True)
    sandbox.wait()
"""


@pytest.fixture
def supervisor(database_url: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", SUPERVISOR, database_url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def children(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:  # noqa: PTH123  # /proc
        return [int(child) for child in file.read().split()]


def wait_for_end(pids: list[int]) -> list[bool]:
    """Whether each process ends within 20 s."""
    ended = []
    for pid in pids:
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            ended.append(True)
            continue
        ended.append(bool(select.select([handle], [], [], 20)[0]))
        os.close(handle)
    return ended


def test_both_servers_answer(supervisor: subprocess.Popen[str]) -> None:
    assert supervisor.stdout is not None

    for url in json.loads(supervisor.stdout.readline()):
        assert url.startswith("http://127.0.0.1:")
        answer = LOCAL.get(f"{url}/api/v1/health")
        assert answer.json() == {"status": "healthy"}


@pytest.mark.parametrize("server", [0, 1])
def test_who_waits_for_the_servers_is_told_when_either_ends(
    supervisor: subprocess.Popen[str], server: int
) -> None:
    assert supervisor.stdout is not None
    supervisor.stdout.readline()

    os.kill(children(supervisor.pid)[server], signal.SIGKILL)

    supervisor.wait(20)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_no_server_outlives_who_started_it(
    supervisor: subprocess.Popen[str], number: signal.Signals
) -> None:
    assert supervisor.stdout is not None
    supervisor.stdout.readline()
    servers = children(supervisor.pid)
    supervisor.send_signal(number)
    supervisor.wait(20)

    assert len(servers) == 2
    assert wait_for_end(servers) == [True, True]


def test_a_port_that_is_taken_is_said_and_nothing_is_left(
    database_url: str, sandbox: Sandbox, capfd: pytest.CaptureFixture[str]
) -> None:
    port = int(sandbox.schedulehub_url.rpartition(":")[2])
    before = children(os.getpid())
    with pytest.raises(SandboxError, match="before it had a port"):
        Sandbox.start(database_url, schedulehub_port=port)

    assert "Address already in use" in capfd.readouterr().err
    assert set(children(os.getpid())) <= set(before)


def test_starting_again_keeps_the_days_that_passed(
    database_url: str, apismith: httpx.Client
) -> None:
    before = apismith.post("/sandbox/day", json={}).json()
    rows = apismith.get("/sandbox/stats").json()["tables"]
    with Sandbox.start(database_url, rows=2_000, seed=7):
        again = apismith.get("/sandbox/stats").json()["tables"]

    assert before["orders"]["changed"] > 0
    assert again == rows
