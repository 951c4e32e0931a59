"""Declaring entities: written only where all of them together can be read, ordered and loaded.

Belongs here: the checks that a declaration passes, whoever makes it: a file, the API.
Does not belong here: its shape (``entity``), the tables (``bridge.entities``).

Source: product.md 12.
"""

from collections.abc import Sequence

import dagster as dg
import sqlalchemy as sa

from syncflow_core.bridge.entities import Applied, apply_entities, load_entities
from syncflow_core.entity import Entity
from syncflow_core.errors import ConfigError
from syncflow_core.normalize.formats import compile_format
from syncflow_core.parents import lineage
from syncflow_dagster.definitions import build


def declare(connection: sa.Connection, entities: Sequence[Entity], slices: int) -> list[Applied]:
    """Write these declarations.

    Args:
        connection: In a transaction, which is to be rolled back where this raises: one bad
            declaration would take all others along.
        entities: Those that are new or changed.
        slices: How many slices there are.

    Raises:
        ConfigError: As ``apply_entities`` and :func:`check`.
    """
    applied = apply_entities(connection, entities)
    check(load_entities(connection), slices)
    return applied


def check(entities: Sequence[Entity], slices: int) -> None:
    """Make sure that these entities can be read, ordered and loaded as assets together.

    Raises:
        ConfigError: A format that is none, a cycle, or what Dagster itself refuses.
    """
    for entity in entities:
        for item in entity.fields:
            for model in item.formats:
                try:
                    compile_format(model)
                except ConfigError as error:
                    raise ConfigError(f"entity {entity.name}.{item.name}: {error}") from error
    lineage(entities)
    try:
        dg.Definitions.validate_loadable(build(entities, slices))
    except dg.DagsterError as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"Dagster refuses these entities: {reason}") from error
