"""Layer 3, numbers: any spelling of a number becomes its one canonical text; no digit is lost.

Belongs here: how numbers may be written, what makes one unusable, precision and range.
Does not belong here: words that mean NULL, booleans (``coerce``).

Canonical: plain notation, no sign but ``-``, no leading or trailing zeros, no exponent, ``0`` for every zero.
A JSON number's token and a text are read alike. Nothing is rounded: beyond a declaration is refused.

Source: product.md 2.1 and 2.3; Oracle's NUMBER (1E-130 to below 1E126, at most 40 digits).
"""

import re
import unicodedata
from decimal import Decimal, InvalidOperation
from functools import partial
from typing import Final

import polars as pl

from syncflow_core.normalize.reading import VALUE, Outcome, Reading, Refused, settle

NUMERIC: Final = frozenset({"integer", "decimal", "float"})

INTEGER_DIGITS: Final = 38  # Oracle's NUMBER(38), the widest integer it declares
NUMBER_DIGITS: Final = 40  # Oracle stores 20 base-100 digits: 39 or 40 decimal ones
SMALLEST: Final = -130  # 1E-130 is Oracle's smallest NUMBER
LARGEST: Final = 125  # below 1E126
LONGEST: Final = 600  # characters of a number; beyond this nothing is read

_INTEGER: Final = r"^(?:0|-?[1-9][0-9]{0,37})$"
_DECIMAL: Final = r"^(?:0|-?[1-9][0-9]{0,37}|-?(?:0|[1-9][0-9]{0,17})\.[0-9]{0,18}[1-9])$"
# At most 15 significant digits: such a decimal is already the shortest text of its double.
_FLOAT: Final = r"^(?:0|-?[1-9][0-9]{0,14}|-?(?:0|[1-9][0-9]{0,6})\.[0-9]{0,7}[1-9])$"
_LONG_FLOAT: Final = r"^-?(?:0|[1-9][0-9]{0,15})\.[0-9]{0,19}[1-9]$"
_PLAIN: Final = {"integer": _INTEGER, "decimal": _DECIMAL, "float": _FLOAT}

_SIMPLE: Final = r"^[+-]?[0-9]{1,19}(?:\.[0-9]{1,19})?$"
_GROUPED: Final = r"^-?[1-9][0-9]{0,2}(?:,[0-9]{3})+(?:\.[0-9]{1,19})?$"
_BODY: Final = {
    separator: re.compile(
        rf"(?:[0-9]+|[1-9][0-9]{{0,2}}(?:{group}[0-9]{{3}})+)(?:{point}[0-9]*)?(?:[eE][+-]?[0-9]{{1,6}})?"
        rf"|{point}[0-9]+(?:[eE][+-]?[0-9]{{1,6}})?"
    )
    for separator, group, point in ((".", ",", r"\."), (",", r"\.", ","))
}

_NO_NUMBER: Final = Refused("number", "is not a number in the form that the field declares")
_NOT_FINITE: Final = Refused("not_finite", "NaN and infinities are not numbers")
_FRACTION: Final = Refused("integer", "has a fraction, and the field is an integer")
_RANGE: Final = Refused("range", "lies outside the range of its type")
_DIGITS: Final = Refused("precision", "has more digits than its type holds")


def plain_number(reading: Reading) -> pl.Expr:
    """Whether a text is canonical for its type and within everything that the field declares.

    A cautious answer: what is only probably fine (a limit within a billionth, more digits than the
    expression counts) is left to ``exact_number``.
    """
    rules = reading.field.rules
    plain = VALUE.str.contains(_PLAIN[reading.type])
    if reading.type == "float":
        plain |= VALUE.str.contains(_LONG_FLOAT) & (_shortest() == VALUE)
    if not reading.final:
        return plain
    precision, scale = rules.precision, rules.scale
    if precision is not None and scale is not None and 0 <= scale <= precision:
        plain &= VALUE.str.contains(_fitting(precision - scale, scale))
    elif precision is not None:
        plain &= (VALUE.str.len_bytes() <= precision) & pl.lit(scale is None)
    elif scale is not None:
        plain &= VALUE.str.contains(_fitting(INTEGER_DIGITS, max(scale, 0))) & pl.lit(scale >= 0)
    for limit, sign in ((rules.minimum, 1), (rules.maximum, -1)):
        if limit is not None:
            bound = float(str(limit))
            distance = (VALUE.cast(pl.Float64, strict=False) - bound) * sign
            plain &= distance > abs(bound) * 1e-9
    return plain


def _fitting(whole: int, fraction: int) -> str:
    ones = f"[1-9][0-9]{{0,{whole - 1}}}|0" if whole else "0"
    rest = rf"(?:\.[0-9]{{1,{fraction}}})?" if fraction else ""
    return f"^-?(?:{ones}){rest}$"


def read_numbers(text: pl.Series, reading: Reading) -> Outcome:
    """Layer 3 for one column; a column that is not a number's passes."""
    if reading.type not in NUMERIC:
        return Outcome(text)
    plain = plain_number(reading)
    exact = partial(exact_number, reading=reading)
    if reading.field.rules.decimal_separator == ",":
        # 1.234 looks plain and means 1234 here: nothing with a point is taken as it stands.
        whole = plain & ~VALUE.str.contains(".", literal=True)
        return settle(text, whole, (), exact)
    shortest = (_shortest(),) if reading.type == "float" else ()
    return settle(text, plain, (_unpadded(), _simple(), _grouped(), *shortest), exact)


def _unpadded() -> pl.Expr:
    """Zeros at the end of a fraction cut; null without a point. What is wrong elsewhere stays wrong."""
    pointed = VALUE.str.contains(".", literal=True)
    return pl.when(pointed).then(VALUE.str.strip_chars_end("0").str.strip_chars_end("."))


def _simple() -> pl.Expr:
    """Digits with a sign, leading or trailing zeros: the canonical text, null for any other form."""
    digits = VALUE.str.strip_chars_start("+-").str.strip_chars_start("0")
    pointed = digits.str.contains(".", literal=True)
    cut = (
        pl.when(pointed)
        .then(digits.str.strip_chars_end("0").str.strip_chars_end("."))
        .otherwise(digits)
    )
    whole = pl.when((cut == "") | cut.str.starts_with(".")).then("0" + cut).otherwise(cut)
    signed = pl.when(VALUE.str.starts_with("-") & (whole != "0")).then("-" + whole).otherwise(whole)
    return pl.when(VALUE.str.contains(_SIMPLE)).then(signed)


def _shortest() -> pl.Expr:
    """The shortest text of the double, as polars writes it: canonical where it has no exponent.

    Null for zero, which a number too small for a double would become.
    """
    double = VALUE.cast(pl.Float64, strict=False)
    return pl.when(double != 0).then(double.cast(pl.String).str.strip_suffix(".0"))


def _grouped() -> pl.Expr:
    """``10,000`` without its separators, zeros at the end cut."""
    digits = VALUE.str.replace_all(",", "", literal=True)
    cut = digits.str.strip_chars_end("0").str.strip_chars_end(".")
    pointed = digits.str.contains(".", literal=True)
    return pl.when(VALUE.str.contains(_GROUPED)).then(pl.when(pointed).then(cut).otherwise(digits))


def exact_number(value: str, reading: Reading) -> str | Refused:
    """One number in any spelling as its canonical text, or the rule that it breaks."""
    number = read_number(
        value, separator=reading.field.rules.decimal_separator, percent=reading.field.rules.percent
    )
    if isinstance(number, Refused):
        return number
    if reading.type == "float":
        text = float_text(number)
        number = text if isinstance(text, Refused) else Decimal(text)
    elif number:
        number = _fits_type(number, reading)
    if isinstance(number, Refused):
        return number
    return (_fits_rules(number, reading) if reading.final else None) or plain_text_of(number)


def read_number(value: str, *, separator: str = ".", percent: bool = False) -> Decimal | Refused:
    """Read any accepted spelling exactly.

    >>> read_number("$ 10,000.50-")
    Decimal('-10000.50')
    >>> read_number("(12.50)")
    Decimal('-12.50')
    >>> read_number("1.234,56", separator=",")
    Decimal('1234.56')
    >>> read_number("12.5 %", percent=True)
    Decimal('0.125')
    >>> read_number("12,34,5").rule
    'number'
    """
    text = value.replace("\u2212", "-").strip()
    if len(text) > LONGEST:
        return _NO_NUMBER
    if text.lstrip("+-").lower() in {"nan", "inf", "infinity", "1.#inf", "~", "binary_double_nan"}:
        return _NOT_FINITE
    signed = _signed(text, percent=percent)
    if signed is None:
        return _NO_NUMBER
    sign, body, share = signed
    if _BODY[separator].fullmatch(body) is None:
        return _NO_NUMBER
    group = "," if separator == "." else "."
    try:
        number = Decimal(sign + body.replace(group, "").replace(separator, "."))
    except InvalidOperation:
        return _NO_NUMBER
    return _hundredth(number) if share else number


def _hundredth(number: Decimal) -> Decimal:
    """Exactly, whatever the number's length."""
    sign, digits, exponent = number.as_tuple()
    return Decimal((sign, digits, int(exponent) - 2))


def _signed(text: str, *, percent: bool) -> tuple[str, str, bool] | None:
    """The sign, the number without marks, whether it is a percentage; None where a mark stands twice.

    Marks are a sign before or a minus behind, one currency sign, one percent sign where the field
    declares it, and the parentheses of accountants, which are a sign too.
    """
    sign, money, share = "", 0, False
    changed = True
    while changed and text:
        changed = True
        if text.startswith("(") and text.endswith(")") and not sign:
            sign, text = "-", text[1:-1].strip()
        elif percent and text.endswith("%") and not share:
            share, text = True, text[:-1].rstrip()
        elif text[0] in "+-" and not sign:
            sign, text = text[0], text[1:].strip()
        elif text[-1] == "-" and not sign:
            sign, text = "-", text[:-1].strip()
        elif unicodedata.category(text[0]) == "Sc":
            money, text = money + 1, text[1:].strip()
        elif unicodedata.category(text[-1]) == "Sc":
            money, text = money + 1, text[:-1].strip()
        else:
            changed = False
    return None if money > 1 else (sign, text, share)


def _fits_type(number: Decimal, reading: Reading) -> Decimal | Refused:
    _, digits, exponent = _parts(number)
    top = number.adjusted()
    if reading.type == "integer":
        if exponent < 0:
            return _FRACTION
        return number if top < INTEGER_DIGITS else _DIGITS
    if not SMALLEST <= top <= LARGEST:
        return _RANGE
    return number if len(digits) <= NUMBER_DIGITS else _DIGITS


def _fits_rules(number: Decimal, reading: Reading) -> Refused | None:
    rules = reading.field.rules
    _, digits, exponent = _parts(number)
    if number and (rules.precision is not None or rules.scale is not None):
        scale = 0 if rules.scale is None and reading.type == "integer" else rules.scale
        if scale is not None and -exponent > scale:
            return Refused("precision", f"has more than {scale} digits after the point")
        if rules.precision is not None:
            held = len(digits) if scale is None else number.adjusted() + 1 + scale
            held = max(held, len(digits) + max(exponent, 0)) if scale is None else held
            if held > rules.precision:
                return Refused("precision", f"does not fit NUMBER({rules.precision},{scale or 0})")
    if rules.minimum is not None and number < Decimal(str(rules.minimum)):
        return Refused("minimum", f"is below {rules.minimum}")
    if rules.maximum is not None and number > Decimal(str(rules.maximum)):
        return Refused("maximum", f"is above {rules.maximum}")
    return None


def _parts(number: Decimal) -> tuple[int, str, int]:
    """Sign, digits without trailing zeros, exponent that belongs to them."""
    sign, digits, exponent = number.as_tuple()
    text = "".join(map(str, digits))
    cut = text.rstrip("0")
    return sign, cut.lstrip("0") or "0", int(exponent) + len(text) - len(cut) if cut else 0


def check_number_limit(limit: str | float) -> Decimal | None:
    """A declared limit as a number; None where it is none."""
    try:
        return Decimal(str(limit))
    except InvalidOperation:
        return None


def plain_text_of(number: Decimal) -> str:
    """The canonical text.

    >>> plain_text_of(Decimal("-1.50e3")), plain_text_of(Decimal("1e-3")), plain_text_of(Decimal("-0.0"))
    ('-1500', '0.001', '0')
    """
    sign, digits, exponent = _parts(number)
    if digits == "0":
        return "0"
    if exponent >= 0:
        text = digits + "0" * exponent
    elif len(digits) > -exponent:
        text = f"{digits[:exponent]}.{digits[exponent:]}"
    else:
        text = f"0.{digits.rjust(-exponent, '0')}"
    return f"-{text}" if sign else text


def float_text(number: Decimal) -> str | Refused:
    """The shortest plain text that reads back as the same double.

    >>> float_text(Decimal("1.10")), float_text(Decimal("1e22")), float_text(Decimal("5e-324"))[:4]
    ('1.1', '10000000000000000000000', '0.00')
    """
    value = float(number)
    if value in (float("inf"), float("-inf")) or (number and not value):
        return _RANGE
    return plain_text_of(Decimal(repr(value)))
