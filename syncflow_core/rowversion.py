"""Rowversions of four kinds: their canonical text, and their exact order.

Belongs here: validating, comparing, finding the newest.
Does not belong here: what a comparison means for a record (``delta``), the watermark's overlap (``stages``).

Nothing becomes a float: an integer keeps 38 digits, a timestamp 9 digits of a second, hex any length.
The canonical text is what is stored and sent; the source's own text travels beside it as
``#rowversion_source``, for the watermark's filter must speak as the source does.

Source: product.md 3 (``erp_rowversion``) and 4 (watermark).
"""

from typing import Final, Literal

import polars as pl

from syncflow_core.catalog import OracleType
from syncflow_core.entity import Field
from syncflow_core.fields import TargetField
from syncflow_core.normalize.mapping import read_as
from syncflow_core.normalize.reading import VALUE, Outcome, Refused, apply, refuse
from syncflow_core.normalize.text import ENDS

Kind = Literal["integer", "timestamp", "hex", "text"]

ROWVERSION_SOURCE: Final = "#rowversion_source"
"""String: the rowversion as the source sent it."""

_HEX: Final = r"^[0-9a-f]+$"


def canonical(text: pl.Series, kind: Kind, time_zone: str | None = None) -> Outcome:
    """Canonical rowversions; a text that is none of its kind is null, with the rule ``rowversion``.

    Integers are plain, timestamps as product.md 2.4 (naive ones stay naive without a *time_zone*),
    hex lowercase without ``0x``, texts without the white space around them. Empty is null.
    """
    refused = Refused("rowversion", f"is no rowversion of kind {kind}")
    bare = apply(text, VALUE.str.strip_chars(ENDS))
    bare = apply(bare, pl.when(VALUE.str.len_bytes() > 0).then(VALUE))
    if kind == "text":
        return Outcome(bare)
    if kind == "hex":
        plain = apply(bare, VALUE.str.to_lowercase().str.strip_prefix("0x"))
        return refuse(plain, ~plain.str.contains(_HEX), refused)
    read = read_as(bare, _field(kind, time_zone))
    wrong = refuse(read.text, bare.is_not_null() & read.text.is_null(), refused)
    return Outcome(read.text, wrong.faults, read.folds)


def _field(kind: Literal["integer", "timestamp"], time_zone: str | None) -> TargetField:
    return TargetField(
        name="rowversion",
        source="rowversion",
        type=kind,
        oracle=OracleType(""),
        rules=Field(source="rowversion"),
        time_zone=time_zone,
        date_order=None,
        key=False,
        hashed=False,
    )


def sortable(text: pl.Expr, kind: Kind) -> pl.Expr:
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


def is_newer(a: pl.Expr, b: pl.Expr, kind: Kind) -> pl.Expr:
    """Whether *a* is newer than *b*; null where either is null."""
    return sortable(a, kind) > sortable(b, kind)


def newest(text: pl.Series, kind: Kind) -> str | None:
    """The newest of canonical rowversions, None where there is none."""
    frame = text.rename("value").to_frame().filter(VALUE.is_not_null())
    if frame.is_empty():
        return None
    order = frame.select(sortable(VALUE, kind).alias("order"))["order"]
    return str(frame["value"][order.arg_max() or 0])
