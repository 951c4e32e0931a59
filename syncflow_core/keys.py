"""Business keys of single rows: which record a raw row is, whatever else is wrong with it.

Belongs here: the key hash of raw rows, and the key as the source may spell it.
Does not belong here: looking rows up (``apismith``), hashing (``identity``).

Source: product.md 3 and 4.
"""

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping

import polars as pl

from syncflow_core.columns import KEY_HASH, KEY_SOURCE, REFERENCE, ROW
from syncflow_core.fields import Shape
from syncflow_core.identity import add_identity
from syncflow_core.normalize import normalize
from syncflow_core.privacy import NAMED, is_hidden, unescaped

_PLAIN = frozenset({"text", "integer", "decimal"})
"""Types whose canonical text any source takes for a value."""
_PART = re.compile(r"(?:^|(?<=\|))((?:[^\\|=]|\\.)*+)=((?:[^\\|]|\\.)*+)(?:\||$)")


def keys_of(raw: pl.DataFrame, shape: Shape) -> pl.DataFrame:
    """``#row``, ``#key_hash`` and ``#reference`` of those raw rows whose key is in order.

    Args:
        raw: ``#row`` and the source's columns as text.
        shape: The entity.
    """
    key_shape = dataclasses.replace(
        shape, fields=tuple(item for item in shape.fields if item.key), rowversion_column=None
    )
    accepted = normalize(raw, key_shape).accepted
    return add_identity(accepted, key_shape).select(ROW, KEY_HASH, REFERENCE)


def values_of(reference: str) -> dict[str, str]:
    r"""The key's values by target name, from a reference.

    >>> values_of("order_no=WO\\|1|line_no=2")
    {'order_no': 'WO|1', 'line_no': '2'}
    """
    return {unescaped(name): unescaped(value) for name, value in _PART.findall(reference)}


def source_keys(
    key_source: str | None, reference: str | None, shape: Shape
) -> list[Mapping[str, object]]:
    """A record's key as the source may know it: as it sent it once, and as the reference has it.

    The source may spell a key otherwise than it did (``01``, ``1``). The canonical spelling is tried
    beside the one that was sent, but not of types that a source reads in its own formats alone (times,
    binary). None where neither names the entity's key fields.
    """
    found: list[Mapping[str, object]] = []
    if key_source is not None:
        sent: dict[str, object] = json.loads(key_source)
        if set(sent) == set(shape.key_columns):
            found.append(sent)
    values = {} if is_hidden(reference) else values_of(reference or "")
    if set(values) == set(shape.key_fields):
        fields = [shape.field(name) for name in shape.key_fields]
        canonical: dict[str, object] = {
            column: values[field.name]
            for column, field in zip(shape.key_columns, fields, strict=True)
        }
        if not found or (
            all(item.type in _PLAIN for item in fields) and _texts(canonical) != _texts(found[0])
        ):
            found.append(canonical)
    return found


def key_sources(rows: Iterable[str | None], shape: Shape) -> list[str | None]:
    """The keys of raw rows of JSON as the source sent them; None where one is not whole."""
    return [_key_source(text, shape) for text in rows]


def _key_source(text: str | None, shape: Shape) -> str | None:
    try:
        row = json.loads(text or "null", parse_float=str, parse_int=str)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or any(
        not isinstance(row.get(name), str) for name in shape.key_columns
    ):
        return None
    return json.dumps({name: row[name] for name in shape.key_columns}, ensure_ascii=False)


def with_plain_references(named: pl.DataFrame, shape: Shape) -> pl.DataFrame:
    """The frame with references that spell the key, also where the one kept hides personal data.

    Args:
        named: ``#key_hash``, ``#reference`` and ``#key_source``, which such a reference is made of anew;
            null where that says no key.
        shape: The entity.
    """
    hidden = pl.col(REFERENCE).str.contains(NAMED.pattern)
    likely = named.filter(pl.col(REFERENCE).str.ends_with("]"))  # a look at each end is quick
    unplain = likely.filter(hidden).select(KEY_HASH, KEY_SOURCE).unique(KEY_HASH)
    if unplain.is_empty():
        return named
    keys = [_sent(text, shape) for text in unplain[KEY_SOURCE]]
    columns = {name: [key.get(name) for key in keys] for name in shape.key_columns}
    raw = pl.DataFrame(columns, schema=dict.fromkeys(shape.key_columns, pl.String))
    spelled = keys_of(raw.with_row_index(ROW), shape).select(
        KEY_HASH, pl.col(REFERENCE).alias("#spelled")
    )
    joined = named.join(spelled.unique(KEY_HASH), on=KEY_HASH, how="left", maintain_order="left")
    plain = pl.when(hidden).then(pl.col("#spelled")).otherwise(REFERENCE)
    return joined.with_columns(plain.alias(REFERENCE)).select(named.columns)


def _sent(text: str | None, shape: Shape) -> dict[str, str]:
    found = json.loads(text or "{}", parse_float=str, parse_int=str)
    return found if set(found) == set(shape.key_columns) else {}


def _texts(key: Mapping[str, object]) -> dict[str, str]:
    return {name: str(value) for name, value in key.items()}
