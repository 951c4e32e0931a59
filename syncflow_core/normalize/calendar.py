"""One moment from its written parts: calendar, clock, fraction, and what stands for the zone.

Belongs here: reading one value by one form, and saying why its parts make no moment.
Does not belong here: which forms are tried and in what order, whole columns (``moment``).

Source: product.md 2.4; Oracle's RR years (00-49 are 2000-2049, 50-99 are 1950-1999).
"""

import re
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final

from syncflow_core.normalize.formats import MONTHS
from syncflow_core.normalize.reading import Refused

NO_FORM: Final = Refused("form", "is in none of the forms that the field takes")
AMBIGUOUS: Final = Refused("ambiguous", "can be read two ways; declare date_order")
NO_DAY: Final = Refused("calendar", "names a day or a time that the calendar does not have")
TOO_FINE: Final = Refused("fraction", "has more than 9 digits of a second")
RANGE: Final = Refused("range", "lies outside the years 0001 to 9999")

_PIVOT: Final = 50  # Oracle's RR in the first half of a century
_DAY_S: Final = 86_400
_BILLION: Final = 10**9
_NOON: Final = 12
_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001  # naive UTC, shown with a Z


@dataclass(frozen=True)
class Moment:
    """A moment as written: whole seconds, nanoseconds, and the zone's text (``""`` where none is)."""

    at: datetime
    nanosecond: int
    zone: str

    @property
    def text(self) -> str:
        """Canonical but for the zone, which stands behind it as ``Z``, ``+01:00`` or a region's name."""
        return f"{local_text(self.at, self.nanosecond)}{self.zone}"


def local_text(at: datetime, nanosecond: int = 0) -> str:
    """``2025-12-08T10:30:00.5``: fractions without trailing zeros."""
    fraction = f".{nanosecond:09d}".rstrip("0") if nanosecond else ""
    return f"{at.isoformat(timespec='seconds')[:19]}{fraction}"


def moment_of(match: re.Match[str]) -> Moment | Refused:
    """The moment that a form's parts make."""
    parts = {name: value for name, value in match.groupdict().items() if value is not None}
    fraction = parts.get("f", "").rstrip("0")
    if len(fraction) > 9:  # noqa: PLR2004  # Oracle's TIMESTAMP(9)
        return TOO_FINE
    try:
        day = _day(parts)
        seconds = _seconds(parts)
        zone = _zone(parts)
        if day is None or seconds is None or zone is None:
            return NO_DAY
        share = int(fraction.ljust(9, "0") or 0) if fraction else 0
        whole, nanosecond = divmod(share * _unit(parts), _BILLION)
        at = datetime(day.year, day.month, day.day) + timedelta(seconds=seconds + whole)  # noqa: DTZ001  # zone stands beside it
    except OverflowError:
        return RANGE
    except ValueError:
        return NO_DAY
    return Moment(at, nanosecond, zone)


def epoch_moment(milliseconds: int) -> Moment | Refused:
    """Milliseconds since 1970-01-01 UTC."""
    try:
        whole, rest = divmod(milliseconds, 1000)
        return Moment(_EPOCH + timedelta(seconds=whole), rest * 1_000_000, "Z")
    except OverflowError:
        return RANGE


def _day(parts: dict[str, str]) -> date | None:
    year = int(parts.get("y", 0))
    if "y2" in parts:
        year = int(parts["y2"]) + (2000 if int(parts["y2"]) < _PIVOT else 1900)
    if "w" in parts:
        return date.fromisocalendar(year, int(parts["w"]), int(parts["wd"]))
    if "doy" in parts:
        day = date(year, 1, 1) + timedelta(days=int(parts["doy"]) - 1)
        return day if day.year == year else None
    month = _month(parts["mon"]) if "mon" in parts else int(parts["m"])
    return date(year, month, int(parts["d"]))


def _month(name: str) -> int:
    """1-12 from an English month's name or its first three letters; 0, which no calendar has, else."""
    word = name.lower()
    found = [n for n, full in enumerate(MONTHS, 1) if word in {full, full[:3]}]
    return found[0] if found else 0


def _seconds(parts: dict[str, str]) -> int | None:
    """Seconds since midnight; ``24:00:00`` is the end of the day; None for a clock that does not exist."""
    if "sod" in parts:
        return int(parts["sod"]) if int(parts["sod"]) < _DAY_S else None
    hour, minute, second = (int(parts.get(name, 0)) for name in ("H", "M", "S"))
    if "h12" in parts or "ap" in parts:
        hour = int(parts.get("h12", hour))
        if not 1 <= hour <= _NOON:
            return None
        hour = hour % _NOON + (_NOON if parts.get("ap", "a")[0] in "pP" else 0)
    seconds = 3600 * hour + 60 * minute + second
    whole_day = seconds == _DAY_S and not parts.get("f", "").strip("0")
    if minute > 59 or second > 59 or (hour > 23 and not whole_day):  # noqa: PLR2004  # a clock's
        return None
    return seconds


def _unit(parts: dict[str, str]) -> int:
    """Seconds in what the fraction is a share of: the smallest part that is written (ISO 8601)."""
    if "S" in parts or "sod" in parts or ("M" not in parts and "H" not in parts):
        return 1
    return 60 if "M" in parts else 3600


def _zone(parts: dict[str, str]) -> str | None:
    """``Z``, ``+01:00``, a region's name or ``""``; None for an offset that no clock has."""
    if "tzh" in parts:
        hours = parts["tzh"] if parts["tzh"][0] in "+-" else f"+{parts['tzh']}"
        return _offset(f"{hours}:{parts.get('tzm', '00')}")
    zone = parts.get("z", "")
    if zone.upper() in {"Z", "UTC", "GMT"}:
        return "Z"
    if zone[:1] in {"+", "-"}:
        digits = zone[1:].replace(":", "").ljust(4, "0")
        return _offset(f"{zone[0]}{digits[:2]}:{digits[2:]}")
    return zone


def _offset(text: str) -> str | None:
    hours, minutes = int(text[1:3]), int(text[4:6])
    if hours > 18 or minutes > 59:  # noqa: PLR2004  # ISO 8601 and Oracle know no offset beyond +-18:00
        return None
    return "Z" if hours == minutes == 0 else text
