"""Business keys of single rows: which record a raw row is, whatever else is wrong with it.

Belongs here: the key hash of raw rows, and the key as the source may spell it.
Does not belong here: looking rows up (``apismith``), hashing (``identity``).

Source: product.md 3 and 4.
"""

import dataclasses
import json
import re
from collections.abc import Mapping

import polars as pl

from syncflow_core.columns import KEY_HASH, REFERENCE, ROW
from syncflow_core.fields import Shape
from syncflow_core.identity import add_identity
from syncflow_core.normalize import normalize

_PART = re.compile(r"((?:[^\\|=]|\\.)*)=((?:[^\\|]|\\.)*)(?:\||$)")


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
    return {_plain(name): _plain(value) for name, value in _PART.findall(reference)}


def source_key(
    key_source: str | None, reference: str | None, shape: Shape
) -> Mapping[str, object] | None:
    """A record's key as the source may know it: as it sent it once, else as the reference has it.

    None where neither names the entity's key fields.
    """
    if key_source is not None:
        found: dict[str, object] = json.loads(key_source)
        if set(found) == set(shape.key_columns):
            return found
    values = values_of(reference or "")
    if set(values) != set(shape.key_fields):
        return None
    return {
        column: values[field]
        for column, field in zip(shape.key_columns, shape.key_fields, strict=True)
    }


def _plain(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)
