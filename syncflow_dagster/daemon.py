"""Dagster's own part of readiness: its folder, and whether its daemon runs.

Without the daemon nothing starts by itself, and runs that are asked for stay in the queue.

Belongs here: looking. Opening an instance makes tables and files where there are none: the doctor
opens none then.
Does not belong here: the other checks (``syncflow_core.doctor``), making the folder (``home``).

Source: product.md 9 (``/health/ready``) and 10.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import dagster as dg
import sqlalchemy as sa

from syncflow_core.doctor.bridge import Bridge
from syncflow_core.doctor.checks import Check, Seen
from syncflow_core.doctor.machine import folder_seen
from syncflow_core.settings import Settings
from syncflow_dagster.clock import utc_now
from syncflow_dagster.failures import history_there
from syncflow_dagster.home import open_instance

LATE_S: Final = 180.0
"""Since the last heartbeat: one comes every 30 s, later where a sensor takes its 60. Dagster itself
takes a daemon for healthy that has been silent for half an hour."""
NOBODY: Final = "no daemon runs: nothing starts by itself"
START: Final = "syncflow up starts one (elsewhere: dagster-daemon run)"


def dagster_checks(settings: Settings, bridge: Bridge) -> Sequence[Check]:
    """Dagster's folder, and its daemon."""
    # its history is in the same database where that has an address
    needs = ("dagster.home", *(("database",) if settings.database_url is not None else ()))
    return (
        Check(
            "dagster.home",
            lambda: _home_seen(settings),
            "set DAGSTER_HOME to a folder of your own, by its whole path, or unset it",
            () if os.environ.get("DAGSTER_HOME") else ("home",),
        ),
        Check("dagster.daemon", lambda: _kept_daemon_seen(settings, bridge), START, needs),
    )


def daemon_seen(instance: dg.DagsterInstance) -> Seen:
    """Whether each part of the daemon has given a sign of life, and when the last one did.

    Raises:
        UnavailableError: Dagster's history is away.
    """
    with history_there():
        statuses = instance.get_daemon_statuses().values()
    now = utc_now().timestamp()
    ages = {
        status.daemon_type: now - status.last_heartbeat.timestamp
        for status in statuses
        if status.required and status.last_heartbeat is not None
    }
    if not ages:
        return Seen(NOBODY, "warn")
    if min(ages.values()) > LATE_S:
        return Seen(f"{NOBODY}; the last sign of life is {min(ages.values()):,.0f} s old", "warn")
    silent = sorted(
        status.daemon_type
        for status in statuses
        if status.required and ages.get(status.daemon_type, LATE_S + 1) > LATE_S
    )
    if silent:
        return Seen(f"these parts of the daemon are silent: {', '.join(silent)}", "warn")
    return Seen(f"it runs; last sign of life {max(0.0, min(ages.values())):.0f} s ago")


def _dagster_home(settings: Settings) -> Path:
    given = os.environ.get("DAGSTER_HOME")
    return Path(given).expanduser() if given else settings.home_path / "dagster"


def _home_seen(settings: Settings) -> Seen:
    home = _dagster_home(settings)
    if not home.is_absolute():
        return Seen(f"DAGSTER_HOME {home} is no absolute path", "fail")
    return folder_seen(home, closed=False)


def _kept_daemon_seen(settings: Settings, bridge: Bridge) -> Seen:
    if not _history_is_kept(settings, bridge):
        return Seen(f"{NOBODY}; Dagster has kept nothing yet", "warn")
    with history_there(), open_instance(settings) as instance:
        return daemon_seen(instance)


def _history_is_kept(settings: Settings, bridge: Bridge) -> bool:
    """Whether opening Dagster's instance makes nothing that is not there."""
    if settings.database_url is None:
        return (settings.home_path / "dagster" / "history").exists()
    with bridge.database.begin() as connection:
        there = connection.scalar(sa.text("SELECT to_regclass('daemon_heartbeats') IS NOT NULL"))
    return bool(there) and _dagster_home(settings).exists()
