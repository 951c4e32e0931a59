"""A whole SyncFlow for one test, or for a module: a database, both sandbox servers, a home."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from forked import Forked
from place import Place

from syncflow_core.bridge.database import Database
from syncflow_core.sandbox import Sandbox
from syncflow_dagster.cli.sandbox import environment


@pytest.fixture
def place(migrated_url: str, tmp_path: Path) -> Iterator[Place]:
    with opened(migrated_url, tmp_path) as found:
        yield found


@pytest.fixture(scope="module")
def shared_place(module_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One for all tests of a module, which leave it as they found it."""
    with opened(module_url, tmp_path_factory.mktemp("place")) as found:
        yield found


@contextmanager
def opened(url: str, folder: Path) -> Iterator[Place]:
    with (
        Sandbox.start(url, one_process=True, spawn=_server) as sandbox,
        Database(url) as database,
        dg.DagsterInstance.ephemeral() as instance,
        pytest.MonkeyPatch.context() as monkeypatch,
    ):
        variables = {
            "SYNCFLOW_HOME": str(folder / "home"),
            "SYNCFLOW_DATABASE_URL": url,
            **environment(sandbox),
        }
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("DAGSTER_HOME", raising=False)
        yield Place(folder, url, database, sandbox, instance, {**os.environ, **variables})


def _server(arguments: list[str]) -> Any:
    main = "syncflow_core.sandbox.server:main"
    return Forked(main, arguments, dict(os.environ), Path.cwd(), errors=False)
