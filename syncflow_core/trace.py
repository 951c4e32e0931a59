"""The story of one record: what happened to it, where it is now, and what each layer makes of its row.

Belongs here: finding a record by what a person knows of it, and gathering what is kept.
Does not belong here: printing (``cli.trace``), deciding anything.

Source: product.md 10, ``trace``; product.md 1, ``record_events``.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl
import sqlalchemy as sa

from syncflow_core.apismith import Source
from syncflow_core.bridge import batches, events, failed, pending, plans, records
from syncflow_core.bridge.batches import Batch, Status
from syncflow_core.bridge.database import Database
from syncflow_core.bridge.entities import load_registered
from syncflow_core.bridge.events import Event
from syncflow_core.bridge.plans import Plan
from syncflow_core.columns import KEY_HASH, KEY_SOURCE, REFERENCE, ROW
from syncflow_core.errors import ConfigError
from syncflow_core.fields import Shape, shape_of
from syncflow_core.identity import key_hash
from syncflow_core.keys import keys_of, values_of
from syncflow_core.normalize import Step, explain

_HEX = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Story:
    """All that is kept of one record, and what its row in the source becomes now."""

    entity: str
    key_hash: bytes
    reference: str | None
    known: Mapping[str, object] | None
    """What the target last acknowledged; None for a record that it never did."""
    events: Sequence[Event]
    failed: Mapping[str, object] | None
    """Its open dead letter."""
    pending: Sequence[Mapping[str, object]]
    """What it waits for."""
    withheld: Sequence[Plan]
    """The open plans that hold a write of it back."""
    last_read: Batch | None
    """The newest batch that read the entity's rows to its end."""
    row: Mapping[str, str | None] | None
    """Its row in the source now, else the one that its dead letter kept; None where there is none."""
    kept: bool
    """Whether ``row`` is the dead letter's."""
    steps: Sequence[Step]
    """What each layer makes of the row's fields."""


def trace(database: Database, source: Source, entity: str, key: str) -> Story:
    """Gather the story of the record that ``key`` names.

    Args:
        database: The bridge.
        source: Asked for the record's row.
        entity: Its entity.
        key: The reference (``order_no=WO1|line_no=2``), the key hash in hex, or, of a key of one
            field, its value. Of a dead letter without a usable key, its ``raw_digest`` in hex.

    Raises:
        ConfigError: There is no such entity, or the key names other fields than the entity's.
    """
    with database.begin() as connection:
        declared = load_registered(connection, [entity], enabled=None)[0].entity
    shape = shape_of(declared, source.describe(declared.api))
    with database.begin() as connection:
        wanted, values = _key(connection, shape, key)
    keys = pl.Series(KEY_HASH, [wanted])
    with database.begin() as connection:
        known = records.load_known_of(connection, entity, keys)
        sources = records.load_key_sources(connection, entity, keys)
        letters = failed.open_failed(connection, entity).filter(
            pl.coalesce(KEY_HASH, "raw_digest") == wanted
        )
        waiting = pending.open_pending(connection, entity).filter(pl.col(KEY_HASH) == wanted)
        told = events.story(connection, entity, wanted)
        withheld = plans.withheld_of(connection, entity, wanted)
        ended: list[Status] = ["completed", "partial", "withheld"]
        read = batches.history(connection, entities=[entity], statuses=ended, limit=20)
    row = _row(source, shape, wanted, _key_sources(shape, sources, letters, values))
    kept = None if row is not None else _kept(letters)
    told_of = row if row is not None else kept
    return Story(
        entity=entity,
        key_hash=wanted,
        reference=_first(sources, REFERENCE) or _first(letters, REFERENCE),
        known=known.row(0, named=True) if known.height else None,
        events=told,
        failed=letters.row(0, named=True) if letters.height else None,
        pending=list(waiting.iter_rows(named=True)),
        withheld=withheld,
        last_read=next((item for item in read if item.kind not in {"plan", "retry"}), None),
        row=told_of,
        kept=kept is not None,
        steps=explain(told_of, shape) if told_of is not None else (),
    )


def _key(connection: sa.Connection, shape: Shape, text: str) -> tuple[bytes, dict[str, str] | None]:
    """The key hash, and the values by target field where the text holds them.

    32 hexadecimal digits are a key hash or a digest where one is known, else they may be a value.
    """
    names = list(shape.key_fields)
    digest = bytes.fromhex(text) if _HEX.fullmatch(text) else None
    if digest is not None and (len(names) > 1 or _is_known(connection, shape.entity.name, digest)):
        return digest, None
    if len(names) == 1 and not text.startswith(f"{names[0]}="):
        values = {names[0]: text}
    else:
        values = values_of(text)
    if sorted(values) != sorted(names):
        form = "|".join(f"{name}=..." for name in names)
        raise ConfigError(
            f"{text!r} is no key of {shape.entity.name}: write {form}, or the key hash in hex",
            entity=shape.entity.name,
        )
    return key_hash(values), values


def _is_known(connection: sa.Connection, entity: str, digest: bytes) -> bool:
    one = pl.Series(KEY_HASH, [digest])
    return bool(
        records.load_key_sources(connection, entity, one).height
        or failed.open_failed(connection, entity)
        .filter(pl.coalesce(KEY_HASH, "raw_digest") == digest)
        .height
        or events.story(connection, entity, digest, limit=1)
    )


def _key_sources(
    shape: Shape,
    sources: pl.DataFrame,
    letters: pl.DataFrame,
    values: Mapping[str, str] | None,
) -> list[dict[str, object]]:
    """The key as the source may know it: as it sent it once, else as it was typed."""
    found: list[dict[str, object]] = [json.loads(text) for text in sources[KEY_SOURCE].drop_nulls()]
    for text in letters["raw"].drop_nulls():
        raw = json.loads(text)
        if all(name in raw for name in shape.key_columns):
            found.append({name: raw[name] for name in shape.key_columns})
    if not found and values is not None:
        found.append(
            {
                column: values[field]
                for column, field in zip(shape.key_columns, shape.key_fields, strict=True)
            }
        )
    return found


def _kept(letters: pl.DataFrame) -> dict[str, str | None] | None:
    """The source's row that a dead letter kept; None where it kept none, or what was to be sent."""
    rows = letters.filter(pl.col("stage") == "normalize")["raw"].drop_nulls()
    return None if rows.is_empty() else dict(json.loads(rows[0]))


def _row(
    source: Source, shape: Shape, wanted: bytes, keys: Sequence[Mapping[str, object]]
) -> dict[str, str | None] | None:
    """The source's row with this key hash, among those that it gives for the keys."""
    if not keys:
        return None
    rows = source.look_up(shape.api, keys).frame
    rows = rows.drop(ROW, strict=False).with_row_index(ROW)
    identified = keys_of(rows, shape)
    found = identified.filter(pl.col(KEY_HASH) == wanted)[ROW]
    if found.is_empty():
        return None
    return rows.filter(pl.col(ROW) == found[0]).drop(ROW).row(0, named=True)


def _first(frame: pl.DataFrame, column: str) -> str | None:
    return frame[column][0] if frame.height else None
