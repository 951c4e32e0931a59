"""Personal data: what stands for the values of fields that are marked ``pii``, wherever people look.

``mask`` shows ``***``, ``hash`` a short digest by which equal values are recognised, ``drop`` nothing.

Belongs here: which fields and columns are hidden, and what stands in their place: in a value, a row, a
reference, the words of an error.
Does not belong here: where anything is kept or shown (``stages``, ``trace``, the API), the digests' key
(``digest_key``).

What goes to the target is never changed by this. A NULL is shown as NULL: there is nothing to hide.

Source: docs/operations/personal-data.md.
"""

import json
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import msgspec
import polars as pl
from blake3 import blake3
from polars_hash import CryptographicHashingNameSpace

from syncflow_core.entity import Entity, Field
from syncflow_core.errors import SyncFlowError

Kind = Literal["mask", "hash", "drop"]
Role = Literal["viewer", "operator", "admin"]

MASK: Final = "***"
DIGEST: Final = "hash:"
DIGITS: Final = 12
"""Hexadecimal digits of a digest: two of a million values share one with a chance of 1 in 500."""
SEES_ALL: Final = frozenset({"operator", "admin"})
"""Roles that see what is kept whole; what is kept hidden nobody sees."""
KEY_OF_PROCESS: Final = secrets.token_bytes(32)
"""Where nobody gives a key: digests then are equal within this process alone."""

_STRICTNESS: Final = ("hash", "mask", "drop")
_STANDS_FOR: Final = re.compile(rf"\*\*\*|{DIGEST}[0-9a-f]{{{DIGITS}}}")
NAMED: Final = re.compile(r" ?\[([0-9a-f]{32})\]$")
"""How a reference ends that hides a part of the key."""
_PART: Final = r"((?:[^\\|]|\\.)*)"
_QUOTED: Final = re.compile(r"'([^']*)'|\"([^\"]*)\"|=\(([^)]*)\)")
_THEIR_WORDS: Final = re.compile(
    r"( (?:answered \d{3} to|refused) [A-Z]+ \S+(?: \(\d{3}\))?): .*", re.DOTALL
)
_WORD: Final = re.compile(r"\w+")
_SHORT: Final = 3
"""Parts of a value shorter than this are hidden in a message only where the whole value is met."""


@dataclass(frozen=True)
class Privacy:
    """What of one entity is hidden; false where nothing is."""

    fields: Mapping[str, Kind]
    """By target name."""
    columns: Mapping[str, Kind]
    """By source column: every one that a hidden field is made of."""
    key: Callable[[], bytes] = lambda: KEY_OF_PROCESS
    """The digests' key; asked for where a field is marked ``hash`` alone."""

    def __bool__(self) -> bool:
        return bool(self.fields)

    def value(self, kind: Kind, value: object) -> str | None:
        """What stands for a value; for what stands for one already, that."""
        if value is None or kind == "drop":
            return None
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        if _STANDS_FOR.fullmatch(text):
            return text
        if kind == "mask":
            return MASK
        return DIGEST + blake3((self.key().hex() + text).encode()).hexdigest()[:DIGITS]

    def expr(self, kind: Kind, text: pl.Expr) -> pl.Expr:
        """The same for a column of text."""
        if kind == "drop":
            return pl.when(text.is_null()).then(text)
        if kind == "mask":
            return pl.when(text.is_not_null()).then(pl.lit(MASK))
        # BLAKE3 behind a key of fixed length: it knows no length extension, so this is a keyed hash
        keyed = pl.concat_str(pl.lit(self.key().hex()), text)
        digest = CryptographicHashingNameSpace(keyed).blake3().str.head(DIGITS)
        return pl.concat_str(pl.lit(DIGEST), digest)

    def frame(self, frame: pl.DataFrame, hidden: Mapping[str, Kind]) -> pl.DataFrame:
        """A frame of text with these columns hidden; those of kind ``drop`` are left out."""
        present = {name: kind for name, kind in hidden.items() if name in frame.columns}
        return frame.with_columns(
            self.expr(kind, pl.col(name)).alias(name) for name, kind in present.items()
        ).drop(name for name, kind in present.items() if kind == "drop")

    def row(self, row: Mapping[str, object]) -> dict[str, object]:
        """A row by source column, or a record by target field, as it may be shown."""
        hidden = {**self.columns, **self.fields}
        shown: dict[str, object] = {}
        for name, value in row.items():
            kind = hidden.get(name)
            if kind is None:
                shown[name] = value
            elif kind != "drop":
                shown[name] = self.value(kind, value)
        if isinstance(reference := shown.get("erp_ref_str"), str):
            digest = row.get("erp_key_hash")
            shown["erp_ref_str"] = self.reference(reference, str(digest) if digest else None)
        return shown

    def json(self, text: str | None) -> str | None:
        """The same of a row as JSON text, other values digit for digit; what is no object is hidden whole."""
        if text is None or not self:
            return text
        try:
            found = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
            hidden = {
                name: json.loads(bytes(found[name]), parse_float=str, parse_int=str)
                for name in {*self.columns, *self.fields, "erp_ref_str", "erp_key_hash"}
                & found.keys()
            }
        except (ValueError, msgspec.DecodeError, RecursionError):
            return None
        shown = self.row(hidden)
        return msgspec.json.encode(
            {
                name: shown.get(name) if name in hidden else raw
                for name, raw in found.items()
                if name not in hidden or name in shown
            }
        ).decode()

    def reference(self, text: str | None, digest: str | None = None) -> str | None:
        """A record's reference; where anything of it is hidden its key hash stands behind, to find it by.

        Args:
            text: ``order_no=WO1|email=...``.
            digest: The record's key hash in hex.
        """
        if text is None:
            return None
        known = NAMED.search(text)
        bare = text[: known.start()] if known else text
        shown = bare
        for name, kind in self.fields.items():
            shown = re.sub(
                _part(name),
                lambda found, kind=kind: self._part(found, kind),  # type: ignore[misc]  # a default binds the loop's
                shown,
            )
        if shown == bare:
            return text
        named = known[1] if known else digest
        whole = shown.lstrip("|")
        return " ".join(filter(None, [whole, f"[{named}]" if named else None])) or None

    def _part(self, found: "re.Match[str]", kind: Kind) -> str:
        if kind == "drop":
            return ""
        return f"{found[1]}{found[2]}={self.value(kind, unescaped(found[3]))}"

    def references(self, text: pl.Expr, digest: pl.Expr, names: Iterable[str]) -> pl.Expr:
        """The same for a column of references whose key has these fields; unchanged where none is hidden.

        Args:
            text: References as SyncFlow makes them.
            digest: Key hashes, Binary.
            names: The key's target names.
        """
        hidden = {name: kind for name in names if (kind := self.fields.get(name))}
        if not hidden:
            return text
        shown = text
        for name, kind in hidden.items():
            if kind == "drop":
                shown = shown.str.replace(_part(name), "")
                continue
            # the value is put in as it is: neither a mask nor a digest holds a "$"
            value = self.expr(
                kind, text.str.extract(_part(name), 3).str.replace_all(r"\\(.)", "$1")
            )
            shown = shown.str.replace(
                _part(name), pl.concat_str(pl.lit("${1}${2}="), value.fill_null(""))
            )
        whole = shown.str.strip_chars_start("|")
        gap = pl.when(whole.str.len_bytes() > 0).then(pl.lit(" ")).otherwise(pl.lit(""))
        return pl.concat_str(whole, gap, pl.lit("["), digest.bin.encode("hex"), pl.lit("]"))

    def words(self, message: str | None, record: str | None) -> str | None:
        """What a system said of a record, without the record's hidden values.

        A part of such a value is hidden too, and whatever stands in quotes that is neither a name of
        the declaration nor a value that may be shown: it may be another record's.

        Args:
            message: Its words.
            record: The record as JSON text, by target field.
        """
        if message is None or not self:
            return message
        values = _values(record)
        for name, value in values.items():
            if name in self.fields and value:
                message = _without(message, value)
        shown = {
            *self.fields,
            *self.columns,
            *values,
            *(value for name, value in values.items() if name not in {*self.fields, "erp_ref_str"}),
        }
        return _QUOTED.sub(lambda found: _unquoted(found, shown), message)

    def error(self, error: Exception, entity: str) -> SyncFlowError:
        """The error as it may be told and kept: without a system's own words, without unexpected ones.

        Errors of SyncFlow's own say no values; what a system answered may, and so may an error that
        nobody has thought of, and whatever caused either.
        """
        if not isinstance(error, SyncFlowError):
            unexpected = SyncFlowError(
                f"{type(error).__name__}: its words are hidden, for {entity} has fields with personal data",
                entity=entity,
            )
            return unexpected.with_traceback(error.__traceback__)
        if self:
            error.args = (self.told(str(error)),)
            error.__cause__ = None
            error.__suppress_context__ = True
        return error

    def told(self, message: str) -> str:
        """An error's message without what a system answered."""
        if not self:
            return message
        return _THEIR_WORDS.sub(r"\1: (its words are hidden: personal data)", message)


UNKNOWN: Final = Privacy({"*": "mask"}, {})
"""Of an entity whose declaration cannot be read: nothing by name, but no words of others are told."""


def privacy_of(entity: Entity, key: Callable[[], bytes] = lambda: KEY_OF_PROCESS) -> Privacy:
    """What of the entity is hidden.

    A field is hidden that is marked, or that has its value, whole or as a part, from a column which is
    the value of a marked one. A column is hidden that a hidden field is made of. Of several marks the
    strictest holds: ``drop``, ``mask``, ``hash``.
    """
    marked = [item for item in entity.fields if item.pii is not None]
    if not marked:
        return Privacy({}, {}, key)
    same: dict[str, Kind] = {}
    for item in marked:
        for name in _value_columns(item):
            same[name] = _strictest(same.get(name), item.pii)
    fields: dict[str, Kind] = {}
    columns: dict[str, Kind] = {}
    for item in entity.fields:
        read = [*([item.source] if item.source else []), *item.columns_besides]
        kinds = [item.pii, *(same.get(name) for name in read)]
        found = [kind for kind in kinds if kind is not None]
        if not found:
            continue
        fields[item.name] = _strictest(*found)
        if item.pii is None:
            continue
        for name in read:
            columns[name] = _strictest(columns.get(name), item.pii)
    return Privacy(fields, columns, key)


def shown_to(role: Role, row: Mapping[str, object], privacy: Privacy) -> dict[str, object]:
    """A row or record that is kept whole, as this role may see it: viewers see no hidden value."""
    return dict(row) if role in SEES_ALL else privacy.row(row)


def is_hidden(reference: str | None) -> bool:
    """Whether a reference hides a part of the key: it is no key then, and says its hash."""
    return named_by(reference) is not None


def named_by(reference: str | None) -> str | None:
    """The key hash, in hex, that a hidden reference says; None where it hides nothing."""
    found = NAMED.search(reference or "")
    return found[1] if found else None


def _value_columns(item: Field) -> Iterator[str]:
    """The columns that a field has its whole value from: those of a concat are parts of it."""
    if any(step.kind in {"concat", "constant"} for step in item.transform):
        return
    if item.source is not None:
        yield item.source
    yield from item.columns_besides


def _strictest(*kinds: Kind | None) -> Kind:
    return max((kind for kind in kinds if kind is not None), key=_STRICTNESS.index)


def _part(name: str) -> str:
    """The pattern of one part of a reference: what stands before it, its name, its value."""
    # names are escaped in references as values are, and then for the pattern
    spelled = re.sub(r"([\\|=])", r"\\\1", name)
    return rf"(^|\|)({re.escape(spelled)})={_PART}"


def unescaped(text: str) -> str:
    r"""A name or a value as it was before it became a part of a reference.

    >>> unescaped(r"WO\|1")
    'WO|1'
    """
    return re.sub(r"\\(.)", r"\1", text)


def _values(record: str | None) -> dict[str, str]:
    """A record's values as text, by name."""
    try:
        found = json.loads(record or "{}", parse_float=str, parse_int=str)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in found.items()
        if value is not None
    }


def _without(message: str, value: str) -> str:
    """The message without a value, in any case of its letters, whole or by word."""
    escaped = json.dumps(value, ensure_ascii=False)[1:-1]
    parts = [value, escaped, json.dumps(value)[1:-1], value.replace("\\", "\\\\")]
    parts += [word for word in _WORD.findall(value) if len(word) >= _SHORT]
    for part in sorted({part for part in parts if part.strip()}, key=len, reverse=True):
        pattern = rf"(?<!\w){re.escape(part)}(?!\w)"
        message = re.sub(pattern, lambda _: MASK, message, flags=re.IGNORECASE)
    return message


def _unquoted(found: "re.Match[str]", shown: Iterable[str]) -> str:
    said = next(text for text in found.groups() if text is not None)
    if said in shown or not said.strip("* ."):
        return found[0]
    return found[0].replace(said, MASK)
