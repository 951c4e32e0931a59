"""Taken over: records as the target holds them, made ready to be known.

Belongs here: hiding personal data in the references that the target shows, without losing the key.
Does not belong here: which records are taken over (``adopt``, ``settle``, ``reconcile``).

A reference that hides a part of the key asks nobody for the record. What the target shows spells the
key, so the key is kept as the source would take it, in the place for that.

Source: product.md 4; docs/operations/personal-data.md.
"""

import json

import polars as pl
import sqlalchemy as sa

from syncflow_core.bridge import records
from syncflow_core.columns import KEY_HASH, KEY_SOURCE, REFERENCE
from syncflow_core.entity import Entity
from syncflow_core.fields import Shape, shape_of
from syncflow_core.keys import source_keys
from syncflow_core.privacy import Privacy
from syncflow_core.stages.work import Connections


def hiding(connections: Connections, entity: Entity, shape: Shape | None = None) -> "Hiding":
    """What hides the entity's personal data; the source is asked for its key only where there is any."""
    privacy = connections.privacy_of(entity)
    if privacy and shape is None:
        shape = shape_of(entity, connections.source.describe(entity.api))
    return Hiding(privacy, shape)


class Hiding:
    """Hides personal data in records of one entity.

    Args:
        privacy: What of it is hidden.
        shape: The entity; needed where anything is.
    """

    def __init__(self, privacy: Privacy, shape: Shape | None) -> None:
        self._privacy, self._shape = privacy, shape

    def known(self, connection: sa.Connection, live: pl.DataFrame) -> pl.DataFrame:
        """The records as they may be known: ``#key_source`` filled where nobody knows it yet."""
        shape = self._shape
        if shape is None or not self._privacy.fields.keys() & set(shape.key_fields):
            return live
        before = records.load_key_sources(connection, shape.entity.name, live[KEY_HASH])
        told = set(before.drop_nulls(KEY_SOURCE)[KEY_HASH])
        keys = [
            None if digest in told else _spelled(reference, shape)
            for digest, reference in live.select(KEY_HASH, REFERENCE).iter_rows()
        ]
        filled = live.with_columns(pl.Series(KEY_SOURCE, keys, dtype=pl.String))
        return self.shown(filled)

    def shown(self, live: pl.DataFrame) -> pl.DataFrame:
        """The records with references that may be shown; another program's may be in any order."""
        if self._shape is None:
            return live
        names = self._shape.key_fields
        return live.with_columns(
            self._privacy.references(pl.col(REFERENCE), pl.col(KEY_HASH), names)
        )


def _spelled(reference: str | None, shape: Shape) -> str | None:
    keys = source_keys(None, reference, shape)
    return json.dumps(dict(keys[0]), ensure_ascii=False) if keys else None
