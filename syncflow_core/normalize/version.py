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
from syncflow_core.entity import FORMS, Field, RowversionKind
from syncflow_core.fields import Shape, TargetField
from syncflow_core.normalize.formats import Order
from syncflow_core.normalize.mapping import read_as
from syncflow_core.normalize.reading import VALUE, Outcome, Refused, apply, refuse
from syncflow_core.normalize.text import ENDS

ROWVERSION_SOURCE: Final = "#rowversion_source"
"""String: the rowversion as the source sent it."""

_HEX: Final = r"^[0-9a-f]+$"


def canonical_of(text: pl.Series, shape: Shape) -> Outcome:
    """Canonical rowversions of an entity: in the forms, the order and the zone that it declares."""
    mapped = next((item for item in shape.fields if item.source == shape.rowversion_column), None)
    return canonical(
        text,
        shape.rowversion_kind,
        shape.entity.time_zone if mapped is None else mapped.time_zone,
        date_order=shape.entity.date_order if mapped is None else mapped.date_order,
        forms=None if mapped is None else mapped.rules,
    )


def canonical(
    text: pl.Series,
    kind: RowversionKind,
    time_zone: str | None = None,
    *,
    date_order: Order | None = None,
    forms: Field | None = None,
) -> Outcome:
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
    read = read_as(bare, _field(kind, time_zone, date_order, forms))
    wrong = refuse(read.text, bare.is_not_null() & read.text.is_null(), refused)
    return Outcome(read.text, wrong.faults, read.folds)


def _field(
    kind: Literal["integer", "timestamp"],
    time_zone: str | None,
    date_order: Order | None,
    forms: Field | None,
) -> TargetField:
    own = {} if forms is None else {name: getattr(forms, name) for name in FORMS}
    return TargetField(
        name="rowversion",
        source="rowversion",
        type=kind,
        oracle=OracleType(""),
        rules=Field(source="rowversion", **own),
        time_zone=time_zone,
        date_order=date_order,
        key=False,
        hashed=False,
    )
