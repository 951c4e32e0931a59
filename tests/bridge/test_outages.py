"""One breaker for all runs: what one finds out all know, and one probes for all."""

from dataclasses import dataclass

import pytest
import sqlalchemy as sa

from syncflow_core.breaker import FAILURES
from syncflow_core.bridge.database import Database
from syncflow_core.bridge.outages import LOOK_S, STALE_S, SharedBreaker
from syncflow_core.errors import PausedError
from syncflow_core.outage import Outage


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now

    def pass_(self, seconds: float, database: Database) -> None:
        """Let so much time go by, here and in the database."""
        self.now += seconds
        with database.begin() as connection:
            connection.execute(
                sa.text(
                    "UPDATE bridge.target_limits SET state = state || jsonb_build_object("
                    "'probe_at', (state ->> 'probe_at')::float8 - :seconds) WHERE state ? 'probe_at'"
                ),
                {"seconds": seconds},
            )


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breakers(database: Database, clock: Clock) -> tuple[SharedBreaker, SharedBreaker]:
    """Two runs' breakers; the first has found an outage."""
    one = SharedBreaker(database, "schedulehub", clock=clock)
    one.answered()
    assert [one.failed() for _ in range(FAILURES)][-1]
    return one, SharedBreaker(database, "schedulehub", clock=clock)


def test_an_outage_that_one_run_finds_pauses_the_others(
    breakers: tuple[SharedBreaker, SharedBreaker], database: Database, clock: Clock
) -> None:
    _, other = breakers
    assert 0 < other.wait_s() <= 1
    assert other.is_open
    assert SharedBreaker(database, "apismith", clock=clock).wait_s() == 0


def test_each_run_that_waits_says_so_once(
    breakers: tuple[SharedBreaker, SharedBreaker],
    database: Database,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    _, other = breakers
    there = False
    outage = Outage("schedulehub", "http://hub.test", other, lambda: there, total_s=60)
    for _ in range(3):
        with pytest.raises(PausedError):
            outage.refuse_while_away()
        clock.pass_(LOOK_S, database)
    told = "schedulehub at http://hub.test has stopped answering; waiting for it, at most 60 s"
    assert [record.getMessage() for record in caplog.records] == [told]

    there = True
    clock.pass_(60, database)
    outage.refuse_while_away()
    assert [record.getMessage() for record in caplog.records][1:] == [
        "schedulehub at http://hub.test answers again"
    ]


def test_one_run_at_a_time_probes_and_its_answer_closes_all(
    breakers: tuple[SharedBreaker, SharedBreaker], database: Database, clock: Clock
) -> None:
    one, other = breakers
    other.wait_s()
    clock.pass_(2, database)

    waits = [one.wait_s(), other.wait_s()]
    one.answered()
    clock.pass_(LOOK_S, database)

    assert waits[0] == 0, "the first one is the probe"
    assert waits[1] > 0, "the other waits for it"
    assert (one.wait_s(), other.wait_s()) == (0, 0)
    assert not other.is_open


def test_probes_that_fail_come_ever_more_seldom(
    breakers: tuple[SharedBreaker, SharedBreaker], database: Database, clock: Clock
) -> None:
    one, other = breakers
    other.wait_s()
    waits = []
    for _ in range(3):
        clock.pass_(20, database)
        assert other.wait_s() == 0
        other.failed()
        waits.append(round(one.wait_s()))

    assert waits == [2, 4, 8]


@pytest.mark.usefixtures("breakers")
def test_an_outage_that_nobody_has_probed_for_long_is_forgotten(
    database: Database, clock: Clock
) -> None:
    clock.pass_(STALE_S + 2, database)

    assert SharedBreaker(database, "schedulehub", clock=clock).wait_s() == 0
