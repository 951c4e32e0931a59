"""Parents before children: between entities, and between the rows of one push.

Belongs here: the order of entities, cycles, a row's references, which rows can go and which wait.
Does not belong here: looking up what the target holds (``bridge``), pushing (``stages``).

Source: product.md 6.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import polars as pl

from syncflow_core.columns import KEY_HASH, OWN, PARENT_REFS, ROW
from syncflow_core.entity import Entity, ParentRef
from syncflow_core.errors import ConfigError
from syncflow_core.identity import key_hash_expr

WAVES: Final = 64
"""Most waves of one push: a chain of self-references deeper than this goes in two phases."""

Edge = tuple[str, str]
"""An entity's name and the name of one of its references."""


@dataclass(frozen=True)
class Lineage:
    """Entities in an order that pushes parents first."""

    order: tuple[str, ...]
    deferred: frozenset[Edge]
    """References that are pushed in a second phase: one of each cycle, and every self-reference."""
    parents: Mapping[str, tuple[str, ...]]
    """Entity to the entities that go before it; deferred references left out."""

    def deferred_of(self, name: str) -> tuple[str, ...]:
        """This entity's references that are pushed in a second phase."""
        return tuple(sorted(reference for child, reference in self.deferred if child == name))


def lineage(entities: Sequence[Entity]) -> Lineage:
    """Order entities so that parents go first; cut each cycle at a reference that can be NULL.

    A parent that is not among ``entities`` orders nothing.

    Raises:
        ConfigError: A cycle in which no reference can be NULL; the message walks round it.
    """
    named = {entity.name: entity for entity in entities}
    edges = {
        (entity.name, reference): parent.entity
        for entity in entities
        for reference, parent in entity.parents.items()
        if parent.entity in named
    }
    deferred = {edge for edge, parent in edges.items() if edge[0] == parent}
    for name, reference in sorted(deferred):
        if not can_be_null(named[name], reference):
            raise ConfigError(
                f"parents: {name}.{reference} refers to {name} itself and can never be NULL: no "
                "record could be the first",
                entity=name,
            )
    while cycle := _cycle(named, {e: p for e, p in edges.items() if e not in deferred}):
        cut = next((edge for edge in sorted(cycle) if can_be_null(named[edge[0]], edge[1])), None)
        if cut is None:
            walk = " -> ".join(f"{name}.{reference}" for name, reference in cycle)
            raise ConfigError(f"parents: the cycle {walk} has no reference that can be NULL")
        deferred.add(cut)
    parents = {
        name: tuple(
            dict.fromkeys(
                parent for edge, parent in edges.items() if edge[0] == name and edge not in deferred
            )
        )
        for name in named
    }
    return Lineage(_sorted(parents), frozenset(deferred), parents)


def refuse_other_keys(entity: Entity, keys: Mapping[str, Sequence[str]]) -> None:
    """Return where each reference is made of the whole key of its parent, and of nothing else.

    Args:
        entity: Whose references.
        keys: The key fields (target names) of each parent entity.

    Raises:
        ConfigError: One is not: no child would ever find its parent.
    """
    for reference, parent in entity.parents.items():
        key = keys[parent.entity]
        if set(parent.key) != set(key):
            raise ConfigError(
                f"entity {entity.name}: parents.{reference}: the key of {parent.entity} is "
                f"{', '.join(key)}, not {', '.join(parent.key)}",
                entity=entity.name,
            )


def refuse_never_null(entity: Entity, references: Iterable[str], key: Collection[str]) -> None:
    """Return where each of these references can be NULL, so that its record can go without it at first.

    Args:
        entity: Whose references.
        references: Those that are sent in a second phase.
        key: The business key's fields (target names), also where the source says what the key is.

    Raises:
        ConfigError: One can not: no record could be the first.
    """
    for reference in references:
        if not can_be_null(entity, reference, key):
            raise ConfigError(
                f"entity {entity.name}: parents.{reference} closes a cycle with "
                f"{entity.parents[reference].entity} and can never be NULL: no record could be the first",
                entity=entity.name,
            )


def can_be_null(entity: Entity, reference: str, key_fields: Collection[str] = ()) -> bool:
    """Whether one of the reference's fields may be NULL: neither required nor in the business key."""
    by_target = {item.name: item for item in entity.fields}
    key = set(entity.business_key)
    for name in entity.parents[reference].key.values():
        item = by_target.get(name)
        source = name.upper() if item is None else item.source
        in_key = source in key or name in key_fields
        if not in_key and not (item is not None and item.required):
            return True
    return False


def _cycle(names: Iterable[str], edges: Mapping[Edge, str]) -> list[Edge]:
    """The edges of one cycle, in walking order; empty where there is none."""
    outgoing: dict[str, list[Edge]] = {name: [] for name in names}
    for edge in edges:
        outgoing[edge[0]].append(edge)
    done: set[str] = set()

    def walk(name: str, path: list[Edge]) -> list[Edge]:
        for edge in outgoing[name]:
            parent = edges[edge]
            on_path = [index for index, step in enumerate([*path, edge]) if step[0] == parent]
            if on_path:
                return [*path, edge][on_path[0] :]
            if parent not in done and (found := walk(parent, [*path, edge])):
                return found
        done.add(name)
        return []

    for name in outgoing:
        if name not in done and (found := walk(name, [])):
            return found
    return []


def _sorted(parents: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Parents first; among equals, the order given."""
    order: dict[str, None] = {}

    def place(name: str) -> None:
        for parent in parents[name]:
            if parent not in order:
                place(parent)
        order[name] = None

    for name in parents:
        if name not in order:
            place(name)
    return tuple(order)


def parent_column(reference: str) -> str:
    """The column that holds a reference's parent key hash."""
    return f"{OWN}parent:{reference}"


def add_parent_refs(frame: pl.DataFrame, parents: Mapping[str, ParentRef]) -> pl.DataFrame:
    """Add each reference's parent key hash, and all of them as ``#parent_refs``.

    Args:
        frame: ``(n, k)`` normalized rows: target fields as canonical text.
        parents: The entity's references.

    Returns:
        ``(n, k + r + 1)``: ``#parent:NAME`` (Binary(16), null where a field of the reference is
        NULL: no parent is needed) and ``#parent_refs``.
    """
    hashed = frame.with_columns(
        key_hash_expr({key: pl.col(field) for key, field in parent.key.items()}).alias(
            parent_column(reference)
        )
        for reference, parent in parents.items()
    )
    return with_parent_refs(hashed, parents)


def with_parent_refs(frame: pl.DataFrame, references: Iterable[str]) -> pl.DataFrame:
    """Write ``#parent_refs`` anew from the ``#parent:`` columns: canonical JSON, names sorted."""
    names = sorted(references)
    if not names:
        return frame.with_columns(pl.lit("{}").alias(PARENT_REFS))
    parts: list[pl.Expr] = []
    for index, name in enumerate(names):
        text = pl.col(parent_column(name)).bin.encode("hex")
        quoted = pl.concat_str(pl.lit('"'), text, pl.lit('"')).fill_null("null")
        parts += [pl.lit(f'{"," if index else "{"}"{name}":'), quoted]
    return frame.with_columns(pl.concat_str(*parts, pl.lit("}")).alias(PARENT_REFS))


def refs_text(held: Mapping[str, str | None], names: Iterable[str]) -> str:
    """One record's references as ``#parent_refs`` writes them: every declared name, null where absent.

    >>> refs_text({"order": "ab"}, ["part", "order"])
    '{"order":"ab","part":null}'
    """
    return json.dumps({name: held.get(name) for name in sorted(names)}, separators=(",", ":"))


def refs_expr(text: pl.Expr, names: Iterable[str]) -> pl.Expr:
    """``refs_text`` for a column of JSON objects; ``text`` may be null."""
    return refs_without(text, pl.lit([], dtype=pl.List(pl.String)), names)


def refs_without(text: pl.Expr, left_out: pl.Expr, names: Iterable[str]) -> pl.Expr:
    """A ``#parent_refs`` column with the references listed in ``left_out`` (a list column) nulled."""
    ordered = sorted(names)
    parts: list[pl.Expr] = []
    for index, name in enumerate(ordered):
        value = pl.concat_str(pl.lit('"'), text.str.json_path_match(f"$.{name}"), pl.lit('"'))
        kept = pl.when(left_out.list.contains(name)).then(None).otherwise(value)
        parts += [pl.lit(f'{"," if index else ""}"{name}":'), kept.fill_null("null")]
    return pl.concat_str(pl.lit("{"), *parts, pl.lit("}"))


def parent_in_refs(text: pl.Expr, name: str) -> pl.Expr:
    """The parent's key hash (Binary) under this name in a ``#parent_refs`` column; null where null."""
    return text.str.json_path_match(f"$.{name}").str.decode("hex", strict=False)


@dataclass(frozen=True)
class Resolved:
    """What becomes of the rows of one push, by their parents. Each row is in exactly one frame."""

    waves: tuple[pl.DataFrame, ...]
    """Rows that can go, in order: a wave's parents are acknowledged or in an earlier wave."""
    parked: pl.DataFrame
    """Rows whose parent is missing."""
    missing: pl.DataFrame
    """``(m, 3)``: ``#row``, ``reference``, ``parent`` (Binary(16)): each missing parent of a parked
    row, and each reference of a row in ``waves`` that was left out, to be sent in the second phase."""


def resolve(
    frame: pl.DataFrame,
    *,
    references: Mapping[str, ParentRef],
    entity: str,
    deferred: frozenset[Edge],
    acknowledged: Mapping[str, pl.Series],
) -> Resolved:
    """Sort rows into waves, and park those whose parent is neither acknowledged nor in this push.

    Args:
        frame: ``(n, k)`` rows to insert or update, with ``#row``, ``#key_hash`` and ``#parent:`` columns.
        references: The entity's references.
        entity: Its name: a reference to it is a self-reference.
        deferred: References that may be sent in a second phase.
        acknowledged: Parent entity to those key hashes of its that the target holds.

    Returns:
        All rows of ``frame``, once each. In ``waves`` a deferred reference without its parent is
        nulled, in its column and in ``#parent_refs``, and listed in ``missing``.

    Source: product.md 6.
    """
    missing: list[pl.DataFrame] = []
    parked_rows = pl.Series(ROW, [], dtype=pl.UInt32)
    for reference, parent in references.items():
        if parent.entity == entity:
            continue
        column = parent_column(reference)
        absent = frame.filter(
            pl.col(column).is_not_null()
            & ~pl.col(column).is_in(acknowledged[parent.entity].implode())
        ).select(ROW, pl.lit(reference).alias("reference"), pl.col(column).alias("parent"))
        if absent.is_empty():
            continue
        missing.append(absent)
        if (entity, reference) in deferred:
            frame = _without(frame, column, absent[ROW])
        else:
            parked_rows = pl.concat([parked_rows, absent[ROW]])
    parked = frame.filter(pl.col(ROW).is_in(parked_rows.implode()))
    ready = frame.filter(~pl.col(ROW).is_in(parked_rows.implode()))
    own = [name for name, parent in references.items() if parent.entity == entity]
    waves, held, absent_own = _waves(ready, own, entity, acknowledged)
    missing += absent_own
    shape = {ROW: pl.UInt32, "reference": pl.String, "parent": pl.Binary}
    return Resolved(
        waves=tuple(with_parent_refs(wave, references) for wave in waves),
        parked=pl.concat([parked, held]),
        missing=pl.concat([pl.DataFrame(schema=shape), *missing]),
    )


def _without(frame: pl.DataFrame, column: str, rows: pl.Series) -> pl.DataFrame:
    left_out = pl.col(ROW).is_in(rows.implode())
    return frame.with_columns(pl.when(left_out).then(None).otherwise(pl.col(column)).alias(column))


def _waves(
    ready: pl.DataFrame, own: Sequence[str], entity: str, acknowledged: Mapping[str, pl.Series]
) -> tuple[list[pl.DataFrame], pl.DataFrame, list[pl.DataFrame]]:
    """Sort rows by their self-references: waves, rows held back, missing parents."""
    if not own or ready.is_empty():
        return ([ready] if ready.height else []), ready.clear(), []
    landed = acknowledged[entity]
    waves: list[pl.DataFrame] = []
    rest = ready
    while rest.height and len(waves) < WAVES:
        can_go = pl.all_horizontal(
            pl.col(parent_column(name)).is_null()
            | pl.col(parent_column(name)).is_in(landed.implode())
            for name in own
        )
        wave = rest.filter(can_go)
        if wave.is_empty():
            break
        waves.append(wave)
        rest = rest.filter(~can_go)
        landed = pl.concat([landed, wave[KEY_HASH]])
    rest, held = _held(rest, own, landed)
    absent = [_absent(held, name, landed) for name in own]
    if rest.height:  # a cycle among the rows themselves: without the reference now, with it later
        absent += [_absent(rest, name, landed) for name in own]
        for name in own:
            rest = _without(rest, parent_column(name), _absent(rest, name, landed)[ROW])
        waves.append(rest)
    return waves, held, absent


def _held(
    rest: pl.DataFrame, own: Sequence[str], landed: pl.Series
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Split rows that wait on each other from rows that wait, at the end, for a row that is not here."""
    held = rest.clear()
    while rest.height:
        here = pl.concat([landed, rest[KEY_HASH]]).implode()
        waits = pl.any_horizontal(
            pl.col(parent_column(name)).is_not_null() & ~pl.col(parent_column(name)).is_in(here)
            for name in own
        )
        found = rest.filter(waits)
        if found.is_empty():
            break
        held = pl.concat([held, found])
        rest = rest.filter(~waits)
    return rest, held


def _absent(frame: pl.DataFrame, reference: str, landed: pl.Series) -> pl.DataFrame:
    column = parent_column(reference)
    return frame.filter(
        pl.col(column).is_not_null() & ~pl.col(column).is_in(landed.implode())
    ).select(ROW, pl.lit(reference).alias("reference"), pl.col(column).alias("parent"))
