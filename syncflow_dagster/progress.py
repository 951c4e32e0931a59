"""Who is told how far a sync has come: the terminal, if there is one.

Belongs here: the listeners of this process.
Does not belong here: drawing (``cli.show``), counting (``syncflow_core.stages``).
"""

from collections.abc import Iterator
from contextlib import contextmanager

from syncflow_core.stages.work import Progress

_listeners: list[Progress] = []


def tell(entity: str, stage: str, done: int, total: int | None) -> None:
    """Tell every listener; one that can tell nobody is told no more, and the work goes on."""
    for listener in tuple(_listeners):
        try:
            listener(entity, stage, done, total)
        except OSError:  # standard error is full, or closed
            _listeners.remove(listener)


@contextmanager
def told(listener: Progress) -> Iterator[None]:
    """Have ``listener`` told while the block runs."""
    _listeners.append(listener)
    try:
        yield
    finally:
        if listener in _listeners:
            _listeners.remove(listener)
