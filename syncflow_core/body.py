"""JSON text built column by column: the hub's records, and keys as the source sent them.

Belongs here: quoting, escaping, joining columns to one JSON object per row.
Does not belong here: canonical text (``normalize``), batches and calls (``schedulehub``).

Values are canonical text already, so a number is written as it stands, digit for digit, and only
the other types are quoted.

Source: contract.md, "ScheduleHub"; RFC 8259, 7 (what a string must escape).
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import polars as pl

from syncflow_core.columns import DATA_HASH, KEY_HASH, PARENT_REFS, REFERENCE, ROWVERSION
from syncflow_core.fields import TargetField

BARE: Final = frozenset({"integer", "decimal", "float", "boolean", "json"})
"""The types whose canonical text is JSON text."""

_TRAVELLING: Final = {
    KEY_HASH: "erp_key_hash",
    DATA_HASH: "erp_data_hash",
    ROWVERSION: "erp_rowversion",
    REFERENCE: "erp_ref_str",
    PARENT_REFS: "parent_refs",
}
_MUST_ESCAPE: Final = bytes([*range(0x20), *b'"\\'])
_ESCAPED: Final = {
    **{chr(code): f"\\u{code:04x}" for code in range(0x20)},
    "\b": "\\b",
    "\t": "\\t",
    "\n": "\\n",
    "\f": "\\f",
    "\r": "\\r",
    '"': '\\"',
    "\\": "\\\\",
}


def json_objects(
    frame: pl.DataFrame,
    fields: Sequence[TargetField],
    extra: Sequence[str] = (KEY_HASH, DATA_HASH, ROWVERSION, REFERENCE, PARENT_REFS),
) -> pl.Series:
    """One JSON object text per row: every target field, then the hub's own keys.

    Args:
        frame: Target fields as canonical text, and the ``#`` columns that *extra* names.
            Without a ``#parent_refs`` column the references are ``{}``.
        fields: The fields to send, in this order.
        extra: Which of SyncFlow's own columns travel, under the hub's names.
    """
    if not fields and not extra:
        return pl.repeat("{}", frame.height, dtype=pl.String, eager=True)
    bare = {field.name for field in fields if field.type in BARE}
    named = {field.name: field.name for field in fields} | {
        own: _TRAVELLING[own] for own in extra if own != PARENT_REFS
    }
    hashes = [pl.col(own).bin.encode("hex") for own in (KEY_HASH, DATA_HASH) if own in extra]
    written = frame.lazy().with_columns(hashes).collect()
    hard = columns_to_escape(written, [name for name in named if name not in bare])
    members = [
        Member(
            key,
            pl.col(name).str.replace_many(list(_ESCAPED), list(_ESCAPED.values()))
            if name in hard
            else pl.col(name),
            text=name not in bare,
            nullable=bool(written[name].null_count()),
        )
        for name, key in named.items()
    ]
    if PARENT_REFS in extra:
        references = pl.col(PARENT_REFS) if PARENT_REFS in frame.columns else pl.lit("{}")
        members.append(
            Member("parent_refs", references.fill_null("{}"), text=False, nullable=False)
        )
    return written.select(json_object(members)).to_series()


@dataclass(frozen=True)
class Member:
    """One member of an object: its key, and its value's column."""

    key: str
    value: pl.Expr
    """JSON text, or, where ``text``, what stands between the quotes."""
    text: bool
    nullable: bool
    """False where the column holds no null: then its quotes join the keys' constant text."""


def json_object(members: Iterable[Member]) -> pl.Expr:
    """A JSON object's text per row; a null is written ``null``."""
    parts: list[pl.Expr] = []
    constant = "{"
    for number, member in enumerate(members):
        constant += f"{',' if number else ''}{json.dumps(member.key, ensure_ascii=False)}:"
        if member.text and not member.nullable:
            parts += [pl.lit(f'{constant}"'), member.value]
            constant = '"'
            continue
        value = (
            pl.concat_str(pl.lit('"'), member.value, pl.lit('"')) if member.text else member.value
        )
        parts += [pl.lit(constant), value.fill_null("null") if member.nullable else value]
        constant = ""
    return pl.concat_str([*parts, pl.lit(constant + "}")]).alias("json")


def quoted(text: pl.Expr) -> pl.Expr:
    """A JSON string's text; null for null."""
    inner = text.str.replace_many(list(_ESCAPED), list(_ESCAPED.values()))
    return pl.concat_str(pl.lit('"'), inner, pl.lit('"'))


def columns_to_escape(frame: pl.DataFrame, names: Sequence[str]) -> frozenset[str]:
    """Those of the columns that hold a quote, a backslash or a control character anywhere."""
    return frozenset(name for name in names if name in frame.columns and _is_hard(frame[name]))


def _is_hard(text: pl.Series) -> bool:
    """Whether anything of it must be escaped; one search through all of it, not one for each row."""
    whole = text.str.join("").item().encode()
    return len(whole.translate(None, _MUST_ESCAPE)) < len(whole)
