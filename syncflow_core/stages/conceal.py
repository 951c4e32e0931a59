"""Conceal: hide what was kept of an entity before its fields were marked as personal data.

Belongs here: the tables that people look at, once after the declaration has changed.
Does not belong here: what is kept from now on (each stage hides what it keeps).

What is needed to read or send a record again stays whole, in the columns for that.

Source: docs/operations/personal-data.md.
"""

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from syncflow_core.bridge import records
from syncflow_core.bridge.tables import (
    failed_records,
    pending_children,
    plan_records,
    plans,
    reconciliations,
    sweep_slices,
)
from syncflow_core.columns import KEY_HASH, REFERENCE
from syncflow_core.fields import Shape
from syncflow_core.keys import key_sources
from syncflow_core.privacy import Privacy
from syncflow_core.shown import shown_line, shown_sample
from syncflow_core.stages.taken_over import Hiding


def conceal(connection: sa.Connection, shape: Shape, privacy: Privacy) -> None:
    """Hide what the bridge keeps of the entity's personal data; done again, it changes nothing.

    Args:
        connection: In a transaction.
        shape: The entity.
        privacy: What of it is hidden.
    """
    if not privacy:
        return
    name = shape.entity.name
    if privacy.fields.keys() & set(shape.key_fields):
        plain = records.load_plain_references(connection, name)
        if plain.height:
            hidden = Hiding(privacy, shape).known(connection, plain)
            records.save_references(connection, name, hidden)
    _letters(connection, shape, privacy)
    _rewrite(
        connection,
        pending_children,
        pending_children.c.entity == name,
        lambda row: {"reference": privacy.reference(row["reference"], row["key_hash"].hex())},
    )
    own_plans = sa.select(plans.c.uid).where(plans.c.entity == name)
    _rewrite(
        connection,
        plan_records,
        plan_records.c.plan.in_(own_plans),
        lambda row: {"reference": privacy.reference(row["reference"], row["key_hash"].hex())},
    )
    for table in (plans, reconciliations):
        _rewrite(
            connection,
            table,
            table.c.entity == name,
            lambda row: {
                "samples": row["samples"]
                and [shown_sample(item, privacy) for item in row["samples"]]
            },
        )
    if privacy.columns.keys() & set(shape.key_columns):
        # the edges of slices are keys; without them a slice reads on until it meets its neighbour
        connection.execute(
            sweep_slices.update().where(sweep_slices.c.entity == name).values(head=[], tail=[])
        )


def _letters(connection: sa.Connection, shape: Shape, privacy: Privacy) -> None:
    names = {"column": "column_name", REFERENCE: "reference", KEY_HASH: "key_hash"}
    names |= {item: item for item in ("stage", "value", "message", "raw")}
    keyed = bool(privacy.columns.keys() & set(shape.key_columns))

    def hidden(row: sa.RowMapping) -> dict[str, Any]:
        line = {to: row[name] for to, name in names.items()}
        shown = shown_line(line, privacy)
        found = {name: shown[to] for to, name in names.items() if to != KEY_HASH}
        if keyed and row["key_source"] is None:
            found["key_source"] = key_sources([row["raw"]], shape)[0]
        return found

    _rewrite(connection, failed_records, failed_records.c.entity == shape.entity.name, hidden)


def _rewrite(
    connection: sa.Connection,
    table: sa.Table,
    which: sa.ColumnElement[bool],
    hidden: Callable[[sa.RowMapping], dict[str, Any]],
) -> None:
    """Write those of the rows anew that say more than they may."""
    keys = list(table.primary_key.columns)
    for row in connection.execute(table.select().where(which)).mappings().all():
        shown = {name: value for name, value in hidden(row).items() if value != row[name]}
        if shown:
            mine = sa.and_(*(column == row[column.name] for column in keys))
            connection.execute(table.update().where(mine).values(**shown))
