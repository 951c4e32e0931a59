"""The sensor ``alerts``: it tells the notifiers what has become wrong, and what is over.

Belongs here: what is wrong by the checks' limits and by the clock, the sensor.
Does not belong here: keeping and telling (``syncflow_core.telling``), the command (``cli.alerts``).

Source: product.md 14.
"""

import datetime as dt
from typing import Final

import dagster as dg
import sqlalchemy as sa

from syncflow_core.alerts import Condition
from syncflow_core.bridge import alerts
from syncflow_core.bridge.database import Database
from syncflow_core.notify import notifiers_of
from syncflow_core.settings import Settings, read_settings
from syncflow_core.telling import Told, tell
from syncflow_dagster.checks import FAILED_SHARE
from syncflow_dagster.clock import utc_now
from syncflow_dagster.failures import told_to_dagster
from syncflow_dagster.nights import missed_shares

EVERY_S: Final = 30
UNSET: Final = (
    "no notifier is set up (SYNCFLOW_ALERT_WEBHOOK_URL, SYNCFLOW_ALERT_MAIL_TO); syncflow alerts lists "
    "what is wrong"
)


def wrong_now(connection: sa.Connection, now: dt.datetime, settings: Settings) -> list[Condition]:
    """All that is wrong now."""
    return [
        *alerts.find_conditions(connection, now, failed_share=FAILED_SHARE),
        *(
            Condition(
                "missed_night",
                share.entity,
                f"the night of {share.evening} closed with slices "
                f"{', '.join(map(str, share.slices))} left; the next night does them",
                share.closes,
            )
            for share in missed_shares(connection, now, settings)
        ),
    ]


def build_alert_sensor(job: str) -> dg.SensorDefinition:
    """``alerts``: every 30 seconds each notifier is told what it does not know.

    Args:
        job: A sensor belongs to a job, though this starts none.
    """

    @told_to_dagster()
    def look(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        environment = read_settings()
        notifiers = notifiers_of(environment)
        if not notifiers:
            return dg.SkipReason(UNSET)
        with Database.open(environment) as database:
            database.check_schema()
            told = tell(
                database,
                lambda connection, at: wrong_now(connection, at, environment),
                notifiers,
                environment.installation,
                now=utc_now,
            )
        for words in told.failures.values():
            context.log.warning("an alert was not taken, and is told again: %s", words)
        return dg.SkipReason(said(told))

    return dg.SensorDefinition(
        name="alerts",
        evaluation_fn=look,
        job_name=job,
        minimum_interval_seconds=EVERY_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Tells by webhook and mail what has become wrong and what is over, each once.",
    )


def said(told: Told) -> str:
    """What came of a look, in a line."""
    if told.elsewhere:
        return "another process is telling"
    parts = [f"told: {', '.join(told.changes)}"] if told.changes else []
    parts += [f"{name} did not take it: {words}" for name, words in told.failures.items()]
    if told.left:
        parts.append(f"{told.left} left to tell")
    return "; ".join(parts) or "nothing has changed"
