"""Bound how many requests one system has to serve at once.

Belongs here: the interface of a limiter, and the one that holds within a process.
Does not belong here: waiting between tries (``http``).

Source: product.md 5, "one limiter per target".
"""

import functools
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Limiter(Protocol):
    """Gives a slot to each request; a shared one can take the place of the process's."""

    def slot(self) -> AbstractContextManager[None]:
        """Wait for a slot and hold it while the context lasts."""
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


@functools.cache
def process_limiter(base_url: str, slots: int) -> ProcessLimiter:  # noqa: ARG001  # the cache's key
    """The limiter that all clients of *base_url* in this process share."""
    return ProcessLimiter(slots)
