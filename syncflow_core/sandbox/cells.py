"""How one value of the ERP is written: clean, as the hub must hold it, and dirty, as a driver gives it.

Belongs here: for each Oracle type, the pair of JSON literals as polars expressions.
Does not belong here: which columns a table has (``erp``).

Both literals come from the clean value, so the truth owes nothing to any normalizer. Every expression
reads the columns ``i`` (serial), ``rev`` (revision) and ``flaw`` of the frame it is used on.

Source: product.md 2.4 and 3 (canonical forms); contract.md (values as the driver gives them).
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import polars as pl

NULL = pl.lit("null")
THOUSAND = 1_000


@dataclass(frozen=True)
class Cell:
    """One column: its name, its type, and its value twice.

    ``doc`` is the JSON literal that APISmith serves, null for a key that is missing; ``truth`` is the
    literal that the hub must hold. ``target`` is None for a column that the hub does not get.
    """

    column: str
    data_type: str
    doc: pl.Expr
    truth: pl.Expr
    target: str | None
    nullable: bool = False

    def known_as(self, target: str) -> "Cell":
        """The same cell under another target name."""
        return replace(self, target=target)

    def flawed(self, literal: str) -> "Cell":
        """The same cell, impossible in the rows that have a flaw."""
        doc = pl.when(pl.col("flaw").is_not_null()).then(pl.lit(literal)).otherwise(self.doc)
        return replace(self, doc=doc)


@dataclass(frozen=True)
class Draw:
    """Numbers that look random and depend on nothing but seed, table, salt, serial and revision."""

    seed: int
    table: str

    def below(self, salt: str, limit: int, *, fixed: bool = False) -> pl.Expr:
        """A number from 0 to ``limit`` - 1; a ``fixed`` one does not change with the revision."""
        number = pl.col("i") if fixed else pl.col("i") * 1_000_003 + pl.col("rev")
        mixed = number.hash(zlib.crc32(f"{self.seed}/{self.table}/{salt}".encode()))
        return (mixed % limit).cast(pl.Int64)

    def pick(self, salt: str, values: Sequence[str]) -> pl.Expr:
        """One of the values."""
        return chosen(self.below(salt, len(values)), values)

    def variant(self, salt: str, of: int, usual: pl.Expr, others: Sequence[pl.Expr]) -> pl.Expr:
        """``usual``, and each of ``others`` in one row out of ``of``."""
        number = self.below(f"{salt}/form", of)
        result = usual
        for position, other in enumerate(others):
            result = pl.when(number == position).then(other).otherwise(result)
        return result


def chosen(position: pl.Expr, values: Sequence[str]) -> pl.Expr:
    """The value at this position."""
    return pl.lit(pl.Series(values)).gather(position)


def numbered(prefix: str, serial: pl.Expr, width: int) -> pl.Expr:
    """A serial with a prefix, padded with zeros: text order is serial order."""
    return pl.concat_str(pl.lit(prefix), serial.cast(pl.String).str.zfill(width))


def quoted(text: pl.Expr) -> pl.Expr:
    """The text, which holds nothing that JSON escapes, as a JSON string."""
    return pl.concat_str(pl.lit('"'), text, pl.lit('"'))


def key(column: str, data_type: str, raw: pl.Expr, truth: pl.Expr | None = None) -> Cell:
    """A text that is part of a key or refers to one: nothing random about it."""
    literal = quoted(raw)
    return Cell(
        column, data_type, literal, literal if truth is None else quoted(truth), column.lower()
    )


def number_key(column: str, data_type: str, value: pl.Expr) -> Cell:
    """An integer that is part of a key or refers to one."""
    literal = value.cast(pl.String)
    return Cell(column, data_type, literal, literal, column.lower())


def optional(cell: Cell, draw: Draw, of: int, *, empty: bool = False) -> Cell:
    """The same cell, NULL in one row out of ``of``: as null, as a missing key or as empty text."""
    absent = draw.below(f"{cell.column}/null", of) == 0
    forms = [NULL, pl.lit(None, pl.String), pl.lit('""') if empty else NULL]
    number = draw.below(f"{cell.column}/absent", len(forms))
    gone = pl.when(number == 0).then(forms[0]).when(number == 1).then(forms[1]).otherwise(forms[2])
    doc = pl.when(absent & pl.col("flaw").is_null()).then(gone).otherwise(cell.doc)
    truth = pl.when(absent).then(NULL).otherwise(cell.truth)
    return replace(cell, doc=doc, truth=truth, nullable=True)


def text(
    column: str, data_type: str, draw: Draw, clean: pl.Expr, dirty: pl.Expr | None = None
) -> Cell:
    """Text with padding, control characters and zero-width space around it.

    ``dirty`` is another spelling of the same text (decomposed letters, CRLF), served throughout.
    """
    served = clean if dirty is None else dirty
    forms = [
        pl.concat_str(served, pl.lit("   ")),
        pl.concat_str(pl.lit("  "), served),
        pl.concat_str(served, pl.lit("\\u0007")),
        pl.concat_str(pl.lit("\\u200b"), served),
        pl.concat_str(pl.lit("\\u0001"), served, pl.lit("\\u009f")),
    ]
    doc = quoted(draw.variant(column, 24, served, forms))
    return Cell(column, data_type, doc, quoted(clean), column.lower())


def integer(column: str, data_type: str, draw: Draw, value: pl.Expr) -> Cell:
    """An integer from 0 to 999,999: a number, text, or text with a thousands separator."""
    plain = value.cast(pl.String)
    rest = (value % 1000).cast(pl.String).str.zfill(3)
    parted = pl.concat_str((value // 1000).cast(pl.String), pl.lit(","), rest)
    grouped = pl.when(value >= THOUSAND).then(parted).otherwise(plain)
    doc = draw.variant(column, 8, plain, [quoted(plain), quoted(grouped)])
    return Cell(column, data_type, doc, plain, column.lower())


def decimal(column: str, data_type: str, draw: Draw, units: pl.Expr, scale: int) -> Cell:
    """An exact decimal of ``units`` / 10^``scale``: trailing zeros, trailing minus, (accounting), text."""
    sign = pl.when(units < 0).then(pl.lit("-")).otherwise(pl.lit(""))
    size = units.abs()
    whole = (size // 10**scale).cast(pl.String)
    fraction = (size % 10**scale).cast(pl.String).str.zfill(scale)
    full = pl.concat_str(whole, pl.lit("."), fraction)
    signed = pl.concat_str(sign, full)
    canonical = signed.str.strip_chars_end("0").str.strip_chars_end(".")
    canonical = pl.when(units == 0).then(pl.lit("0")).otherwise(canonical)
    accounting = pl.concat_str(pl.lit("("), full, pl.lit(")"))
    forms = [
        quoted(signed),
        signed,
        quoted(pl.when(units < 0).then(pl.concat_str(full, pl.lit("-"))).otherwise(full)),
        quoted(pl.when(units < 0).then(accounting).otherwise(full)),
    ]
    return Cell(
        column, data_type, draw.variant(column, 10, canonical, forms), canonical, column.lower()
    )


def digits(column: str, data_type: str, draw: Draw, plain: pl.Expr) -> Cell:
    """A number of many digits, given as canonical text: half of them JSON numbers, half strings."""
    doc = draw.variant(column, 2, plain, [quoted(plain)])
    return Cell(column, data_type, doc, plain, column.lower())


def double(column: str, draw: Draw, limit: int) -> Cell:
    """A binary double with an odd number of eighths, so that it is exact and never whole."""
    eighths = draw.below(column, limit) * 8 + draw.below(f"{column}/odd", 4) * 2 + 1
    fraction = ((eighths % 8) * 125).cast(pl.String).str.zfill(3)
    full = pl.concat_str((eighths // 8).cast(pl.String), pl.lit("."), fraction)
    canonical = full.str.strip_chars_end("0")
    doc = draw.variant(column, 8, canonical, [quoted(canonical), pl.concat_str(full, pl.lit("0"))])
    return Cell(column, "BINARY_DOUBLE", doc, canonical, column.lower())


def moment(
    column: str, draw: Draw, seconds: pl.Expr, *, whole_days: bool = False, utc: bool = False
) -> Cell:
    """A DATE in mixed forms; with ``whole_days`` the hub holds a date, else a timestamp.

    Epoch milliseconds are among the forms where they can mean one thing only: for a date, and with
    ``utc``, where the entity declares that zone for the column and the hub holds ``...Z``.
    """
    midnight = pl.lit(whole_days) | (draw.below(f"{column}/midnight", 3) == 0)
    second = pl.when(midnight).then(seconds // 86_400 * 86_400).otherwise(seconds)
    at = pl.from_epoch(second, time_unit="s")
    iso = at.dt.strftime("%Y-%m-%dT%H:%M:%S")
    day = [
        at.dt.strftime("%Y-%m-%d"),
        at.dt.strftime("%d-%b-%Y").str.to_uppercase(),
        at.dt.strftime("%Y/%m/%d"),
        at.dt.strftime("%Y%m%d"),
    ]
    timed = [at.dt.strftime("%Y-%m-%d %H:%M:%S"), at.dt.strftime("%Y%m%d%H%M%S")]
    forms = [quoted(pl.when(midnight).then(form).otherwise(iso)) for form in day]
    forms += [quoted(form) for form in timed]
    if whole_days or utc:
        forms.append((second * 1000).cast(pl.String))
    stamp = pl.concat_str(iso, pl.lit("Z")) if utc else iso
    truth = quoted(day[0] if whole_days else stamp)
    doc = draw.variant(column, 14, quoted(iso), forms)
    return Cell(column, "DATE", doc, truth, column.lower())


def instant(column: str, draw: Draw, seconds: pl.Expr) -> Cell:
    """A TIMESTAMP WITH TIME ZONE, told in several zones; the hub holds UTC."""
    at = pl.from_epoch(seconds, time_unit="s")
    utc = at.dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    forms = [
        at.dt.offset_by(offset).dt.strftime(f"%Y-%m-%dT%H:%M:%S{zone}")
        for offset, zone in (("1h", "+01:00"), ("-5h", "-05:00"), ("5h30m", "+05:30"))
    ]
    doc = quoted(draw.variant(column, 4, utc, forms))
    return Cell(column, "TIMESTAMP(6) WITH TIME ZONE", doc, quoted(utc), column.lower())


def precise(column: str, draw: Draw, seconds: pl.Expr) -> Cell:
    """A TIMESTAMP(6); the hub holds the fraction without trailing zeros."""
    iso = pl.from_epoch(seconds, time_unit="s").dt.strftime("%Y-%m-%dT%H:%M:%S")
    micros = (draw.below(f"{column}/micros", 1000) * 1000).cast(pl.String).str.zfill(6)
    full = pl.concat_str(iso, pl.lit("."), micros)
    truth = quoted(full.str.strip_chars_end("0").str.strip_chars_end("."))
    whole = micros == "000000"
    truth = pl.when(whole).then(quoted(iso)).otherwise(truth)
    doc = quoted(draw.variant(column, 6, full, [full.str.replace("T", " ", literal=True)]))
    return Cell(column, "TIMESTAMP(6)", doc, truth, column.lower())


def served_only(column: str, data_type: str, literal: pl.Expr) -> Cell:
    """A column that the source has and the hub does not get as a field: the rowversion."""
    return Cell(column, data_type, literal, NULL, None)


def doc_of(cells: Sequence[Cell]) -> pl.Expr:
    """The row as JSON text; the first cell's key is never missing."""
    members = [pl.concat_str(pl.lit(f'{{"{cells[0].column}":'), cells[0].doc)]
    members += [
        pl.concat_str(pl.lit(f',"{cell.column}":'), cell.doc).fill_null("") for cell in cells[1:]
    ]
    return pl.concat_str(*members, pl.lit("}"))


def truth_of(cells: Sequence[Cell]) -> pl.Expr:
    """The record as JSON text; null for a row with a flaw."""
    kept = [cell for cell in cells if cell.target is not None]
    members = [
        pl.concat_str(pl.lit(f'{"," if number else "{"}"{cell.target}":'), cell.truth)
        for number, cell in enumerate(kept)
    ]
    whole = pl.concat_str(*members, pl.lit("}"))
    return pl.when(pl.col("flaw").is_null()).then(whole)
