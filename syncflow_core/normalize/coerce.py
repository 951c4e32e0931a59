"""Layer 1, type coercion: what is no text, number or moment becomes its canonical text.

Belongs here: words that mean NULL, booleans, binary, durations, nested JSON.
Does not belong here: strings (``text``), numbers (``number``), dates and times (``moment``), which
pass with nothing but their NULL words settled.

Source: product.md 2.1; Oracle's BOOLEAN words, RAW text and interval literals; ISO 8601 durations.
"""

import base64
import binascii
import re
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from typing import Final

import polars as pl

from syncflow_core.normalize.nested import canonical_json
from syncflow_core.normalize.reading import VALUE, Outcome, Reading, Refused, apply, settle
from syncflow_core.normalize.text import ENDS, trimmed

COERCED: Final = frozenset({"boolean", "binary", "duration", "json"})
"""The types that this layer brings to their end."""

TRUE: Final = frozenset({"true", "t", "yes", "y", "on", "1"})  # Oracle's TO_BOOLEAN
FALSE: Final = frozenset({"false", "f", "no", "n", "off", "0"})

_PLAIN: Final = {
    "boolean": r"^(?:true|false)$",
    "binary": r"^(?:[0-9a-f]{2})+$",
    "duration": r"^-?P(?:[1-9][0-9]*D)?T[1-9][0-9]?S$",
    "json": r"^(?:\{\}|\[\]|null|true|false)$",
}
_YEARS: Final = re.compile(r"([+-]?)(\d{1,9})-(\d{1,2})")
_DAYS: Final = re.compile(r"([+-]?)(\d{1,9})(?: days?,)? (\d{1,2}):(\d{2}):(\d{2})(?:\.(\d*))?")
_ISO: Final = re.compile(
    r"([+-]?)P(?=.)(?:(\d{1,9})Y)?(?:(\d{1,9})M)?(?:(\d{1,9})W)?(?:(\d{1,9})D)?"
    r"(?:T(?=.)(?:(\d{1,9})H)?(?:(\d{1,9})M)?(?:(\d{1,9})(?:[.,](\d+))?S)?)?"
)
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
        bare = VALUE.str.strip_chars(ENDS)
        text = apply(text, pl.when(~bare.is_in([word.strip(ENDS) for word in words])).then(VALUE))
    if reading.type not in COERCED:
        return Outcome(text)
    text = trimmed(text)
    read: dict[str, Callable[[str], str | Refused]] = {
        "boolean": read_boolean,
        "binary": partial(read_binary, encoding=reading.field.rules.encoding),
        "duration": read_duration,
        "json": partial(canonical_json, replace=reading.field.rules.invalid_unicode == "replace"),
    }
    return settle(text, plain_coerced(reading), (), read[reading.type])


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
        sign, days, hours, minutes, seconds, fraction = found.groups()
        clock = 3600 * int(hours) + 60 * int(minutes) + int(seconds)
        return _duration(sign, 0, _seconds(86400 * int(days) + clock, fraction), "PT0S")
    if (found := _ISO.fullmatch(value)) is None:
        return _NO_DURATION
    sign, *numbers, fraction = found.groups()
    years, months, weeks, days, hours, minutes, seconds = (int(n or 0) for n in numbers)
    whole = 86400 * (7 * weeks + days) + 3600 * hours + 60 * minutes + seconds
    only_months = all(n is None for n in numbers[2:])
    zero = "P0M" if only_months else "PT0S"
    return _duration(sign, 12 * years + months, _seconds(whole, fraction), zero)


def _seconds(whole: int, fraction: str | None) -> Decimal:
    return Decimal(f"{whole}.{fraction or 0}")


def _duration(sign: str, months: int, seconds: Decimal, zero: str) -> str | Refused:
    years, months = divmod(months, 12)
    whole, _, fraction = str(seconds).partition(".")
    fraction = fraction.rstrip("0")
    if len(fraction) > 9:  # noqa: PLR2004  # Oracle's INTERVAL DAY TO SECOND(9)
        return Refused("fraction", "has more than 9 digits of a second")
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
