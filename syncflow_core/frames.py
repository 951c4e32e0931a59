"""Staged frames: what one stage hands to the next, staged elsewhere too, whole or not at all.

Belongs here: writing and reading frames by reference, and forgetting old ones.
Does not belong here: what is in them (``columns``, ``stages``), folders and buckets (``places``).

A frame set is a name with an Arrow IPC file, or object, for each part under it. A set may hold no more
than the columns that a stage adds to another set: both are read side by side.
Within one process the frames written last are kept in memory too.

Source: design.md, "The way of a record" 2.
"""

import logging
import uuid
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import Future
from functools import cached_property
from typing import Final

import msgspec
import polars as pl

from syncflow_core.errors import SyncFlowError
from syncflow_core.logs import Threads
from syncflow_core.places import Place, place_of

KEPT_BYTES: Final = 500_000_000
"""Frames kept in memory besides their files, over all frame sets of the process (estimated size)."""

HANDOVER: Final = "handover"
"""The name under which the ops of each run leave what they hand over."""

PART_ROWS: Final = 250_000
"""Rows of one part: what a stage holds at once; keeps memory flat however many rows there are."""

logger = logging.getLogger(__name__)


class FrameRef(msgspec.Struct, frozen=True):
    """Where a frame set lies: small enough to be an op's output."""

    path: str
    """Its name in the place of staged frames."""
    parts: tuple[str, ...]
    rows: int
    beside: "FrameRef | None" = None
    """The set that has the other columns of the same rows, part by part."""
    added: tuple[str, ...] = ()
    """The columns that lie here, where there is a set beside."""

    def part_paths(self) -> list[str]:
        """The name of each part that lies here, in order."""
        return [f"{self.path}/{name}" for name in self.parts]


class FrameStore:
    """Frame sets in one place.

    Args:
        address: A folder, as a path or a ``file://`` URI, or a bucket's URI. Nothing is looked at or made before
            the first frame: one that cannot be used is the error of the batch that it stops.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._kept: OrderedDict[str, pl.DataFrame] = OrderedDict()
        self._kept_bytes = 0
        # a gigabyte takes the system a fifth of a second: meanwhile the run goes on to its end
        self._removing = Threads(1, thread_name_prefix="forget")
        self._removals: list[Future[None]] = []

    @cached_property
    def _place(self) -> Place:
        return place_of(self._address)

    def write(
        self,
        scope: str,
        name: str,
        parts: Iterable[pl.DataFrame],
        *,
        beside: FrameRef | None = None,
    ) -> FrameRef:
        """Write a frame set part by part; empty parts are passed over, save that one part always stands.

        Args:
            scope: What the frames belong to, ``<batch uid>``: they are forgotten together.
            name: The frame set's name within it. A set of the same name is not overwritten: each
                write has a name of its own, so a reader of the old one is not disturbed.
            parts: Frames of one schema.
            beside: The set that these columns are added to: as many parts, of the same rows.
        """
        path = f"{scope}/{name}-{uuid.uuid4().hex[:8]}"
        names: list[str] = []
        rows = 0
        added: tuple[str, ...] = ()
        pending: pl.DataFrame | None = None
        for part in parts:
            if pending is None or pending.is_empty():
                pending = part
                continue
            if part.is_empty():
                continue
            names.append(self._write_part(path, len(names), pending))
            rows += pending.height
            pending = part
        if pending is not None:
            names.append(self._write_part(path, len(names), pending))
            rows += pending.height
            added = tuple(pending.columns) if beside is not None else ()
        return FrameRef(path, tuple(names), rows, beside, added)

    def _write_part(self, path: str, index: int, frame: pl.DataFrame) -> str:
        name = f"part-{index:05d}.arrow"
        try:
            self._place.write(f"{path}/{name}", frame)
        except OSError as error:
            raise SyncFlowError(
                f"staged frame {self._place}/{path}/{name}: cannot be written: {error}"
            ) from error
        self._keep(f"{path}/{name}", frame)
        return name

    def parts(self, ref: FrameRef, *, last: bool = False) -> Iterator[pl.DataFrame]:
        """The parts of a frame set, in order, one at a time.

        Args:
            ref: The frame set.
            last: Nobody of this process reads it again: each part leaves memory after its turn, so that
                what is made of a set does not stand beside all of it. Where it lies it stays.
        """
        for at in range(len(ref.parts)):
            yield self._part(ref, at)
            if last:
                self._let_go_part(ref, at)

    def read(self, ref: FrameRef, columns: list[str] | None = None) -> pl.DataFrame:
        """All parts of a frame set as one frame, of these columns alone where they are named."""
        return pl.concat(
            [self._part(ref, at, columns) for at in range(len(ref.parts))], how="vertical"
        )

    def _part(self, ref: FrameRef, at: int, columns: list[str] | None = None) -> pl.DataFrame:
        path = ref.part_paths()[at]
        if ref.beside is None:
            return self._read(path, columns)
        if columns is None:
            return pl.concat([self._part(ref.beside, at), self._read(path)], how="horizontal")
        here = [name for name in columns if name in ref.added]
        there = [name for name in columns if name not in ref.added]
        halves = [self._part(ref.beside, at, there)] if there else []
        halves += [self._read(path, here)] if here else []
        return pl.concat(halves, how="horizontal").select(columns)

    def _read(self, path: str, columns: list[str] | None = None) -> pl.DataFrame:
        kept = self._kept.get(path)
        if kept is not None:
            return kept if columns is None else kept.select(columns)
        try:
            return self._place.read(path, columns)
        except (OSError, pl.exceptions.ComputeError) as error:
            raise SyncFlowError(
                f"staged frame {self._place}/{path}: cannot be read ({error}): start the sync again"
            ) from error

    def _keep(self, path: str, frame: pl.DataFrame) -> None:
        self._kept[path] = frame
        self._kept_bytes += int(frame.estimated_size())
        while self._kept_bytes > KEPT_BYTES and len(self._kept) > 1:
            _, oldest = self._kept.popitem(last=False)
            self._kept_bytes -= int(oldest.estimated_size())

    def drop(self, ref: FrameRef) -> None:
        """Forget a frame set in memory; where it lies it stays until the scope is forgotten."""
        for at in range(len(ref.parts)):
            self._let_go_part(ref, at)

    def _let_go_part(self, ref: FrameRef, at: int) -> None:
        self._let_go(ref.part_paths()[at])
        if ref.beside is not None:
            self._let_go_part(ref.beside, at)

    def _let_go(self, path: str) -> None:
        kept = self._kept.pop(path, None)
        if kept is not None:
            self._kept_bytes -= int(kept.estimated_size())

    def forget(self, scope: str) -> None:
        """Remove every frame set of a scope: in memory at once, where it lies in a thread, until ``close``.

        A place that refuses, or is away, ends nothing: what is left is old one day (``forget_older``).
        """
        for path in [path for path in self._kept if path.startswith(f"{scope}/")]:
            self._let_go(path)
        self._removals.append(self._removing.submit(self._remove, scope))

    def _remove(self, scope: str) -> None:
        try:
            self._place.forget(scope)
        except SyncFlowError as error:
            logger.warning("the staged frames of batch %s are left to tidy: %s", scope, error)

    def close(self) -> None:
        """Wait until what is forgotten is gone."""
        self._removing.shutdown()
        for removal in self._removals:
            removal.result()

    def forget_older(self, than: float, keep: Collection[str]) -> int:
        """Remove what runs that died left behind: scopes, and hand-over of runs, of long ago.

        Args:
            than: Seconds since 1970; what was touched since stays.
            keep: Scopes that somebody works on.

        Returns:
            How many scopes and runs.
        """
        old = [
            name
            for under in ("", HANDOVER)
            for name, touched in self._place.touched(under).items()
            if touched < than and name not in {HANDOVER, *keep}
        ]
        for name in old:
            self._place.forget(name)
        return len(old)
