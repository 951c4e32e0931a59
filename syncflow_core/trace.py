"""The story of one record: what happened to it, where it is now, and what each layer makes of its row.

Belongs here: finding a record by what a person knows of it, and gathering what is kept.
Does not belong here: printing (``cli.trace``), deciding anything.

Source: product.md 10, ``trace``; product.md 1, ``record_events``.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl
import sqlalchemy as sa

from syncflow_core.apismith import Source
from syncflow_core.bridge import batches, events, failed, pending, plans, records
from syncflow_core.bridge.batches import Batch
from syncflow_core.bridge.database import Database
from syncflow_core.bridge.entities import load_entities, load_registered
from syncflow_core.bridge.events import Event
from syncflow_core.bridge.plans import Plan
from syncflow_core.bridge.tables.words import ENDED_WELL
from syncflow_core.columns import KEY_HASH, KEY_SOURCE, REFERENCE, ROW
from syncflow_core.entity import Entity
from syncflow_core.errors import ConfigError, RejectedError, UnavailableError
from syncflow_core.fields import Shape, shape_of
from syncflow_core.identity import key_hash
from syncflow_core.keys import keys_of, source_keys, values_of, with_plain_references
from syncflow_core.normalize import Step, explain
from syncflow_core.privacy import KEY_OF_PROCESS, Privacy, is_hidden, named_by, privacy_of
from syncflow_core.shown import shown_line, shown_sample

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
    children: Mapping[str, int] | None
    """Where its delete waits: the live records that refer to it, by entity; None where none waits."""
    withheld: Sequence[Plan]
    """The open plans that hold a write of it back."""
    last_read: Batch | None
    """The newest batch that read the entity's rows to its end."""
    away: str | None
    """Why the source could not be asked; None where it was."""
    row: Mapping[str, str | None] | None
    """Its row in the source now, else the one that its dead letter kept; None where there is none."""
    kept: bool
    """Whether ``row`` is the dead letter's."""
    steps: Sequence[Step]
    """What each layer makes of the row's fields."""

    @property
    def is_strange(self) -> bool:
        """Whether nothing at all is kept of it."""
        return not (self.known or self.events or self.failed or self.pending or self.withheld)


@dataclass(frozen=True)
class _Wanted:
    """The record that a person's text names."""

    digest: bytes
    keys: Sequence[Mapping[str, object]] = ()
    """Its key as it was typed and as it is normalized, by source column; none where a digest was typed."""


def trace(
    database: Database,
    source: Source,
    entity: str,
    key: str,
    *,
    digest_key: Callable[[], bytes] = lambda: KEY_OF_PROCESS,
) -> Story:
    """Gather the story of the record that ``key`` names; personal data is hidden in it.

    Where the source is away the story is told of what is kept.

    Args:
        database: The bridge.
        source: Asked for the record's row.
        entity: Its entity.
        key: The reference (``order_no=WO1|line_no=2``), the key hash in hex, or, of a key of one
            field, its value; values as the reference has them, or as the source spells them. Of a dead
            letter without a usable key, its ``raw_digest`` in hex.
        digest_key: Keys the digests that stand for personal data.

    Raises:
        ConfigError: There is no such entity, the key names other fields than the entity's, or its
            values can be no key of it.
    """
    with database.begin() as connection:
        declared = load_registered(connection, [entity], enabled=None)[0].entity
    privacy = privacy_of(declared, digest_key)
    shape, away = None, None
    try:
        shape = shape_of(declared, source.describe(declared.api))
    except UnavailableError as error:
        away = privacy.told(str(error))
    with database.begin() as connection:
        wanted = _wanted(connection, entity, shape, key, hidden=bool(privacy))
        parents = load_entities(
            connection, sorted({item.entity for item in declared.parents.values()}), enabled=None
        )
    digest = wanted.digest
    keys = pl.Series(KEY_HASH, [digest])
    with database.begin() as connection:
        known = records.load_known_of(connection, entity, keys)
        sources = records.load_key_sources(connection, entity, keys)
        letters = failed.open_failed(connection, entity, who=digest)
        waiting = pending.open_pending(connection, entity, digest)
        told = events.story(connection, entity, digest)
        withheld = plans.withheld_of(connection, entity, digest)
        children = None
        if digest in pending.waiting_deletes(connection, entity)[KEY_HASH].to_list():
            children = _children(connection, entity, digest)
        read = batches.history(connection, entities=[entity], statuses=ENDED_WELL, limit=20)
    row = None
    if shape is not None:
        try:
            row = _row(source, shape, digest, _spelled(shape, sources, letters, wanted))
        except UnavailableError as error:
            away = privacy.told(str(error))
    kept = None if row is not None else _kept(letters)
    told_of = row if row is not None else kept
    names = _first(sources, REFERENCE) or _first(letters, REFERENCE) or _first(waiting, REFERENCE)
    theirs = {item.name: privacy_of(item, digest_key) for item in parents}
    return Story(
        entity=entity,
        key_hash=digest,
        reference=privacy.reference(names, digest.hex()),
        known=known.row(0, named=True) if known.height else None,
        events=told,
        failed=shown_line(letters.row(0, named=True), privacy) if letters.height else None,
        pending=[
            {**shown_line(line, privacy), "parent": _parent_named(declared, line, privacy, theirs)}
            for line in waiting.iter_rows(named=True)
        ],
        children=children,
        withheld=[_shown_plan(plan, privacy) for plan in withheld],
        last_read=next((item for item in read if item.kind not in {"plan", "retry"}), None),
        away=away,
        row=None if told_of is None else _texts(privacy.row(told_of)),
        kept=kept is not None,
        steps=_steps(told_of, shape, privacy, kept=kept is not None),
    )


def _texts(row: Mapping[str, object]) -> dict[str, str | None]:
    return {name: None if value is None else str(value) for name, value in row.items()}


def _steps(
    row: Mapping[str, str | None] | None, shape: Shape | None, privacy: Privacy, *, kept: bool
) -> list[Step]:
    """What each layer makes of the row, hidden values left out; of a kept row they are not known."""
    if row is None or shape is None:
        return []
    steps = explain(row, shape)
    if not privacy:
        return steps
    shown = []
    for step in steps:
        # a step is a field's, or a column's that transformations read
        own = next((item.source for item in shape.fields if item.name == step.field), step.field)
        kind = privacy.fields.get(step.field) or privacy.columns.get(own or "")
        if kind is None:
            shown.append(step)
        elif not kept:
            before, after = privacy.value(kind, step.before), privacy.value(kind, step.after)
            shown.append(replace(step, before=before, after=after))
    return shown


def _shown_plan(plan: Plan, privacy: Privacy) -> Plan:
    return replace(plan, samples=[shown_sample(item, privacy) for item in plan.samples])


def _parent_named(
    entity: Entity, line: Mapping[str, Any], own: Privacy, theirs: Mapping[str, Privacy]
) -> str | None:
    """The reference of the parent that a record waits for; None where the record does not tell."""
    parent = entity.parents.get(line["reference_name"])
    payload: dict[str, object] = json.loads(line["payload"])
    if parent is None or any(payload.get(name) is None for name in parent.key.values()):
        return None
    parts = []
    for field, name in sorted(parent.key.items()):
        kind = theirs[parent.entity].fields.get(field) or own.fields.get(name)
        value = payload[name] if kind is None else own.value(kind, payload[name])
        parts += [] if value is None else [f"{field}={value}"]
    return "|".join(parts) or None


def _children(connection: sa.Connection, entity: str, digest: bytes) -> dict[str, int]:
    """How many live records of each entity refer to the record."""
    found: Counter[str] = Counter()
    for child in load_entities(connection, enabled=None):
        for name, parent in child.parents.items():
            if parent.entity == entity:
                found[child.name] += records.count_referring(connection, child.name, name, digest)
    return {name: number for name, number in found.items() if number}


def _wanted(
    connection: sa.Connection, entity: str, shape: Shape | None, text: str, *, hidden: bool
) -> _Wanted:
    """The record that the text names.

    32 hexadecimal digits are a key hash or a digest where one is known, else they may be a value.
    Values are taken as they are where such a record is known, else as the entity normalizes them.
    """
    text = named_by(text) or text  # a reference that hides a part of the key says its hash
    names = _key_names(connection, entity, shape)
    digest = bytes.fromhex(text) if _HEX.fullmatch(text) else None
    if digest is not None and (len(names) != 1 or _is_known(connection, entity, digest)):
        return _Wanted(digest)
    spelled = {} if shape is None else dict(zip(shape.key_columns, shape.key_fields, strict=True))
    values = {spelled.get(name, name): value for name, value in values_of(text).items()}
    if len(names) == 1 and list(values) != names and (not values or "|" in text):
        values = {names[0]: text}
    if not values or sorted(values) != sorted(names or values):
        form = "|".join(f"{name}=..." for name in names) or "NAME=VALUE|..."
        typed_text = "this" if hidden else repr(text)
        raise ConfigError(
            f"{typed_text} is no key of {entity}: write {form}, or the key hash in hex",
            entity=entity,
        )
    exact = key_hash(values)
    if shape is None:
        return _Wanted(exact)
    fields = zip(shape.key_columns, shape.key_fields, strict=True)
    typed = {column: values[field] for column, field in fields}
    if _is_known(connection, entity, exact):
        return _Wanted(exact, [typed])
    return _normalized(shape, typed, hidden=hidden)


def _key_names(connection: sa.Connection, entity: str, shape: Shape | None) -> list[str]:
    """The key's target names; where the source is away, as a known record's reference has them."""
    if shape is not None:
        return list(shape.key_fields)
    known = records.any_reference(connection, entity)
    return [] if is_hidden(known) else list(values_of(known or ""))


def _normalized(shape: Shape, typed: Mapping[str, str], *, hidden: bool) -> _Wanted:
    """The record whose key in the source would be spelled so.

    Raises:
        ConfigError: No record of the entity can have such a key.
    """
    raw: dict[str, str | None] = {column.name: None for column in shape.api.columns}
    raw |= typed
    row = {name: [value] for name, value in raw.items()}
    frame = pl.DataFrame(row, schema=dict.fromkeys(raw, pl.String)).with_row_index(ROW)
    found = keys_of(frame, shape)
    if found.is_empty():
        wrong = next(
            (s for s in explain(raw, shape) if s.message and s.field in shape.key_fields), None
        )
        value = "" if hidden or wrong is None else f" {wrong.before!r}"
        why = f"{wrong.field}{value}: {wrong.message}" if wrong else "it is not whole"
        raise ConfigError(
            f"no record of {shape.entity.name} has such a key: {why}", entity=shape.entity.name
        )
    digest, reference = found.select(KEY_HASH, REFERENCE).row(0)
    return _Wanted(digest, source_keys(json.dumps(dict(typed)), reference, shape))


def _is_known(connection: sa.Connection, entity: str, digest: bytes) -> bool:
    one = pl.Series(KEY_HASH, [digest])
    return bool(
        records.load_key_sources(connection, entity, one).height
        or failed.open_failed(connection, entity, who=digest).height
        or events.story(connection, entity, digest, limit=1)
    )


def _spelled(
    shape: Shape, sources: pl.DataFrame, letters: pl.DataFrame, wanted: _Wanted
) -> list[Mapping[str, object]]:
    """The key as the source may know it: as it sent it once, and as it was typed."""
    named = pl.concat(
        [frame.select(KEY_HASH, REFERENCE, KEY_SOURCE) for frame in (sources, letters)]
    )
    found = [
        key
        for _, reference, text in with_plain_references(named, shape).iter_rows()
        for key in source_keys(text, reference, shape)
    ]
    for text in letters.filter(pl.col(KEY_SOURCE).is_null())["raw"].drop_nulls():
        raw = json.loads(text)
        if all(raw.get(name) is not None for name in shape.key_columns):
            found.append({name: raw[name] for name in shape.key_columns})
    return [*found, *wanted.keys]


def _kept(letters: pl.DataFrame) -> dict[str, str | None] | None:
    """The source's row that a dead letter kept; None where it kept none, or what was to be sent."""
    rows = letters.filter(pl.col("stage") == "normalize")["raw"].drop_nulls()
    return None if rows.is_empty() else dict(json.loads(rows[0]))


def _row(
    source: Source, shape: Shape, wanted: bytes, keys: Sequence[Mapping[str, object]]
) -> dict[str, str | None] | None:
    """The source's row with this key hash, among those that it gives for the keys."""
    for key in keys:
        try:
            rows = source.look_up(shape.api, [key]).frame
        except RejectedError:
            continue  # the source can read no value in this spelling: it has no row of it either
        rows = rows.drop(ROW, strict=False).with_row_index(ROW)
        found = keys_of(rows, shape).filter(pl.col(KEY_HASH) == wanted)[ROW]
        if len(found):
            return rows.filter(pl.col(ROW) == found[0]).drop(ROW).row(0, named=True)
    return None


def _first(frame: pl.DataFrame, column: str) -> str | None:
    return frame[column][0] if frame.height else None
