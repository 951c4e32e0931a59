"""A PostgreSQL server for these tests, shared by all workers, and a fresh database for each test."""

import gc
import os

# modules are many objects, and so are Dagster's definitions, made again for many tests: an eighth of the time was
# going through them
gc.set_threshold(50_000, 20, 50)

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from uuid import uuid4

import hypothesis
import psycopg
import pytest
from buckets import S3, started
from dagster_postgres import DagsterPostgresStorage
from psycopg import sql

from syncflow_core.bridge import migrate
from syncflow_core.bridge.database import Database
from syncflow_core.bridge.embedded import EmbeddedServer
from syncflow_core.sandbox import database as sandbox

# how long an example takes says something of the machine alone
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.register_profile("mutants", deadline=None, max_examples=20, derandomize=True)
hypothesis.settings.load_profile("untimed")

URL = os.environ.get("SYNCFLOW_TEST_DATABASE_URL")

LONGEST = ("test_browser.py", "test_dagster_servers.py", "test_openapi.py", "test_up.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest modules go first, so that none is left to one worker at the end; every test has a name of its own.

    Schemathesis gives all its tests of one function the same, by which xdist would make but one of them.
    """
    items.sort(key=lambda item: item.path.name not in LONGEST)
    for item in items:
        if (operation := getattr(item, "operation_label", None)) is not None:
            item._id = item.id.with_params(operation)  # pytest has no other way


def pytest_collection_finish() -> None:
    """What is there before the first test stays: it need not be looked through again, as pytest would five times."""
    gc.freeze()


@pytest.fixture(scope="session")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a maintenance database; ``/postgres`` at its end."""
    if URL is not None:
        yield URL.rpartition("/")[0] + "/postgres"
        return
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with EmbeddedServer.acquire(Path(shared) / "bridge-tests", linger_s=0) as server:
        with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
            for name in ("fsync", "synchronous_commit", "full_page_writes", "autovacuum"):
                # what is killed in the tests are clients; servers that are killed are others; no table lives long
                connection.execute(
                    sql.SQL("ALTER SYSTEM SET {} = off").format(sql.Identifier(name))
                )
            connection.execute("SELECT pg_reload_conf()")
        yield server.url("postgres")


@pytest.fixture(scope="session")
def fresh(server_url: str) -> Callable[[str], AbstractContextManager[str]]:
    """Makes a database like the one whose address it is given; its address, while the block lasts."""

    @contextmanager
    def made(like: str) -> Iterator[str]:
        with _fresh(server_url, like.rpartition("/")[2]) as name:
            yield _at(server_url, name)

    return made


@pytest.fixture(scope="session")
def template(server_url: str) -> Iterator[str]:
    """The name of a database that has all migrations, and what Dagster and the sandbox would make on their first use."""
    with _fresh(server_url) as name:
        url = _at(server_url, name)
        migrate.upgrade(url)
        sandbox.prepare(url)
        DagsterPostgresStorage(url.replace("://", "+psycopg2://", 1))
        yield name


@pytest.fixture
def url(server_url: str) -> Iterator[str]:
    """The address of an empty database."""
    with _fresh(server_url) as name:
        yield _at(server_url, name)


@pytest.fixture
def migrated_url(server_url: str, template: str) -> Iterator[str]:
    """The address of a database that has all migrations."""
    with _fresh(server_url, template) as name:
        yield _at(server_url, name)


@pytest.fixture(scope="module")
def module_url(server_url: str, template: str) -> Iterator[str]:
    """The same, one for all tests of a module."""
    with _fresh(server_url, template) as name:
        yield _at(server_url, name)


@pytest.fixture
def database(migrated_url: str) -> Iterator[Database]:
    with Database(migrated_url) as opened:
        yield opened


class _fresh:  # noqa: N801  # used like a function
    def __init__(self, server_url: str, template: str = "template1") -> None:
        self.server_url = server_url
        self.template = template
        self.name = f"test_{uuid4().hex}"

    def __enter__(self) -> str:
        # by files: half the time of the other way, which spares a checkpoint that costs nothing here
        self._run("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY", self.name, self.template)
        return self.name

    def __exit__(self, *_: object) -> None:
        self._run("DROP DATABASE {} WITH (FORCE)", self.name)

    def _run(self, statement: str, *names: str) -> None:
        with psycopg.connect(self.server_url, autocommit=True) as connection:
            connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


def _at(server_url: str, name: str) -> str:
    return f"{server_url.rpartition('/')[0]}/{name}"


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    """An S3 server, for tests that keep frames in a bucket."""
    with started() as server:
        yield server
