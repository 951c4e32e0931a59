"""What is open while a command runs a job, and while the clock looks at the bridge.

Belongs here: opening it, with the errors that a person can act on first.
Does not belong here: running anything (``launch``).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import dagster as dg
import sqlalchemy as sa

from syncflow_core.bridge.database import Database
from syncflow_core.bridge.entities import load_entities
from syncflow_core.entity import Entity
from syncflow_core.errors import ConfigError
from syncflow_core.settings import Settings, read_settings
from syncflow_dagster.failures import history_there, told_to_dagster
from syncflow_dagster.home import open_instance, prepare
from syncflow_dagster.logs import quiet_dagster


@dataclass(frozen=True)
class Session:
    """What is open while a command runs."""

    settings: Settings
    database: Database
    instance: dg.DagsterInstance
    entities: list[Entity]


@contextmanager
def session() -> Iterator[Session]:
    """Open everything, and keep what Dagster tells of it to the UI.

    Raises:
        ConfigError: One of the two systems has no address, the schema is another, or no entity is declared.
        UnavailableError: The bridge database, or Dagster's history, is away or has no room.
    """
    quiet_dagster()
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


@contextmanager
def bridge(settings: Settings) -> Iterator[sa.Connection]:
    """A transaction on the bridge database for what the clock looks at, its errors in Dagster's form.

    Raises:
        dagster.Failure: It is away, or its schema is not this version's.
    """
    with told_to_dagster(), Database.open(settings) as database:
        database.check_schema()
        with database.begin() as connection:
            yield connection
