"""Signals that come while a command works."""

import signal

import pytest
from dagster._core.errors import DagsterExecutionInterruptedError

from syncflow_dagster.interrupts import Signals, end_where_told, told


def test_the_first_signal_is_noted_and_the_second_ends_what_goes_on() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Signals() as signals:
        end_where_told()
        signal.raise_signal(signal.SIGTERM)
        assert told()
        with pytest.raises(DagsterExecutionInterruptedError):
            end_where_told()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)

    assert signals.came() == [signal.SIGTERM, signal.SIGINT]
    assert signals.last() == signal.SIGINT
    assert not told()
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_was_stopped_elsewhere_counts_as_told_by_sigterm() -> None:
    with Signals() as signals:
        pass

    assert signals.last() == signal.SIGTERM
