"""A whole SyncFlow for one test: a database, both sandbox servers, a home."""

import os
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from place import Place

from syncflow_core.bridge.database import Database
from syncflow_core.sandbox import Sandbox
from syncflow_dagster.cli.sandbox import environment


@pytest.fixture
def place(migrated_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    with (
        Sandbox.start(migrated_url) as sandbox,
        Database(migrated_url) as database,
        dg.DagsterInstance.ephemeral() as instance,
    ):
        variables = {
            "SYNCFLOW_HOME": str(tmp_path / "home"),
            "SYNCFLOW_DATABASE_URL": migrated_url,
            **environment(sandbox),
        }
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("DAGSTER_HOME", raising=False)
        yield Place(
            tmp_path, migrated_url, database, sandbox, instance, {**os.environ, **variables}
        )
