"""Layer 4, dates: every form that a field takes becomes one canonical text.

Belongs here: which forms are tried, in what order, for a whole column.
Does not belong here: the forms (``formats``), one moment's parts (``calendar``), zones (``zone``).

A field that declares formats takes those, and the canonical ISO form where they do not read it as
another day; the other default forms only where none is declared, so that a wrong declaration shows.

Source: product.md 2.4.
"""

import re
from dataclasses import replace
from functools import lru_cache, partial
from typing import Final

import polars as pl

from syncflow_core.entity import Field
from syncflow_core.errors import ConfigError
from syncflow_core.fields import TargetField
from syncflow_core.normalize.calendar import (
    AMBIGUOUS,
    NO_FORM,
    Moment,
    epoch_moment,
    moment_of,
)
from syncflow_core.normalize.formats import (
    AMBIGUOUS as TWO_WAYS,
)
from syncflow_core.normalize.formats import (
    DEFAULT_FORMS,
    ISO_FORMS,
    MONTHS,
    ORDERED,
    compile_format,
)
from syncflow_core.normalize.reading import (
    VALUE,
    Fault,
    Outcome,
    Reading,
    Refused,
    chain,
    refuse,
    settle,
)
from syncflow_core.normalize.zone import to_utc

MOMENTS: Final = frozenset({"date", "timestamp", "timestamp_tz"})

_DAY: Final = (
    r"(?:[1-9][0-9]{3}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])"
    r"|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))"
    r"|(?:[1-9][0-9](?:0[48]|[2468][048]|[13579][26])|(?:[2468][048]|[13579][26])00)-02-29)"
)
_CLOCK: Final = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]"
_DATE: Final = rf"^{_DAY}$"
_NAIVE: Final = rf"^{_DAY}T{_CLOCK}(?:\.[0-9]{{0,8}}[1-9])?"
_LOCAL: Final = _NAIVE + r"(?:Z|[+-](?:0[1-9]|1[0-8]):[0-5][0-9])?$"
_ISO_DAY: Final = "[0-9]{4}-[0-9]{2}-[0-9]{2}"
_EPOCH: Final = re.compile(r"-?[0-9]{9,13}|-[0-9]{14}|[0-9]{15}|0")
"""Milliseconds: 8 digits are YYYYMMDD and 14 are YYYYMMDDHH24MISS, so those never are."""

_TIME_OF_DAY: Final = Refused("time_of_day", "has a time of day other than midnight")
# Each turns one frequent form into the canonical one; what it gives is checked before it is taken.
_REWRITES: Final = (
    (rf"^({_ISO_DAY}) ([0-9:]{{8}}[0-9.]*)(Z|[+-][0-9:]{{5}})?$", "${1}T${2}${3}"),
    (rf"^({_ISO_DAY})[T ]([0-9]{{2}}:[0-9]{{2}})$", "${1}T${2}:00"),
    (rf"^({_ISO_DAY})$", "${1}T00:00:00"),
)
_MONTH_FORM: Final = r"^[0-9]{2}-[A-Za-z]{3}-[0-9]{4}(?:[T ][0-9:]{8}(?:\.[0-9]+)?)?$"
_DEFAULT_REWRITES: Final = (
    (r"^([0-9]{2})\.([0-9]{2})\.([0-9]{4})$", "${3}-${2}-${1}T00:00:00"),
    (r"^([0-9]{2})\.([0-9]{2})\.([0-9]{4})[T ]([0-9:]{8}[0-9.]*)$", "${3}-${2}-${1}T${4}"),
    (r"^([0-9]{4})/([0-9]{2})/([0-9]{2})[T ]([0-9:]{8}[0-9.]*)$", "${1}-${2}-${3}T${4}"),
    (
        r"^([0-9]{4})([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{2})$",
        "${1}-${2}-${3}T${4}:${5}:${6}",
    ),
)


def plain_moment(reading: Reading) -> pl.Expr:
    """Whether a text is canonical for its type, zone included."""
    rules = reading.field.rules
    if reading.final and (rules.minimum is not None or rules.maximum is not None):
        return VALUE.is_null()
    if has_own_order(reading):
        return VALUE.is_null()
    if reading.type == "date":
        return VALUE.str.contains(_DATE)
    if is_naive(reading):
        return VALUE.str.contains(_NAIVE + "$")
    zoned = reading.field.time_zone is not None
    return VALUE.str.contains(_NAIVE + ("Z$" if zoned else "Z?$"))


def has_own_order(reading: Reading) -> bool:
    """Whether a declared form reads a canonical text as another day: then that form alone counts."""
    return _has_own_order(tuple(reading.field.rules.formats))


@lru_cache(maxsize=1024)
def _has_own_order(models: tuple[str, ...]) -> bool:
    for model in models:
        for text in ("2001-02-03", "2001-02-03T04:05:06", "2001-02-03T04:05:06Z"):
            match = compile_format(model).fullmatch(text)
            moment = None if match is None else moment_of(match)
            if isinstance(moment, Moment) and moment.text[:10] != text[:10]:
                return True
    return False


def is_naive(reading: Reading) -> bool:
    """Whether the column is Oracle's DATE, which has no zone, and none is declared.

    A ``Z``, an offset or an epoch number in such a column is the driver's way of writing it, and may
    change overnight: the value stays the same naive one, UTC's wall clock (faults.md XF27).
    """
    field = reading.field
    return reading.type == "timestamp" and field.time_zone is None and field.oracle.base == "DATE"


def read_moments(text: pl.Series, reading: Reading) -> Outcome:
    """Layer 4 for one column; a column that is not a moment's passes."""
    if reading.type not in MOMENTS:
        return Outcome(text)
    own = has_own_order(reading)
    if reading.type == "date":
        plain, rewrites = VALUE.str.contains(_DATE), [] if own else _dates(reading)
        steps = [
            partial(
                settle,
                plain=plain,
                candidates=rewrites,
                exact=partial(exact_date, reading=reading),
                as_it_stands=not own,
            )
        ]
    else:
        plain, rewrites = VALUE.str.contains(_LOCAL), [] if own else _moments(reading)
        steps = [
            partial(
                settle,
                plain=plain,
                candidates=rewrites,
                exact=partial(exact_local, reading=reading),
                as_it_stands=not own,
            ),
            partial(to_utc, zone=reading.field.time_zone),
        ]
        if is_naive(reading):
            steps.append(partial(_without_zone))
    return chain(text, [*steps, partial(_within, reading=reading)])


def _without_zone(text: pl.Series) -> Outcome:
    return Outcome(text.str.strip_suffix("Z"))


def exact_date(value: str, reading: Reading) -> str | Refused:
    """One date's canonical text: the day as written, whatever its zone; no time of day but midnight."""
    moment = read_moment(value, reading)
    if isinstance(moment, Refused):
        return moment
    text = moment.text
    return text[:10] if text[10:19] == "T00:00:00" and not moment.nanosecond else _TIME_OF_DAY


def exact_local(value: str, reading: Reading) -> str | Refused:
    """One moment's canonical text but for its zone, which stands behind it."""
    moment = read_moment(value, reading)
    return moment if isinstance(moment, Refused) else moment.text


def read_moment(value: str, reading: Reading) -> Moment | Refused:
    """One moment by the field's formats, else by the default forms."""
    rules = reading.field.rules
    first: Refused | None = None
    others = ISO_FORMS[:1] if rules.formats else DEFAULT_FORMS
    forms = [
        *map(compile_format, rules.formats),
        *(() if has_own_order(reading) else others),
    ]
    for form in forms:
        if (match := form.fullmatch(value)) is None:
            continue
        moment = moment_of(match)
        if isinstance(moment, Moment):
            return moment
        first = first or moment
    if first is not None or rules.formats:
        return first or NO_FORM
    if _EPOCH.fullmatch(value) is not None:
        return epoch_moment(int(value))
    return _ordered(value, reading)


def _ordered(value: str, reading: Reading) -> Moment | Refused:
    if TWO_WAYS.fullmatch(value) is None:
        return NO_FORM
    if reading.field.date_order is None:
        return AMBIGUOUS
    match = ORDERED[reading.field.date_order].fullmatch(value)
    return NO_FORM if match is None else moment_of(match)


def _moments(reading: Reading) -> list[pl.Expr]:
    rules = reading.field.rules
    if rules.formats:
        declared = [_rewrite(*pair) for pair in map(_format_rewrite, rules.formats) if pair]
        # A value that fits two formats is the first one's: only a single format is rewritten.
        return declared if len(rules.formats) == 1 else []
    rewrites = [_rewrite(*pair) for pair in (*_REWRITES, *_DEFAULT_REWRITES)]
    return [_spaced(), *rewrites, _named_month(), _epoch()]


def _dates(reading: Reading) -> list[pl.Expr]:
    midnight = VALUE.str.replace(rf"^({_ISO_DAY})[T ]00:00:00(?:\.0+)?Z?$", "${1}")
    if reading.field.rules.formats:
        return [midnight]
    return [midnight, _rewrite(r"^([0-9]{2})\.([0-9]{2})\.([0-9]{4})$", "${3}-${2}-${1}")]


def _spaced() -> pl.Expr:
    """A space for the ``T``; null without one there. What is wrong elsewhere stays wrong."""
    joined = VALUE.str.slice(0, 10) + "T" + VALUE.str.slice(11)
    return pl.when(VALUE.str.slice(10, 1) == " ").then(joined)


def _named_month() -> pl.Expr:
    """``08-DEC-2025``, with or without a clock; null for any other form."""
    names = [name[:3].upper() for name in MONTHS]
    numbers = [f"{number:02d}" for number in range(1, len(names) + 1)]
    month = VALUE.str.slice(3, 3).str.to_uppercase().replace_strict(names, numbers, default=None)
    written = VALUE.str.slice(12)
    clock = pl.when(written == "").then(pl.lit("00:00:00")).otherwise(written)
    moment = VALUE.str.slice(7, 4) + "-" + month + "-" + VALUE.str.slice(0, 2) + "T" + clock
    return pl.when(VALUE.str.contains(_MONTH_FORM)).then(moment)


def _rewrite(pattern: str, template: str) -> pl.Expr:
    """The rewritten text with zeros cut from its fraction; null where the form does not fit."""
    rewritten = VALUE.str.replace(pattern, template)
    return rewritten.str.replace(r"(\.[0-9]*?)0+($|Z|[+-])", "${1}${2}").str.replace(
        r"\.($|Z|[+-])", "${1}"
    )


def _epoch() -> pl.Expr:
    number = VALUE.cast(pl.Int64, strict=False)
    moment = pl.from_epoch(number, time_unit="ms").dt.to_string("%Y-%m-%dT%H:%M:%S%.3f")
    cut = moment.str.strip_chars_end("0")
    whole = pl.when(cut.str.ends_with(".")).then(moment.str.slice(0, 19)).otherwise(cut)
    return pl.when(VALUE.str.contains(r"^-?[0-9]{9,13}$")).then(whole + "Z")


_MODEL: Final = re.compile(r"(YYYY|MM|DD|HH24|MI|SS)|([^A-Za-z0-9])")
_ISO_PARTS: Final = {"YYYY": "y", "MM": "m", "DD": "d", "HH24": "H", "MI": "M", "SS": "S"}


def _format_rewrite(model: str) -> tuple[str, str] | None:
    """A format of full-width numbers as pattern and template; None for any other."""
    pieces = list(_MODEL.finditer(model.upper()))
    elements = [piece[1] for piece in pieces if piece[1]]
    if "".join(piece[0] for piece in pieces) != model.upper() or len(elements) != len(
        set(elements)
    ):
        return None
    if not {"YYYY", "MM", "DD"} <= set(elements):
        return None
    pattern = "".join(
        f"(?P<{_ISO_PARTS[piece[1]]}>[0-9]{{{4 if piece[1] == 'YYYY' else 2}}})"
        if piece[1]
        else re.escape(piece[0])
        for piece in pieces
    )
    clock = ":".join(
        f"${{{_ISO_PARTS[name]}}}" if name in elements else "00" for name in ("HH24", "MI", "SS")
    )
    return f"^{pattern}$", f"${{y}}-${{m}}-${{d}}T{clock}"


def _within(text: pl.Series, reading: Reading) -> Outcome:
    rules = reading.field.rules
    if not reading.final:
        return Outcome(text)
    faults: list[Fault] = []
    for limit, below in ((rules.minimum, True), (rules.maximum, False)):
        if limit is None:
            continue
        bound = _bound(limit, reading)
        bare = text.str.strip_chars_end("Z")
        rule, word = ("minimum", "below") if below else ("maximum", "above")
        outcome = refuse(
            text, bare < bound if below else bare > bound, Refused(rule, f"is {word} {limit}")
        )
        text = outcome.text
        faults += outcome.faults
    return Outcome(text, tuple(faults))


def _bound(limit: str | float, reading: Reading) -> str:
    """A declared limit as the values are compared: in UTC where the field declares a zone.

    Raises:
        ConfigError: It is no date or time that the field's type takes.
    """
    undeclared = Reading(
        reading.type,
        replace(reading.field, rules=Field.model_construct(source=reading.field.source)),
        final=False,
    )
    outcome = read_moments(pl.Series("value", [str(limit)], pl.String), undeclared)
    found = outcome.text[0]
    if outcome.faults or found is None:
        raise ConfigError(f"fields.{reading.field.name}: {limit!r} is no limit of its type")
    return str(found).removesuffix("Z")


def check_moment_limits(field: TargetField) -> None:
    """Refuse a limit that is no moment, before any row is read.

    Raises:
        ConfigError: It is no date or time that the field's type takes.
    """
    for limit in (field.rules.minimum, field.rules.maximum):
        if limit is not None:
            _bound(limit, Reading(field.type, field, final=True))
