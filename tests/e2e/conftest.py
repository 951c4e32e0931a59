"""A whole SyncFlow for one test, or for a module: a database, both sandbox servers, a home."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from place import Place, opened


@pytest.fixture
def place(migrated_url: str, tmp_path: Path) -> Iterator[Place]:
    with opened(migrated_url, tmp_path) as found:
        yield found


@pytest.fixture(scope="module")
def shared_place(module_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One for all tests of a module, which leave it as they found it."""
    with opened(module_url, tmp_path_factory.mktemp("place")) as found:
        yield found
