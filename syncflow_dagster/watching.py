"""Entities that come and go: the code location is loaded anew when the declarations have changed.

Belongs here: noticing.
Does not belong here: which entities there are (``registry``), asking Dagster (``api.gateway``).

Source: product.md 12; dagster.md 5.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from syncflow_core.bridge.database import Database
from syncflow_core.bridge.entities import fingerprint
from syncflow_core.errors import SyncFlowError

EVERY_S: Final = 1.0
logger = logging.getLogger(__name__)


class Watch:
    """Compares the declarations with those that the code location was loaded with.

    Args:
        database: Where the declarations are.
        load: Has Dagster load the location anew; runs in flight go on with what they began with.
    """

    def __init__(self, database: Database, load: Callable[[], None]) -> None:
        self._database = database
        self._load = load
        self._loaded: str | None = None
        self._away = False

    def look(self) -> None:
        """Load anew where something has changed since the first look, or the last that saw it loaded.

        A database or webserver that is away is told in the log once, and asked again at the next look.
        """
        try:
            with self._database.begin() as connection:
                declared = fingerprint(connection)
            if self._loaded not in {None, declared}:
                self._load()
                logger.info("the entities have changed: Dagster has loaded them")
        except SyncFlowError as error:
            if not self._away:
                logger.warning("the entities are not followed: %s", error)
            self._away = True
            return
        self._loaded, self._away = declared, False


@contextmanager
def watching(watch: Watch) -> Iterator[None]:
    """Look every second, beside whatever the block does."""
    ended = threading.Event()

    def run() -> None:
        while not ended.is_set():
            watch.look()
            ended.wait(EVERY_S)

    thread = threading.Thread(target=run, name="watching the entities", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
