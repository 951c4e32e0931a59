r"""Who a record is, and what it holds: key hash, data hash, reference; one row per key.

Belongs here: the text that is hashed, the hashes, duplicates within a batch.
Does not belong here: canonical values (``normalize``), comparing with what is known (``delta``).

The text is ``name=value|name=value``, sorted by name; ``\``, ``|`` and ``=`` are escaped with ``\``
in names and values, and a NULL is the bare name. Unescaped marks therefore stand only between
parts, so two different records never make the same text.

Source: product.md 3; decision 0002. XXH3: xxhash's specification; BLAKE3: its paper of 2020.
"""

import sys
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import polars as pl
import pyarrow as pa
import xxhash
from polars_hash import CryptographicHashingNameSpace, NonCryptographicHashingNameSpace

from syncflow_core.columns import DATA_HASH, KEY_HASH, REFERENCE, REJECTED, ROW, ROWVERSION
from syncflow_core.fields import Shape
from syncflow_core.rowversion import sortable

ENCODING_VERSION: Final = 1
"""Version of the text that is hashed; another one means recomputing what is known (product.md 3)."""

_MARKS: Final = r"[\\|=]"
_ESCAPES: Final = str.maketrans({"\\": "\\\\", "|": "\\|", "=": "\\="})
_COLLISION: Final = "another key has the same key hash"
_MARKLESS: Final = frozenset(
    {
        "integer",
        "decimal",
        "float",
        "boolean",
        "date",
        "timestamp",
        "timestamp_tz",
        "duration",
        "binary",
    }
)
"""Types whose canonical text holds none of the marks."""


@dataclass(frozen=True)
class Distinct:
    """A frame with one row per key, and an account of the others."""

    kept: pl.DataFrame
    identical: pl.DataFrame
    """``#row`` of rows that say the same as the kept one: fetched and unchanged once more."""
    losers: pl.DataFrame
    """``columns.REJECTED``: rows that differ from the kept one, and rows of colliding keys."""


def hashed_text(values: Mapping[str, str | None]) -> str:
    r"""The text that a hash is made of; a NULL is the bare name.

    >>> hashed_text({"order_no": "WO|1", "line_no": "2"})
    'line_no=2|order_no=WO\\|1'
    >>> hashed_text({"b": None, "a": ""})
    'a=|b'
    """
    return "|".join(
        name.translate(_ESCAPES) + ("" if value is None else f"={value.translate(_ESCAPES)}")
        for name, value in sorted(values.items())
    )


def key_hash(values: Mapping[str, str | None]) -> bytes:
    """XXH3-128 of ``hashed_text``, 16 bytes, big-endian as its hex is written."""
    return xxhash.xxh3_128_digest(hashed_text(values).encode())


def hashed_fields(shape: Shape) -> list[str]:
    """The target fields that the data hash covers, sorted: all but the volatile, and always the key."""
    return sorted(
        item.name for item in shape.fields if item.hashed or item.name in shape.key_fields
    )


def add_identity(frame: pl.DataFrame, shape: Shape) -> pl.DataFrame:
    """The same rows with ``#key_hash``, ``#data_hash`` and ``#reference``.

    Args:
        frame: Target fields as canonical text, no NULL in a business key (``normalize`` rejects those).
        shape: The entity.
    """
    loose = [item.name for item in shape.fields if item.type not in _MARKLESS]
    marked = _marked(frame, loose)
    columns = {
        name: escaped(pl.col(name)) if name in marked else pl.col(name)
        for name in (item.name for item in shape.fields)
    }
    nullable = {name for name in columns if frame[name].null_count()}
    key = _joined({name: columns[name] for name in sorted(shape.key_fields)}, frozenset())
    reference = _joined({name: columns[name] for name in shape.key_fields}, frozenset())
    data = _joined({name: columns[name] for name in hashed_fields(shape)}, nullable)
    texts = frame.lazy().select(key.alias("key"), data.alias("data"), reference.alias(REFERENCE))
    hashes = texts.select(
        _xxh3(pl.col("key")).alias(KEY_HASH),
        CryptographicHashingNameSpace(pl.col("data")).blake3().str.decode("hex").alias(DATA_HASH),
        REFERENCE,
    )
    return frame.hstack(hashes.collect())


def key_hash_expr(columns: Mapping[str, pl.Expr]) -> pl.Expr:
    """The key hash of names and their values' expressions; null where any value is null.

    For parents: the parent's key fields by name, the child's columns as values.
    """
    parts = {name: escaped(columns[name]) for name in sorted(columns)}
    return _xxh3(_joined(parts, frozenset()))


def text_hash_expr(text: pl.Expr) -> pl.Expr:
    """XXH3-128 of a text, 16 bytes: names a row that has no key."""
    return _xxh3(text)


def escaped(text: pl.Expr) -> pl.Expr:
    """The marks in a text escaped."""
    return text.str.replace_all(f"({_MARKS})", r"\${1}")


def split_duplicates(frame: pl.DataFrame, shape: Shape) -> Distinct:
    """One row per key: the highest rowversion, else the greatest data hash, whatever the row order.

    Where these are equal the shape's fields decide, so that volatile ones do not follow the page order.

    Rows with the kept row's data hash are ``identical``; other rows of its key are filed as
    ``duplicate_key``. Rows of different keys with one hash are all filed as ``key_collision``.

    Args:
        frame: As ``add_identity`` gives it.
        shape: The entity.
    """
    nothing = Distinct(frame, frame.select(ROW).clear(), REJECTED.to_frame())
    if frame[KEY_HASH].n_unique() == frame.height:
        return nothing
    repeated = pl.col(KEY_HASH).is_duplicated()
    several = frame.filter(repeated)
    collided = pl.col(REFERENCE).n_unique().over(KEY_HASH) > 1
    colliding = several.filter(collided)
    names = [item.name for item in shape.fields]
    ranked = (
        several.filter(~collided)
        .with_columns(sortable(pl.col(ROWVERSION), shape.rowversion_kind).alias("#order"))
        .sort(
            ["#order", DATA_HASH, ROWVERSION, *names],
            descending=True,
            nulls_last=True,
            maintain_order=True,
        )
        .with_columns(
            pl.col(DATA_HASH).first().over(KEY_HASH).alias("#winner"),
            pl.int_range(pl.len()).over(KEY_HASH).alias("#rank"),
        )
    )
    same = pl.col("#winner") == pl.col(DATA_HASH)
    winners = ranked.filter(pl.col("#rank") == 0)
    others = ranked.filter(pl.col("#rank") > 0)
    kept = pl.concat([frame.filter(~repeated), winners.select(frame.columns)]).sort(ROW)
    losers = [
        _filed(
            others.filter(~same),
            "duplicate_key",
            "another row of this key is newer, or wins by its data hash",
        ),
        _filed(colliding, "key_collision", _COLLISION),
    ]
    return Distinct(kept, others.filter(same).select(ROW).sort(ROW), pl.concat(losers).sort(ROW))


def split_collided(
    incoming: pl.DataFrame, known: pl.DataFrame
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Part rows from those whose key hash the target knows as another key's.

    XXH3 is no cryptographic hash: two keys may share one. Their references, which spell the keys,
    then differ. A reference of other fields than this entity's is some other program's, and says
    nothing; the order of the fields says nothing either.

    Args:
        incoming: ``#row``, ``#key_hash`` (unique) and ``#reference``.
        known: ``#key_hash`` and ``#reference`` as the target last acknowledged them.

    Returns:
        The rows whose key is their own, and the others in the shape ``columns.REJECTED``.
    """
    before = known.select(KEY_HASH, pl.col(REFERENCE).alias("#before"))
    joined = incoming.join(before, on=KEY_HASH, maintain_order="left")
    suspects = joined.filter(pl.col(REFERENCE) != pl.col("#before"))
    mine, theirs = _key_parts(pl.col(REFERENCE)), _key_parts(pl.col("#before"))
    other = (_key_names(mine) == _key_names(theirs)) & (mine != theirs)
    collided = suspects.filter(other)
    kept = incoming.filter(~pl.col(ROW).is_in(collided[ROW].implode()))
    return kept, _filed(collided, "key_collision", _COLLISION)


def _key_parts(reference: pl.Expr) -> pl.Expr:
    """The ``name=value`` parts of references, sorted; escaped marks stand as control characters."""
    plain = reference.str.replace_many(["\\\\", "\\|", "\\="], ["\x00", "\x01", "\x02"])
    return plain.str.split("|").list.sort()


def _key_names(parts: pl.Expr) -> pl.Expr:
    return parts.list.eval(pl.element().str.extract("^([^=]*)="))


def _filed(rows: pl.DataFrame, rule: str, message: str) -> pl.DataFrame:
    return rows.select(
        pl.col(ROW),
        pl.lit("identity").alias("stage"),
        pl.lit(None, pl.UInt8).alias("layer"),
        pl.lit(rule).alias("rule"),
        pl.lit(None, pl.String).alias("column"),
        pl.col(REFERENCE).str.slice(0, 500).alias("value"),
        pl.lit(message).alias("message"),
    )


def _marked(frame: pl.DataFrame, names: Sequence[str]) -> frozenset[str]:
    """Those of the columns that hold a mark anywhere."""
    found = frame.select(pl.col(name).str.contains(_MARKS).any() for name in names)
    return frozenset(name for name in names if found[name].item())


def _joined(columns: Mapping[str, pl.Expr], nullable: Iterable[str]) -> pl.Expr:
    """``name=value|name=value``; for the columns in *nullable* a null is the bare name."""
    parts: list[pl.Expr] = []
    with_null = frozenset(nullable)
    for number, (name, value) in enumerate(columns.items()):
        head = ("|" if number else "") + name.translate(_ESCAPES)
        if name in with_null:
            parts += [pl.lit(head), pl.concat_str(pl.lit("="), value).fill_null("")]
        else:
            parts += [pl.lit(f"{head}="), value]
    return pl.concat_str(parts)


def _xxh3(text: pl.Expr) -> pl.Expr:
    """XXH3-128 as 16 bytes, big-endian as the hash's hex is written; null for null.

    polars-hash answers with UInt128, which Arrow does not carry: its halves are swapped here.
    """
    number = NonCryptographicHashingNameSpace(text).xxh3_128()
    halves = pl.struct(
        (number // 2**64).cast(pl.UInt64).alias("high"),
        (number % 2**64).cast(pl.UInt64).alias("low"),
    )
    return halves.map_batches(_sixteen_bytes, return_dtype=pl.Binary(), is_elementwise=True)


def _sixteen_bytes(halves: pl.Series) -> pl.Series:
    """Two UInt64 per row as 16 big-endian bytes; null where they are."""
    frame = halves.struct.unnest()
    missing = frame["high"].is_null()
    words = array("Q")
    pairs = frame.select(pl.concat_arr(pl.all().fill_null(0)).alias("pair"))["pair"].explode()
    words.frombytes(memoryview(pairs.to_arrow().buffers()[1]).cast("B")[: 8 * pairs.len()])
    if sys.byteorder == "little":
        words.byteswap()
    fixed = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(16), halves.len(), [None, pa.py_buffer(words)]
    )
    found = pl.Series(halves.name, fixed.cast(pa.binary()), dtype=pl.Binary)
    if not missing.any():
        return found
    frame = pl.DataFrame({"hash": found, "missing": missing})
    return frame.select(pl.when(~pl.col("missing")).then(pl.col("hash"))).to_series()
