"""``sweep_slices``: what the slices of the sweep under way have seen of an entity.

Belongs here: keeping a slice's keys, reading those of all slices, ending a sweep.
Does not belong here: which rows a slice is, whether slices join (``stages.reading``), nights (``window``).

Source: product.md 4 and 7.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Final
from uuid import UUID

import polars as pl
import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from syncflow_core import columns
from syncflow_core.bridge.database import driver_of
from syncflow_core.bridge.tables import background_sync_schedule, sweep_slices

_BYTES: Final = 16


@dataclass(frozen=True)
class Slice:
    """One slice as it was seen last."""

    slice: int
    slices: int
    """How many make the sweep."""
    batch: UUID
    counted: int
    complete: bool
    """Whether its own scan was proven."""
    unkeyed: int
    """Rows whose key could not be read: they may be any record."""
    head: tuple[str, ...]
    """Its first keys as the source sent them."""
    tail: tuple[str, ...]
    """Its last ones."""


def load_slices(connection: sa.Connection, entity: str) -> list[Slice]:
    """The slices seen in this sweep, in order; their keys are :func:`load_seen`'s."""
    names = [item.name for item in fields(Slice)]
    query = (
        sa.select(*(sweep_slices.c[name] for name in names))
        .where(sweep_slices.c.entity == entity)
        .order_by(sweep_slices.c.slice)
    )
    return [
        Slice(**{**row, "head": tuple(row["head"]), "tail": tuple(row["tail"])})
        for row in connection.execute(query).mappings()
    ]


class Seen:
    """The key hashes that the sweep's slices saw, sixteen bytes each, as they lie in the database.

    As a column of a frame they would take five times as much.
    """

    def __init__(self, slices: Sequence[bytes]) -> None:
        self._slices = [_fixed(keys) for keys in slices]
        # the first byte of each, to take out those of a range
        self._heads = [_heads(keys) for keys in slices]

    def has(self, key_hashes: pl.Series) -> pl.Series:
        """Whether each of *key_hashes* was seen: Boolean."""
        seen = pl.repeat(value=False, n=len(key_hashes), eager=True)
        for keys in self._slices:
            seen |= key_hashes.is_in(_series(keys).implode())
        return seen

    def between(self, low: int, high: int) -> pl.Series:
        """Those whose first byte is *low* at least and below *high*: Binary; what two slices share comes twice."""
        found = [
            _series(keys.filter(heads.is_between(low, high - 1).to_arrow()))
            for keys, heads in zip(self._slices, self._heads, strict=True)
        ]
        return pl.concat([pl.Series(columns.KEY_HASH, [], dtype=pl.Binary), *found])


def _fixed(keys: bytes) -> pa.FixedSizeBinaryArray:
    buffers = [None, pa.py_buffer(keys)]
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(_BYTES), len(keys) // _BYTES, buffers)


def _packed(key_hashes: pl.Series) -> bytes:
    """The key hashes, sixteen bytes each, one after the other."""
    return bytes(key_hashes.to_arrow().cast(pa.binary()).cast(pa.binary(_BYTES)).buffers()[1])


def _heads(keys: bytes) -> pl.Series:
    every = pa.Array.from_buffers(pa.uint8(), len(keys), [None, pa.py_buffer(keys)])
    return pl.Series(every).gather_every(_BYTES)


def _series(keys: pa.FixedSizeBinaryArray) -> pl.Series:
    return pl.Series(columns.KEY_HASH, keys.cast(pa.binary()), dtype=pl.Binary)


def load_seen(connection: sa.Connection, entity: str) -> Seen:
    """What the sweep's slices saw; one slice's keys are on their way at once, as bytes and not as text."""
    numbers = connection.scalars(
        sa.select(sweep_slices.c.slice).where(sweep_slices.c.entity == entity)
    )
    query = "SELECT key_hashes FROM bridge.sweep_slices WHERE entity = %s AND slice = %s"
    found: list[bytes] = []
    with driver_of(connection.connection).cursor(binary=True) as cursor:
        for number in numbers.all():
            found += [keys for (keys,) in cursor.execute(query, (entity, number))]
    return Seen(found)


def save_slice(
    connection: sa.Connection, entity: str, found: Slice, key_hashes: pl.Series, now: datetime
) -> None:
    """Keep what a slice saw; seen again within a sweep, it replaces what it saw before.

    Slices of another number of slices belong to a sweep that will never end: they are forgotten.
    """
    connection.execute(
        sweep_slices.delete().where(
            sweep_slices.c.entity == entity, sweep_slices.c.slices != found.slices
        )
    )
    row = {item.name: getattr(found, item.name) for item in fields(Slice)}
    row |= {
        "head": list(found.head),
        "tail": list(found.tail),
        "key_hashes": _packed(key_hashes.drop_nulls().unique()),
        "finished_at": now,
    }
    statement = insert(sweep_slices).values(entity=entity, **row)
    connection.execute(
        statement.on_conflict_do_update(index_elements=["entity", "slice"], set_=row)
    )


def end_sweep(connection: sa.Connection, entity: str, now: datetime) -> None:
    """Forget what the slices saw, and count the sweep."""
    connection.execute(sweep_slices.delete().where(sweep_slices.c.entity == entity))
    connection.execute(
        background_sync_schedule.update()
        .where(background_sync_schedule.c.entity == entity)
        .values(sweep_number=background_sync_schedule.c.sweep_number + 1, updated_at=now)
    )
