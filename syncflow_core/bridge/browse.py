"""Failed records and waiting children, page by page: what a person or a program looks through.

Belongs here: lists with filters, paged by key: the next page begins behind the last line of this one.
Does not belong here: what a sync reads of the same tables (``failed``, ``pending``), masking (``privacy``).

Source: product.md 9.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import sqlalchemy as sa

from syncflow_core.bridge.failed import Alike
from syncflow_core.bridge.tables import failed_records, pending_children

Place = tuple[datetime, UUID]
"""Where a page ends: the moment that the list is sorted by, and the line's uid."""
State = Literal["open", "resolved", "all"]


def entities_with_undelivered(connection: sa.Connection) -> set[str]:
    """Names of entities that have a dead letter, or a child that waits."""
    query = sa.text(
        "SELECT entity FROM bridge.failed_records WHERE resolved_at IS NULL "
        "UNION SELECT entity FROM bridge.pending_children WHERE state IN ('waiting', 'dead')"
    )
    return set(connection.scalars(query))


def failed_page(
    connection: sa.Connection,
    alike: Alike,
    *,
    entity: str | None = None,
    state: State = "open",
    after: Place | None = None,
    limit: int = 50,
) -> list[Mapping[str, Any]]:
    """Dead letters, those met last first."""
    table = failed_records.c
    met, values = alike.where()
    conditions: list[sa.ColumnElement[bool]] = []
    if met:
        like = sa.text(" AND ".join(met)).bindparams(**values)
        conditions.append(table.uid.in_(sa.select(table.uid).where(like)))
    if entity is not None:
        conditions.append(table.entity == entity)
    if state != "all":
        is_open = table.resolved_at.is_(None)
        conditions.append(is_open if state == "open" else ~is_open)
    return _page(connection, failed_records, table.last_seen, conditions, after, limit)


def waiting_page(
    connection: sa.Connection,
    *,
    entity: str | None = None,
    parent_entity: str | None = None,
    states: Sequence[str] = ("waiting", "dead"),
    after: Place | None = None,
    limit: int = 50,
) -> list[Mapping[str, Any]]:
    """Children that wait for a parent, those that came last first."""
    table = pending_children.c
    conditions: list[sa.ColumnElement[bool]] = [table.state.in_(states)]
    if entity is not None:
        conditions.append(table.entity == entity)
    if parent_entity is not None:
        conditions.append(table.parent_entity == parent_entity)
    return _page(connection, pending_children, table.created_at, conditions, after, limit)


def _page(  # each is a part of the query
    connection: sa.Connection,
    table: sa.Table,
    moment: sa.Column[Any],
    conditions: Sequence[sa.ColumnElement[bool]],
    after: Place | None,
    limit: int,
) -> list[Mapping[str, Any]]:
    query = table.select().where(*conditions)
    if after is not None:
        query = query.where(sa.tuple_(moment, table.c.uid) < sa.tuple_(*map(sa.literal, after)))
    found = connection.execute(query.order_by(moment.desc(), table.c.uid.desc()).limit(limit))
    return [dict(row) for row in found.mappings()]
