"""``syncflow migrate``: the bridge database's schema, up and down, and Dagster's own tables.

Belongs here: the command.
Does not belong here: the migrations (``migrations/``, and Dagster's).
"""

import sys
from contextlib import redirect_stdout

import sqlalchemy as sa

from syncflow_core.bridge.database import Database
from syncflow_core.bridge.migrate import downgrade, upgrade
from syncflow_core.bridge.schema import found_revision
from syncflow_core.bridge.tables import entities
from syncflow_core.errors import ConfigError
from syncflow_core.settings import read_settings
from syncflow_dagster.home import open_instance, prepare
from syncflow_dagster.terminal import console


def migrate(*, down: bool, yes: bool) -> None:
    """Bring the schema to this code's version, or remove it; with an address, Dagster's tables too.

    Dagster makes its tables when it is first opened: on a server here, by one process and by a role
    that may, so that all others find them. In the home there are no roles.

    Raises:
        ConfigError: Entities would be removed, and nobody has said *yes*.
    """
    settings = read_settings()
    prepare(settings)
    with Database.open(settings) as database:
        if down:
            if not yes:
                _refuse_loss(database)
            downgrade(database.url)
            console().print("schema bridge is gone")
            return
        upgrade(database.url)
        console().print("schema bridge is up to date")
    if settings.database_url is not None:
        # what Dagster prints meanwhile is progress
        with open_instance(settings) as instance, redirect_stdout(sys.stderr):
            instance.upgrade()
        console().print("Dagster's history is up to date")


def _refuse_loss(database: Database) -> None:
    """Remove nothing that somebody has declared without being told so twice."""
    with database.read() as connection:
        held = 0
        if found_revision(connection) is not None:
            held = connection.scalar(sa.select(sa.func.count()).select_from(entities)) or 0
    if held:
        raise ConfigError(
            f"schema bridge holds declarations (entities: {held}) and what the hub has of each: syncflow migrate "
            "--down --yes removes it all, and a backup is the only way back"
        )
