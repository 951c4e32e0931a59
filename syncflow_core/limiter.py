"""Bound what one system is asked: how many requests at once, how long, how often, how much.

Belongs here: the limits of a request, the interface of a limiter, and the one that holds within a process.
Does not belong here: keeping to them (``http``).

Source: product.md 5, "one limiter per target".
"""

import functools
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

from syncflow_core.settings import Settings


@dataclass(frozen=True)
class Limits:
    """How long, how often and how much; seconds and bytes."""

    connect_s: float = 5.0
    read_s: float = 30.0
    deadline_s: float = 120.0
    """For one try of one request, body included, however steadily it drips."""
    attempts: int = 5
    total_s: float = 300.0
    """For all tries of one request; no try begins after that."""
    backoff_s: float = 0.5
    backoff_cap_s: float = 30.0
    retry_after_cap_s: float = 120.0
    """A longer ``Retry-After`` ends the request: its run shall try later, not sleep."""
    body_bytes: int = 128 * 1024 * 1024
    connections: int = 16
    """Requests at once from this process."""


def limits_of(settings: Settings) -> Limits:
    """The limits that the environment sets."""
    return Limits(
        read_s=settings.silence_s, deadline_s=settings.answer_s, total_s=settings.outage_s
    )


class Limiter(Protocol):
    """Gives a slot to each request; a shared one can take the place of the process's."""

    def slot(self) -> AbstractContextManager[None]:
        """Wait for a slot and hold it while the context lasts."""
        ...

    def told(self, *, overloaded: bool) -> None:
        """Learn from an exchange: the system answered in time, or said that it has too much to do."""
        ...


class ProcessLimiter:
    """At most so many requests at once from this process."""

    def __init__(self, slots: int) -> None:
        self._slots = threading.BoundedSemaphore(slots)

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Wait for a slot and hold it while the context lasts."""
        with self._slots:
            yield

    def told(self, *, overloaded: bool) -> None:
        """Nothing is learned here: what one process asks outside of runs is little."""


@functools.cache
def process_limiter(base_url: str, slots: int) -> ProcessLimiter:  # noqa: ARG001  # the cache's key
    """The limiter that all clients of *base_url* in this process share."""
    return ProcessLimiter(slots)
