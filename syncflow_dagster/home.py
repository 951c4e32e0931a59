"""The home: where SyncFlow and Dagster keep what is theirs on this machine.

Belongs here: making the folders, and telling Dagster which is its own.
Does not belong here: what the databases in them hold.

Source: design.md, "Fixed interfaces", Environment.
"""

import os
from pathlib import Path

import dagster as dg
from dotenv import dotenv_values

from syncflow_core.private import make_home, write_file
from syncflow_core.settings import Settings

_HERE = Path(__file__).parent


def shipped(name: str) -> Path:
    """A file of the fixed top level: in the checkout, or inside the installed package."""
    packaged = _HERE / f"_{name}"
    return packaged if packaged.exists() else _HERE.parent / name


def prepare(settings: Settings) -> Path:
    """Make the home, closed to others, and Dagster's folder in it; both are absolute afterwards.

    ``DAGSTER_HOME`` is respected where it is set, its ``dagster.yaml`` included; in the home's own
    folder that file is this version's. ``SYNCFLOW_HOME`` and what a ``.env`` file says
    are set for the processes that this one starts: they may run in another folder.
    """
    for name, value in dotenv_values(".env").items():
        if name.startswith("SYNCFLOW_") and value is not None:
            os.environ.setdefault(name, value)
    home = settings.home_path
    make_home(home)
    os.environ["SYNCFLOW_HOME"] = str(home)
    ours = str(home / "dagster")
    # whatever the configuration of another folder says, nothing is told to Dagster's makers
    os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "yes")
    own = os.environ.setdefault("DAGSTER_HOME", ours) == ours
    dagster_home = Path(os.environ["DAGSTER_HOME"]).expanduser()
    make_home(dagster_home, "SYNCFLOW_HOME" if own else "DAGSTER_HOME")
    configuration = dagster_home / "dagster.yaml"
    text = shipped("dagster.yaml").read_text(encoding="utf-8")
    if not own:
        return home
    if not configuration.exists() or configuration.read_text(encoding="utf-8") != text:
        write_file(configuration, text.encode())
    return home


DEMO_MARK = "demo"
"""A file in the home that says that the demo made it, and may empty it."""


def disown(home: Path) -> None:
    """The home is somebody's own from here on: the demo empties it no more."""
    (home / DEMO_MARK).unlink(missing_ok=True)


def open_instance(settings: Settings) -> dg.DagsterInstance:
    """Dagster's instance: the same history for the command line, ``syncflow up`` and ``dagster dev``."""
    prepare(settings)
    return dg.DagsterInstance.get()
