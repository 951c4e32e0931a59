"""One look at what is wrong: keep it, and tell every notifier what it was not told yet.

Belongs here: the order of it, its bounds in time and number.
Does not belong here: finding and keeping (``bridge.alerts``), one delivery (``notify``).

A notifier that does not take a change ends its own turn, and is told at the next look; the others are told.
Nothing is skipped: what comes later is told after what came before.

Source: product.md 14.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from syncflow_core.alerts import Alert, Change, Condition
from syncflow_core.bridge import alerts
from syncflow_core.bridge.database import Database
from syncflow_core.errors import SyncFlowError
from syncflow_core.notify import Notifier

MOST: Final = 40
"""Deliveries tried in one look."""
SECONDS: Final = 15.0
"""After so many no delivery begins: Dagster gives a sensor 60."""


@dataclass
class Told:
    """What came of one look."""

    elsewhere: bool = False
    """Whether another process is telling: nothing was done."""
    changes: list[str] = field(default_factory=list)
    """``webhook firing failed orders``: what was taken."""
    failures: dict[str, str] = field(default_factory=dict)
    """What went wrong with a notifier, by its name."""
    left: int = 0
    """Changes that somebody is still to be told of."""


def tell(
    database: Database,
    find: Callable[[sa.Connection, datetime], Sequence[Condition]],
    notifiers: Sequence[Notifier],
    installation: str,
    *,
    now: Callable[[], datetime],
) -> Told:
    """Look once.

    Args:
        database: Where everything is.
        find: What is wrong now.
        notifiers: Who is told.
        installation: What the receivers know this SyncFlow as.
        now: Aware.

    Raises:
        UnavailableError: The bridge database is away. What was told and could not be noted is told again.
    """
    told = Told()
    with alerts.telling(database) as alone:
        if not alone:
            return Told(elsewhere=True)
        with database.begin() as connection:
            alerts.advance(connection, find(connection, now()), now())
            found = alerts.load_alerts(connection)
        end, tries = time.monotonic() + SECONDS, 0
        for alert in found:
            for notifier in notifiers:
                due = alert.untold(notifier.name)
                if tries >= MOST or time.monotonic() > end or notifier.name in told.failures:
                    told.left += len(due)
                    continue
                tries += len(due)
                told.left += _tell(database, alert, notifier, installation, told)
        with database.begin() as connection:
            alerts.forget_told(connection, [notifier.name for notifier in notifiers])
    return told


def _tell(
    database: Database, alert: Alert, notifier: Notifier, installation: str, told: Told
) -> int:
    """Tell a notifier what it does not know of an alert, in order; how much is left."""
    due = alert.untold(notifier.name)
    for done, state in enumerate(due):
        try:
            notifier.tell(Change(alert, state, installation))
        except SyncFlowError as error:
            told.failures[notifier.name] = str(error)
            return len(due) - done
        with database.begin() as connection:
            alerts.note_told(connection, alert.uid, notifier.name, state)
        told.changes.append(f"{notifier.name} {state} {alert.kind} {alert.subject}")
    return 0
