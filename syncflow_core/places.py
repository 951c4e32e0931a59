"""Where staged frames and hand-over lie: by name, each whole or not there.

Belongs here: what a place has to offer, the folder, and which place an address means.
Does not belong here: object storage (``bucket``), what names there are and what stays in memory (``frames``).

A name is relative: ``<batch uid>/raw-1a2b3c4d/part-00000.arrow``. Machines that share a place may know it by
paths of their own.

Source: product.md 14, "Scale-out"; decision 0017.
"""

import os
import shutil
from pathlib import Path
from typing import Final, Protocol

import polars as pl

from syncflow_core.errors import ConfigError
from syncflow_core.private import make_file, make_folder, write_file

PATIENCE_S: Final = 30.0
"""How long a bucket that does not answer is asked again; a signal is heard after it only."""


class Place(Protocol):
    """Frames and bytes by name.

    What is not there is a ``FileNotFoundError``, a disk that refuses an ``OSError``; a bucket that refuses is a
    ``ConfigError``, one that is away an ``UnavailableError``.
    """

    def write(self, name: str, frame: pl.DataFrame) -> None:
        """The frame lies under this name."""

    def read(self, name: str, columns: list[str] | None = None) -> pl.DataFrame:
        """The frame of this name, of these columns alone where they are named."""

    def put(self, name: str, content: bytes) -> None:
        """The bytes lie under this name, in place of those that did."""

    def get(self, name: str) -> bytes:
        """The bytes of this name."""

    def forget(self, name: str) -> None:
        """Nothing lies under this name and a slash."""

    def touched(self, under: str = "") -> dict[str, float]:
        """The names one level under this one that have something under them, and when that was last written.

        The time is in seconds since 1970.
        """


def place_of(address: str, *, patience_s: float = PATIENCE_S) -> Place:
    """The place that a path, a ``file://`` URI or the URI of a bucket means; nothing is looked at or made.

    Args:
        address: ``SYNCFLOW_FRAMES_URI``, or the folder in the home.
        patience_s: How long a bucket that does not answer is asked again.

    Raises:
        ConfigError: The URI is of another kind, or its bucket cannot be asked with what is installed and set.
    """
    if "://" not in address or address.startswith("file://"):
        return Folder(Path(address.removeprefix("file://")))
    try:
        from syncflow_core.bucket import Bucket  # noqa: PLC0415  # what it needs is an extra
    except ImportError as error:
        raise ConfigError(
            "SYNCFLOW_FRAMES_URI names a bucket, and the package obstore is not installed: "
            "pip install 'syncflow[objects]'"
        ) from error
    return Bucket(address, patience_s)


class Folder:
    """A folder of this machine, or one that several share; made when something is written.

    Frames are Arrow IPC files, uncompressed so that they are mapped rather than read. What is written has a
    temporary name and is moved into place: a reader never sees half of it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def __str__(self) -> str:
        return str(self.root)

    def write(self, name: str, frame: pl.DataFrame) -> None:  # noqa: D102  # Place's
        path = self.root / name
        make_folder(path.parent)
        temporary = path.with_name(f".{path.name}")
        frame.write_ipc(make_file(temporary), compression="uncompressed")
        os.replace(temporary, path)  # noqa: PTH105  # atomic over an existing file

    def read(self, name: str, columns: list[str] | None = None) -> pl.DataFrame:  # noqa: D102  # Place's
        return pl.read_ipc(self.root / name, columns=columns)

    def put(self, name: str, content: bytes) -> None:  # noqa: D102  # Place's
        path = self.root / name
        make_folder(path.parent)
        write_file(path, content)

    def get(self, name: str) -> bytes:  # noqa: D102  # Place's
        return (self.root / name).read_bytes()

    def forget(self, name: str) -> None:  # noqa: D102  # Place's
        shutil.rmtree(self.root / name, ignore_errors=True)

    def touched(self, under: str = "") -> dict[str, float]:  # noqa: D102  # Place's
        parent = self.root / under
        if not parent.is_dir():
            return {}
        return {
            str(folder.relative_to(self.root)): folder.stat().st_mtime
            for folder in parent.iterdir()
            if folder.is_dir()
        }
