"""What every command that runs a job needs open: settings, database, Dagster's instance, entities.

Belongs here: opening them, with the errors that a person can act on first.
Does not belong here: running anything (``launch``).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import dagster as dg

from syncflow_core.bridge.database import Database
from syncflow_core.bridge.entities import load_entities
from syncflow_core.entity import Entity
from syncflow_core.errors import ConfigError
from syncflow_core.settings import Settings, read_settings
from syncflow_dagster.failures import history_there
from syncflow_dagster.home import open_instance, prepare


@dataclass(frozen=True)
class Session:
    """What is open while a command runs."""

    settings: Settings
    database: Database
    instance: dg.DagsterInstance
    entities: list[Entity]


@contextmanager
def session() -> Iterator[Session]:
    """Open everything.

    Raises:
        ConfigError: One of the two systems has no address, the schema is another, or no entity is declared.
        UnavailableError: The bridge database, or Dagster's history, is away or has no room.
    """
    settings = read_settings()
    # both ask at once, before anything is opened, for what every job needs
    missing = [
        f"SYNCFLOW_{name.upper()}"
        for name in ("apismith_url", "schedulehub_url")
        if getattr(settings, name) is None
    ]
    if missing:
        raise ConfigError(
            f"{' and '.join(missing)} not set: where are they? (syncflow sandbox runs both on this machine)"
        )
    prepare(settings)
    with history_there(), Database.open(settings) as database:
        database.check_schema()  # before Dagster, whose history may be in the same database
        with open_instance(settings) as instance:
            with database.begin() as connection:
                entities = load_entities(connection)
            if not entities:
                raise ConfigError("no entity is declared: syncflow entities apply FILE")
            yield Session(settings, database, instance, entities)
