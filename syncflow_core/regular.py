r"""Read rows that all have the same keys in the same order: the rows that a table's pages are made of.

Belongs here: the pattern of such a row, and its tokens as text.
Does not belong here: every other row (``rows``).

A row that fits the pattern is JSON, has each key once, no nested value, no escape in a string, and
its tokens are taken as they stand: no number passes through a float, so no digit is lost. A row
that does not fit is not judged here.

Source: decision 0006; RFC 8259 for strings and numbers.
"""

import json
import re
from collections.abc import Sequence
from typing import Final

import msgspec
import polars as pl

GROUPS: Final = 16
"""Captures that one pass of the regular expression engine takes; from the 17th on it is twice as slow."""

MOST_KEYS: Final = 32
"""Keys of a row beyond which its passes cost more than the other way to read it."""

_STRING: Final = r'"[^"\\\x00-\x1f]*"'
_NUMBER: Final = r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
_TOKEN: Final = rf"{_STRING}|null|{_NUMBER}|true|false"


def regular_rows(
    text: bytes,
    count: int,
    sample: Sequence[bytes | msgspec.Raw],
    commas: frozenset[str] = frozenset(),
) -> tuple[pl.DataFrame, pl.Series] | None:
    """The cells of the rows that fit the pattern of the sample, and which rows these are.

    Args:
        text: The rows, one a line.
        count: How many there are.
        sample: Some of them; the one with the most keys gives the pattern.
        commas: Keys whose numbers are written with a comma.

    Returns:
        ``(n, k)``: a String column for each key of the pattern, null for JSON null and all null where
        the row does not fit; and a Boolean for each row, whether it fits. None where there is no pattern.
    """
    keys = max(map(_keys, sample), key=len, default=[])
    if not 0 < len(keys) <= MOST_KEYS or len(set(keys)) < len(keys):
        return None
    try:
        rows = pl.Series("row", [text]).cast(pl.String).str.split("\n").explode()
    except pl.exceptions.PolarsError:
        return None  # no UTF-8
    if rows.len() != count:
        return None  # white space between the tokens breaks lines
    frames = []
    for start in range(0, len(keys), GROUPS):
        taken = range(start, min(start + GROUPS, len(keys)))
        groups = rows.str.extract_groups(_pattern(keys, taken)).struct.unnest()
        groups.columns = [keys[number] for number in taken]
        frames.append(groups)
    tokens = pl.concat(frames, how="horizontal")
    tokens = tokens.with_columns(
        pl.when(~pl.col(key).str.starts_with('"'))
        .then(pl.col(key).str.replace(".", ",", literal=True))
        .otherwise(pl.col(key))
        for key in keys
        if key in commas
    )
    cell = pl.all()
    cells = tokens.select(pl.when(cell != "null").then(cell.str.strip_chars('"')))
    return cells, tokens[keys[0]].is_not_null().alias("fits")


def _keys(row: bytes | msgspec.Raw) -> list[str]:
    try:
        return list(msgspec.json.decode(row, type=dict[str, msgspec.Raw]))
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return []


def _pattern(keys: Sequence[str], taken: range) -> str:
    """One row's pattern, with a capture for the tokens of the keys taken."""
    members = [
        re.escape(json.dumps(key, ensure_ascii=False))
        + rf" *: *({'' if number in taken else '?:'}{_TOKEN})"
        for number, key in enumerate(keys)
    ]
    return r"^\{ *" + " *, *".join(members) + r" *\}$"
