"""Local times to UTC: by the offset that a value carries, else by the zone that the field declares.

Belongs here: offsets, regions, gaps and folds.
Does not belong here: reading the local time itself (``moment``).

Python's ``zoneinfo`` is the only source of a zone's rules. An hour of a zone in which nothing
changes is moved as one, so a column costs as many look-ups as it has different hours.

Source: product.md 2.4; PEP 495 (fold), RFC 8536.
"""

from collections.abc import Callable
from datetime import datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

import polars as pl

from syncflow_core.errors import ConfigError
from syncflow_core.normalize.calendar import RANGE
from syncflow_core.normalize.reading import (
    VALUE,
    Outcome,
    Refused,
    by_distinct,
    located,
    positions_of,
    put,
)

_GAP: Final = Refused("gap", "does not exist in its zone: the clock was put forward over it")
_NO_ZONE: Final = Refused("zone", "names a zone that nobody knows")
_CARRIED: Final = "[+/-]"  # in what follows the seconds: an offset has a sign, a region a slash
_FRACTION: Final = ".0123456789"
_HOUR: Final = 13  # characters of 2025-12-08T10
_MINUTE: Final = 16  # characters of 2025-12-08T10:30
_SECOND: Final = 19


def zone_of(name: str) -> tzinfo:
    """The zone that a declaration names.

    Raises:
        ConfigError: There is no such zone.
    """
    zone = _zone(name)
    if zone is None:
        raise ConfigError(f"time_zone: {name!r} is not a zone such as Europe/Berlin")
    return zone


def to_utc(text: pl.Series, zone: str | None) -> Outcome:
    """Local canonical texts as UTC, with ``Z``; naive ones stay naive where *zone* is None.

    A local time that exists twice is the earlier one, and counted in ``folds``.
    """
    carried = text.str.slice(_SECOND).str.contains(_CARRIED)
    moved = ~text.str.ends_with("Z") if zone is not None else carried
    where = positions_of(moved.fill_null(value=False))
    if where.is_empty():
        return Outcome(text)
    declared = None if zone is None else zone_of(zone)
    values = text.gather(where).rename("value")
    settled = pl.repeat(None, values.len(), dtype=pl.String, eager=True)
    for width in (_HOUR, _MINUTE):
        opened = positions_of(settled.is_null())
        if opened.is_empty():
            break
        settled = put(settled, opened, _by_prefix(values.gather(opened), width, declared))
    opened = positions_of(settled.is_null())
    folded: list[str] = []
    rest = by_distinct(values.gather(opened), _exact(declared, folded))
    settled = put(settled, opened, rest.text)
    folds = values.gather(opened).is_in(folded).sum() if folded else 0
    return Outcome(
        put(text, where, settled), located(rest.faults, where.gather(opened)), int(folds)
    )


def _by_prefix(values: pl.Series, width: int, declared: tzinfo | None) -> pl.Series:
    """The values whose first *width* characters move as one; null for the others."""
    behind = values.str.slice(_SECOND)
    if behind.str.contains(_CARRIED).any():
        suffix = behind.str.strip_chars_start(_FRACTION)
        middle = VALUE.str.slice(
            width, VALUE.str.len_bytes() - width - pl.col("suffix").str.len_bytes()
        )
        key = VALUE.str.slice(0, width) + "|" + pl.col("suffix")
    else:
        suffix = pl.repeat("", values.len(), dtype=pl.String, eager=True)
        middle = VALUE.str.slice(width)
        key = VALUE.str.slice(0, width)
    frame = pl.DataFrame({"value": values}).with_columns(suffix.alias("suffix"))
    frame = frame.with_columns(key.alias("key"))
    keys = frame["key"].unique().to_list()
    moved = [_moved(key, declared) for key in keys]
    head = pl.col("key").replace_strict(
        pl.Series(keys, dtype=pl.String), pl.Series(moved, dtype=pl.String), return_dtype=pl.String
    )
    return frame.select(head + middle + "Z").to_series()


@lru_cache(maxsize=2**18)
def _moved(key: str, declared: tzinfo | None) -> str | None:
    """A prefix in UTC; None where its time moves by less than its unit, or changes within it."""
    prefix, _, suffix = key.partition("|")
    zone = _zone(suffix) if suffix else declared
    if zone is None:
        return None
    start = datetime.fromisoformat(prefix + ":00:00"[: _SECOND - len(prefix)])
    end = start + timedelta(seconds=3599 if len(prefix) == _HOUR else 59)
    offsets = {
        at.replace(tzinfo=zone, fold=fold).utcoffset() for at in (start, end) for fold in (0, 1)
    }
    offset = offsets.pop()
    unit = timedelta(hours=1) if len(prefix) == _HOUR else timedelta(minutes=1)
    if offsets or offset is None or offset % unit:
        return None
    try:
        return (start - offset).isoformat()[: len(prefix)]
    except OverflowError:
        return None


def _exact(declared: tzinfo | None, folded: list[str]) -> Callable[[str], str | Refused]:
    def read(value: str) -> str | Refused:
        local, suffix = _split(value)
        zone = _zone(suffix) if suffix else declared
        if zone is None:
            return _NO_ZONE
        at = datetime.fromisoformat(local[:_SECOND])
        first = at.replace(tzinfo=zone, fold=0).utcoffset() or timedelta(0)
        second = at.replace(tzinfo=zone, fold=1).utcoffset() or timedelta(0)
        if first < second:
            return _GAP
        if first > second:
            folded.append(value)
        try:
            return f"{(at - first).isoformat()}{local[_SECOND:]}Z"
        except OverflowError:
            return RANGE

    return read


def _split(value: str) -> tuple[str, str]:
    """The local time, and the offset or region behind it."""
    end = _SECOND
    while end < len(value) and value[end] in _FRACTION:
        end += 1
    return value[:end], value[end:]


@lru_cache(maxsize=4096)
def _zone(name: str) -> tzinfo | None:
    if name[:1] in {"+", "-"}:
        sign = -1 if name[0] == "-" else 1
        return timezone(sign * timedelta(hours=int(name[1:3]), minutes=int(name[4:6])))
    try:
        return ZoneInfo(_names().get(name.lower(), name))
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


@lru_cache(maxsize=1)
def _names() -> dict[str, str]:
    """Every zone's name by its letters in lower case: Oracle writes them in any."""
    return {name.lower(): name for name in available_timezones()}
