"""What a record of the target holds, in the words of an entity's mapping: its data hash by content.

Belongs here: reading the hub's JSON values back into canonical text, and hashing them.
Does not belong here: asking the hub (``schedulehub``), deciding what is sent (``delta``).

A known data hash says nothing when it was made under another mapping, or by another program. Then
the content decides: a record whose fields say what the mapping says now is not sent again.

Source: product.md 3 (a change of mapping recomputes without resending) and 4 (adoption).
"""

from collections.abc import Mapping, Sequence
from typing import Final

import polars as pl

from syncflow_core.body import BARE
from syncflow_core.catalog import OracleType
from syncflow_core.columns import DATA_HASH
from syncflow_core.digests import field_digests
from syncflow_core.entity import Field
from syncflow_core.fields import Shape, TargetField
from syncflow_core.identity import add_identity
from syncflow_core.normalize.mapping import read_as

_OTHER: Final = "\x00"
"""Stands for a value of another JSON type, or none that the field's type knows: no canonical text is it."""


def content_hashes(held: Sequence[Mapping[str, str]], shape: Shape) -> pl.DataFrame:
    """``#data_hash`` and ``#digests`` of each record, computed from what its fields hold.

    Args:
        held: Each record's fields as JSON text by name; a field that is not there is NULL.
        shape: The entity as it is mapped now.
    """
    frame = pl.DataFrame(
        [
            _canonical(pl.Series(item.name, [r.get(item.name) for r in held], pl.String), item)
            for item in shape.fields
        ]
    )
    return pl.DataFrame([add_identity(frame, shape)[DATA_HASH], field_digests(frame, shape)])


def _canonical(json_text: pl.Series, field: TargetField) -> pl.Series:
    """Canonical text of one field's JSON values; ``_OTHER`` for what the field could not have sent."""
    values = json_text.to_frame("value").select(
        pl.when(pl.col("value") != "null").then(pl.col("value"))
    )["value"]
    if field.type in BARE:
        plain, wrong = values, values.str.starts_with('"').fill_null(value=False)
        if field.type == "json":
            wrong = wrong & False
    else:
        strings = values.str.starts_with('"').fill_null(value=True)
        wrong = ~strings
        quoted = values.to_frame().select(pl.when(strings).then(pl.col("value")))["value"]
        plain = quoted.str.json_decode(pl.String)
    neutral = TargetField(
        name=field.name,
        source=field.name,
        type=field.type,
        oracle=OracleType(""),
        rules=Field.model_construct(source=field.name),
        time_zone=None,
        date_order=None,
        key=False,
        hashed=True,
    )
    read = plain if field.type == "text" else read_as(plain, neutral).text
    frame = pl.DataFrame({"read": read, "wrong": wrong, "there": values.is_not_null()})
    other = pl.col("wrong") | (pl.col("there") & pl.col("read").is_null())
    return frame.select(
        pl.when(other).then(pl.lit(_OTHER)).otherwise(pl.col("read")).alias(field.name)
    ).to_series()
