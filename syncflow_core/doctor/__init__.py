"""Whether everything that SyncFlow needs is there and as it should be, and how to mend what is not.

1. ``machine``   the environment, the home, room on the disks
2. ``bridge``    the bridge database
3. ``systems``   APISmith and ScheduleHub (``clocks``: their clocks)
4. ``entities``  each entity: declaration, columns, parents, a page of rows, collection, mapping

Belongs here: the order in which it is looked, and what goes side by side.
Does not belong here: single checks, how a check is made (``checks``), Dagster (``syncflow_dagster.daemon``).

The law of this package: it reads, and writes to neither system nor to the bridge database.

Source: product.md 10, ``doctor``.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime
from typing import Final

from syncflow_core.apismith import Source
from syncflow_core.bridge.entities import Registered
from syncflow_core.doctor.bridge import Bridge
from syncflow_core.doctor.checks import Check, Finding, Seen, made, skipped
from syncflow_core.doctor.entities import Catalogue, Declared
from syncflow_core.doctor.machine import Configuration, machine_checks
from syncflow_core.doctor.systems import LIMITS, System, apis_seen
from syncflow_core.schedulehub import Target
from syncflow_core.settings import Settings

ENTITIES_S: Final = 60.0
"""After so long no further check of an entity is begun."""
AT_ONCE: Final = 4
"""Entities looked at side by side: as many requests as the clients have connections."""
AFTER_CONFIGURATION: Final = (
    "home",
    "database",
    "apismith",
    "schedulehub",
    "entities",
)
"""What is told as skipped where the environment cannot be read."""

More = Callable[[Settings, Bridge], Sequence[Check]]
"""Checks of the shell's own, made after the database's."""


def nothing_more(_settings: Settings, _bridge: Bridge) -> Sequence[Check]:
    """No checks."""
    return ()


def source_system(settings: Settings) -> System[Source]:
    """APISmith, to be looked at."""
    return System(
        "apismith",
        lambda: Source.open(settings, limits=LIMITS),
        has_url=settings.apismith_url is not None,
    )


def target_system(settings: Settings) -> System[Target]:
    """ScheduleHub, to be looked at."""
    return System(
        "schedulehub",
        lambda: Target.open(settings, limits=LIMITS, at_once=1),
        has_url=settings.schedulehub_url is not None,
    )


def examine(
    read: Callable[[], Settings],
    names: Sequence[str] = (),
    *,
    now: Callable[[], datetime],
    more: More = nothing_more,
) -> Iterator[Finding]:
    """Look at everything, and say what was found as it is found.

    Args:
        read: Reads the environment.
        names: Entities to look at; the enabled ones without any.
        now: This machine's time, aware.
        more: Checks of the shell's own.
    """
    found: dict[str, Finding] = {}
    configuration = Configuration(read)
    yield from made([configuration.check], found)
    settings = configuration.settings
    if settings is None:
        why = "not looked at: see configuration"
        yield from (skipped(name, why, root="configuration") for name in AFTER_CONFIGURATION)
        return
    yield from made(machine_checks(settings), found)
    with ExitStack() as closing:
        bridge = Bridge(settings)
        source, target = source_system(settings), target_system(settings)
        for place in (bridge, source, target):
            closing.callback(place.close)
        apis = Check(
            "apismith.apis",
            lambda: apis_seen(source.client),
            "may the account list APIs? activate one there",
            ("apismith.login",),
        )
        groups: list[Sequence[Check]] = [
            (*bridge.checks(now), *more(settings, bridge)),
            (*source.checks(now), apis),
            target.checks(now),
        ]
        yield from _side_by_side(groups, found, None)
        entities = _Entities(bridge, names)
        yield from made([entities.check], found)
        catalogue = Catalogue(lambda: source.client)
        looks = [
            Declared(
                item, entities.all, lambda: source.client, lambda: target.client, catalogue
            ).checks()
            for item in entities.chosen
        ]
        yield from _side_by_side(looks, found, time.monotonic() + ENTITIES_S)


class _Entities:
    """The entities to look at."""

    def __init__(self, bridge: Bridge, names: Sequence[str]) -> None:
        self._bridge, self._names = bridge, names
        self.chosen: list[Registered] = []
        self.all: dict[str, Registered] = {}

    @property
    def check(self) -> Check:
        """That there are any."""
        return Check(
            "entities", self._look, "syncflow entities list says which", ("database.migrations",)
        )

    def _look(self) -> Seen:
        self.chosen = self._bridge.registered(self._names)
        self.all = self._bridge.everything()
        if not self.chosen:
            return Seen("no entity is declared", "warn", "syncflow entities apply FILE")
        return Seen(", ".join(item.entity.name for item in self.chosen))


def _side_by_side(
    groups: Sequence[Sequence[Check]], found: dict[str, Finding], until: float | None
) -> Iterator[Finding]:
    """The findings of all groups, in order; the groups themselves go side by side."""
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="doctor") as pool:
        for findings in pool.map(lambda checks: list(made(checks, found, until=until)), groups):
            yield from findings
