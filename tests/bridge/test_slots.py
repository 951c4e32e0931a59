"""One limiter for all runs: slots across processes, whoever dies."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from time import sleep

import psycopg
import pytest
import sqlalchemy as sa

from syncflow_core.bridge.database import Database
from syncflow_core.bridge.slots import STEP_S, SharedLimiter

SLOTS = 3


@pytest.fixture
def limiters(migrated_url: str) -> Iterator[list[SharedLimiter]]:
    """Two runs' limiters, each with a database of its own as two processes have.

    A statement's plan is the one that PostgreSQL makes when it has been asked often.
    """
    name = sa.make_url(migrated_url).database
    with psycopg.connect(migrated_url, autocommit=True) as connection:
        often = f'ALTER DATABASE "{name}" SET plan_cache_mode = force_generic_plan'
        connection.execute(often.encode())
    with Database(migrated_url) as one, Database(migrated_url) as other:
        made = [SharedLimiter(one, "apismith", SLOTS), SharedLimiter(other, "apismith", SLOTS)]
        yield made
        for limiter in made:
            limiter.close()


def test_all_runs_together_stay_within_the_slots(limiters: list[SharedLimiter]) -> None:
    now, most, lock = 0, 0, threading.Lock()

    def work(number: int) -> None:
        nonlocal now, most
        with limiters[number % 2].slot():
            with lock:
                now += 1
                most = max(most, now)
            sleep(0.01)
            with lock:
                now -= 1

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(work, range(60)))

    assert (now, most) == (0, SLOTS)


def test_each_system_has_slots_of_its_own(limiters: list[SharedLimiter]) -> None:
    hub = SharedLimiter(limiters[0]._database, "schedulehub", 1)  # the same session's
    with limiters[0].slot(), limiters[0].slot(), limiters[0].slot(), hub.slot():
        assert limiters[1]._take() is None  # would wait for ever otherwise
    hub.close()


def test_who_dies_holds_nothing_and_the_limiter_begins_anew(limiters: list[SharedLimiter]) -> None:
    dying, other = limiters
    with dying.slot(), dying.slot(), dying.slot():
        with other._database.begin() as connection:  # as an administrator would
            connection.execute(
                sa.text(
                    "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' "
                    "AND objsubid = 2 AND database = "
                    "(SELECT oid FROM pg_database WHERE datname = current_database())"
                )
            )
        with other.slot(), other.slot(), other.slot():
            assert other._held == set(range(1, SLOTS + 1))
    with dying.slot(), dying.slot(), dying.slot():
        assert other._take() is None


def allowed(limiter: SharedLimiter) -> int:
    """How many slots one taker sees now."""
    with limiter.slot():
        return limiter._allowed


def a_step_ago(limiter: SharedLimiter) -> None:
    with limiter._database.begin() as connection:
        connection.execute(
            sa.text(
                "UPDATE bridge.target_limits SET state = state || jsonb_build_object("
                "'changed_at', extract(epoch FROM now()) - :step_s)"
            ),
            {"step_s": 2 * STEP_S},
        )


def test_a_system_that_is_overloaded_gets_half_of_all_runs_and_one_more_after_each_step(
    limiters: list[SharedLimiter],
) -> None:
    one, other = limiters
    one.told(overloaded=True)
    one.told(overloaded=True)  # the same moment's: counted once
    halved = allowed(other)
    seen = []
    for _ in range(4):
        a_step_ago(one)
        other.told(overloaded=False)
        other.told(overloaded=False)
        seen.append(allowed(other))

    assert (halved, seen) == (SLOTS // 2, [2, 3, 3, 3])


def test_slots_that_were_given_back_are_everybodys(limiters: list[SharedLimiter]) -> None:
    one, other = limiters
    for _ in range(8):
        with one.slot(), one.slot(), one.slot():
            assert other._take() is None

    with other.slot(), other.slot(), other.slot():
        assert one._take() is None
