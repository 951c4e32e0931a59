"""Undelivered: ask the source, by key, for the rows behind open dead letters.

Belongs here: which rows an incremental fetch reads besides those that are new.
Does not belong here: reading them into parts (``reading``), what then becomes of them (the other stages).

What was rejected may be right under a mended declaration, and what the target refused once it may take
now. Neither has a new rowversion, so no incremental fetch meets it.

Source: product.md 4 and "Accounts, statuses, exits".
"""

import json
from collections.abc import Mapping
from datetime import datetime

import polars as pl

from syncflow_core.bridge import failed
from syncflow_core.columns import REFERENCE
from syncflow_core.fields import Shape
from syncflow_core.keys import source_keys
from syncflow_core.stages.work import Connections


def undelivered_rows(
    connections: Connections, shape: Shape, *, due_by: datetime | None
) -> pl.DataFrame:
    """The source's rows now of records that have an open dead letter.

    Args:
        connections: The source and the database.
        shape: The entity.
        due_by: Only those that are due by then; None: all.

    Returns:
        The source's columns as text. Rows that left the source are missing, and so are those that
        cannot be asked for: their key is not whole.
    """
    with connections.database.begin() as connection:
        letters = failed.open_failed(connection, shape.entity.name, due_by=due_by)
    keys = {
        json.dumps(key, sort_keys=True, default=str): key
        for raw, reference in letters.select("raw", REFERENCE).iter_rows()
        for key in _keys(raw, reference, shape)
    }
    return connections.source.look_up(shape.api, list(keys.values())).frame


def _keys(raw: str | None, reference: str | None, shape: Shape) -> list[Mapping[str, object]]:
    """The key as the source sent it, where the letter kept the row; else as the reference has it."""
    row = json.loads(raw) if raw else None
    if isinstance(row, dict) and all(row.get(name) is not None for name in shape.key_columns):
        return [{name: row[name] for name in shape.key_columns}]
    return source_keys(None, reference, shape)
