"""When the window is open, on every kind of night; each slice once, whichever nights are missed."""

import time as clock
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncflow_core.window import Window, slices_due

NIGHT = Window.of("19:00-07:00", "Europe/Berlin")
DAY = Window.of("08:00-12:30", "Europe/Berlin")
ALL = Window.of("06:00-06:00", "Europe/Berlin")


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=NIGHT.zone)


def test_a_window_is_read_from_its_text_and_its_zone() -> None:
    assert Window.of("19:00-07:30", "Europe/Berlin") == Window(
        time(19), time(7, 30), ZoneInfo("Europe/Berlin")
    )


@pytest.mark.parametrize(
    ("evening", "hours"),
    [(date(2026, 1, 15), 12), (date(2026, 3, 28), 11), (date(2026, 10, 24), 13)],
    ids=["any night", "clocks go on", "clocks go back"],
)
def test_a_night_is_as_long_as_it_is(evening: date, hours: int) -> None:
    opens, closes = NIGHT.bounds(evening)

    assert closes - opens == timedelta(hours=hours)
    assert [NIGHT.night(moment) for moment in (opens, closes - timedelta(seconds=1))] == [
        evening,
        evening,
    ]
    assert [NIGHT.night(moment) for moment in (opens - timedelta(seconds=1), closes)] == [
        None,
        None,
    ]


@pytest.mark.parametrize(
    ("window", "moment", "night"),
    [
        (NIGHT, "2026-01-01T00:00", date(2025, 12, 31)),
        (NIGHT, "2026-01-01T18:59:59", None),
        (NIGHT, "2024-02-29T23:00", date(2024, 2, 29)),
        (NIGHT, "2024-03-01T06:59", date(2024, 2, 29)),
        (DAY, "2026-05-05T08:00", date(2026, 5, 5)),
        (DAY, "2026-05-05T12:30", None),
        (ALL, "2026-05-05T05:59", date(2026, 5, 4)),
        (ALL, "2026-05-05T06:00", date(2026, 5, 5)),
    ],
)
def test_a_moment_belongs_to_the_evening_before_it(
    window: Window, moment: str, night: date | None
) -> None:
    assert window.night(at(moment)) == night


def test_the_hour_that_comes_twice_is_inside_both_times() -> None:
    first = datetime(2026, 10, 25, 0, 30, tzinfo=UTC)

    assert {NIGHT.night(first), NIGHT.night(first + timedelta(hours=1))} == {date(2026, 10, 24)}


@pytest.mark.parametrize(
    ("window", "moment", "evening"),
    [
        (NIGHT, "2026-05-05T07:00", date(2026, 5, 4)),  # it has just closed
        (NIGHT, "2026-05-05T06:59", date(2026, 5, 3)),  # one is on
        (NIGHT, "2026-05-05T23:00", date(2026, 5, 4)),
        (DAY, "2026-05-05T12:29", date(2026, 5, 4)),
        (DAY, "2026-05-05T12:30", date(2026, 5, 5)),
    ],
)
def test_the_last_night_is_the_one_that_closed_last(
    window: Window, moment: str, evening: date
) -> None:
    assert window.last_night(at(moment)) == evening


def test_a_night_that_opens_now_has_opened() -> None:
    assert NIGHT.next_opening(at("2026-05-05T19:00")) == at("2026-05-06T19:00")


@pytest.fixture(params=["Etc/GMT+12", "Pacific/Kiritimati"])
def elsewhere(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine in another zone than the window's."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", request.param)
        clock.tzset()
        yield
    clock.tzset()


@pytest.mark.usefixtures("elsewhere")
def test_the_zone_of_the_machine_says_nothing() -> None:
    assert [moment.utcoffset() for moment in NIGHT.bounds(date(2026, 5, 5))] == [timedelta(0)] * 2
    for hour in range(24):
        now = at(f"2026-05-05T{hour:02}:00")
        today, next_day = date(2026, 5, 5), date(2026, 5, 6)
        assert DAY.night(now) == (today if 8 <= hour <= 12 else None)
        assert DAY.last_night(now) == (today if hour > 12 else date(2026, 5, 4))
        assert DAY.next_opening(now) == DAY.bounds(today if hour < 8 else next_day)[0]


SINCE, UNTIL = datetime(2025, 1, 1), datetime(2028, 1, 1)  # noqa: DTZ001  # hypothesis adds the zone


@given(st.datetimes(SINCE, UNTIL, timezones=st.just(UTC)))
def test_the_next_opening_is_the_next_moment_at_which_it_opens(now: datetime) -> None:
    opening = NIGHT.next_opening(now)

    assert timedelta(0) < opening - now <= timedelta(hours=25)
    assert NIGHT.night(opening) == opening.astimezone(NIGHT.zone).date()
    assert NIGHT.night(opening - timedelta(seconds=1)) is None


@given(
    slices=st.integers(1, 20),
    nights=st.integers(1, 30),
    attended=st.lists(st.booleans(), min_size=30, max_size=30),
)
def test_each_slice_is_done_once_whichever_nights_are_missed(
    slices: int, nights: int, attended: list[bool]
) -> None:
    done: list[int] = []
    for elapsed, there in enumerate(attended[:nights]):
        if there or elapsed == nights - 1:
            done += slices_due(slices, nights, len(done), elapsed)

    assert done == list(range(1, slices + 1))


@given(slices=st.integers(1, 20), nights=st.integers(1, 30))
def test_the_shares_of_the_nights_differ_by_one_at_most(slices: int, nights: int) -> None:
    done, shares = 0, []
    for elapsed in range(nights):
        share = len(slices_due(slices, nights, done, elapsed))
        shares.append(share)
        done += share

    assert max(shares) - min(shares) <= 1
