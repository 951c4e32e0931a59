"""Which fields of a record changed: two bytes a field, kept beside what the target acknowledged.

Belongs here: making the digests, telling from two of them which fields differ.
Does not belong here: whether a record changed at all (its data hash says so, ``delta``).

The target's old values are not kept, only what names the fields that changed. A field whose value
changed keeps its digest once in 65,535 times; then the data hash alone tells of the change.

Source: product.md 1 (``record_events``: updated with the changed fields) and 3 (encoding version).
"""

from array import array
from typing import Final

import polars as pl
import pyarrow as pa
import xxhash
from polars_hash import NonCryptographicHashingNameSpace

from syncflow_core.fields import Shape
from syncflow_core.identity import ENCODING_VERSION

DIGESTS: Final = "#digests"
"""Binary: two bytes of the layout, then two bytes of each field's value, by the fields' sorted names."""

_HEX: Final = 4  # hexadecimal digits of two bytes
_VALUES: Final = 0xFFFF  # 0 stands for NULL


def layout(shape: Shape) -> int:
    """Two bytes that another set of fields, another type or another encoding of hashes changes.

    A known record of another layout was hashed otherwise: its data hash says nothing of its content.
    """
    parts = [f"{item.name}\0{item.type}\0{item.hashed}" for item in shape.fields]
    text = "\0".join([str(ENCODING_VERSION), *sorted(parts)])
    return xxhash.xxh32_intdigest(text.encode()) & 0xFFFF


def field_digests(frame: pl.DataFrame, shape: Shape) -> pl.Series:
    """The digests of each row.

    Args:
        frame: Target fields as canonical text.
        shape: The entity.
    """
    names = _names(shape)
    width = len(names) + 1
    columns = [pl.lit(layout(shape), pl.UInt16).alias(DIGESTS)] + [
        (NonCryptographicHashingNameSpace(pl.col(name)).xxhash32() % _VALUES + 1)
        .cast(pl.UInt16)
        .fill_null(0)
        .alias(f"{DIGESTS}{at}")
        for at, name in enumerate(names)
    ]
    rows = frame.select(columns).select(pl.concat_arr(pl.all()).alias(DIGESTS)).to_series()
    words = array("H")
    words.frombytes(memoryview(rows.explode().to_arrow().buffers()[1])[: 2 * width * frame.height])
    words.byteswap()  # written big-endian, as their hex reads
    fixed = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(2 * width), frame.height, [None, pa.py_buffer(words)]
    )
    return pl.Series(DIGESTS, fixed.cast(pa.binary()), dtype=pl.Binary)


def of_layout(digests: pl.Expr, shape: Shape) -> pl.Expr:
    """Whether digests are of this shape's layout; false for null."""
    head = f"{layout(shape):0{_HEX}x}"
    return digests.bin.encode("hex").str.starts_with(head).fill_null(value=False)


def changed_fields(before: pl.Expr, after: pl.Expr, shape: Shape) -> pl.Expr:
    """The names of the fields that differ, as a list; null where one side is unknown or of another layout."""
    old, new = before.bin.encode("hex"), after.bin.encode("hex")
    differing = [
        pl.when(old.str.slice(_HEX * (at + 1), _HEX) != new.str.slice(_HEX * (at + 1), _HEX)).then(
            pl.lit(name)
        )
        for at, name in enumerate(_names(shape))
    ]
    listed = (
        pl.concat_list(differing).list.drop_nulls() if differing else pl.lit([], pl.List(pl.String))
    )
    return pl.when(of_layout(before, shape) & of_layout(after, shape)).then(listed)


def _names(shape: Shape) -> list[str]:
    return sorted(item.name for item in shape.fields)
