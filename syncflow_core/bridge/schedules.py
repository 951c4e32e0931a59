"""``background_sync_schedule``: an entity's night window, and how far its sweep has come.

Belongs here: reading it, saving the sweep's progress.
Does not belong here: when the window is open, how large a slice is (``window``).

Source: product.md 1 and 7.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime, time
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from syncflow_core.bridge.tables import background_sync_schedule, sweep_slices
from syncflow_core.window import Window


@dataclass(frozen=True)
class Progress:
    """How far the sweep has come."""

    slice_size: int | None
    """Rows of the largest slice that the sweep has read; None before its first."""
    current_offset: int
    sweep_number: int
    last_slice: int | None
    last_night: date | None
    """The evening's date of the last slice done."""
    sweep_night: date | None
    """That of the sweep's first slice; None between two sweeps."""
    next_run_at: datetime | None


@dataclass(frozen=True)
class Night:
    """One entity's window and progress."""

    entity: str
    enabled: bool
    window_start: time
    window_end: time
    time_zone: str | None
    """None: the installation's."""
    nights: int
    progress: Progress


def load_nights(connection: sa.Connection, entities: Sequence[str] | None = None) -> list[Night]:
    """The schedules, by entity; None for all."""
    query = background_sync_schedule.select().order_by(background_sync_schedule.c.entity)
    if entities is not None:
        query = query.where(background_sync_schedule.c.entity.in_(entities))
    own = [item.name for item in fields(Night) if item.name != "progress"]
    return [
        Night(
            **{name: row[name] for name in own},
            progress=Progress(**{item.name: row[item.name] for item in fields(Progress)}),
        )
        for row in connection.execute(query).mappings()
    ]


def window_of(night: Night, time_zone: str) -> Window:
    """The entity's window, in its own zone or the installation's."""
    zone = ZoneInfo(night.time_zone or time_zone)
    return Window(night.window_start, night.window_end, zone)


def note_slice(
    connection: sa.Connection, entity: str, slice_: int, *, night: date, ends: bool, now: datetime
) -> None:
    """Save that a slice is done: the rows that the sweep has read, the largest slice, whose night it was.

    Args:
        connection: In the transaction that has kept the slice (``sweeps.save_slice``), or ended the sweep.
        entity: Its name.
        slice_: From 1.
        night: The evening's date; by day, the day's.
        ends: Whether the sweep has ended with it.
        now: Aware.
    """
    table = background_sync_schedule.c
    seen = sa.select(
        sa.func.coalesce(sa.func.sum(sweep_slices.c.counted), 0).label("rows"),
        sa.func.max(sweep_slices.c.counted).label("most"),
    ).where(sweep_slices.c.entity == entity)
    rows, most = connection.execute(seen).one()
    connection.execute(
        background_sync_schedule.update()
        .where(table.entity == entity)
        .values(
            slice_size=most,
            current_offset=rows,
            last_slice=slice_,
            last_night=night,
            sweep_night=None if ends else sa.func.coalesce(table.sweep_night, night),
            updated_at=now,
        )
    )


def save_next_run(connection: sa.Connection, entity: str, at: datetime | None) -> None:
    """Save when the entity's next slice is due."""
    connection.execute(
        background_sync_schedule.update()
        .where(background_sync_schedule.c.entity == entity)
        .values(next_run_at=at)
    )


def was_left_alone(connection: sa.Connection, entity: str, since: datetime) -> bool:
    """Whether no slice of the entity, nor all of it, was read since then, though it was declared before."""
    query = sa.text(
        "SELECT EXISTS (SELECT FROM bridge.entities WHERE name = :entity AND created_at <= :since) "
        "AND NOT EXISTS (SELECT FROM bridge.sync_batches WHERE entity = :entity "
        "AND started_at >= :since AND kind IN ('full', 'slice'))"
    )
    return bool(connection.scalar(query, {"entity": entity, "since": since}))


@dataclass(frozen=True)
class LastRead:
    """When an entity was read last, and from where an incremental sync would go on."""

    at: datetime | None
    """When its newest full or incremental batch began."""
    watermark: str | None
    whole: bool
    """Whether it was ever read whole."""


def load_last_reads(connection: sa.Connection) -> dict[str, LastRead]:
    """For every entity."""
    query = sa.text(
        """
        SELECT e.name, b.at, s.watermark, s.last_full_scan_at IS NOT NULL
        FROM bridge.entities AS e
        LEFT JOIN LATERAL (
            SELECT max(started_at) AS at FROM bridge.sync_batches
            WHERE entity = e.name AND kind IN ('full', 'incremental')) AS b ON true
        LEFT JOIN LATERAL (
            SELECT watermark, last_full_scan_at FROM bridge.erp_sync_state
            WHERE entity = e.name ORDER BY updated_at DESC LIMIT 1) AS s ON true
        """
    )
    return {row[0]: LastRead(*row[1:]) for row in connection.execute(query)}
