"""The REST API as a page, of its own description.

Belongs here: a part for each call: who may, what it takes and answers; the shapes of both.
Does not belong here: the calls (``api``).
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, get_args

from fastapi.routing import APIRoute

from syncflow_core.bridge.database import Database
from syncflow_core.settings import Settings
from syncflow_dagster.api import requests
from syncflow_dagster.api.app import create_app
from syncflow_dagster.api.gateway import DagsterGateway
from syncflow_dagster.api.security import ROLES, Verifier
from syncflow_dagster.reference.markdown import page, sentence, table
from syncflow_dagster.reference.schemas import Schema, default_of, keys, kind_of

NOWHERE: Final = "postgresql://127.0.0.1:9/none"
"""A database that nobody connects to: the API's description needs none."""
ERRORS: Final = range(400, 600)


def api_page() -> str:
    """Every call of the REST API."""
    settings = Settings(_env_file=None)
    with Database(NOWHERE) as database:
        gateway = DagsterGateway("http://127.0.0.1:9")
        app = create_app(settings, database, gateway, Verifier(settings, None))
        description = app.openapi()
        roles = {route.operation_id: _role(route) for route in _routes(app.routes)}
    schemas: Mapping[str, Schema] = description["components"]["schemas"]
    calls = [
        (path, method.upper(), call)
        for path, methods in description["paths"].items()
        for method, call in methods.items()
    ]
    bodies = sorted({name for _, _, call in calls for name in _models(call, schemas)} - {"Problem"})
    return page(
        "The REST API",
        "the API's OpenAPI description",
        "`GET /api/v1/openapi.json` is the whole description, with examples; "
        "[how to use it](../operations/api.md). Errors are problem details (RFC 9457).",
        *(
            f"## {tag}\n\n"
            + "\n\n".join(
                _call(path, method, call, roles[call["operationId"]])
                for path, method, call in calls
                if call["tags"] == [tag]
            )
            for tag in dict.fromkeys(call["tags"][0] for _, _, call in calls)
        ),
        "## Shapes",
        *(
            f"### {name}\n\n{sentence(schemas[name].get('description', ''))}\n\n"
            + keys(schemas[name])
            for name in bodies
        ),
    )


def _routes(routes: Iterable[object]) -> Iterator[APIRoute]:
    """The calls, those of included routers too."""
    for route in routes:
        if isinstance(route, APIRoute):
            yield route
        elif (router := getattr(route, "original_router", None)) is not None:
            yield from _routes(router.routes)


def _role(route: APIRoute) -> str | None:
    """The least role that a call needs; None for one that needs no token."""
    marks = {
        get_args(kind)[1].dependency: role
        for role, kind in zip(
            ROLES, (requests.Viewer, requests.Operator, requests.Admin), strict=True
        )
    }
    return next(
        (marks[item.call] for item in route.dependant.dependencies if item.call in marks), None
    )


def _call(path: str, method: str, call: Schema, role: str | None) -> str:
    answers = [
        f"{status}{_shape(answer)}"
        for status, answer in call["responses"].items()
        if int(status) not in ERRORS
    ]
    refusals = [status for status in call["responses"] if int(status) in ERRORS]
    parts = [
        f"### {method} {path}",
        sentence(call.get("description", "")),
        f"Role: {role or 'none, and no token'}. Answers: {', '.join(answers)}"
        + (f"; refuses with {', '.join(refusals)}." if refusals else "."),
    ]
    if "requestBody" in call:
        parts.append(f"Body:{_shape(call['requestBody'])}.")
    rows = [
        (
            f"`{item['name']}`",
            item["in"],
            kind_of(item["schema"]),
            "needed" if item.get("required") else default_of(item["schema"]),
            item.get("description", ""),
        )
        for item in call.get("parameters", ())
    ]
    if rows:
        parts.append(table(("parameter", "in", "holds", "default", "says"), rows))
    return "\n\n".join(parts)


def _shape(part: Schema) -> str:
    """What a body holds."""
    schema: Schema = next((item.get("schema", {}) for item in part.get("content", {}).values()), {})
    return f" {kind_of(schema)}" if schema else ""


def _models(part: object, schemas: Mapping[str, Schema]) -> set[str]:
    """The names of all models that a part of the description speaks of, those within them too."""
    found: set[str] = set()
    todo = [part]
    while todo:
        item = todo.pop()
        if isinstance(item, Mapping):
            name = str(item.get("$ref", "")).rpartition("/")[2]
            if name and name not in found:
                found.add(name)
                todo.append(schemas[name])
            todo += item.values()
        elif isinstance(item, list):
            todo += item
    return found
