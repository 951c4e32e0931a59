"""Which entities there are: the bridge database's, or the last good copy of them.

Belongs here: reading the declarations for the code location.
Does not belong here: writing them (``cli.entities``, the API), building assets (``assets``).

Source: product.md 12; dagster.md 5.
"""

import logging
from pathlib import Path

from syncflow_core.bridge.database import Database
from syncflow_core.bridge.entities import load_entities
from syncflow_core.entities_file import entities_text, parse_entities
from syncflow_core.entity import Entity
from syncflow_core.errors import ConfigError, UnavailableError
from syncflow_core.private import make_folder, write_file
from syncflow_core.settings import Settings

logger = logging.getLogger(__name__)


def read_entities(settings: Settings) -> list[Entity]:
    """The enabled entities; the last good copy, with a warning, where the database is away.

    A database without its schema has none: the location loads, empty, until ``syncflow migrate`` and
    ``syncflow entities apply`` have run.
    """
    copy = settings.home_path / "entities.last.yaml"
    try:
        database = Database.open(settings)
        try:
            database.check_schema()
            with database.begin() as connection:
                entities = load_entities(connection)
        finally:
            database.close()
    except ConfigError as error:
        logger.warning("no entities: %s", error)
        return []
    except UnavailableError as error:
        if not copy.exists():
            logger.warning("no entities: %s", error)
            return []
        logger.warning("entities as they were when the database last answered: %s", error)
        return parse_entities(copy.read_text(encoding="utf-8"), str(copy))
    _keep(copy, entities)
    return entities


def _keep(copy: Path, entities: list[Entity]) -> None:
    text = entities_text(entities)
    if copy.exists() and copy.read_text(encoding="utf-8") == text:
        return
    make_folder(copy.parent)
    write_file(copy, text.encode())
