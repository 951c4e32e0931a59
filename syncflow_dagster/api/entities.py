"""``/entities``, ``/mappings`` and ``/schedules``: the declarations, whole or a part of them.

Belongs here: the calls and their shapes.
Does not belong here: what a declaration means (``syncflow_core.entity``), its checks (``declaring``).

A declaration is one thing with one version: its fields and its schedule are edited by themselves, under
the entity's uid, and each edit makes the entity's next version.

Source: product.md 9 and 12.
"""

from collections.abc import Mapping
from typing import Annotated, Any
from uuid import UUID

import pydantic
from fastapi import APIRouter, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from syncflow_core import entity as declarations
from syncflow_core.bridge.entities import Registered, disable_entity, load_registered
from syncflow_core.bridge.schedules import Night, load_nights
from syncflow_core.entity import Background, Entity, Schedule
from syncflow_core.errors import ConfigError
from syncflow_dagster.api.problems import described
from syncflow_dagster.api.requests import (
    UID,
    Admin,
    EntityUid,
    Viewer,
    database_of,
    gateway_of,
    settings_of,
    started_by,
)
from syncflow_dagster.api.sync import StartedRun
from syncflow_dagster.declaring import check, declare

router = APIRouter()
DryRun = Annotated[
    bool,
    Query(
        description="Change nothing: launch a run that plans under the changed declaration; its plan, "
        "listed by the run's id, tells how many records would be sent."
    ),
]
EXAMPLE = {
    "name": "order_lines",
    "business_key": ["ORDER_NO", "LINE_NO"],
    "fields": [{"source": "QTY", "target": "quantity", "type": "decimal", "scale": 3}],
    "parents": {"order": {"entity": "orders", "key": {"order_no": "order_no"}}},
}


class EntityShown(BaseModel):
    """An entity as it is declared."""

    uid: UUID = Field(
        description="Its uid; its mapping and its schedule have the same.", examples=[UID]
    )
    name: str = Field(description="Its name, the key of its asset.", examples=["order_lines"])
    version: int = Field(description="The version of its declaration.", examples=[2])
    enabled: bool = Field(description="Whether it is synced.", examples=[True])
    contract: dict[str, str] | None = Field(
        description="The source's columns as last accepted, name to type; null before the first sync.",
        examples=[{"ORDER_NO": "VARCHAR2(20)"}],
    )
    declaration: dict[str, Any] = Field(
        description="What the entities file says of it; what is left out has its default.",
        examples=[EXAMPLE],
    )


class EntityList(BaseModel):
    """Entities by name."""

    items: list[EntityShown] = Field(description="All of them.")


class MappingShown(BaseModel):
    """An entity's fields."""

    uid: UUID = Field(description="The entity's uid.", examples=[UID])
    entity: str = Field(description="The entity.", examples=["order_lines"])
    version: int = Field(description="The version of its declaration.", examples=[2])
    fields: list[dict[str, Any]] = Field(
        description="As in the entities file, in their order; a source column that none names goes by "
        "`unmapped`.",
        examples=[EXAMPLE["fields"]],
    )


class MappingList(BaseModel):
    """Mappings by entity."""

    items: list[MappingShown] = Field(description="One of each entity.")


class MappingBody(BaseModel):
    """An entity's fields, all of them."""

    model_config = ConfigDict(extra="forbid")

    fields: list[declarations.Field] = Field(
        max_length=2_000,
        description="As in the entities file, in their order.",
        examples=[EXAMPLE["fields"]],
    )


class NewMapping(MappingBody):
    """The fields of an entity that has none declared."""

    entity: str = Field(description="The entity.", examples=["order_lines"])


class ScheduleBody(BaseModel):
    """When an entity is synced without anyone asking."""

    model_config = ConfigDict(extra="forbid")

    incremental_minutes: int | None = Field(
        default=None,
        ge=1,
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


@router.get(
    "/entities", operation_id="list_entities", tags=["entities"], responses=described(422, 503)
)
def list_entities(
    request: Request,
    _caller: Viewer,
    enabled: Annotated[bool | None, Query(description="Only those that are, or are not.")] = None,
) -> EntityList:
    """List the entities, by name."""
    return EntityList(items=[_entity(item) for item in _all(request, enabled=enabled)])


@router.post(
    "/entities",
    status_code=201,
    operation_id="create_entity",
    tags=["entities"],
    responses=described(409, 422, 503),
)
def create_entity(request: Request, _caller: Admin, declaration: Entity) -> EntityShown:
    """Declare an entity, as an entities file does; it is in the Dagster UI within seconds."""
    if any(item.entity.name == declaration.name for item in _all(request)):
        raise HTTPException(409, f"there is an entity {declaration.name} already: PUT changes it")
    _declare(request, declaration)
    return _entity(next(i for i in _all(request) if i.entity.name == declaration.name))


@router.get(
    "/entities/{uid}",
    operation_id="get_entity",
    tags=["entities"],
    responses=described(404, 422, 503),
)
def get_entity(request: Request, _caller: Viewer, uid: EntityUid) -> EntityShown:
    """Show one entity."""
    return _entity(_one(request, uid))


@router.put(
    "/entities/{uid}",
    operation_id="replace_entity",
    tags=["entities"],
    response_model=EntityShown,
    responses={202: {"model": StartedRun}, **described(404, 409, 422, 503)},
)
def replace_entity(
    request: Request, caller: Admin, uid: EntityUid, declaration: Entity, *, dry_run: DryRun = False
) -> Any:  # noqa: ANN401  # either answer
    """Replace an entity's declaration; its name stays."""
    known = _one(request, uid)
    if declaration.name != known.entity.name:
        raise HTTPException(409, f"this is entity {known.entity.name}; a name cannot be changed")
    return _changed(request, started_by(caller), known, declaration, dry_run=dry_run)


@router.delete(
    "/entities/{uid}",
    status_code=204,
    operation_id="disable_entity",
    tags=["entities"],
    response_class=Response,
    responses={202: {"model": StartedRun}, **described(404, 409, 422, 503)},
)
def delete_entity(
    request: Request,
    caller: Admin,
    uid: EntityUid,
    *,
    purge: Annotated[
        bool,
        Query(
            description="Launch a run that plans to delete all its records from ScheduleHub; applying "
            "the plan does so, and disables the entity then."
        ),
    ] = False,
) -> Response:
    """Sync an entity no more. What ScheduleHub holds of it stays, its history and declaration too."""
    known = _one(request, uid)
    children = [
        item.entity.name
        for item in _all(request, enabled=True)
        if item.uid != uid
        and any(parent.entity == known.entity.name for parent in item.entity.parents.values())
    ]
    if children:
        raise HTTPException(
            409, f"{known.entity.name} is a parent of {', '.join(children)}: disable those first"
        )
    if purge:
        config = {"entities": [known.entity.name], "purge": True}
        run = gateway_of(request).launch_op("plan", "make_plan", config, started_by(caller))
        return JSONResponse({"run_id": run}, 202)
    with database_of(request).begin() as connection:
        disable_entity(connection, known.entity.name)
    return Response(status_code=204)


@router.get(
    "/mappings", operation_id="list_mappings", tags=["mappings"], responses=described(422, 503)
)
def list_mappings(request: Request, _caller: Viewer) -> MappingList:
    """List the fields of every entity."""
    return MappingList(items=[_mapping(item) for item in _all(request)])


@router.post(
    "/mappings",
    status_code=201,
    operation_id="create_mapping",
    tags=["mappings"],
    responses=described(404, 409, 422, 503),
)
def create_mapping(request: Request, _caller: Admin, wanted: NewMapping) -> MappingShown:
    """Declare the fields of an entity that goes by its source's columns alone so far."""
    known = _named(request, wanted.entity)
    if known.entity.fields:
        raise HTTPException(409, f"entity {wanted.entity} has fields already: PUT changes them")
    _declare(request, _with(known.entity, {"fields": _given(wanted)["fields"]}))
    return _mapping(_one(request, known.uid))


@router.get(
    "/mappings/{uid}",
    operation_id="get_mapping",
    tags=["mappings"],
    responses=described(404, 422, 503),
)
def get_mapping(request: Request, _caller: Viewer, uid: EntityUid) -> MappingShown:
    """Show one entity's fields."""
    return _mapping(_one(request, uid))


@router.put(
    "/mappings/{uid}",
    operation_id="replace_mapping",
    tags=["mappings"],
    response_model=MappingShown,
    responses={202: {"model": StartedRun}, **described(404, 409, 422, 503)},
)
def replace_mapping(
    request: Request, caller: Admin, uid: EntityUid, wanted: MappingBody, *, dry_run: DryRun = False
) -> Any:  # noqa: ANN401  # either answer
    """Replace an entity's fields, all of them."""
    known = _one(request, uid)
    changed = _with(known.entity, {"fields": _given(wanted)["fields"]})
    done = _changed(request, started_by(caller), known, changed, dry_run=dry_run)
    return done if dry_run else _mapping(_one(request, uid))


@router.delete(
    "/mappings/{uid}",
    operation_id="delete_mapping",
    tags=["mappings"],
    response_model=MappingShown,
    responses={202: {"model": StartedRun}, **described(404, 409, 422, 503)},
)
def delete_mapping(
    request: Request, caller: Admin, uid: EntityUid, *, dry_run: DryRun = False
) -> Any:  # noqa: ANN401  # either answer
    """Let an entity go by its source's columns alone."""
    known = _one(request, uid)
    changed = _with(known.entity, {"fields": []})
    done = _changed(request, started_by(caller), known, changed, dry_run=dry_run)
    return done if dry_run else _mapping(_one(request, uid))


@router.get(
    "/schedules", operation_id="list_schedules", tags=["schedules"], responses=described(422, 503)
)
def list_schedules(request: Request, _caller: Viewer) -> ScheduleList:
    """List when every entity is synced without anyone asking, and how far its sweep has come."""
    nights = _nights(request)
    return ScheduleList(items=[_schedule(item, nights) for item in _all(request)])


@router.post(
    "/schedules",
    status_code=201,
    operation_id="create_schedule",
    tags=["schedules"],
    responses=described(404, 409, 422, 503),
)
def create_schedule(request: Request, _caller: Admin, wanted: NewSchedule) -> ScheduleShown:
    """Declare the schedule of an entity that has the default one so far."""
    known = _named(request, wanted.entity)
    if known.entity.schedule != Schedule():
        raise HTTPException(409, f"entity {wanted.entity} has a schedule already: PUT changes it")
    given = {key: value for key, value in _given(wanted).items() if key != "entity"}
    _declare(request, _with(known.entity, {"schedule": given}))
    return _schedule(_one(request, known.uid), _nights(request))


@router.get(
    "/schedules/{uid}",
    operation_id="get_schedule",
    tags=["schedules"],
    responses=described(404, 422, 503),
)
def get_schedule(request: Request, _caller: Viewer, uid: EntityUid) -> ScheduleShown:
    """Show one entity's schedule."""
    return _schedule(_one(request, uid), _nights(request))


@router.put(
    "/schedules/{uid}",
    operation_id="replace_schedule",
    tags=["schedules"],
    responses=described(404, 409, 422, 503),
)
def replace_schedule(
    request: Request, _caller: Admin, uid: EntityUid, wanted: ScheduleBody
) -> ScheduleShown:
    """Replace an entity's schedule; the sweep under way goes on unless the nights change."""
    known = _one(request, uid)
    _declare(request, _with(known.entity, {"schedule": _given(wanted)}))
    return _schedule(_one(request, uid), _nights(request))


@router.delete(
    "/schedules/{uid}",
    operation_id="delete_schedule",
    tags=["schedules"],
    responses=described(404, 409, 422, 503),
)
def delete_schedule(request: Request, _caller: Admin, uid: EntityUid) -> ScheduleShown:
    """Start nothing of an entity without a person: no sweep by night, no runs by day."""
    known = _one(request, uid)
    _declare(request, _with(known.entity, {"schedule": {"background": {"enabled": False}}}))
    return _schedule(_one(request, uid), _nights(request))


def _all(request: Request, *, enabled: bool | None = None) -> list[Registered]:
    with database_of(request).begin() as connection:
        return load_registered(connection, enabled=enabled)


def _one(request: Request, uid: UUID) -> Registered:
    found = next((item for item in _all(request) if item.uid == uid), None)
    if found is None:
        raise HTTPException(404, f"there is no entity {uid}")
    return found


def _named(request: Request, name: str) -> Registered:
    found = next((item for item in _all(request) if item.entity.name == name), None)
    if found is None:
        raise HTTPException(404, f"there is no entity {name[:80]!r}")
    return found


def _given(model: BaseModel) -> dict[str, Any]:
    """What was given, and nothing of what was left out."""
    return model.model_dump(mode="json", exclude_unset=True)


def _with(entity: Entity, part: Mapping[str, Any]) -> Entity:
    """The declaration with a part replaced.

    Raises:
        RequestValidationError: The parts do not go together.
    """
    try:
        return Entity.model_validate({**_given(entity), **part})
    except pydantic.ValidationError as error:
        raise RequestValidationError(
            [
                {**fault, "loc": ("body", *fault["loc"])}
                for fault in error.errors(include_input=False)
            ]
        ) from error


def _declare(request: Request, entity: Entity) -> None:
    try:
        with database_of(request).begin() as connection:
            declare(connection, [entity], settings_of(request).slices)
    except ConfigError as error:
        raise HTTPException(422, str(error)) from error


def _changed(  # each is a part of the change
    request: Request,
    tags: dict[str, str],
    known: Registered,
    changed: Entity,
    *,
    dry_run: bool,
) -> EntityShown | JSONResponse:
    """The entity with its declaration replaced; with *dry_run* the run that plans under it."""
    if not dry_run:
        _declare(request, changed)
        return _entity(_one(request, known.uid))
    others = [item.entity for item in _all(request, enabled=True) if item.uid != known.uid]
    try:
        check([*others, changed], settings_of(request).slices)
    except ConfigError as error:
        raise HTTPException(422, str(error)) from error
    config = {"entities": [known.entity.name], "mode": "full"}
    declaration = changed.model_dump_json(exclude_unset=True)
    run = gateway_of(request).launch_op(
        "plan", "make_plan", {**config, "declaration": declaration}, tags
    )
    return JSONResponse({"run_id": run}, 202)


def _entity(item: Registered) -> EntityShown:
    return EntityShown(
        uid=item.uid,
        name=item.entity.name,
        version=item.version,
        enabled=item.enabled,
        contract=item.contract,
        declaration=item.entity.model_dump(mode="json", exclude_defaults=True),
    )


def _mapping(item: Registered) -> MappingShown:
    fields = [field.model_dump(mode="json", exclude_defaults=True) for field in item.entity.fields]
    return MappingShown(uid=item.uid, entity=item.entity.name, version=item.version, fields=fields)


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
