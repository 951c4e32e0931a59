"""The sensors that look after what nobody asked for: dead workers, a changed source, missed nights.

Belongs here: looking, within bounds, and telling.
Does not belong here: what is due (``retrying``), the night's own runs and their end (``nights``).

Source: product.md 7, 8 and 12; dagster.md 4 and T3.
"""

import hashlib
import json
from collections.abc import Callable
from typing import Final

import dagster as dg

from syncflow_core.apismith import Source
from syncflow_core.bridge.entities import Registered, load_registered
from syncflow_core.bridge.leases import runs_of_the_dead
from syncflow_core.contract import drift
from syncflow_core.settings import read_settings
from syncflow_dagster.abandoned import end_abandoned
from syncflow_dagster.checks import changed_contract
from syncflow_dagster.clock import utc_now
from syncflow_dagster.failures import told_to_dagster
from syncflow_dagster.nights import missed_shares
from syncflow_dagster.session import bridge
from syncflow_dagster.unbegun import close_forgotten

DEAD_S: Final = 30
CHANGED_S: Final = 900
MISSED_S: Final = 900
APIS_MOST: Final = 200
"""Entities whose columns are looked at in one go."""


def build_sensors(job: str) -> list[dg.SensorDefinition]:
    """``dead_workers``, ``source_changed`` and ``missed_nights``.

    Args:
        job: A sensor belongs to a job, though these start none.
    """
    return [
        _sensor(
            "dead_workers",
            _dead_workers,
            job,
            DEAD_S,
            "Ends runs whose process died with its code server or machine; Dagster takes them up again.",
        ),
        _sensor(
            "source_changed",
            _source_changed,
            job,
            CHANGED_S,
            "Compares the source's columns with those that were accepted, before a night finds out.",
        ),
        _sensor(
            "missed_nights",
            _missed_nights,
            job,
            MISSED_S,
            "Tells of entities whose night has closed with slices left.",
        ),
    ]


def _sensor(
    name: str,
    look: Callable[[dg.SensorEvaluationContext], dg.SensorResult | dg.SkipReason],
    job: str,
    every_s: int,
    description: str,
) -> dg.SensorDefinition:
    return dg.SensorDefinition(
        name=name,
        evaluation_fn=look,
        job_name=job,
        minimum_interval_seconds=every_s,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=description,
    )


def _dead_workers(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    settings = read_settings()
    with bridge(settings) as connection:
        dead = runs_of_the_dead(connection)
    ended = end_abandoned(context.instance, dead)
    with bridge(settings) as connection:
        close_forgotten(context.instance, connection, utc_now())
    if ended:
        context.log.warning("ended runs whose process had died: %s", ", ".join(ended))
    return dg.SkipReason(f"ended {', '.join(ended)}" if ended else "every worker lives")


def _source_changed(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    settings = read_settings()
    if settings.apismith_url is None:
        return dg.SkipReason("SYNCFLOW_APISMITH_URL is not set")
    with bridge(settings) as connection:
        accepted = [item for item in load_registered(connection) if item.contract is not None]
    told: dict[str, str] = json.loads(context.cursor or "{}")
    with told_to_dagster(), Source.open(settings) as source:
        found = {item.entity.name: _drift(source, item) for item in accepted[:APIS_MOST]}
    marks = {name: _mark(text) for name, (text, _) in found.items() if text}
    events = [
        changed_contract(name, text, broken=broken)
        for name, (text, broken) in found.items()
        if text and told.get(name) != marks[name]
    ]
    return dg.SensorResult(
        asset_events=events,
        cursor=json.dumps(marks),
        skip_reason=None if events else dg.SkipReason("the source's columns are as accepted"),
    )


def _drift(source: Source, item: Registered) -> tuple[str, bool]:
    """What differs from the accepted columns, and whether it keeps the entity from being synced."""
    found = drift(item.contract or {}, source.describe(item.entity.api), item.entity)
    return found.text, bool(found.broken)


def _mark(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _missed_nights(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    settings = read_settings()
    with bridge(settings) as connection:
        shares = missed_shares(connection, utc_now(), settings)
    told: dict[str, str] = json.loads(context.cursor or "{}")
    fresh = [share for share in shares if told.get(share.entity) != str(share.evening)]
    for share in fresh:
        context.log.error(
            "entity %s: the night of %s closed with slices %s left; the next night does them",
            share.entity,
            share.evening,
            share.slices,
        )
    events = [
        dg.AssetObservation(
            asset_key=dg.AssetKey([share.entity]),
            metadata={
                "missed_night": str(share.evening),
                "slices_left": ", ".join(map(str, share.slices)),
            },
        )
        for share in fresh
    ]
    kept = {**told, **{share.entity: str(share.evening) for share in fresh}}
    return dg.SensorResult(
        asset_events=events,
        cursor=json.dumps(kept),
        skip_reason=None if events else dg.SkipReason("every night was kept"),
    )
