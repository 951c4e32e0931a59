"""``syncflow status``: where entities stand, on the terminal.

Belongs here: printing.
Does not belong here: gathering (``syncflow_core.standing``).
"""

import dataclasses
import sys
from collections.abc import Sequence
from datetime import datetime

import msgspec
from rich.table import Table

from syncflow_core.bridge.database import Database
from syncflow_core.bridge.entities import load_registered
from syncflow_core.printable import printable, printable_json
from syncflow_core.settings import read_settings
from syncflow_core.standing import Standing, standing
from syncflow_dagster.choices import refuse_unknown
from syncflow_dagster.logs import log_to_stderr
from syncflow_dagster.terminal import console

NUMBERS = ("known", "failed", "waiting", "dead", "waiting_deletes", "in_doubt")


def run(names: Sequence[str], *, as_json: bool) -> None:
    """Print where these entities stand; without any all that are enabled, or have something open."""
    settings = read_settings()
    log_to_stderr(settings)
    with Database.open(settings) as database:
        database.check_schema()
        with database.begin() as connection:
            entities = load_registered(connection, enabled=None)
        refuse_unknown(names, [item.entity for item in entities], database)
        with database.begin() as connection:
            stands = [
                standing(connection, item.entity, enabled=item.enabled)
                for item in entities
                if not names or item.entity.name in names
            ]
    found = [item for item in stands if names or item.enabled or item.is_open]
    if as_json:
        for item in found:
            sys.stdout.write(printable_json(msgspec.json.encode(_plain(item))) + "\n")
        return
    _show(found)


def _show(found: Sequence[Standing]) -> None:
    screen = console()
    if not found:
        screen.print("no entity is declared (syncflow entities apply FILE)")
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("entity", "last batch", "status", "ended"):
        table.add_column(heading)
    for name in NUMBERS:
        table.add_column(name.replace("_", " "), justify="right")
    for item in found:
        last = item.last
        table.add_row(
            item.entity if item.enabled else f"{item.entity} (disabled)",
            last.kind if last else "none",
            ("died" if item.abandoned else last.status) if last else "",
            _when(last.finished_at) if last and last.finished_at else "",
            *(f"{getattr(item, name):,}" if getattr(item, name) else "." for name in NUMBERS),
        )
    screen.print(table)
    for item in found:
        _show_trouble(item)


def _show_trouble(item: Standing) -> None:
    """What keeps records from their place, the most frequent first; what waits for a person."""
    screen = console()
    for cluster in item.failures:
        where = f"{cluster.stage} {cluster.rule}" + (
            f" in {cluster.column}" if cluster.column else ""
        )
        words = (
            f"{item.entity}: {cluster.count:,} x {where}, since {_when(cluster.first_seen)}, "
            f"last {_when(cluster.last_seen)}: {cluster.example}: {cluster.message}"
        )
        screen.print(printable(words), markup=False, style="red")
    if item.withheld is not None:
        plan = item.withheld
        words = f"{item.entity}: withheld: {plan.reason}; syncflow apply {plan.uid}"
        screen.print(printable(words), markup=False, style="red")
    if item.abandoned:
        screen.print(f"{item.entity}: its process has died; the next sync settles it", style="red")
    if item.last is not None and item.last.error:
        screen.print(printable(f"{item.entity}: {item.last.error}"), markup=False, style="red")


def _when(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}"


def _plain(item: Standing) -> dict[str, object]:
    last, plan = item.last, item.withheld
    return {
        "entity": item.entity,
        "enabled": item.enabled,
        "last_batch": None
        if last is None
        else {
            "batch": str(last.uid),
            "kind": last.kind,
            "status": last.status,
            "started_at": last.started_at,
            "finished_at": last.finished_at,
            "counts": dataclasses.asdict(last.counts),
            "error": last.error,
            "abandoned": item.abandoned,
        },
        "watermark": item.state.watermark,
        "last_full_scan_at": item.state.last_full_scan_at,
        **{name: getattr(item, name) for name in NUMBERS},
        "failures": [dataclasses.asdict(cluster) for cluster in item.failures],
        "withheld": None
        if plan is None
        else {"plan": str(plan.uid), "counts": dict(plan.counts), "reason": plan.reason},
    }
