"""What the calls on declarations share: finding one by its uid, replacing it or a part of it.

Belongs here: one declaration, one version, whichever part is edited.
Does not belong here: the calls (``entities``, ``mappings``, ``schedules``), the checks (``declaring``).

Source: product.md 9 and 12.
"""

from collections.abc import Mapping
from typing import Annotated, Any
from uuid import UUID

import pydantic
from fastapi import HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from syncflow_core.bridge.entities import Registered, load_registered
from syncflow_core.entity import Entity
from syncflow_core.errors import ConfigError
from syncflow_dagster.api.requests import database_of, gateway_of, settings_of
from syncflow_dagster.declaring import declare
from syncflow_dagster.op_jobs import PLAN

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
"""Of a declaration."""


def all_of(request: Request, *, enabled: bool | None = None) -> list[Registered]:
    """Every entity, or those that are enabled, or are not."""
    with database_of(request).begin() as connection:
        return load_registered(connection, enabled=enabled)


def one_of(request: Request, uid: UUID) -> Registered:
    """The entity of this uid.

    Raises:
        HTTPException: 404.
    """
    found = next((item for item in all_of(request) if item.uid == uid), None)
    if found is None:
        raise HTTPException(404, f"there is no entity {uid}")
    return found


def named(request: Request, name: str) -> Registered:
    """The entity of this name.

    Raises:
        HTTPException: 404.
    """
    found = next((item for item in all_of(request) if item.entity.name == name), None)
    if found is None:
        raise HTTPException(404, f"there is no entity {name[:80]!r}")
    return found


def given(model: BaseModel) -> dict[str, Any]:
    """What was given, and nothing of what was left out."""
    return model.model_dump(mode="json", exclude_unset=True)


def changed_in(entity: Entity, part: Mapping[str, Any]) -> Entity:
    """The declaration with a part replaced.

    Raises:
        RequestValidationError: The parts do not go together.
    """
    try:
        return Entity.model_validate({**given(entity), **part})
    except pydantic.ValidationError as error:
        raise RequestValidationError(
            [
                {**fault, "loc": ("body", *fault["loc"])}
                for fault in error.errors(include_input=False)
            ]
        ) from error


def written(request: Request, entity: Entity, *, keep: bool = True) -> None:
    """Write the declaration, where it can be read, ordered and loaded with the others; or only see whether.

    Raises:
        HTTPException: 422: it cannot.
    """
    try:
        with database_of(request).begin() as connection, connection.begin_nested() as written_now:
            declare(connection, [entity], settings_of(request).slices)
            if not keep:
                written_now.rollback()
    except ConfigError as error:
        raise HTTPException(422, str(error)) from error


def replaced(
    request: Request, tags: dict[str, str], known: Registered, changed: Entity, *, dry_run: bool
) -> JSONResponse | None:
    """Replace a declaration; with *dry_run* change nothing, and answer with the run that plans under it.

    Raises:
        HTTPException: 422: it cannot be read, ordered or loaded with the others.
    """
    if not dry_run:
        written(request, changed)
        return None
    written(request, changed, keep=False)
    config = {
        "entities": [known.entity.name],
        "mode": "full",
        "declaration": changed.model_dump_json(exclude_unset=True),
    }
    run = gateway_of(request).launch_op(PLAN, config, tags)
    return JSONResponse({"run_id": run}, 202)
