"""Errors as problem details (RFC 9457): what went wrong, in the words of whoever found it.

Belongs here: one answer for every error, without a stack or a statement in it.
Does not belong here: finding errors.
"""

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route

from syncflow_core.errors import ConfigError, SyncFlowError, UnavailableError

MEDIA_TYPE = "application/problem+json"
TITLES = {
    400: "Bad request",
    401: "Not authenticated",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    409: "Conflict",
    413: "Too large",
    422: "Not understood",
    429: "Too many requests",
    500: "Internal error",
    503: "Unavailable",
}


class Problem(BaseModel):
    """An error, as RFC 9457 has it."""

    type: str = Field(
        default="about:blank",
        description="Every error's: its title says what it is.",
        examples=["about:blank"],
    )
    title: str = Field(description="The kind of error.", examples=["Conflict"])
    status: int = Field(description="The HTTP status.", examples=[409])
    detail: str = Field(
        description="What is wrong here.", examples=["plan 0198... was applied before"]
    )
    errors: list[dict[str, Any]] | None = Field(
        default=None,
        description="Of a request that is not understood: every fault with its place.",
        examples=[[{"loc": ["body", "mode"], "msg": "Input should be 'auto'"}]],
    )


def problem(
    status: int,
    detail: str,
    *,
    headers: dict[str, str] | None = None,
    errors: list[dict[str, Any]] | None = None,
) -> JSONResponse:
    """The answer for an error."""
    found = Problem(title=TITLES.get(status, "Error"), status=status, detail=detail, errors=errors)
    return JSONResponse(
        found.model_dump(exclude_none=True), status, headers=headers, media_type=MEDIA_TYPE
    )


def described(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The errors of a call, for its description."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        status: {"model": Problem, "description": TITLES[status], "content": content}
        for status in sorted({400, 401, 403, 413, 422, 429, *statuses})
    }


def _methods(request: Request) -> set[str]:
    """What the path of a request can be asked by."""
    return {
        method
        for route in request.app.routes
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE
        for method in route.methods or ()
    }


def add_handlers(app: FastAPI) -> None:
    """Answer every error of the application with problem details."""

    @app.exception_handler(HTTPException)
    def http(request: Request, error: HTTPException) -> JSONResponse:
        headers = dict(error.headers or {})
        if (
            error.status_code == HTTPStatus.METHOD_NOT_ALLOWED
        ):  # of all calls of this path, not of one
            headers["Allow"] = ", ".join(sorted(_methods(request)))
        return problem(error.status_code, str(error.detail), headers=headers)

    @app.exception_handler(RequestValidationError)
    def invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
        faults = [
            {"loc": list(f["loc"]), "msg": f["msg"], "type": f["type"]} for f in error.errors()
        ]
        return problem(422, "the request is not understood", errors=faults)

    @app.exception_handler(SyncFlowError)
    def refused(_request: Request, error: SyncFlowError) -> JSONResponse:
        if isinstance(error, UnavailableError):
            wait = str(round(error.retry_after_s or 5))
            return problem(503, str(error), headers={"Retry-After": wait})
        return problem(422 if isinstance(error, ConfigError) else 409, str(error))

    @app.exception_handler(Exception)
    def unexpected(_request: Request, _error: Exception) -> JSONResponse:
        return problem(500, "an error of SyncFlow's own; its log has the rest")
