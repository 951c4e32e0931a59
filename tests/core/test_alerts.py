"""What is new, what stays, what is over; and the words of it."""

from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncflow_core.alerts import (
    SCANS,
    Alert,
    Change,
    Condition,
    compare,
    one_line,
    usual_rows,
)

NOW = datetime(2026, 3, 27, 12, 0, tzinfo=UTC)
NAMES = st.sampled_from(["orders", "lines", "stock"])
CONDITIONS = st.lists(
    st.builds(Condition, st.sampled_from(["failed", "partial"]), NAMES, st.text(max_size=3))
)


def standing(conditions: list[Condition]) -> list[Alert]:
    """The alerts that a look at *conditions* leaves behind."""
    fired = compare(conditions, []).fired
    return [Alert(uuid4(), item.kind, item.subject, item.message, NOW) for item in fired]


def keys(items: list[Condition] | list[Alert]) -> set[tuple[str, str]]:
    return {(item.kind, item.subject) for item in items}


@given(CONDITIONS, CONDITIONS)
def test_every_condition_and_every_alert_is_in_one_place_and_the_end_is_what_is_seen(
    before: list[Condition], now: list[Condition]
) -> None:
    alerts = standing(before)

    changes = compare(now, alerts)

    fired, stays = keys(list(changes.fired)), keys([item for _, item in changes.stays])
    over = keys([alert for alert in alerts if alert.uid in changes.over])
    assert (fired | stays, fired & stays) == (keys(now), set())
    assert (over | stays, over & stays) == (keys(alerts), set())
    assert len(changes.fired) == len(fired)


@given(CONDITIONS)
def test_who_looks_twice_finds_no_change_whatever_the_order_and_the_words(
    now: list[Condition],
) -> None:
    alerts = standing(now)
    other = [Condition(item.kind, item.subject, "in other words") for item in reversed(now)]

    changes = compare(other, alerts)

    assert (changes.fired, changes.over) == ((), ())
    assert {uid for uid, _ in changes.stays} == {alert.uid for alert in alerts}


@pytest.mark.parametrize(
    ("rows", "earlier", "usual"),
    [
        (499, [1000, 980, 1020], 1000),
        (500, [1000, 980, 1020], None),  # half as many is not yet far
        (1501, [1000, 980, 1020], 1000),
        (1500, [1000, 980, 1020], None),
        (0, [100, 99, 100], 100),
        (0, [99, 99, 99], None),  # a small table
        (100, [9, 9, 9], 9),  # it was one
        (0, [1000, 1000], None),  # too few scans
        (0, [10, 1000, 1000, 1000], 1000),  # one scan that was odd itself
        (375, [100, 200, 300, 1000], None),  # the middle of the two in the middle is 250
        (376, [100, 200, 300, 1000], 250),
        (1000, [1000] * 3 + [9000] * 4 + [1000] * 9, 9000),  # the last seven alone count
    ],
)
def test_a_count_deviates_where_it_is_far_from_the_median_of_no_small_table(
    rows: int, earlier: list[int], usual: int | None
) -> None:
    assert usual_rows(rows, earlier) == usual


def test_a_level_that_holds_becomes_the_usual_one() -> None:
    scans = [1000] * SCANS
    told = []
    for _ in range(SCANS):
        told.append(usual_rows(300, scans))
        scans.insert(0, 300)

    assert told == [1000] * 4 + [None] * 3


def test_an_id_names_the_change_and_is_the_same_whenever_it_is_told() -> None:
    uid = UUID(int=7)
    stands = Alert(uid, "failed", "orders", "it failed", NOW)
    over = Alert(uid, "failed", "orders", "it failed again", NOW, ended_at=NOW)

    ids = [Change(alert, "firing", "here").payload["id"] for alert in (stands, over)]

    assert ids == ["00000000-0000-0000-0000-000000000007-firing"] * 2
    assert Change(over, "recovered", "here").payload["id"] not in ids
    assert Change(over, "firing", "here").payload["ended_at"] is None


@given(st.text())
def test_a_title_is_one_line(text: str) -> None:
    title = Change(Alert(uuid4(), "failed", text, text, NOW), "firing", text).text

    assert len(title.splitlines()) == 1
    assert title.isprintable()
    assert one_line(title) == title
