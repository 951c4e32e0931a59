"""``syncflow alerts``: what is wrong now, who was told of it, and whether the notifiers work.

Belongs here: printing, the test message.
Does not belong here: finding what is wrong (``alerting``), telling of it (the sensor ``alerts``).
"""

import sys
from collections.abc import Sequence

import msgspec
from rich.table import Table

from syncflow_core.alerts import Alert, Change, Condition
from syncflow_core.bridge.alerts import load_alerts
from syncflow_core.bridge.database import Database
from syncflow_core.bridge.identifiers import new_uid
from syncflow_core.errors import ConfigError, SyncFlowError
from syncflow_core.notify import notifiers_of
from syncflow_core.printable import printable
from syncflow_core.settings import read_settings
from syncflow_dagster.alerting import UNSET, wrong_now
from syncflow_dagster.clock import utc_now
from syncflow_dagster.terminal import console


def run(*, as_json: bool) -> None:
    """Print what is wrong now; nothing is told or kept."""
    settings, now = read_settings(), utc_now()
    with Database.open(settings) as database:
        database.check_schema()
        with database.begin() as connection:
            found = wrong_now(connection, now, settings)
            kept = {
                (alert.kind, alert.subject): alert
                for alert in load_alerts(connection)
                if alert.ended_at is None
            }
    unique = {(item.kind, item.subject): item for item in reversed(found)}
    lines = [_line(unique[key], kept.get(key)) for key in sorted(unique)]
    if as_json:
        for line in lines:
            sys.stdout.write(msgspec.json.encode(line).decode() + "\n")
        return
    _show(lines, [notifier.name for notifier in notifiers_of(settings)])


def _line(condition: Condition, alert: Alert | None) -> dict[str, object]:
    since = alert.since if alert is not None else condition.since
    return {
        "kind": condition.kind,
        "subject": condition.subject,
        "message": condition.message,
        "since": since,
        "batch": None if condition.batch is None else str(condition.batch),
        "run_id": condition.run_id,
        "told": sorted(mark.split()[0] for mark in alert.told) if alert is not None else [],
    }


def _show(lines: Sequence[dict[str, object]], notifiers: Sequence[str]) -> None:
    screen = console()
    if not lines:
        screen.print("nothing is wrong")
    else:
        table = Table(box=None, pad_edge=False)
        for heading in ("kind", "where", "since", "told", "what"):
            table.add_column(heading)
        for line in lines:
            since = line["since"]
            table.add_row(
                str(line["kind"]),
                printable(str(line["subject"])),
                f"{since:%Y-%m-%d %H:%M:%S}" if since else "now",
                " ".join(map(str, told)) if isinstance(told := line["told"], list) else "",
                printable(str(line["message"])),
            )
        screen.print(table)
    if not notifiers:
        screen.print(UNSET.partition(";")[0], style="dim", markup=False)


def try_out(*, as_json: bool) -> int:
    """Send each notifier a message of kind ``test``; the highest status of those that failed."""
    settings = read_settings()
    notifiers = notifiers_of(settings)
    if not notifiers:
        raise ConfigError(UNSET.partition(";")[0])
    alert = Alert(
        new_uid(), "test", "syncflow", "somebody tries the notifiers; nothing is wrong", utc_now()
    )
    statuses = [0]
    for notifier in notifiers:
        error: SyncFlowError | None = None
        try:
            notifier.tell(Change(alert, "firing", settings.installation))
        except SyncFlowError as refused:
            error = refused
            statuses.append(refused.exit_status)
        if as_json:
            told = {
                "notifier": notifier.name,
                "took": error is None,
                "error": None if error is None else str(error),
            }
            sys.stdout.write(msgspec.json.encode(told).decode() + "\n")
        else:
            words = "took the test message" if error is None else f"did not take it: {error}"
            console().print(printable(f"{notifier.name}: {words}"), markup=False)
    return max(statuses)
