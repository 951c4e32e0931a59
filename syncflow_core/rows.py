"""Read rows of JSON into columns of text: natively where that is provably exact, else one by one.

Belongs here: the two ways to read rows, and the proof that lets a page take the fast one.
Does not belong here: what surrounds the rows (``pages``), what a value means (``normalize``).

The native reader (polars) has four habits that would lose something: it rounds fractions to 64-bit
floats, keeps one of two equal keys, writes nested values out again, and turns a lone surrogate into
NUL. ``_natively`` therefore looks for each of them over the page's whole text and declines when in doubt.

Source: product.md 2 and 5; decision 0006.
"""

import json
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import msgspec
import polars as pl
import xxhash

from syncflow_core.catalog import Column
from syncflow_core.regular import regular_rows

REFUSED: Final = pl.Schema(
    {
        "position": pl.UInt32(),
        "rule": pl.String(),
        "column": pl.String(),
        "value": pl.String(),
        "message": pl.String(),
        "raw": pl.String(),
    }
)
"""One line per row that cannot be represented; ``position`` counts from 0 within the page.

``rule`` is ``nested_value``, ``duplicate_json_key`` or ``not_an_object``; ``value`` is cut to 500
characters, ``raw`` is the row as it came.
"""

Bytes = bytes | msgspec.Raw
"""One row as it came."""

_VALUE_LIMIT = 500  # characters, as columns.REJECTED says

# A 64-bit float keeps 15 significant digits whatever they are (DBL_DIG), an integer column 18: a token
# of up to 16 characters is safe. A subnormal float keeps fewer, so three exponent digits are not.
_LONG_NUMBER = r'":\s*(?:-?[0-9][0-9.eE+-]{16}|-?[0-9][0-9.]*[eE][+-]?[0-9]{3})'
_NESTED = r'":\s*[\[{]'
_NESTED_OR_LONG = rf"{_LONG_NUMBER}|{_NESTED}"
_NUMBER = r'([^\\]":\s*)(-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)(\s*[,}])'
_ESCAPED = r'\\":|\\u[dD][89a-fA-F]'
_ESCAPED_SURROGATE = r"\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
_SURROGATE_PAIR = r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")

# Stands for null while a page is read, so that every key must land in a cell that is not null. No
# value can be expected to hold it: 9 random bytes per process.
_NULL = "\x7f" + secrets.token_urlsafe(9)[:11]


@dataclass(frozen=True)
class Rows:
    """A page's rows: the frame of all declared columns, and the rows that do not fit into one."""

    frame: pl.DataFrame
    refused: pl.DataFrame
    """Schema ``REFUSED``."""
    unknown: tuple[str, ...]
    """Keys that are not declared, sorted."""
    digest: bytes = b""
    """XXH3-128 of the rows' bytes, one a line."""


def parse_rows(rows: Sequence[Bytes], columns: Sequence[Column]) -> Rows:
    """Read *rows*, each the text of one JSON value, into declared columns of text.

    A string is kept as it is, a lone surrogate in it as U+FFFD. A number is kept as its token, or as
    another text of exactly the same value. A nested value is kept, as JSON text, in a column of Oracle
    type JSON alone.

    Raises:
        ValueError: A row is no JSON, or no UTF-8; a recursion too deep to read counts as that.
    """
    text = b"\n".join(rows)
    digest = xxhash.xxh3_128_digest(text)
    sample = [rows[0], rows[-1], rows[len(rows) // 2]] if rows else []
    regular = regular_rows(text, len(rows), sample, _commas(columns)) if rows else None
    if regular is None or 2 * (fitting := int(regular[1].sum())) < len(rows):
        return replace(_irregular(rows, columns), digest=digest)
    cells, fits = regular
    names = [column.name for column in columns]
    lacking = [name for name in names if name not in cells.columns]
    # columns added, then selected: a selection of constants alone would have one row
    frame = cells.with_columns(pl.lit(None, pl.String).alias(name) for name in lacking).select(
        names
    )
    unknown = tuple(sorted(set(cells.columns) - set(names)))
    if fitting == len(rows):
        return Rows(frame, REFUSED.to_frame(), unknown, digest)
    places = (~fits).arg_true()
    others = _irregular([rows[place] for place in places], columns)
    return Rows(
        _placed(frame.filter(fits), fits.arg_true(), others.frame, places, others.refused),
        others.refused.with_columns(places.gather(others.refused["position"]).alias("position")),
        tuple(sorted({*unknown, *others.unknown})),
        digest,
    )


def _commas(columns: Sequence[Column]) -> frozenset[str]:
    return frozenset(column.name for column in columns if column.texts == "comma")


def _placed(
    regular: pl.DataFrame,
    at: pl.Series,
    others: pl.DataFrame,
    places: pl.Series,
    refused: pl.DataFrame,
) -> pl.DataFrame:
    """Both kinds of rows in the order in which they came."""
    taken = ~pl.int_range(places.len(), eager=True).is_in(refused["position"].implode())
    order = pl.concat([at, places.filter(taken)]).arg_sort()
    return pl.concat([regular, others])[order]


def _irregular(rows: Sequence[Bytes], columns: Sequence[Column]) -> Rows:
    """Rows that do not all have the same keys, or hold escapes: as polars reads them, else one by one."""
    names = [column.name for column in columns]
    unknown = sorted((_keys(rows[:1]) | _keys(rows[-1:])) - set(names))
    text = b"\n".join(rows)
    exact = _must_be_exact(columns)
    frame = _natively(text, len(rows), [*names, *unknown], exact)
    if frame is None and text.count(b"\n") >= len(rows):  # white space: no string can hold one
        rows = [bytes(row).replace(b"\n", b" ") for row in rows]
        frame = _natively(b"\n".join(rows), len(rows), [*names, *unknown], exact)
    if frame is not None:
        return Rows(frame.select(names), REFUSED.to_frame(), tuple(unknown))
    return exact_rows(rows, columns)


def _must_be_exact(columns: Sequence[Column]) -> str | None:
    """The pattern of a number that polars would write anew where its spelling counts.

    In a column of texts 1.50 and 1.5 are two values; where texts have a decimal comma, a number must
    be written with one.
    """
    names = [
        re.escape(json.dumps(column.name, ensure_ascii=False))
        for column in columns
        if column.texts == "comma" or column.oracle.field_type == "text"
    ]
    return rf"(?:{'|'.join(names)}): *-?[0-9]" if names else None


def _keys(rows: Iterable[Bytes]) -> set[str]:
    try:
        return {
            key for row in rows for key in msgspec.json.decode(row, type=dict[str, msgspec.Raw])
        }
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return set()


def _natively(text: bytes, count: int, names: list[str], exact: str | None) -> pl.DataFrame | None:
    """The rows as polars reads them, or None unless every key and digit is known to have arrived."""
    if not count or not names or b"\t" in text or b"\r" in text:
        return None
    try:
        page = pl.Series([text]).cast(pl.String)
        escapes = b"\\" in text and _found(page, _ESCAPED)
        if _spaced_colon(page) or (escapes and not _harmless(page)):
            return None
        if exact is not None and _found(page, exact):
            return None
        if _found(page, _NESTED_OR_LONG):
            page = page.str.replace_all(_NUMBER, '${1}"${2}"${3}')
            if escapes or _found(page, _NESTED_OR_LONG):
                return None
        return _counted(page, count, names, escapes=escapes)
    except pl.exceptions.PolarsError:
        return None


def _found(page: pl.Series, pattern: str) -> bool:
    return bool(page.str.contains(pattern).item())


def _spaced_colon(page: pl.Series) -> bool:
    """Whether a key may be parted from its colon, where the counts below would not see it."""
    return bool(page.str.contains(" :", literal=True).item()) and _found(page, '" +:')


def _harmless(page: pl.Series) -> bool:
    """Whether the escapes are quotes inside strings and surrogates in pairs, nothing harder."""
    # Behind an escaped backslash it is open, to these patterns, where the next escape begins.
    if _found(page, r'\\\\(?:u|\\*":)'):
        return False
    single = page.str.count_matches(_ESCAPED_SURROGATE).item()
    return bool(single == 2 * page.str.count_matches(_SURROGATE_PAIR).item())


def _counted(
    page: pl.Series, count: int, names: list[str], *, escapes: bool
) -> pl.DataFrame | None:
    r"""Read *page* and compare the keys in its text with the cells that came out.

    Every null is turned into a value first. Then a key that was lost, because it was given twice or
    because nobody expects it, leaves fewer cells than keys. Inside strings ``\":`` looks like a key:
    such keys are subtracted, and since the values behind them must stay, the page is read twice.
    Nulls spelled otherwise than in the page's beginning stay null, and send it the exact way.
    """
    keys = page.str.count_matches('":', literal=True).item()
    if escapes:
        keys -= page.str.count_matches('\\":', literal=True).item()
    mark = "0" if escapes else f'"{_NULL}"'
    colon = '": ' if '": ' in page.str.head(4096).item() else '":'
    marked = page.str.replace_all(f"{colon}null", colon + mark, literal=True)
    frame = _read(marked, names)
    if frame.height != count or sum(frame.count().row(0)) != keys:
        return None
    if escapes:
        return _read(page, names)
    return frame.with_columns(pl.when(pl.all() != _NULL).then(pl.all()))


def _read(page: pl.Series, names: list[str]) -> pl.DataFrame:
    return pl.read_ndjson(page.cast(pl.Binary).item(), schema=dict.fromkeys(names, pl.String))


class _Token(str):
    """A JSON number, as it was written."""

    __slots__ = ()


class _Object(list[tuple[str, object]]):
    """A JSON object with all its keys, equal ones too."""


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON")


def exact_rows(rows: Sequence[Bytes], columns: Sequence[Column]) -> Rows:
    """Read rows one by one, keeping every token: the reference, and the way for difficult pages.

    Raises:
        ValueError: A row is no JSON, or no UTF-8.
    """
    twice: list[str] = []

    def objects(pairs: list[tuple[str, object]]) -> _Object:
        if len(dict(pairs)) != len(pairs):
            names = [name for name, _ in pairs]
            twice.append(next(name for name in names if names.count(name) > 1))
        return _Object(pairs)

    decoder = json.JSONDecoder(
        object_pairs_hook=objects,
        parse_int=_Token,
        parse_float=_Token,
        parse_constant=_no_constant,
    )
    names = [column.name for column in columns]
    commas = _commas(columns)
    documents = {column.name for column in columns if column.oracle.base == "JSON"}
    cells: dict[str, list[str | None]] = {name: [] for name in names}
    refused: list[dict[str, object]] = []
    unknown: set[str] = set()
    for position, row in enumerate(rows):
        raw = str(bytes(row), "utf-8").strip(" \t\r\n")
        twice.clear()
        try:
            value = decoder.decode(raw)
            fault = _fault(value, twice, names, documents)
        except RecursionError:
            value, fault = None, ("nested_value", None, raw, "nested deeper than can be read")
        if isinstance(value, _Object):
            unknown.update(name for name, _ in value if name not in cells)
        if fault is not None:
            refused.append(_refusal(position, raw, *fault))
            continue
        found = dict(value) if isinstance(value, _Object) else {}
        for name, cell in cells.items():
            value = found.get(name)
            if name in commas and isinstance(value, _Token):
                value = value.replace(".", ",")
            cell.append(_text(value))
    return Rows(
        pl.DataFrame(
            [pl.Series(name, _representable(cell), dtype=pl.String) for name, cell in cells.items()]
        ),
        pl.DataFrame(refused, schema=REFUSED),
        tuple(sorted(_LONE_SURROGATE.sub("\ufffd", name) for name in unknown)),
    )


def _fault(
    value: object, twice: list[str], names: Iterable[str], documents: set[str]
) -> tuple[str, str | None, str | None, str] | None:
    """Rule, column, value and message of the row's first fault."""
    if not isinstance(value, _Object):
        return "not_an_object", None, _text(value), "a row must be a JSON object"
    if twice:
        column = twice[0]
        values = [_text(item) for name, item in value if name == column]
        shown = ", ".join("null" if item is None else item for item in values)
        return "duplicate_json_key", column, shown, f"the key {column!r} is given twice"
    found = dict(value)
    for name in names:
        if isinstance(found.get(name), list) and name not in documents:
            return "nested_value", name, _text(found[name]), "a nested value in a column of scalars"
    return None


def _refusal(
    position: int, raw: str, rule: str, column: str | None, value: str | None, message: str
) -> dict[str, object]:
    texts = {"column": column, "value": value and value[:_VALUE_LIMIT], "message": message}
    whole = {"position": position, "rule": rule, "raw": raw}
    return whole | {
        name: text if text is None else _LONE_SURROGATE.sub("\ufffd", text)
        for name, text in texts.items()
    }


def _text(value: object) -> str | None:
    """A value as text: scalars bare, nested ones as JSON."""
    if value is None or isinstance(value, str):
        return value
    return _json(value)


def _json(value: object) -> str:
    if isinstance(value, _Object):
        return "{" + ",".join(f"{_json(name)}:{_json(item)}" for name, item in value) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_json, value)) + "]"
    if isinstance(value, _Token):
        return str(value)
    return json.dumps(value, ensure_ascii=False)


def _representable(cells: list[str | None]) -> list[str | None]:
    """The cells with U+FFFD for lone surrogates, which no UTF-8 text can hold."""
    try:
        "".join(filter(None, cells)).encode()
    except UnicodeEncodeError:
        return [cell if cell is None else _LONE_SURROGATE.sub("\ufffd", cell) for cell in cells]
    return cells
