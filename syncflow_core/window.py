"""The night window: when it is open, whose night it is, and which slices of a sweep are due in it.

Belongs here: local times to instants, across midnight and the nights on which clocks change; shares of a sweep.
Does not belong here: how far a sweep has come (``bridge.schedules``), starting anything (``syncflow_dagster``).

A night has the date of its evening. Its bounds are reckoned in the window's zone and compared in UTC:
two local times of one zone compare by their digits, which an hour that comes twice makes wrong.

Source: product.md 7; dagster.md 4.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Self
from zoneinfo import ZoneInfo

DAY = timedelta(days=1)


@dataclass(frozen=True)
class Window:
    """The same hours each night.

    Args:
        start: The local time at which it opens.
        end: The local time at which it closes, on the next day where it is not later than *start*.
        zone: The zone of both.
    """

    start: time
    end: time
    zone: ZoneInfo

    @classmethod
    def of(cls, text: str, zone: str) -> Self:
        """From ``19:00-07:00`` and a zone's name.

        >>> Window.of("19:00-07:00", "Europe/Berlin").end
        datetime.time(7, 0)
        """
        start, _, end = text.partition("-")
        return cls(time.fromisoformat(start), time.fromisoformat(end), ZoneInfo(zone))

    def bounds(self, evening: date) -> tuple[datetime, datetime]:
        """When the night of this evening opens and closes, in UTC."""
        closing = evening if self.start < self.end else evening + DAY
        opens = datetime.combine(evening, self.start, tzinfo=self.zone)
        closes = datetime.combine(closing, self.end, tzinfo=self.zone)
        return opens.astimezone(UTC), closes.astimezone(UTC)

    def night(self, now: datetime) -> date | None:
        """The evening's date of the night that is on now; None by day.

        Args:
            now: Aware.
        """
        today = now.astimezone(self.zone).date()
        for evening in (today, today - DAY):
            opens, closes = self.bounds(evening)
            if opens <= now < closes:
                return evening
        return None

    def last_night(self, now: datetime) -> date:
        """The evening's date of the night that closed last.

        Args:
            now: Aware.
        """
        today = now.astimezone(self.zone).date()
        return next(
            evening
            for evening in (today, today - DAY, today - 2 * DAY)
            if self.bounds(evening)[1] <= now
        )

    def next_opening(self, now: datetime) -> datetime:
        """When it opens next, in UTC; the opening of a night that is on has passed.

        Args:
            now: Aware.
        """
        today = now.astimezone(self.zone).date()
        opens, _ = self.bounds(today)
        return opens if opens > now else self.bounds(today + DAY)[0]


def slices_due(slices: int, nights: int, done: int, elapsed: int) -> range:
    """The slices to be done tonight: tonight's share, and what missed nights have left.

    >>> [list(slices_due(7, 7, done, done)) for done in (0, 1, 6)]
    [[1], [2], [7]]
    >>> list(slices_due(7, 3, 0, 0)), list(slices_due(7, 14, 1, 1)), list(slices_due(7, 7, 1, 3))
    ([1, 2, 3], [], [2, 3, 4])

    Args:
        slices: How many make a sweep.
        nights: In how many nights the entity takes them.
        done: How many this sweep has behind it.
        elapsed: Nights since that of the sweep's first slice; 0 on that night.
    """
    target = min(slices, -(-(elapsed + 1) * slices // nights))
    return range(done + 1, target + 1)
