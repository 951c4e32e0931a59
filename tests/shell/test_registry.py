"""Which entities the code location has: the database's, the last good copy of them, and when it looks again."""

import logging
from pathlib import Path

import pytest

from syncflow_core.bridge.database import Database
from syncflow_core.bridge.entities import apply_entities
from syncflow_core.entity import Entity
from syncflow_core.errors import UnavailableError
from syncflow_core.settings import Settings
from syncflow_dagster.registry import read_entities
from syncflow_dagster.watching import Watch


def declare(database: Database, *entities: Entity) -> None:
    with database.begin() as connection:
        apply_entities(connection, entities)


def settings(url: str, home: Path) -> Settings:
    return Settings.model_validate({"database_url": url, "home": home})


def test_a_database_that_is_away_leaves_the_entities_as_they_were(
    database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    declare(database, Entity(name="orders", api="erp_orders"))
    away = settings("postgresql://u:p@127.0.0.1:9/none", tmp_path)

    never = read_entities(away)
    there = read_entities(settings(database.url, tmp_path))
    with caplog.at_level(logging.WARNING):
        gone = read_entities(away)

    assert never == []
    assert gone == there == [Entity(name="orders", api="erp_orders")]
    assert "entities as they were when the database last answered" in caplog.text


def test_declarations_that_change_are_loaded_once_and_those_that_do_not_never(
    database: Database,
) -> None:
    loads: list[int] = []
    watch = Watch(database, lambda: loads.append(1))
    seen = []
    for change in (
        [],
        [Entity(name="orders")],
        [Entity(name="orders")],  # nothing new
        [Entity(name="orders", description="of all plants")],
        [Entity(name="orders", description="of all plants", enabled=False)],
    ):
        declare(database, *change)
        watch.look()
        watch.look()
        seen.append(len(loads))

    assert seen == [0, 1, 1, 2, 3]


def test_a_webserver_that_is_away_is_asked_again_and_told_of_once(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    answers: list[Exception | None] = [UnavailableError("away"), UnavailableError("away"), None]
    asked: list[int] = []

    def load() -> None:
        asked.append(1)
        if (answer := answers.pop(0)) is not None:
            raise answer

    watch = Watch(database, load)
    watch.look()
    declare(database, Entity(name="orders"))
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            watch.look()

    assert len(asked) == 3
    assert caplog.text.count("the entities are not followed") == 1
