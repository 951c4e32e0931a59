"""``installation``: tells this database from a copy of it that was restored.

A restored bridge database knows less than the hub: what was pushed since the copy was made. Every
entity must then take over anew what the hub holds. Two marks tell: where the database lies (server,
time line, database), and the transaction that wrote the one row, for whoever loads a dump writes it
by another.

Belongs here: leaving the marks, noticing that they differ.
Does not belong here: taking over what the hub holds (``stages.adopt``).

Source: product.md 4 (a lost bridge database doubles nothing); faults.md XD09.
"""

from datetime import datetime
from typing import Final

import sqlalchemy as sa

_PLACE: Final = sa.text(
    "SELECT (SELECT system_identifier FROM pg_control_system())::text || ' ' || "
    "(SELECT timeline_id FROM pg_control_checkpoint())::text || ' ' || "
    "(SELECT oid FROM pg_database WHERE datname = current_database())::text"
)
_ALLOWED: Final = sa.text(
    "SELECT has_function_privilege('pg_control_system()', 'EXECUTE') "
    "AND has_function_privilege('pg_control_checkpoint()', 'EXECUTE')"
)
_DATABASE: Final = sa.text("SELECT oid::text FROM pg_database WHERE datname = current_database()")
# xmin is the transaction that wrote the row's present version, 32 bits of it
_READ: Final = sa.text(
    "SELECT place, written_by, xmin::text::bigint AS xmin FROM bridge.installation FOR UPDATE"
)
_WRITE: Final = sa.text(
    "INSERT INTO bridge.installation (id, place, written_by, noted_at) "
    "VALUES (1, :place, (pg_current_xact_id()::text::numeric % 4294967296)::bigint, :now) "
    "ON CONFLICT (id) DO UPDATE SET place = excluded.place, written_by = excluded.written_by, "
    "noted_at = excluded.noted_at"
)
LOCK: Final = 0x5346494E5354414C  # "SFINSTAL"


def notice_restore(connection: sa.Connection, now: datetime) -> bool:
    """Whether this database is a copy that was restored since SyncFlow last looked; noted once.

    Where it is, every entity is as if it had never adopted what the hub holds.
    """
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(LOCK)))
    place = str(connection.scalar(_PLACE if connection.scalar(_ALLOWED) else _DATABASE))
    row = connection.execute(_READ).first()
    if row is not None and (row.place, row.written_by) == (place, row.xmin):
        return False
    connection.execute(_WRITE, {"place": place, "now": now})
    if row is None:
        return False
    connection.execute(sa.text("UPDATE bridge.erp_sync_state SET adopted_at = NULL"))
    return True
