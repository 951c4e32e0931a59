import pytest

from syncflow_core.brake import judge
from syncflow_core.entity import Brake


@pytest.mark.parametrize(
    ("known_rows", "fetched", "updates", "deletes", "held"),
    [
        (1000, 899, 0, 101, (True, False)),
        (1000, 900, 0, 100, (False, False)),
        (10_000, 9_899, 0, 101, (False, False)),
        (50, 10, 0, 40, (False, False)),
        (1000, 1000, 101, 0, (False, True)),
        (1000, 900, 200, 200, (True, True)),
        (5, 0, 0, 5, (True, False)),
        (0, 0, 0, 0, (False, False)),
    ],
)
def test_the_brake_needs_both_numbers_and_an_empty_source_never_deletes(
    known_rows: int, fetched: int, updates: int, deletes: int, held: tuple[bool, bool]
) -> None:
    verdict = judge(Brake(), known=known_rows, incoming=fetched, updates=updates, deletes=deletes)

    assert (verdict.deletes, verdict.updates) == held
    assert (verdict.reason is None) == (held == (False, False))
