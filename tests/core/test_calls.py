"""Calls are counted for the batch whose turn it is, once each, and what is kept of them is all of it."""

import threading
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID, uuid4

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncflow_core.calls import BOUNDS, Asked, Calls, Tally
from syncflow_core.errors import SyncFlowError
from syncflow_core.histogram import Histogram
from syncflow_core.http import Transport
from syncflow_core.limiter import Limits
from syncflow_core.tokens import Login

SECONDS = st.floats(0, 1_000)
ASKED = st.builds(
    Asked,
    st.sampled_from(["apismith", "schedulehub"]),
    st.sampled_from(["GET", "POST"]),
    st.sampled_from(["200", "503", "none"]),
)
A, B = uuid4(), uuid4()


def calls_of(noted: list[tuple[Asked, float, float]]) -> Calls:
    calls = Calls()
    for asked, seconds, waited in noted:
        calls.note(asked, seconds=seconds, waited=waited)
    return calls


def histogram(values: list[float]) -> Histogram:
    found = Histogram(BOUNDS)
    for value in values:
        found.observe(value)
    return found


@given(st.lists(SECONDS))
def test_a_histogram_counts_each_value_below_every_bound_that_holds_it(values: list[float]) -> None:
    found = histogram(values)

    told = dict(found.below())
    assert told.pop("+Inf") == len(values) == found.count
    assert told == {repr(end): sum(value <= end for value in values) for end in BOUNDS}


@given(st.lists(SECONDS), st.lists(SECONDS))
def test_histograms_add_up_number_by_number(some: list[float], more: list[float]) -> None:
    both, other = histogram(some), histogram(more)
    sums = [a + b for a, b in zip(both.numbers(), other.numbers(), strict=True)]
    both.add(other)

    assert both.numbers() == sums
    assert both.counts == histogram([*some, *more]).counts
    assert Histogram.of_numbers(BOUNDS, sums).numbers() == sums


def test_numbers_of_other_bounds_are_refused() -> None:
    with pytest.raises(ValueError, match="no histogram of 1 bounds"):
        Histogram.of_numbers((1.0,), [1.0, 2.0])


@given(st.lists(st.tuples(ASKED, SECONDS, SECONDS)), st.lists(st.tuples(ASKED, SECONDS, SECONDS)))
def test_what_a_batch_keeps_is_what_was_counted(
    first: list[tuple[Asked, float, float]], then: list[tuple[Asked, float, float]]
) -> None:
    kept = Calls.of_json(calls_of(first).as_json())
    kept.add(calls_of(then))

    whole = calls_of([*first, *then])
    assert kept.answered.keys() == whole.answered.keys()
    for asked, found in kept.answered.items():
        assert found.counts == whole.answered[asked].counts
        assert found.total == pytest.approx(whole.answered[asked].total, abs=1e-5)
    assert {s: w.counts for s, w in kept.waited.items()} == {
        s: w.counts for s, w in whole.waited.items()
    }


def counted(tally: Tally, batch: UUID) -> dict[Asked, int]:
    return {asked: found.count for asked, found in tally.take(batch).answered.items()}


def test_a_call_is_the_batchs_whose_turn_it_is_and_nobodys_outside() -> None:
    tally = Tally()

    def call(status: int | None) -> None:
        tally.note("apismith", "GET", status, seconds=0.1, waited=0)

    call(200)
    with tally.counting(A):
        call(200)
        with tally.counting(B):  # a batch beside the one that runs
            call(200)
            call(418)
        call(None)
    call(200)

    assert counted(tally, A) == {
        Asked("apismith", "GET", "200"): 1,
        Asked("apismith", "GET", "none"): 1,
    }
    again = tally.take(B)
    assert {asked.status for asked in again.answered} == {"200", "4xx"}
    assert not tally.take(B), "what was taken is the taker's"
    tally.give_back(B, again)
    assert sum(counted(tally, B).values()) == 2


def test_no_call_is_lost_between_threads() -> None:
    tally = Tally()
    together = threading.Barrier(8)

    def ask(_: int) -> None:
        together.wait(10)
        for _ in range(500):
            tally.note("schedulehub", "POST", 200, seconds=0.1, waited=0)

    with tally.counting(A), ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(8)))

    assert counted(tally, A) == {Asked("schedulehub", "POST", "200"): 4_000}


def test_the_transport_counts_every_try_with_what_it_waited() -> None:
    clock, answers = [0.0], iter([429, None, 200])

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    def handler(request: httpx.Request) -> httpx.Response:
        clock[0] += 0.2
        if request.url.path.endswith("/login"):
            return httpx.Response(200, json={"access_token": "t", "expires_in": 1800})
        status = next(answers)
        if status is None:
            raise httpx.ReadTimeout("nothing came")
        return httpx.Response(status, headers={"Retry-After": "3"} if status == 429 else {})

    tally = Tally()
    with (
        Transport(
            "apismith",
            "http://source.test",
            Login("a", "b"),
            limits=Limits(backoff_s=0),
            transport=httpx.MockTransport(handler),
            tally=tally,
            sleep=sleep,
            clock=lambda: clock[0],
            jitter=lambda: 0.0,
        ) as transport,
        tally.counting(A),
    ):
        transport.request("GET", "/x")

    calls = tally.take(A)
    assert {asked: found.count for asked, found in calls.answered.items()} == {
        Asked("apismith", "POST", "200"): 1,  # the login
        Asked("apismith", "GET", "429"): 1,
        Asked("apismith", "GET", "none"): 1,
        Asked("apismith", "GET", "200"): 1,
    }
    assert sum(found.total for found in calls.answered.values()) == pytest.approx(0.8)


def test_the_wait_that_a_system_asks_of_all_is_counted_for_who_waits() -> None:
    clock = [0.0]

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/login"):
            return httpx.Response(200, json={"access_token": "t", "expires_in": 1800})
        if request.url.path.endswith("/full"):
            return httpx.Response(429, headers={"Retry-After": "3"})
        return httpx.Response(200)

    tally = Tally()
    with Transport(
        "apismith",
        "http://source.test",
        Login("a", "b"),
        limits=Limits(attempts=1),
        transport=httpx.MockTransport(handler),
        tally=tally,
        sleep=sleep,
        clock=lambda: clock[0],
    ) as transport:
        with tally.counting(A), pytest.raises(SyncFlowError):
            transport.request("GET", "/full")
        with tally.counting(B):
            transport.request("GET", "/x")

    assert tally.take(A).waited["apismith"].total == 0
    assert tally.take(B).waited["apismith"].total == pytest.approx(3)
