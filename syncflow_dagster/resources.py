"""What the ops work with: the two clients, the bridge database, the frame store.

Belongs here: configuration, and when a connection is opened and closed.
Does not belong here: the connections themselves (``syncflow_core``), which know nothing of Dagster.

A connection is opened when it is first used, so that what is missing fails the batch that needs it,
with a clear error, and not the whole code location.

Source: product.md 8.
"""

import logging
import threading
from abc import abstractmethod
from collections.abc import Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, Generic, Protocol, TypeVar
from uuid import UUID

import dagster as dg
import polars as pl
from pydantic import PrivateAttr

from syncflow_core.apismith import Source
from syncflow_core.breaker import Breaker
from syncflow_core.bridge import batches
from syncflow_core.bridge.batches import Counts
from syncflow_core.bridge.database import Database
from syncflow_core.bridge.leases import Lease
from syncflow_core.bridge.outages import SharedBreaker
from syncflow_core.bridge.slots import SharedLimiter
from syncflow_core.calls import Tally
from syncflow_core.errors import UnavailableError
from syncflow_core.frames import FrameStore
from syncflow_core.limiter import Limiter
from syncflow_core.schedulehub import Target
from syncflow_core.settings import read_settings
from syncflow_dagster.abandoned import mark
from syncflow_dagster.clock import utc_now
from syncflow_dagster.failures import broken
from syncflow_dagster.interrupts import told
from syncflow_dagster.unbegun import close_unbegun

logger = logging.getLogger(__name__)


STOP_S: Final = 0.1
"""How often a read is told to stop, in seconds."""

_LENT: ContextVar[Database | None] = ContextVar("_LENT", default=None)


@contextmanager
def lent(database: Database) -> Iterator[None]:
    """Runs in the block use this database, where it is the one that they would open: it stays open after them."""
    before = _LENT.set(database)
    try:
        yield
    finally:
        _LENT.reset(before)


class Client(Protocol):
    """What both clients have in common."""

    def abort(self) -> None:
        """End what all threads wait for, and ask nothing more."""

    def close(self) -> None:
        """Give the connections back."""


C = TypeVar("C", bound=Client)


class ClientResource(dg.ConfigurableResource[C], Generic[C]):
    """One of the two systems, as the environment says."""

    _client: C | None = PrivateAttr(default=None)
    _opening: threading.Lock = PrivateAttr(default_factory=threading.Lock)

    @abstractmethod
    def opened(self, limiter: Limiter, breaker: Breaker, tally: Tally) -> C:
        """A new client."""

    def client(self, limiter: Limiter, breaker: Breaker, tally: Tally) -> C:
        """The client, opened once a run.

        Args:
            limiter: Bounds what it asks at once.
            breaker: Tells when to pause.
            tally: Counts what it asks.
        """
        with self._opening:  # the push asks from several threads
            if self._client is None:
                self._client = self.opened(limiter, breaker, tally)
            return self._client

    def abort(self) -> None:
        """End what its threads wait for: the run was told to end."""
        if self._client is not None:
            self._client.abort()

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """Close it."""
        if self._client is not None:
            self._client.close()
            self._client = None


class SourceResource(ClientResource[Source]):
    """APISmith (``SYNCFLOW_APISMITH_*``)."""

    def opened(self, limiter: Limiter, breaker: Breaker, tally: Tally) -> Source:
        """A new client."""
        return Source.open(read_settings(), limiter=limiter, breaker=breaker, tally=tally)


class TargetResource(ClientResource[Target]):
    """ScheduleHub (``SYNCFLOW_SCHEDULEHUB_*``)."""

    def opened(self, limiter: Limiter, breaker: Breaker, tally: Tally) -> Target:
        """A new client."""
        return Target.open(read_settings(), limiter=limiter, breaker=breaker, tally=tally)


class BridgeResource(dg.ConfigurableResource[Database]):
    """The bridge database (``SYNCFLOW_DATABASE_URL``, else the embedded one)."""

    _database: Database | None = PrivateAttr(default=None)
    _own: bool = PrivateAttr(default=True)
    _leases: dict[UUID, Lease] = PrivateAttr(default_factory=dict)
    _ahead: dict[UUID, Future[pl.DataFrame]] = PrivateAttr(default_factory=dict)
    _shared: dict[str, tuple[SharedLimiter, SharedBreaker]] = PrivateAttr(default_factory=dict)
    _tally: Tally = PrivateAttr(default_factory=Tally)
    _opening: threading.Lock = PrivateAttr(default_factory=threading.Lock)

    @property
    def tally(self) -> Tally:
        """What this run asks of the two systems, by batch."""
        return self._tally

    @property
    def leases(self) -> dict[UUID, Lease]:
        """The leases that this run holds, by batch: an entity stays held from its first op to its last."""
        return self._leases

    @property
    def ahead(self) -> dict[UUID, Future[pl.DataFrame]]:
        """The known records that this run reads ahead, by batch."""
        return self._ahead

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Say in Dagster which process executes the run: nobody else looks whether it lives."""
        if context.run is not None and context.instance is not None:
            mark(context.instance, context.run.run_id)

    def database(self) -> Database:
        """The database, opened once a run; its schema is this code's."""
        if self._database is None:
            database, settings = _LENT.get(), read_settings()
            self._own = database is None or not database.is_of(settings)
            if database is None or self._own:
                database = Database.open(settings)
                database.check_schema()  # of one that is lent the command has done so
            self._database = database
        return self._database

    def shared(self, system: str) -> tuple[SharedLimiter, SharedBreaker]:
        """What bounds the requests to a system, and tells when it is away: for all runs on this database."""
        with self._opening:
            if system not in self._shared:
                database, slots = self.database(), read_settings().connections
                self._shared[system] = (
                    SharedLimiter(database, system, slots),
                    SharedBreaker(database, system),
                )
            return self._shared[system]

    def _stop_reading_ahead(self, database: Database) -> None:
        """End the reads of a run that was ended meanwhile."""
        for reading in self._ahead.values():
            while not reading.done():
                database.stop_reading()  # once more: it stops none that is only about to begin
                wait([reading], timeout=STOP_S)

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """Close it, and the batches that the run's end left between two ops."""
        if self._database is None:
            return
        self._stop_reading_ahead(self._database)
        failures = {}
        if self._leases and context.run is not None and context.instance is not None:
            failures = broken(context.instance, context.run.run_id)
        for batch, lease in self._leases.items():
            ended = failures.get(lease.entity)
            why = "the run ended between two of its ops; the next sync does it all"
            try:
                with self._database.begin() as connection:
                    batches.close_batch(
                        connection,
                        batch,
                        "failed" if ended else "stopped",
                        Counts(),
                        now=utc_now(),
                        proof={"unavailable": ended.unavailable} if ended else None,
                        error=ended.message if ended else why,
                    )
            except UnavailableError as error:
                logger.warning("batch %s stays open until the next sync: %s", batch, error)
            lease.release()
        self._leases.clear()
        self._ahead.clear()
        if context.run is not None and context.instance is not None:
            run = context.instance.get_run_by_id(context.run.run_id) or context.run
            try:
                with self._database.begin() as connection:
                    close_unbegun(context.instance, connection, run, utc_now(), stopped=told())
            except UnavailableError as error:
                logger.warning(
                    "entities that run %s left out have no batch: %s", context.run.run_id, error
                )
        for limiter, _ in self._shared.values():
            limiter.close()
        self._shared.clear()
        if self._own:
            self._database.close()
        self._database = None


class FramesResource(dg.ConfigurableResource[FrameStore]):
    """Staged frames (``SYNCFLOW_FRAMES_URI``, else under the home)."""

    _store: FrameStore | None = PrivateAttr(default=None)

    def store(self) -> FrameStore:
        """The store, one a run."""
        if self._store is None:
            self._store = FrameStore(read_settings().frames_path)
        return self._store

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """Wait until the frames of what has ended are gone."""
        if self._store is not None:
            self._store.close()
            self._store = None


def resources() -> dict[str, object]:
    """The resources by the keys that the ops ask for."""
    return {
        "source": SourceResource(),
        "target": TargetResource(),
        "bridge": BridgeResource(),
        "frames": FramesResource(),
    }
