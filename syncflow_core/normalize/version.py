"""Reading rowversions: any spelling becomes the canonical text of its kind.

Belongs here: validating and reading a rowversion; the name of the column that keeps the source's own text.
Does not belong here: how two of them compare (``syncflow_core.rowversion``, which offers ``canonical`` too).

The canonical text is what is stored and sent; the source's own text travels beside it, for the
watermark's filter must speak as the source does.

Source: product.md 3 (``erp_rowversion``).
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
