"""Who may sync an entity, with real sessions and a process that is killed or frozen."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
import sqlalchemy as sa
from machine import until

from syncflow_core.bridge import batches
from syncflow_core.bridge.database import Database
from syncflow_core.bridge.entities import apply_entities
from syncflow_core.bridge.leases import Lease
from syncflow_core.entity import Entity
from syncflow_core.errors import SyncFlowError, UnavailableError

NOW = datetime(2025, 12, 8, tzinfo=UTC)
HOLDER = """
import sys
from datetime import UTC, datetime
from syncflow_core.bridge import batches
from syncflow_core.bridge.database import Database
from syncflow_core.bridge.leases import Lease
database = Database(sys.argv[1])
lease = Lease.acquire(database, "orders", run_id="first-run", heartbeat_s=0.1)
with database.begin() as connection:
    lease.check(connection)
    uid = batches.open_batch(connection, entity="orders", entity_version=1, kind="full",
        now=datetime(2025, 12, 8, tzinfo=UTC), dagster_run_id="first-run", fence=lease.fence)
print(uid, flush=True)
with database.begin() as connection:
    if "in-transaction" in sys.argv:
        lease.check(connection)
    print("waiting", flush=True)
    sys.stdin.readline()
with database.begin() as connection:
    lease.check(connection)
"""


@pytest.fixture(autouse=True)
def _orders(database: Database) -> None:
    with database.begin() as connection:
        apply_entities(connection, [Entity(name="orders"), Entity(name="lines")])


@pytest.fixture
def holder(database: Database, request: pytest.FixtureRequest) -> Iterator["Holder"]:
    started = Holder(database.url, getattr(request, "param", ""))
    yield started
    started.kill()


class Holder:
    """Another process that holds the lease of ``orders`` and runs a batch."""

    def __init__(self, url: str, how: str) -> None:
        root = Path(__file__).parents[2]
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, url, how],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(root)},
        )
        assert self.process.stdout is not None
        self.batch = UUID(self.process.stdout.readline().strip())
        assert self.process.stdout.readline() == "waiting\n"

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> str:
        """What it says on standard error after it went on, to its end."""
        self.process.send_signal(signal.SIGCONT)
        return self.process.communicate("go on\n")[1]


def test_each_holder_gets_a_higher_fence(database: Database) -> None:
    fences = []
    for _ in range(3):
        with Lease.acquire(database, "orders") as lease:
            fences.append(lease.fence)

    assert fences == [1, 2, 3]


def test_entities_are_held_apart(database: Database) -> None:
    with Lease.acquire(database, "orders"), Lease.acquire(database, "lines", wait_s=0) as lease:
        assert lease.fence == 1


def test_XC01_a_second_sync_waits_and_then_says_who_holds_the_entity(database: Database) -> None:
    with (
        Lease.acquire(database, "orders", run_id="r-1"),
        pytest.raises(SyncFlowError, match=rf"process {os.getpid()} run r-1; waited 0 s") as caught,
    ):
        Lease.acquire(database, "orders", wait_s=0)

    assert (caught.value.exit_status, caught.value.entity) == (1, "orders")


def test_a_second_sync_begins_as_soon_as_the_first_has_ended(database: Database) -> None:
    first = Lease.acquire(database, "orders")
    with Lease.acquire(database, "orders", wait_s=60, sleep=lambda _: first.release()) as second:
        assert (second.fence, second.dead_batches) == (2, [])


def test_the_lease_is_renewed_while_it_is_held(database: Database) -> None:
    def beats() -> int:
        query = sa.text("SELECT heartbeat_at > acquired_at FROM bridge.leases")
        with database.begin() as connection:
            return int(connection.scalar(query) or 0)

    with Lease.acquire(database, "orders", heartbeat_s=0.05):
        until(lambda: beats() == 1)


def test_check_lets_the_holder_write(database: Database) -> None:
    with Lease.acquire(database, "orders") as lease, database.begin() as connection:
        lease.check(connection)


def test_a_dead_holder_is_followed_at_once_and_its_batch_closed(
    database: Database, holder: Holder
) -> None:
    holder.kill()

    with Lease.acquire(database, "orders", wait_s=20) as lease, database.begin() as connection:
        found = batches.load_batch(connection, holder.batch)
        assert [(item.uid, item.dagster_run_id) for item in lease.dead_batches] == [
            (holder.batch, "first-run")
        ]
        assert found.status == "failed"
        assert "a new sync took over" in (found.error or "")
        assert lease.fence == 2


def test_a_living_holder_is_not_overtaken(database: Database, holder: Holder) -> None:
    assert holder.process.poll() is None
    with pytest.raises(SyncFlowError, match="run first-run"):
        Lease.acquire(database, "orders", wait_s=1.5, frozen_s=1.0)


@pytest.mark.parametrize("holder", ["between", "in-transaction"], indirect=True)
def test_XW12_a_frozen_holder_loses_its_sessions_and_writes_nothing_when_it_wakes(
    database: Database, holder: Holder
) -> None:
    holder.freeze()
    with Lease.acquire(database, "orders", wait_s=20, frozen_s=0.5) as lease:
        said = holder.thaw()

        assert lease.fence == 2
        assert [item.uid for item in lease.dead_batches] == [holder.batch]
        assert holder.process.returncode != 0
        assert "Error" in said


def test_a_holder_whose_fence_moved_is_refused(database: Database) -> None:
    with Lease.acquire(database, "orders", heartbeat_s=60) as lease:
        with database.begin() as connection:
            connection.execute(sa.text("UPDATE bridge.leases SET fence = fence + 1"))
        with (
            database.begin() as connection,
            pytest.raises(SyncFlowError, match=r"fence is 2, this one's 1"),
        ):
            lease.check(connection)
        assert lease.is_lost


def test_a_heartbeat_notices_that_the_session_was_ended(database: Database) -> None:
    with Lease.acquire(database, "orders", heartbeat_s=0.05) as lease:
        with database.begin() as connection:
            connection.execute(
                sa.text("SELECT pg_terminate_backend(backend_pid) FROM bridge.leases")
            )
        until(lambda: lease.is_lost)
        with (
            database.begin() as connection,
            pytest.raises(UnavailableError, match="the database ended the session"),
        ):
            lease.check(connection)
