"""What the stages of one batch share: the connections, the order, what has been staged so far.

Belongs here: the shapes that travel from stage to stage, and holding the entity while they run.
Does not belong here: what any stage does (its own module).

Source: design.md, "The way of a record".
"""

import functools
import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Final, Literal
from uuid import UUID

import msgspec
import polars as pl

from syncflow_core.apismith import Source
from syncflow_core.bridge import batches
from syncflow_core.bridge.database import Database
from syncflow_core.bridge.failed import Alike
from syncflow_core.bridge.leases import Lease
from syncflow_core.calls import Tally
from syncflow_core.catalog import Api
from syncflow_core.entity import Entity
from syncflow_core.errors import SyncFlowError, UnavailableError
from syncflow_core.fields import Shape, shape_of
from syncflow_core.frames import FrameRef, FrameStore
from syncflow_core.logs import about
from syncflow_core.parents import Edge
from syncflow_core.privacy import KEY_OF_PROCESS, Privacy, privacy_of
from syncflow_core.schedulehub import Target

logger = logging.getLogger(__name__)
Kind = Literal["full", "incremental", "slice", "retry"]

STAGES: Final = ("fetch", "normalize", "identity", "delta", "resolve", "push", "track")
"""The stages whose seconds are reported."""

Progress = Callable[[str, str, int, int | None], None]
"""Told of every step of long work: entity, stage, rows done, rows in all (None: not known)."""


def no_progress(entity: str, stage: str, done: int, total: int | None) -> None:
    """Tell nobody."""


@dataclass
class Connections:
    """Everything a stage reads from or writes to; a client is opened when it is first used."""

    open_source: Callable[[], Source]
    open_target: Callable[[], Target]
    database: Database
    frames: FrameStore
    progress: Progress = no_progress
    clock: Callable[[], float] = time.monotonic
    whole: Callable[[], AbstractContextManager[None]] = nullcontext
    """Keeps a block from being interrupted: a call that has begun is finished and its outcome saved."""
    abort: Callable[[], None] = lambda: None
    """Ends what any thread waits for from the two systems."""
    digest_key: Callable[[], bytes] = lambda: KEY_OF_PROCESS
    """Keys the digests that stand for personal data."""
    leases: dict[UUID, Lease] = field(default_factory=dict)
    """The leases that this process holds, by batch."""
    ahead: dict[UUID, Future[pl.DataFrame]] = field(default_factory=dict)
    """Known records that are being read ahead, by batch (``known``)."""
    tally: Tally = field(default_factory=Tally)
    """Counts what the clients ask, by batch."""
    done: defaultdict[UUID, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """What each batch has written so far, for those that do not come to their end."""

    @property
    def source(self) -> Source:
        """APISmith."""
        return self.open_source()

    @property
    def target(self) -> Target:
        """ScheduleHub."""
        return self.open_target()

    def privacy_of(self, entity: Entity) -> Privacy:
        """What of the entity is hidden wherever people look."""
        return privacy_of(entity, self.digest_key)


class Order(msgspec.Struct, frozen=True):
    """What is asked of one entity's sync."""

    entity: str
    batch: UUID
    kind: Kind | None = None
    """None: incremental where the strategy is ``rowversion`` and a watermark exists, else full."""
    slices: tuple[int, ...] = ()
    """The slices to read, from 1; empty or all of them: the whole table."""
    of: int = 7
    run_id: str | None = None
    partition: str | None = None
    wait_s: float = 60.0
    """How long to wait for another sync of the entity."""
    deferred: tuple[str, ...] = ()
    """The entity's references that are sent in a second phase (``parents.lineage``)."""
    continued: bool = False
    """Whether this batch takes up what an earlier one, dead or failed, has staged."""
    dry_run: bool = False
    """Whether this batch only makes a plan: nothing is pushed, nothing but the plan is kept."""
    plan: UUID | None = None
    """The approved plan that this batch applies."""
    night: date | None = None
    """The evening of the night that asked for it; None by day."""
    until: datetime | None = None
    """When the night ends: what is in flight is finished then, the rest is left to the next night."""
    declared: str | None = None
    """The declaration to plan with, as JSON, instead of the one that is applied; of a dry run alone."""
    purge: bool = False
    """Whether no row is read, so that every record goes; the entity is disabled afterwards."""
    letters: Alike | None = None
    """The failed records that a retry takes up; None: all, and all children that wait."""
    by_person: bool = True
    """Whether a person asked for it: what the clock starts leaves alone what is not due yet."""


class SliceSeen(msgspec.Struct, frozen=True):
    """One slice as this batch has read it."""

    number: int
    counted: int
    complete: bool
    head: tuple[str, ...]
    """Its first keys as the source sent them, at most ``SLICE_OVERLAP``."""
    tail: tuple[str, ...]
    """Its last ones."""


class Staged(msgspec.Struct, frozen=True):
    """What one batch has staged: each stage returns the last one's with its own part filled in."""

    order: Order
    kind: Kind
    entity: str
    """The declaration, as JSON: the batch uses the version that it started with."""
    version: int
    api: str
    """The source's description, as JSON, as it was at the start."""
    drift: str = ""
    """How the source's columns differ from those accepted before, where they may; empty: they do not."""
    frames: dict[str, FrameRef] = {}
    """Frame sets by name: ``raw unreadable accepted rejected losers distinct unproven changes collided gone swept
    wave-N parked missing deferred refused``."""
    counts: dict[str, int] = {}
    """The accounts so far, by the names of ``bridge.batches.Counts``, and ``failed_deletes``."""
    seconds: dict[str, float] = {}
    layers: tuple[dict[str, object], ...] = ()
    """What each normalization layer reports: rows, changed, rejected, seconds."""
    complete: bool = False
    """Whether the scan is proven complete: without this nothing is deleted."""
    holds: bool = True
    """Whether nothing that an incremental fetch asked for can have been passed over."""
    slices: tuple[SliceSeen, ...] = ()
    """The slices of a batch of kind ``slice``."""
    ends_sweep: bool = False
    """Whether this batch saw the last slice of a sweep."""
    swept: bool = False
    """Whether that sweep tells who is gone."""
    watermark_before: str | None = None
    notes: tuple[str, ...] = ()
    """What a person should know of this batch, one sentence each."""
    samples: tuple[dict[str, str], ...] = ()
    """Some of what was written: ``done record changed``, no values."""

    @property
    def batch(self) -> UUID:
        """The batch's uid."""
        return self.order.batch

    @property
    def name(self) -> str:
        """The entity's name."""
        return self.order.entity

    @property
    def shape(self) -> Shape:
        """The entity as it is synced."""
        return _shape(self.entity, self.api)

    @property
    def deferred(self) -> frozenset[Edge]:
        """The entity's references that are sent in a second phase."""
        return frozenset((self.name, reference) for reference in self.order.deferred)

    def having(  # noqa: PLR0913  # one keyword for each thing a stage may add
        self,
        *,
        frames: dict[str, FrameRef] | None = None,
        counts: dict[str, int] | None = None,
        seconds: dict[str, float] | None = None,
        notes: tuple[str, ...] = (),
        layers: tuple[dict[str, object], ...] = (),
        complete: bool | None = None,
        holds: bool | None = None,
        slices: tuple[SliceSeen, ...] | None = None,
        ends_sweep: bool | None = None,
        swept: bool | None = None,
        samples: tuple[dict[str, str], ...] = (),
    ) -> "Staged":
        """This, with more frames, counts, seconds and notes."""
        return msgspec.structs.replace(
            self,
            frames={**self.frames, **(frames or {})},
            counts={**self.counts, **(counts or {})},
            seconds={**self.seconds, **(seconds or {})},
            notes=(*self.notes, *notes),
            layers=(*self.layers, *layers),
            complete=self.complete if complete is None else complete,
            holds=self.holds if holds is None else holds,
            slices=self.slices if slices is None else slices,
            ends_sweep=self.ends_sweep if ends_sweep is None else ends_sweep,
            swept=self.swept if swept is None else swept,
            samples=(*self.samples, *samples),
        )


def wave_names(staged: Staged) -> list[str]:
    """The frame sets of rows to push, in the order in which they go."""
    names = [name for name in staged.frames if name.startswith("wave-")]
    return sorted(names, key=lambda name: int(name.removeprefix("wave-")))


@functools.lru_cache(maxsize=256)
def _shape(entity: str, api: str) -> Shape:
    return shape_of(Entity.model_validate_json(entity), Api.model_validate_json(api))


@contextmanager
def timed(connections: Connections, seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Add the seconds that the block takes to ``seconds[stage]``; its log lines say the stage."""
    started = connections.clock()
    try:
        with about(stage=stage):
            yield
    finally:
        seconds[stage] = seconds.get(stage, 0.0) + connections.clock() - started


class NightOverError(SyncFlowError):
    """The night that asked for the batch has ended; the next one does the rest."""


def within_night(order: Order, now: datetime) -> None:
    """Return while the night that asked for the batch goes on.

    Raises:
        NightOverError: It has ended.
    """
    if order.until is not None and now >= order.until:
        raise NightOverError(
            "the night window has closed; the rest is left to the next night", entity=order.entity
        )


def hold(connections: Connections, order: Order) -> Lease:
    """Hold the entity for this batch: the lease of this process, or a new one after a crash.

    Raises:
        SyncFlowError: Another sync holds the entity, and did so for as long as the order waits.
    """
    lease = connections.leases.get(order.batch)
    if lease is None:
        lease = Lease.acquire(
            connections.database,
            order.entity,
            batch=order.batch,
            run_id=order.run_id,
            wait_s=order.wait_s,
        )
        connections.leases[order.batch] = lease
    return lease


def keep_calls(connections: Connections, batch: UUID) -> None:
    """Save what the batch has asked so far: its next stage may be another process's.

    Whoever closes the batch saves the rest with it. A database that is away now is no reason to end
    the batch: the calls are saved later.
    """
    calls = connections.tally.take(batch)
    if not calls:
        return
    try:
        with connections.database.begin() as connection:
            batches.add_calls(connection, batch, calls)
    except UnavailableError as error:
        connections.tally.give_back(batch, calls)
        logger.warning("the calls of batch %s are not saved yet: %s", batch, error)


def let_go(connections: Connections, batch: UUID) -> None:
    """Release the entity, if this process holds it for this batch."""
    lease = connections.leases.pop(batch, None)
    if lease is not None:
        lease.release()
