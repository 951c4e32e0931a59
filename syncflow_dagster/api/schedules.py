"""``/schedules``: when an entity is synced without anyone asking, edited under the entity's uid.

Belongs here: the calls and their shapes.
Does not belong here: what a schedule starts (``nights``, ``daytime``).

Source: product.md 7, 9 and 12.
"""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from fastapi import APIRouter, HTTPException, Request
from pydantic import BaseModel, ConfigDict, Field

from syncflow_core.bridge.entities import Registered
from syncflow_core.bridge.schedules import Night, load_nights
from syncflow_core.entity import MONTH, Background, Schedule
from syncflow_dagster.api.declared import all_of, changed_in, given, named, one_of, written
from syncflow_dagster.api.problems import described
from syncflow_dagster.api.requests import (
    UID,
    Admin,
    EntityUid,
    Viewer,
    database_of,
)

router = APIRouter(prefix="/schedules", tags=["schedules"])


class ScheduleBody(BaseModel):
    """When an entity is synced without anyone asking."""

    model_config = ConfigDict(extra="forbid")

    incremental_minutes: int | None = Field(
        default=None,
        ge=1,
        le=MONTH,
        strict=True,
        description="By day, so often; null for never.",
        examples=[15],
    )
    background: Background = Field(
        default=Background(),
        description="The sweep of the whole table in slices, at night.",
        examples=[{"enabled": True, "window": "19:00-07:00", "nights": 7}],
    )


class NewSchedule(ScheduleBody):
    """The schedule of an entity that has none declared."""

    entity: str = Field(description="The entity.", examples=["order_lines"])


class ScheduleShown(ScheduleBody):
    """An entity's schedule, and how far its sweep has come."""

    model_config = ConfigDict(extra="ignore")

    uid: UUID = Field(description="The entity's uid.", examples=[UID])
    entity: str = Field(description="The entity.", examples=["order_lines"])
    version: int = Field(description="The version of its declaration.", examples=[2])
    progress: dict[str, Any] = Field(
        description="The sweep under way: its number, rows done, the last slice and its night, when the "
        "next one is due.",
        examples=[{"sweep_number": 3, "current_offset": 120_000, "last_slice": 4}],
    )


class ScheduleList(BaseModel):
    """Schedules by entity."""

    items: list[ScheduleShown] = Field(description="One of each entity.")


@router.get("", operation_id="list_schedules", responses=described(422, 503))
def list_schedules(request: Request, _caller: Viewer) -> ScheduleList:
    """List when every entity is synced without anyone asking, and how far its sweep has come."""
    nights = _nights(request)
    return ScheduleList(items=[_schedule(item, nights) for item in all_of(request)])


@router.post(
    "",
    status_code=201,
    operation_id="create_schedule",
    responses=described(404, 409, 422, 503),
)
def create_schedule(request: Request, _caller: Admin, wanted: NewSchedule) -> ScheduleShown:
    """Declare the schedule of an entity that has the default one so far."""
    known = named(request, wanted.entity)
    if known.entity.schedule != Schedule():
        raise HTTPException(409, f"entity {wanted.entity} has a schedule already: PUT changes it")
    schedule = {key: value for key, value in given(wanted).items() if key != "entity"}
    written(request, changed_in(known.entity, {"schedule": schedule}))
    return _schedule(one_of(request, known.uid), _nights(request))


@router.get(
    "/{uid}",
    operation_id="get_schedule",
    responses=described(404, 422, 503),
)
def get_schedule(request: Request, _caller: Viewer, uid: EntityUid) -> ScheduleShown:
    """Show one entity's schedule."""
    return _schedule(one_of(request, uid), _nights(request))


@router.put(
    "/{uid}",
    operation_id="replace_schedule",
    responses=described(404, 409, 422, 503),
)
def replace_schedule(
    request: Request, _caller: Admin, uid: EntityUid, wanted: ScheduleBody
) -> ScheduleShown:
    """Replace an entity's schedule; the sweep under way goes on unless the nights change."""
    known = one_of(request, uid)
    written(request, changed_in(known.entity, {"schedule": given(wanted)}))
    return _schedule(one_of(request, uid), _nights(request))


@router.delete(
    "/{uid}",
    operation_id="delete_schedule",
    responses=described(404, 409, 422, 503),
)
def delete_schedule(request: Request, _caller: Admin, uid: EntityUid) -> ScheduleShown:
    """Start nothing of an entity without a person: no sweep by night, no runs by day."""
    known = one_of(request, uid)
    written(request, changed_in(known.entity, {"schedule": {"background": {"enabled": False}}}))
    return _schedule(one_of(request, uid), _nights(request))


def _nights(request: Request) -> dict[str, Night]:
    with database_of(request).begin() as connection:
        return {night.entity: night for night in load_nights(connection)}


def _schedule(item: Registered, nights: Mapping[str, Night]) -> ScheduleShown:
    return ScheduleShown(
        uid=item.uid,
        entity=item.entity.name,
        version=item.version,
        progress=vars(nights[item.entity.name].progress),
        incremental_minutes=item.entity.schedule.incremental_minutes,
        background=item.entity.schedule.background,
    )
