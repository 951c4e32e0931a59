"""``syncflow migrate``: the bridge database's schema, up and down.

Belongs here: the command.
Does not belong here: the migrations (``migrations/``).
"""

from syncflow_core.bridge import schema
from syncflow_core.bridge.database import Database
from syncflow_core.settings import read_settings
from syncflow_dagster.cli.show import console
from syncflow_dagster.home import prepare


def migrate(*, down: bool) -> None:
    """Bring the schema to this code's version, or remove it."""
    settings = read_settings()
    prepare(settings)
    with Database.open(settings) as database:
        if down:
            schema.downgrade(database.url)
            console().print("schema bridge is gone")
        else:
            schema.upgrade(database.url)
            console().print("schema bridge is up to date")
