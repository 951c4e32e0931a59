"""A database for one benchmark, on the bridge's server.

Belongs here: making it, with the schema, and removing it at the end.
Does not belong here: what is put into it.
"""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from syncflow_core.bridge import migrate
from syncflow_core.bridge.database import Database
from syncflow_core.settings import read_settings


@contextmanager
def scratch_database() -> Iterator[Database]:
    """A database of its own on the bridge's server, with the schema, removed at the end."""
    name = f"bench_{secrets.token_hex(8)}"
    with Database.open(read_settings()) as server:
        place = sa.make_url(server.url)
        try:
            _execute(server, f'CREATE DATABASE "{name}"')
            url = place.set(database=name).render_as_string(hide_password=False)
            migrate.upgrade(url)
            with Database(url) as database:
                yield database
        finally:
            _execute(server, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


def _execute(server: Database, statement: str) -> None:
    with server.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text(statement))
