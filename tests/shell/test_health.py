"""Whether the API says that it is alive, and ready, and what it says where it is not."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import httpx
import pytest
from dagster._daemon.types import DaemonHeartbeat
from place import Place, opened
from ported import ported
from tables import faults, hits

from syncflow_core.bridge.database import Database
from syncflow_core.settings import Settings, read_settings
from syncflow_dagster.api.app import create_app
from syncflow_dagster.api.gateway import DagsterGateway
from syncflow_dagster.api.health import KEPT_S, NAMES, Looks, Readiness, Ready
from syncflow_dagster.api.security import Verifier
from syncflow_dagster.daemon import LATE_S

READY = "/api/v1/health/ready"


@pytest.fixture(scope="module")
def place(module_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with opened(module_url, tmp_path_factory.mktemp("place")) as found:
        yield found


@pytest.fixture
def history(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """Dagster's, with a daemon that has just given a sign of life."""
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        beat(instance)
        yield instance


def beat(instance: dg.DagsterInstance, ago_s: float = 0.0) -> None:
    for kind in instance.get_required_daemon_types():
        instance.add_daemon_heartbeat(DaemonHeartbeat(time.time() - ago_s, kind, "d", []))


@contextmanager
def served(
    settings: Settings, database: Database, history: dg.DagsterInstance
) -> Iterator[httpx.Client]:
    """The application on a free port, and a client for it without a token."""
    app = create_app(
        settings, database, DagsterGateway("http://127.0.0.1:9"), Verifier(settings, "s" * 32)
    )
    app.state.readiness = Readiness(Looks(settings, database, lambda _: history))
    with ported(app) as url, httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
        yield client


def told(answer: httpx.Response) -> dict[str, str | None]:
    """What the answer says of the parts that are not ok; and that it says nothing else."""
    found = answer.json()
    assert set(found) == {"status", "checks"}
    assert [part["name"] for part in found["checks"]] == list(NAMES.values())
    assert {tuple(part) for part in found["checks"]} == {("name", "status", "latency_ms", "reason")}
    for secret in ("127.0.0.1", "http", "postgres", "sandbox", "syncflow"):
        assert secret not in answer.text
    return {part["name"]: part["reason"] for part in found["checks"] if part["status"] != "ok"}


def test_all_that_a_sync_needs_is_there(place: Place, history: dg.DagsterInstance) -> None:
    with served(read_settings(), place.database, history) as client:
        alive, ready = client.get("/api/v1/health"), client.get(READY)

    assert (alive.status_code, alive.json()) == (200, {"status": "alive"})
    assert (ready.status_code, ready.json()["status"], told(ready)) == (200, "ready", {})
    assert all(part["latency_ms"] > 0 for part in ready.json()["checks"])


@pytest.mark.parametrize(
    ("variables", "reasons"),
    [
        ({"schedulehub_url": "http://127.0.0.1:9"}, {"target": "does not answer"}),
        (
            {"apismith_url": None},
            {"source": "has no address, or something else answers there"},
        ),
        (
            {"apismith_url": "http://127.0.0.1:9", "schedulehub_url": "http://127.0.0.1:9"},
            {"source": "does not answer", "target": "does not answer"},
        ),
    ],
    ids=["target", "no-address", "both"],
)
def test_a_system_that_is_not_there_is_503_without_its_address(
    place: Place,
    history: dg.DagsterInstance,
    variables: dict[str, str | None],
    reasons: dict[str, str],
) -> None:
    settings = read_settings().model_copy(update=variables)

    with served(settings, place.database, history) as client:
        answer, alive = client.get(READY), client.get("/api/v1/health")

    assert (answer.status_code, told(answer)) == (503, reasons)
    assert answer.json()["status"] == "not ready"
    assert answer.headers["retry-after"] == "5"
    assert alive.status_code == 200


@pytest.mark.usefixtures("place")
def test_a_database_that_is_away_or_not_migrated_is_503(
    history: dg.DagsterInstance, url: str
) -> None:
    found = []
    for address in ("postgresql://u:s3cret@127.0.0.1:9/x", url):
        with Database(address) as other, served(read_settings(), other, history) as client:
            answer = client.get(READY)
        found.append((answer.status_code, told(answer)))
        assert "s3cret" not in answer.text

    assert found == [
        (
            503,
            {"database": "does not answer", "migrations": "not looked at: see database"},
        ),
        (503, {"migrations": "the schema is not this version's, or may not be written"}),
    ]


def test_a_daemon_without_a_sign_of_life_is_503(place: Place, history: dg.DagsterInstance) -> None:
    beat(history, ago_s=LATE_S + 5)

    with served(read_settings(), place.database, history) as client:
        answer = client.get(READY)

    assert (answer.status_code, told(answer)) == (503, {"daemon": "gives no sign of life"})


def test_however_often_it_is_asked_the_systems_are_asked_once(
    place: Place, history: dg.DagsterInstance
) -> None:
    url = place.sandbox.apismith_url
    faults(url, {"match": {"path": "/health"}, "action": {"delay_s": 0.001}})
    try:
        with served(read_settings(), place.database, history) as client:
            looks = [client.get(READY) for _ in range(9)]
            asked = hits(url)
    finally:
        faults(url)

    assert {answer.text for answer in looks} == {looks[0].text}
    assert asked == 1


def test_an_answer_is_remembered_for_a_while_and_then_made_anew_once_for_all() -> None:
    looks: list[float] = []
    time_is = 100.0

    def look() -> Ready:
        looks.append(time_is)
        return Ready(status="ready", checks=[])

    async def asked(readiness: Readiness, times: int) -> None:
        await asyncio.gather(*(readiness.answer() for _ in range(times)))

    async def all_day() -> None:
        nonlocal time_is
        readiness = Readiness(look, clock=lambda: time_is)
        await asked(readiness, 20)
        time_is += KEPT_S - 0.1
        await asked(readiness, 20)
        time_is += 0.1
        await asked(readiness, 20)

    asyncio.run(all_day())

    assert looks == [100.0, 100.0 + KEPT_S]


def test_dagsters_instance_is_opened_once_for_the_process(
    place: Place, history: dg.DagsterInstance
) -> None:
    opened_for: list[Settings] = []

    def open_history(settings: Settings) -> dg.DagsterInstance:
        opened_for.append(settings)
        return history

    looks = Looks(read_settings(), place.database, open_history)

    assert [looks().status, looks().status] == ["ready", "ready"]
    assert len(opened_for) == 1
