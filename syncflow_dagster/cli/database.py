"""``syncflow migrate``: the bridge database's schema, up and down, and Dagster's own tables.

Belongs here: the command.
Does not belong here: the migrations (``migrations/``, and Dagster's).
"""

import sys
from contextlib import redirect_stdout

from syncflow_core.bridge import schema
from syncflow_core.bridge.database import Database
from syncflow_core.settings import read_settings
from syncflow_dagster.cli.show import console
from syncflow_dagster.home import open_instance, prepare


def migrate(*, down: bool) -> None:
    """Bring the schema and Dagster's history to this code's version, or remove the schema.

    Dagster makes its tables when it is first opened: here by one process, and by a role that may, so
    that the others find them.
    """
    settings = read_settings()
    prepare(settings)
    with Database.open(settings) as database:
        if down:
            schema.downgrade(database.url)
            console().print("schema bridge is gone")
        else:
            schema.upgrade(database.url)
            # what Dagster prints meanwhile is progress
            with open_instance(settings) as instance, redirect_stdout(sys.stderr):
                instance.upgrade()
            console().print("schema bridge and Dagster's history are up to date")
