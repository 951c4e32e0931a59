"""Rowversions of four kinds, and their exact order.

Belongs here: comparing, finding the newest.
Does not belong here: reading one from the source (``normalize.version``), what a comparison means for a
record (``delta``), the watermark's overlap (``stages``).

Nothing becomes a float: an integer keeps 38 digits, a timestamp 9 digits of a second, hex any length.

Source: product.md 3 (``erp_rowversion``) and 4 (watermark).
"""

from datetime import UTC, datetime

import polars as pl

from syncflow_core.entity import RowversionKind
from syncflow_core.fields import Shape
from syncflow_core.normalize.reading import VALUE
from syncflow_core.normalize.version import canonical_of


def sortable(text: pl.Expr, kind: RowversionKind) -> pl.Expr:
    """What sorts and compares as canonical rowversions of the kind do: Int128 for integers, else text.

    Hex compares by value, so padding with zeros makes no difference; a text compares by code point;
    a timestamp with and one without ``Z`` compare as if both were UTC.
    """
    if kind == "integer":
        return text.cast(pl.Int128, strict=False)
    if kind == "timestamp":
        bare = text.str.strip_chars_end("Z")
        return bare.str.slice(0, 19) + bare.str.slice(20).str.pad_end(9, "0")
    if kind == "hex":
        value = text.str.strip_chars_start("0")
        return value.str.len_bytes().cast(pl.String).str.pad_start(10, "0") + value
    return text


def is_newer(a: pl.Expr, b: pl.Expr, kind: RowversionKind) -> pl.Expr:
    """Whether *a* is newer than *b*; null where either is null."""
    return sortable(a, kind) > sortable(b, kind)


def newest(text: pl.Series, kind: RowversionKind) -> str | None:
    """The newest of canonical rowversions, None where there is none."""
    frame = text.rename("value").to_frame().filter(VALUE.is_not_null())
    if frame.is_empty():
        return None
    order = frame.select(sortable(VALUE, kind).alias("order"))["order"]
    return str(frame["value"][order.arg_max() or 0])


def moment_of(source: str, shape: Shape) -> datetime | None:
    """The moment of an entity's rowversion as the source sends it; None where it is no timestamp.

    One that says no zone, of an entity that declares none, counts as UTC.
    """
    if shape.rowversion_kind != "timestamp":
        return None
    text = canonical_of(pl.Series([source]), shape).text[0]
    # to the microsecond; the text ends in Z or says no zone
    return None if text is None else datetime.fromisoformat(text).replace(tzinfo=UTC)
