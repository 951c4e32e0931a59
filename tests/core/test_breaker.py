"""When an outage is told from a failure, and how seldom a system that is away is asked."""

from dataclasses import dataclass
from itertools import pairwise

from syncflow_core.breaker import CAP_S, FAILURES, FIRST_S, Breaker


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def opened(clock: Clock) -> Breaker:
    breaker = Breaker(clock=clock)
    breaker.answered()
    assert [breaker.failed() for _ in range(FAILURES)] == [False] * (FAILURES - 1) + [True]
    return breaker


def test_failures_in_a_row_open_it_and_one_answer_closes_it() -> None:
    clock = Clock()
    breaker = opened(clock)

    waited = breaker.wait_s()
    breaker.answered()

    assert waited == FIRST_S
    assert (breaker.is_open, breaker.wait_s()) == (False, 0.0)


def test_an_answer_in_between_begins_the_count_anew() -> None:
    breaker = Breaker(clock=Clock())
    breaker.answered()
    for _ in range(5):
        assert not any(breaker.failed() for _ in range(FAILURES - 1))
        breaker.answered()
    assert not breaker.is_open


def test_a_system_that_never_answered_is_no_outage() -> None:
    breaker = Breaker(clock=Clock())
    assert not any(breaker.failed() for _ in range(100))
    assert not breaker.is_open


def test_one_at_a_time_probes_ever_more_seldom_up_to_a_cap() -> None:
    clock = Clock()
    breaker = opened(clock)
    probes: list[float] = []
    while clock.now < 300:
        if breaker.wait_s() == 0.0:
            assert breaker.wait_s() > 0, "a second one waits while the first probes"
            probes.append(clock.now)
            breaker.failed()
        clock.now += 0.5

    gaps = [b - a for a, b in pairwise(probes)]
    assert gaps[:4] == [2.0, 4.0, 8.0, 15.0]
    assert set(gaps[4:]) == {CAP_S}
