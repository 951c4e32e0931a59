"""Turn a page of the hub's list into columns.

Belongs here: the shape of such a page, and the columns that its fields become.
Does not belong here: asking for it (``schedulehub``), single records (``outcomes``).

Source: contract.md, "ScheduleHub: holds the plan".
"""

from collections.abc import Sequence
from typing import Final

import msgspec
import polars as pl

from syncflow_core.errors import ContractError
from syncflow_core.outcomes import SYSTEM, token_text

_HASH_BYTES = {"erp_key_hash": 16, "erp_data_hash": 32}
_TYPES: Final[dict[str, object]] = {
    "uid": str,
    "erp_key_hash": str | None,
    "erp_data_hash": str | None,
    "erp_rowversion": str | int | None,
    "erp_ref_str": str | None,
    "parent_refs": dict[str, str | None] | None,
    "is_deleted": bool | None,
}
_SORTED = msgspec.json.Encoder(order="sorted")


class ListPage(msgspec.Struct):
    """A page of the list; its items' attributes are ``f0``, ``f1``, ... in the order of the fields."""

    items: list[object]
    total: int


def page_type(fields: Sequence[str]) -> type[ListPage]:
    """The type of a page of the list whose records have *fields*, in order."""
    shape = msgspec.defstruct(
        "Listed",
        [
            (f"f{at}", str) if name == "uid" else (f"f{at}", _TYPES.get(name, msgspec.Raw), None)
            for at, name in enumerate(fields)
        ],
        kw_only=True,
        rename={f"f{at}": name for at, name in enumerate(fields)},
    )
    page: type[ListPage] = msgspec.defstruct(  # type: ignore[assignment]  # made at run time
        "Page",
        [("items", list[shape]), ("total", int)],  # type: ignore[valid-type]  # made at run time
        bases=(ListPage,),
    )
    return page


def page_frame(items: Sequence[object], fields: Sequence[str], where: str) -> pl.DataFrame:
    """One page of the list as columns."""
    return pl.DataFrame(
        [
            _column(name, [getattr(item, f"f{at}") for item in items], where)
            for at, name in enumerate(fields)
        ]
    )


def _column(name: str, cells: list[object], where: str) -> pl.Series:
    if name == "is_deleted":
        return pl.Series(name, cells, dtype=pl.Boolean)
    if name not in _TYPES:
        raws = [token_text(cell) if isinstance(cell, msgspec.Raw) else None for cell in cells]
        return pl.Series(name, raws, dtype=pl.String)
    if name == "parent_refs":
        refs = [None if cell is None else _SORTED.encode(cell).decode() for cell in cells]
        return pl.Series(name, refs, dtype=pl.String)
    if name == "erp_rowversion":
        cells = [None if cell is None else str(cell) for cell in cells]
    column = pl.Series(name, cells, dtype=pl.String)
    if name in _HASH_BYTES:
        return _decoded(column, _HASH_BYTES[name], where)
    return column


def _decoded(column: pl.Series, length: int, where: str) -> pl.Series:
    decoded = column.str.decode("hex", strict=False)
    wrong = column.is_not_null() & (decoded.bin.size() != length).fill_null(value=True)
    if wrong.any():
        shown = column.filter(wrong)[0]
        raise ContractError(
            f"schedulehub, {where}: {shown[:80]!r} is no hash of {length} bytes in hex",
            system=SYSTEM,
        )
    return decoded
