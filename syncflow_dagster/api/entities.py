"""``/entities``: whole declarations.

Belongs here: the calls and their shapes.
Does not belong here: what a declaration means (``syncflow_core.entity``), editing a part of one
(``mappings``, ``schedules``).

Source: product.md 9 and 12.
"""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, HTTPException, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from syncflow_core.bridge.entities import Registered, disable_entity
from syncflow_core.entity import Entity
from syncflow_dagster.api.declared import EXAMPLE, DryRun, all_of, one_of, replaced, written
from syncflow_dagster.api.problems import described
from syncflow_dagster.api.requests import (
    UID,
    Admin,
    EntityUid,
    StartedRun,
    Viewer,
    database_of,
    gateway_of,
    started_by,
)
from syncflow_dagster.op_jobs import PLAN

router = APIRouter(prefix="/entities", tags=["entities"])


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


@router.get("", operation_id="list_entities", responses=described(422, 503))
def list_entities(
    request: Request,
    _caller: Viewer,
    enabled: Annotated[bool | None, Query(description="Only those that are, or are not.")] = None,
) -> EntityList:
    """List the entities, by name."""
    return EntityList(items=[_entity(item) for item in all_of(request, enabled=enabled)])


@router.post(
    "",
    status_code=201,
    operation_id="create_entity",
    responses=described(409, 422, 503),
)
def create_entity(request: Request, _caller: Admin, declaration: Entity) -> EntityShown:
    """Declare an entity, as an entities file does; it is in the Dagster UI within seconds."""
    if any(item.entity.name == declaration.name for item in all_of(request)):
        raise HTTPException(409, f"there is an entity {declaration.name} already: PUT changes it")
    written(request, declaration)
    return _entity(next(i for i in all_of(request) if i.entity.name == declaration.name))


@router.get(
    "/{uid}",
    operation_id="get_entity",
    responses=described(404, 422, 503),
)
def get_entity(request: Request, _caller: Viewer, uid: EntityUid) -> EntityShown:
    """Show one entity."""
    return _entity(one_of(request, uid))


@router.put(
    "/{uid}",
    operation_id="replace_entity",
    response_model=EntityShown,
    responses={202: {"model": StartedRun}, **described(404, 409, 422, 503)},
)
def replace_entity(
    request: Request, caller: Admin, uid: EntityUid, declaration: Entity, *, dry_run: DryRun = False
) -> Any:  # noqa: ANN401  # either answer
    """Replace an entity's declaration; its name stays."""
    known = one_of(request, uid)
    if declaration.name != known.entity.name:
        raise HTTPException(409, f"this is entity {known.entity.name}; a name cannot be changed")
    asked = replaced(request, started_by(caller), known, declaration, dry_run=dry_run)
    return asked or _entity(one_of(request, uid))


@router.delete(
    "/{uid}",
    status_code=204,
    operation_id="disable_entity",
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
    known = one_of(request, uid)
    children = [
        item.entity.name
        for item in all_of(request, enabled=True)
        if item.uid != uid
        and any(parent.entity == known.entity.name for parent in item.entity.parents.values())
    ]
    if children:
        raise HTTPException(
            409, f"{known.entity.name} is a parent of {', '.join(children)}: disable those first"
        )
    if purge:
        config = {"entities": [known.entity.name], "purge": True}
        run = gateway_of(request).launch_op(PLAN, config, started_by(caller))
        return JSONResponse({"run_id": run}, 202)
    with database_of(request).begin() as connection:
        disable_entity(connection, known.entity.name)
    return Response(status_code=204)


def _entity(item: Registered) -> EntityShown:
    return EntityShown(
        uid=item.uid,
        name=item.entity.name,
        version=item.version,
        enabled=item.enabled,
        contract=item.contract,
        declaration=item.entity.model_dump(mode="json", exclude_defaults=True),
    )
