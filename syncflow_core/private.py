"""Files and folders that hold what the source holds, and secrets: their owner's alone to read.

Belongs here: making them so, whatever the process's umask is.
Does not belong here: what is in them; folders that were there before (``doctor.machine`` tells of those).
"""

import os
import secrets
from pathlib import Path

from syncflow_core.errors import ConfigError


def make_folder(path: Path) -> Path:
    """The folder is there; every level of it that was not is closed to others."""
    for level in reversed((path, *path.parents)):
        if not level.exists():
            level.mkdir(mode=0o700, exist_ok=True)
    return path


def make_home(folder: Path, variable: str = "SYNCFLOW_HOME") -> Path:
    """The folder that an environment variable names, or one in it, is there.

    Raises:
        ConfigError: It cannot be made.
    """
    try:
        return make_folder(folder)
    except OSError as error:
        raise ConfigError(f"{variable}: {folder} cannot be made: {error.strerror}") from error


def make_file(path: Path) -> Path:
    """The file is there, empty, and closed to others; one that was there is emptied."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
    return path


def write_file(path: Path, content: bytes) -> None:
    """The file holds this, whole or not at all; several processes may write it at once."""
    mine = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    make_file(mine).write_bytes(content)
    os.replace(mine, path)  # noqa: PTH105  # atomic over an existing file
