"""What is SyncFlow's own on this machine: the environment, the home, room on the disks.

Belongs here: looking at them; nothing is made, save an object in a bucket of staged frames, for a moment.
Does not belong here: the database in the home (``bridge``), Dagster's folder (``syncflow_dagster.daemon``).

Source: product.md 10; design.md, "Fixed interfaces", Environment.
"""

import os
import secrets
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

from syncflow_core.doctor.checks import Check, Seen
from syncflow_core.places import Folder, Place, place_of
from syncflow_core.settings import ENV_FILE, Settings, misspelled

NEEDED: Final = tuple(
    f"{system}_{name}"
    for system in ("apismith", "schedulehub")
    for name in ("url", "username", "password")
)
"""Settings without a default that would do."""
LEAST_FREE: Final = 2_000_000_000
"""Bytes: a million rows of 16 columns are staged in 0.7 of them, twice while a stage hands over."""
FULL: Final = 100_000_000
"""Bytes: below, the embedded database and the frames of a small sync do not fit."""
BUCKET_PATIENCE_S: Final = 2.0
"""A bucket that has not answered by then is away, for who asks the doctor."""


class Configuration:
    """The environment.

    Args:
        read: Reads it.
    """

    def __init__(self, read: Callable[[], Settings]) -> None:
        self._read = read
        self.settings: Settings | None = None
        """What was read; None where it cannot be."""

    @property
    def check(self) -> Check:
        """That it can be read and is whole."""
        return Check(
            "configuration", self._look, "correct the variables named (README.md, Your own ERP)"
        )

    def _look(self) -> Seen:
        settings = self.settings = self._read()
        slips = [f"{name} is no setting: {meant}?" for name, meant in misspelled().items()]
        missing = [f"SYNCFLOW_{name.upper()}" for name in NEEDED if not _given(settings, name)]
        if missing:
            return Seen(
                "; ".join([f"not set: {', '.join(missing)}", *slips]),
                "fail",
                f"export {' '.join(f'{name}=...' for name in missing)} "
                "(syncflow sandbox says those of its own servers)",
            )
        mode = stat.S_IMODE(ENV_FILE.stat().st_mode) if ENV_FILE.exists() else 0
        if mode & 0o077:
            words = f"{ENV_FILE.absolute()} holds secrets and is open to others (mode {mode:o})"
            return Seen("; ".join([words, *slips]), "warn", f"chmod 600 {ENV_FILE.absolute()}")
        if slips:
            return Seen("; ".join(slips), "warn")
        where = "embedded" if settings.database_url is None else "SYNCFLOW_DATABASE_URL"
        return Seen(f"whole; database: {where}, time zone {settings.time_zone}")


def machine_checks(settings: Settings) -> tuple[Check, ...]:
    """The home, and room on its disk and the frames'."""
    home = settings.home_path
    return (
        Check("home", lambda: folder_seen(home), "set SYNCFLOW_HOME to a folder of your own"),
        Check("disk.home", lambda: disk_seen(home), f"make room on the disk of {home}"),
        Check(
            "disk.frames",
            lambda: frames_seen(place_of(settings.frames_path, patience_s=BUCKET_PATIENCE_S)),
            "set SYNCFLOW_FRAMES_URI to a folder with room, or to a bucket that answers and may be written",
        ),
    )


def folder_seen(home: Path, *, closed: bool = True) -> Seen:
    """Whether a home is there, or can be made; and, where it should be *closed*, whether it is."""
    if not home.exists():
        place = _existing(home)
        if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
            return Seen(f"{home} is not there, and cannot be made in {place}", "fail")
        return Seen(f"{home} is not there yet; the first command makes it")
    if not home.is_dir() or not os.access(home, os.R_OK | os.W_OK | os.X_OK):
        return Seen(f"{home} is no folder that can be written", "fail")
    mode = stat.S_IMODE(home.stat().st_mode)
    if closed and mode & 0o077:
        return Seen(f"{home} is open to others (mode {mode:o})", "warn", f"chmod 700 {home}")
    return Seen(f"{home}")


def disk_seen(folder: Path) -> Seen:
    """Whether the disk that holds the folder, or will, has room."""
    free = shutil.disk_usage(_existing(folder.expanduser().absolute())).free
    words = f"{free / 1e9:,.1f} GB free for {folder}"
    if free < FULL:
        return Seen(words, "fail")
    if free < LEAST_FREE:
        return Seen(f"{words}, less than {LEAST_FREE / 1e9:.0f} GB", "warn")
    return Seen(words)


def frames_seen(place: Place) -> Seen:
    """Whether the folder's disk has room; of a bucket, whether it takes an object, gives it back and lets it go."""
    if isinstance(place, Folder):
        return disk_seen(place.root)
    scope, content = f"doctor-{secrets.token_hex(8)}", secrets.token_bytes(8)
    place.put(f"{scope}/probe", content)
    try:
        same = place.get(f"{scope}/probe") == content
    finally:
        place.forget(scope)
    if not same:
        return Seen(f"{place} gives back something else than what was written", "fail")
    return Seen(f"{place}: written, read and removed")


def _given(settings: Settings, name: str) -> bool:
    value = getattr(settings, name)
    return bool(value.get_secret_value() if hasattr(value, "get_secret_value") else value)


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that is there."""
    return next(place for place in (path, *path.parents) if place.exists())
