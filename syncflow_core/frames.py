"""Staged frames: what one stage hands to the next, on disk, whole or not at all.

Belongs here: writing and reading frames by reference, and forgetting old ones.
Does not belong here: what is in them (``columns``, ``stages``).

A frame set is a folder of Arrow IPC files, uncompressed so that they are mapped rather than read.
Each file is written under a temporary name and moved into place: a reader never sees half of one.
Within one process the frames written last are kept in memory too.

Source: design.md, "The way of a record" 2.
"""

import os
import shutil
import uuid
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec
import polars as pl

from syncflow_core.errors import ConfigError, SyncFlowError
from syncflow_core.private import make_file, make_folder

KEPT_BYTES: Final = 1_500_000_000
"""Frames kept in memory besides their files, over all frame sets of the process (estimated size)."""

HANDOVER: Final = "handover"
"""The folder under the root in which the ops of each run leave what they hand over."""

PART_ROWS: Final = 500_000
"""Rows of one part: what a stage holds at once; keeps memory flat however many rows there are."""


class FrameRef(msgspec.Struct, frozen=True):
    """Where a frame set lies: small enough to be an op's output."""

    path: str
    parts: tuple[str, ...]
    rows: int

    def part_paths(self) -> list[str]:
        """The full path of each part, in order."""
        return [f"{self.path}/{name}" for name in self.parts]


class FrameStore:
    """Frame sets under one folder.

    Args:
        root: The folder, as a path or a ``file://`` URI; made when the first frame is written.

    Raises:
        ConfigError: The URI is of another kind.
    """

    def __init__(self, root: str) -> None:
        if "://" in root and not root.startswith("file://"):
            raise ConfigError(
                f"SYNCFLOW_FRAMES_URI {root}: staged frames lie in a folder; object storage is not "
                "supported yet"
            )
        self.root = Path(root.removeprefix("file://"))
        self._kept: OrderedDict[str, pl.DataFrame] = OrderedDict()
        self._kept_bytes = 0

    def write(self, scope: str, name: str, parts: Iterable[pl.DataFrame]) -> FrameRef:
        """Write a frame set part by part; empty parts are passed over, save that one part always stands.

        Args:
            scope: What the frames belong to, ``<batch uid>``: they are forgotten together.
            name: The frame set's name within it. A set of the same name is not overwritten: each
                write has a folder of its own, so a reader of the old one is not disturbed.
            parts: Frames of one schema.
        """
        folder = self.root / scope / f"{name}-{uuid.uuid4().hex[:8]}"
        names: list[str] = []
        rows = 0
        pending: pl.DataFrame | None = None
        for part in parts:
            if pending is None or pending.is_empty():
                pending = part
                continue
            if part.is_empty():
                continue
            names.append(self._write_part(folder, len(names), pending))
            rows += pending.height
            pending = part
        if pending is not None:
            names.append(self._write_part(folder, len(names), pending))
            rows += pending.height
        return FrameRef(str(folder), tuple(names), rows)

    def _write_part(self, folder: Path, index: int, frame: pl.DataFrame) -> str:
        make_folder(folder)
        name = f"part-{index:05d}.arrow"
        temporary = folder / f".{name}"
        try:
            frame.write_ipc(make_file(temporary), compression="uncompressed")
            os.replace(temporary, folder / name)  # noqa: PTH105  # atomic over an existing file
        except OSError as error:
            raise SyncFlowError(
                f"staged frame {folder / name}: cannot be written: {error}"
            ) from error
        self._keep(str(folder / name), frame)
        return name

    def parts(self, ref: FrameRef, *, last: bool = False) -> Iterator[pl.DataFrame]:
        """The parts of a frame set, in order, one at a time.

        Args:
            ref: The frame set.
            last: Nobody of this process reads it again: each part leaves memory after its turn, so that
                what is made of a set does not stand beside all of it. Its files stay.
        """
        for path in ref.part_paths():
            yield self._read(path)
            if last:
                self._let_go(path)

    def read(self, ref: FrameRef, columns: list[str] | None = None) -> pl.DataFrame:
        """All parts of a frame set as one frame, of these columns alone where they are named."""
        return pl.concat([self._read(path, columns) for path in ref.part_paths()], how="vertical")

    def _read(self, path: str, columns: list[str] | None = None) -> pl.DataFrame:
        kept = self._kept.get(path)
        if kept is not None:
            return kept if columns is None else kept.select(columns)
        try:
            return pl.read_ipc(path, columns=columns)
        except (OSError, pl.exceptions.ComputeError) as error:
            raise SyncFlowError(
                f"staged frame {path}: cannot be read ({error}): start the sync again"
            ) from error

    def _keep(self, path: str, frame: pl.DataFrame) -> None:
        self._kept[path] = frame
        self._kept_bytes += int(frame.estimated_size())
        while self._kept_bytes > KEPT_BYTES and len(self._kept) > 1:
            _, oldest = self._kept.popitem(last=False)
            self._kept_bytes -= int(oldest.estimated_size())

    def drop(self, ref: FrameRef) -> None:
        """Forget a frame set in memory; its files stay until the scope is forgotten."""
        for path in ref.part_paths():
            self._let_go(path)

    def _let_go(self, path: str) -> None:
        kept = self._kept.pop(path, None)
        if kept is not None:
            self._kept_bytes -= int(kept.estimated_size())

    def forget(self, scope: str) -> None:
        """Remove every frame set of a scope, in memory and on disk."""
        prefix = str(self.root / scope) + os.sep
        for path in [path for path in self._kept if path.startswith(prefix)]:
            self._let_go(path)
        shutil.rmtree(self.root / scope, ignore_errors=True)

    def forget_older(self, than: float, keep: Collection[str]) -> int:
        """Remove what runs that died left behind: scopes, and files of hand-over, of long ago.

        Args:
            than: Seconds since 1970; what was touched since stays.
            keep: Scopes that somebody works on.

        Returns:
            How many folders went.
        """
        old = [
            folder
            for parent in (self.root, self.root / HANDOVER)
            if parent.is_dir()
            for folder in parent.iterdir()
            if folder.is_dir()
            and folder.name not in {HANDOVER, *keep}
            and folder.stat().st_mtime < than
        ]
        for folder in old:
            shutil.rmtree(folder, ignore_errors=True)
        return len(old)
