"""Layer 1, type coercion: what is no text, number or moment becomes its canonical text.

Belongs here: words that mean NULL, booleans, binary, durations, nested JSON.
Does not belong here: strings (``text``), numbers (``number``), dates and times (``moment``), which
pass with nothing but their NULL words settled.

Source: product.md 2.1; Oracle's BOOLEAN words, RAW text and interval literals; ISO 8601 durations.
"""

import base64
import binascii
import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from functools import partial
from typing import Final

import polars as pl

from syncflow_core.normalize.nested import canonical_json
from syncflow_core.normalize.number import LONGEST, NUMERIC, plain_text_of, read_number
from syncflow_core.normalize.reading import (
    VALUE,
    Outcome,
    Reading,
    Refused,
    apply,
    by_distinct,
    positions_of,
    put,
    settle,
)
from syncflow_core.normalize.text import ENDS, cleaned, trimmed

COERCED: Final = frozenset({"boolean", "binary", "duration", "json"})
"""The types that this layer brings to their end."""

TRUE: Final = frozenset({"true", "t", "yes", "y", "on", "1"})  # Oracle's TO_BOOLEAN
FALSE: Final = frozenset({"false", "f", "no", "n", "off", "0"})

_PLAIN: Final = {
    "boolean": r"^(?:true|false)$",
    "binary": r"^(?:[0-9a-f]{2})+$",
    "duration": r"^-?P(?:[1-9][0-9]{0,8}D)?T(?:[1-9]|[1-5][0-9])S$",
    "json": r"^(?:\{\}|\[\]|null|true|false)$",
}
_YEARS: Final = re.compile(r"([+-]?)(\d{1,9})-(\d{1,2})")
_DAYS: Final = re.compile(r"([+-]?)(\d{1,9}) (\d{1,2}):(\d{2}):(\d{2})(?:\.(\d*))?")
# Python's text of a timedelta: the sign is the days' alone, the clock counts forward from there.
_TIMEDELTA: Final = re.compile(r"(-?\d{1,9}) days?, (\d{1,2}):(\d{2}):(\d{2})(?:\.(\d*))?")
_ISO: Final = re.compile(
    r"([+-]?)P(?=.)(?:(\d{1,9})Y)?(?:(\d{1,9})M)?(?:([\d.,]{1,20})W)?(?:([\d.,]{1,20})D)?"
    r"(?:T(?=.)(?:([\d.,]{1,20})H)?(?:([\d.,]{1,20})M)?(?:([\d.,]{1,30})S)?)?"
)
_AMOUNT: Final = re.compile(r"\d{1,9}(?:[.,]\d+)?")
_UNITS: Final = (604_800, 86_400, 3_600, 60, 1)
"""Seconds of an ISO duration's weeks, days, hours, minutes, seconds."""
_MOST: Final = 999_999_999  # days or years: Oracle's INTERVAL takes nine digits
_NO_DURATION: Final = Refused("duration", "is neither an Oracle interval nor an ISO 8601 duration")


def plain_coerced(reading: Reading) -> pl.Expr:
    """Whether a text is canonical for its type already."""
    plain = VALUE.str.contains(_PLAIN[reading.type])
    if reading.type == "binary" and reading.field.rules.encoding == "base64":
        return plain & pl.lit(value=False)
    return plain


def coerce(text: pl.Series, reading: Reading) -> Outcome:
    """Layer 1 for one column: NULL words, and the types that neither layer 3 nor 4 reads."""
    words = reading.field.rules.null_words
    if words:
        nulls = apply(pl.Series("value", words, pl.String), cleaned()).drop_nulls()
        text = apply(
            text, pl.when(~cleaned().is_in(nulls.implode()).fill_null(value=False)).then(VALUE)
        )
    if _is_number_read_otherwise(reading):
        text = _plain_numbers(text)
    if reading.type not in COERCED:
        return Outcome(text)
    if reading.type == "json":  # what stands inside its strings is the document's own
        text = apply(text, VALUE.str.strip_chars(ENDS))
        text = apply(text, pl.when(VALUE.str.len_bytes() > 0).then(VALUE))
    else:
        text = trimmed(text)
    read: dict[str, Callable[[str], str | Refused]] = {
        "boolean": read_boolean,
        "binary": partial(read_binary, encoding=reading.field.rules.encoding),
        "duration": read_duration,
        "json": partial(canonical_json, replace=reading.field.rules.invalid_unicode == "replace"),
    }
    return settle(text, plain_coerced(reading), (), read[reading.type])


def _is_number_read_otherwise(reading: Reading) -> bool:
    """Whether a NUMBER column is read as a boolean, a date or the like: 1 and 1.0 are one value then too."""
    numeric = reading.field.oracle.field_type in NUMERIC
    return numeric and reading.type not in NUMERIC and reading.type != "text"


def _plain_numbers(text: pl.Series) -> pl.Series:
    """Numbers in whole digits where they are whole; anything else as it is."""
    odd = text.str.contains(r"^-?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?$")
    odd &= ~text.str.contains(r"^-?(?:0|[1-9][0-9]*)$")
    where = positions_of(odd.fill_null(value=False))
    return put(text, where, by_distinct(text.gather(where), _plain_number).text)


def _plain_number(value: str) -> str:
    number = read_number(value)
    return (
        value
        if isinstance(number, Refused) or abs(number.adjusted()) > LONGEST
        else plain_text_of(number)
    )


def read_boolean(value: str) -> str | Refused:
    """``true`` or ``false`` from the words that Oracle takes for a BOOLEAN, in any case."""
    word = value.lower()
    if word in TRUE:
        return "true"
    return "false" if word in FALSE else Refused("boolean", "is no boolean word")


def read_binary(value: str, encoding: str) -> str | Refused:
    """Lowercase hex from hex or base64 text.

    >>> read_binary("DEADBEEF", "hex"), read_binary("3q2+7w==", "base64")
    ('deadbeef', 'deadbeef')
    """
    text = "".join(value.split())
    try:
        if encoding == "hex":
            return binascii.unhexlify(text).hex()
        return base64.b64decode(text, validate=True).hex()
    except (ValueError, binascii.Error):
        return Refused("binary", f"is not {encoding} text")


def read_duration(value: str) -> str | Refused:
    """An ISO 8601 duration from Oracle's interval text, or from ISO 8601 in another spelling.

    Months and days never turn into each other; hours, minutes and seconds are carried into days.

    >>> read_duration("+02-06"), read_duration("-05 04:03:02.100000"), read_duration("PT36H")
    ('P2Y6M', '-P5DT4H3M2.1S', 'P1DT12H')
    """
    if found := _YEARS.fullmatch(value):
        sign, years, months = found.groups()
        return _duration(sign, 12 * int(years) + int(months), Decimal(0), "P0M")
    if found := _DAYS.fullmatch(value):
        sign, days, *clock, fraction = found.groups()
        return _duration(sign, 0, _seconds(int(days), clock, fraction), "PT0S")
    if found := _TIMEDELTA.fullmatch(value):
        days, *clock, fraction = found.groups()
        seconds = _seconds(int(days), clock, fraction)
        return _duration("-" if seconds < 0 else "", 0, abs(seconds), "PT0S")
    if (found := _ISO.fullmatch(value)) is None:
        return _NO_DURATION
    sign, years, months, *amounts = found.groups()
    written = [amount for amount in amounts if amount is not None]
    # only the smallest part that is written may have a fraction (ISO 8601)
    if not all(map(_AMOUNT.fullmatch, written)) or not all(map(str.isdigit, written[:-1])):
        return _NO_DURATION
    exact = sum(
        (
            Decimal(amount.replace(",", ".")) * unit
            for amount, unit in zip(amounts, _UNITS, strict=True)
            if amount is not None
        ),
        Decimal(0),
    )
    zero = "PT0S" if written else "P0M"
    return _duration(sign, 12 * int(years or 0) + int(months or 0), exact, zero)


def _seconds(days: int, clock: Sequence[str], fraction: str | None) -> Decimal:
    hours, minutes, seconds = map(int, clock)
    return 86_400 * days + 3_600 * hours + 60 * minutes + seconds + Decimal(f"0.{fraction or 0}")


def _duration(sign: str, months: int, seconds: Decimal, zero: str) -> str | Refused:
    years, months = divmod(months, 12)
    whole, _, fraction = f"{seconds:f}".partition(".")
    fraction = fraction.rstrip("0")
    if len(fraction) > 9:  # noqa: PLR2004  # Oracle's INTERVAL DAY TO SECOND(9)
        return Refused("fraction", "has more than 9 digits of a second")
    if years > _MOST or int(whole) >= 86_400 * (_MOST + 1):
        return Refused("range", "has more than 9 digits of days or years")
    minutes, second = divmod(int(whole), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    date = "".join(f"{n}{unit}" for n, unit in ((years, "Y"), (months, "M"), (days, "D")) if n)
    time = "".join(f"{n}{unit}" for n, unit in ((hours, "H"), (minutes, "M")) if n)
    if second or fraction:
        time += f"{second}{'.' if fraction else ''}{fraction}S"
    if not date and not time:
        return zero
    return f"{'-' if sign == '-' else ''}P{date}{'T' if time else ''}{time}"
