"""``suspects``: records that were on their way when a worker died, and that the target does not hold.

Belongs here: counting the deaths that a record was near to, and forgetting them once it has gone through.
Does not belong here: how a suspect is sent (``stages.sender``).

Source: faults.md XW16.
"""

from typing import Final

import polars as pl
import sqlalchemy as sa

from syncflow_core.bridge.bulk import load_frame, stage_keys
from syncflow_core.columns import KEY_HASH

SUSPECTS: Final = pl.Schema({KEY_HASH: pl.Binary(), "deaths": pl.Int64()})
"""One line per record."""


def accuse(connection: sa.Connection, entity: str, key_hashes: pl.Series) -> None:
    """Count one more death for each of these records."""
    stage_keys(connection, key_hashes)
    connection.execute(
        sa.text(
            "INSERT INTO bridge.suspects AS s (entity, key_hash, deaths) "
            "SELECT :entity, key_hash, 1 FROM staged_keys "
            "ON CONFLICT (entity, key_hash) DO UPDATE SET deaths = s.deaths + 1"
        ),
        {"entity": entity},
    )


def load_suspects(connection: sa.Connection, entity: str) -> pl.DataFrame:
    """The entity's suspects, in the shape ``SUSPECTS``."""
    query = (
        "SELECT encode(key_hash, 'hex'), deaths::int8 FROM bridge.suspects WHERE entity = :entity"
    )
    return load_frame(connection, query, SUSPECTS, {"entity": entity})


def acquit(connection: sa.Connection, entity: str, key_hashes: pl.Series) -> None:
    """Forget what these records were suspected of: they were answered."""
    stage_keys(connection, key_hashes)
    connection.execute(
        sa.text(
            "DELETE FROM bridge.suspects AS s USING staged_keys AS k "
            "WHERE s.entity = :entity AND s.key_hash = k.key_hash"
        ),
        {"entity": entity},
    )
