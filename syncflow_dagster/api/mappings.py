"""``/mappings``: an entity's fields, edited by themselves under the entity's uid.

Belongs here: the calls and their shapes.
Does not belong here: what a field means (``syncflow_core.entity``).

Source: product.md 9 and 12.
"""

from typing import Any
from uuid import UUID

from fastapi import APIRouter, HTTPException, Request
from pydantic import BaseModel, ConfigDict, Field

from syncflow_core import entity as declarations
from syncflow_core.bridge.entities import Registered
from syncflow_dagster.api.declared import (
    EXAMPLE,
    DryRun,
    all_of,
    changed_in,
    given,
    named,
    one_of,
    replaced,
    written,
)
from syncflow_dagster.api.problems import described
from syncflow_dagster.api.requests import (
    UID,
    Admin,
    EntityUid,
    StartedRun,
    Viewer,
    started_by,
)

router = APIRouter(prefix="/mappings", tags=["mappings"])


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


@router.get("", operation_id="list_mappings", responses=described(422, 503))
def list_mappings(request: Request, _caller: Viewer) -> MappingList:
    """List the fields of every entity."""
    return MappingList(items=[_mapping(item) for item in all_of(request)])


@router.post(
    "",
    status_code=201,
    operation_id="create_mapping",
    responses=described(404, 409, 422, 503),
)
def create_mapping(request: Request, _caller: Admin, wanted: NewMapping) -> MappingShown:
    """Declare the fields of an entity that goes by its source's columns alone so far."""
    known = named(request, wanted.entity)
    if known.entity.fields:
        raise HTTPException(409, f"entity {wanted.entity} has fields already: PUT changes them")
    written(request, changed_in(known.entity, {"fields": given(wanted)["fields"]}))
    return _mapping(one_of(request, known.uid))


@router.get(
    "/{uid}",
    operation_id="get_mapping",
    responses=described(404, 422, 503),
)
def get_mapping(request: Request, _caller: Viewer, uid: EntityUid) -> MappingShown:
    """Show one entity's fields."""
    return _mapping(one_of(request, uid))


@router.put(
    "/{uid}",
    operation_id="replace_mapping",
    response_model=MappingShown,
    responses={202: {"model": StartedRun}, **described(404, 409, 422, 503)},
)
def replace_mapping(
    request: Request, caller: Admin, uid: EntityUid, wanted: MappingBody, *, dry_run: DryRun = False
) -> Any:  # noqa: ANN401  # either answer
    """Replace an entity's fields, all of them."""
    known = one_of(request, uid)
    changed = changed_in(known.entity, {"fields": given(wanted)["fields"]})
    asked = replaced(request, started_by(caller), known, changed, dry_run=dry_run)
    return asked or _mapping(one_of(request, uid))


@router.delete(
    "/{uid}",
    operation_id="delete_mapping",
    response_model=MappingShown,
    responses={202: {"model": StartedRun}, **described(404, 409, 422, 503)},
)
def delete_mapping(
    request: Request, caller: Admin, uid: EntityUid, *, dry_run: DryRun = False
) -> Any:  # noqa: ANN401  # either answer
    """Let an entity go by its source's columns alone."""
    known = one_of(request, uid)
    changed = changed_in(known.entity, {"fields": []})
    asked = replaced(request, started_by(caller), known, changed, dry_run=dry_run)
    return asked or _mapping(one_of(request, uid))


def _mapping(item: Registered) -> MappingShown:
    fields = [field.model_dump(mode="json", exclude_defaults=True) for field in item.entity.fields]
    return MappingShown(uid=item.uid, entity=item.entity.name, version=item.version, fields=fields)
