import pytest

from syncflow_core.brake import Ceiling, judge
from syncflow_core.entity import Brake


@pytest.mark.parametrize(
    ("known_rows", "fetched", "updates", "deletes", "held"),
    [
        (1000, 899, 0, 101, (True, False)),
        (500, 400, 0, 100, (False, False)),  # the number itself is not exceeded
        (2000, 1800, 0, 200, (False, False)),  # nor is the share
        (10_000, 9_899, 0, 101, (False, False)),
        (50, 10, 0, 40, (False, False)),
        (1000, 1000, 101, 0, (False, True)),
        (1000, 1000, 5, 0, (False, False)),
        (1000, 900, 200, 200, (True, True)),
        (5, 0, 0, 1, (True, False)),
        (0, 0, 0, 0, (False, False)),
    ],
)
def test_the_brake_needs_both_numbers_and_an_empty_source_never_deletes(
    known_rows: int, fetched: int, updates: int, deletes: int, held: tuple[bool, bool]
) -> None:
    verdict = judge(Brake(), known=known_rows, incoming=fetched, updates=updates, deletes=deletes)

    assert (verdict.deletes, verdict.updates) == held
    assert (verdict.reason is None) == (held == (False, False))


def test_a_brake_of_nothing_holds_a_single_change() -> None:
    verdict = judge(Brake(rows=0, share=0), known=9, incoming=8, updates=1, deletes=1)

    assert (verdict.deletes, verdict.updates) == (True, True)


@pytest.mark.parametrize(
    ("ceiling", "held"),
    [
        (Ceiling(updates=200, deletes=300), (False, False)),  # as many as were approved
        (Ceiling(updates=200, deletes=299), (True, False)),
        (Ceiling(updates=199, deletes=300), (False, True)),
        (Ceiling(updates=200, deletes=300, other_updates=100, other_deletes=100), (False, False)),
        (Ceiling(updates=200, deletes=300, other_deletes=101), (True, False)),
        (Ceiling(updates=200, deletes=300, other_updates=101), (False, True)),
    ],
)
def test_what_was_approved_is_a_ceiling_and_the_brake_holds_for_what_it_did_not_name(
    ceiling: Ceiling, held: tuple[bool, bool]
) -> None:
    verdict = judge(Brake(), known=1000, incoming=700, updates=200, deletes=300, ceiling=ceiling)

    assert (verdict.deletes, verdict.updates) == held


def test_an_empty_source_deletes_nothing_whoever_has_approved_it() -> None:
    everything = Ceiling(updates=0, deletes=1000)

    assert judge(
        Brake(), known=1000, incoming=0, updates=0, deletes=1000, ceiling=everything
    ).deletes


@pytest.mark.parametrize(
    ("fetched", "updates", "deletes", "ceiling", "held", "limit"),
    [
        (800, 101, 200, None, ("200 deleted", "101 updated"), "more than 100 and 10%"),
        (0, 0, 7, None, ("7 deleted",), "the source is empty"),
        (0, 101, 0, None, ("101 updated",), "more than 100 and 10%"),
        (
            800,
            0,
            200,
            Ceiling(updates=3, deletes=150),
            ("200 deleted",),
            "approved were 3 updates and 150 deletes",
        ),
        (
            800,
            0,
            200,
            Ceiling(updates=3, deletes=150, other_updates=1, other_deletes=60),
            ("200 deleted",),
            "approved were 3 updates and 150 deletes, 61 of these are not among them",
        ),
    ],
)
def test_the_reason_tells_the_numbers_and_the_limit(
    fetched: int,
    updates: int,
    deletes: int,
    ceiling: Ceiling | None,
    held: tuple[str, ...],
    limit: str,
) -> None:
    verdict = judge(
        Brake(), known=1000, incoming=fetched, updates=updates, deletes=deletes, ceiling=ceiling
    )

    changes = [each.replace(" ", " of 1000 known records would be ") for each in held]
    assert verdict.reason == f"{' and '.join(changes)} ({limit})"


def test_as_many_as_the_share_says_are_not_more_than_it() -> None:
    brake = Brake(rows=0, share=0.29)

    assert not judge(brake, known=100, incoming=71, updates=0, deletes=29).deletes
    assert judge(brake, known=100, incoming=70, updates=0, deletes=30).deletes
