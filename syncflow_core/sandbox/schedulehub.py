"""ScheduleHub: holds the plan, one collection per entity.

Belongs here: the calls of contract.md, "ScheduleHub: holds the plan", and how an outcome becomes a status.
Does not belong here: what a call does to the records (``records``).
"""

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Annotated, Any, TypeVar

import msgspec
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Path, Query, Request
from msgspec import Raw
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response
from starlette.types import ASGIApp

from syncflow_core.sandbox.database import Pool
from syncflow_core.sandbox.faults import Faults
from syncflow_core.sandbox.records import Records
from syncflow_core.sandbox.web import API, Switches, Tokens, make_app
from syncflow_core.sandbox.wire import Outcome, Update

CONNECTIONS = 16
"""A call holds one, and takes a second where a collection or a reference is new."""
MOST_ROWS = 1_000
MOST_LISTED = 10_000
_T = TypeVar("_T")
_OK, _CREATED, _MULTI = 200, 201, 207

Entity = Annotated[str, Path(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,62}$")]
_RECORD_EXAMPLE = {
    "erp_key_hash": "0123456789abcdef0123456789abcdef",
    "erp_data_hash": "ab" * 32,
    "erp_rowversion": "1000001",
    "erp_ref_str": "order_no=SO0000000001|line_no=20",
    "parent_refs": {"order": "fedcba9876543210fedcba9876543210"},
    "quantity": 10.5,
}


class Reference(BaseModel):
    """Where references of this name are looked up."""

    model_config = ConfigDict(extra="forbid")

    collection: str = Field(examples=["order_lines"])
    name: str = Field(examples=["order"])
    parent: str = Field(examples=["orders"])


class _Inserts(msgspec.Struct):
    records: list[Raw]


class _Updates(msgspec.Struct):
    updates: list[Update]


class _Deletes(msgspec.Struct):
    uids: list[str]


class _Hashes(msgspec.Struct):
    erp_key_hashes: list[str]


class Hub:
    """The records, and what the server can be told to lack."""

    def __init__(self, records: Records) -> None:
        self.records = records
        self.batch_missing = 0

    def switch(self, switches: Switches) -> None:
        """Set the switches that concern this server."""
        if switches.batch_missing is not None:
            self.batch_missing = switches.batch_missing
        if switches.reject is not None:
            self.records.reject = switches.reject

    def offer_batch(self) -> None:
        """Refuse a batch call where they are switched off."""
        if self.batch_missing:
            raise HTTPException(self.batch_missing, "batch calls are not offered here")


def make_schedulehub(database_url: str, tokens: Tokens) -> ASGIApp:
    """The server as an ASGI application; connections are opened when first needed."""
    pool = Pool(database_url, CONNECTIONS)
    hub = Hub(Records(pool))

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        pool.close()

    router = APIRouter(prefix=API, tags=["ScheduleHub"])
    _add_batch_calls(router, hub)
    _add_single_calls(router, hub.records)
    return make_app(
        "ScheduleHub (sandbox)",
        tokens,
        [router, _control_calls(hub)],
        faults=Faults(),
        switch=hub.switch,
        stats=lambda: {"collections": hub.records.counts()},
        lifespan=lifespan,
    )


def _control_calls(hub: Hub) -> APIRouter:
    router = APIRouter(prefix="/sandbox", tags=["sandbox"])

    @router.post("/references")
    def set_references(body: list[Reference]) -> dict[str, int]:
        """Say in which collection a reference's parent lies."""
        for item in body:
            hub.records.set_reference(item.collection, item.name, item.parent)
        return {"references": len(body)}

    @router.post("/reset")
    def reset() -> dict[str, bool]:
        """Empty the hub, its log of effects too."""
        hub.records.reset()
        return {"empty": True}

    return router


def _add_single_calls(router: APIRouter, records: Records) -> None:
    @router.get("/{entity}", response_model=None)
    def list_records(
        entity: Entity,
        filter: Annotated[str | None, Query()] = None,  # noqa: A002  # contract.md names it so
        offset: Annotated[int, Query(ge=0)] = 0,
        limit: Annotated[int, Query(ge=0, le=MOST_LISTED)] = 1_000,
        fields: Annotated[str | None, Query(examples=["uid,erp_key_hash"])] = None,
    ) -> Response:
        """The live record of one key hash as a list, or a page of all live records by uid."""
        if filter is not None:
            return _json(records.find(entity, filter))
        names = [name.strip() for name in (fields or "").split(",") if name.strip()]
        return _json(records.page(entity, offset, limit, names))

    @router.post(
        "/{entity}",
        response_model=None,
        status_code=_CREATED,
        responses=_described(409, 422, 424),
        openapi_extra=_body(_RECORD_EXAMPLE),
    )
    async def insert_record(entity: Entity, request: Request) -> Response:
        """Insert one record."""
        body = await request.body()
        identity = request.headers.get("x-request-id")

        def work() -> Response:
            (outcome,) = records.insert(entity, [body], identity)
            return _single(records, entity, outcome, _CREATED)

        return await run_in_threadpool(work)

    @router.patch(
        "/{entity}/{uid}",
        response_model=None,
        responses=_described(404, 422, 424),
        openapi_extra=_body({"quantity": 11, "erp_data_hash": "cd" * 32}),
    )
    async def update_record(entity: Entity, uid: str, request: Request) -> Response:
        """Change the fields sent."""
        body = await request.body()
        identity = request.headers.get("x-request-id")

        def work() -> Response:
            (outcome,) = records.update(entity, [Update(uid, Raw(body))], identity)
            return _single(records, entity, outcome, _OK)

        return await run_in_threadpool(work)

    @router.delete("/{entity}/{uid}", response_model=None, responses=_described(404, 409))
    def delete_record(entity: Entity, uid: str, request: Request) -> Response:
        """Soft-delete one record."""
        (outcome,) = records.delete(entity, [uid], request.headers.get("x-request-id"))
        return _single(records, entity, outcome, _OK)


def _add_batch_calls(router: APIRouter, hub: Hub) -> None:
    batch = APIRouter(prefix="/{entity}/batch", dependencies=[Depends(hub.offer_batch)])
    records = hub.records

    def add(
        path: str, example: dict[str, Any], work: Callable[[str, bytes, str | None], Response]
    ) -> None:
        async def call(entity: Entity, request: Request) -> Response:
            body = await request.body()
            return await run_in_threadpool(work, entity, body, request.headers.get("x-request-id"))

        batch.add_api_route(
            path,
            call,
            methods=["POST"],
            response_model=None,
            name=f"batch {path[1:]}",
            responses=_described(207, 413, 422),
            openapi_extra=_body(example),
        )

    def query(entity: str, body: bytes, _request_id: str | None) -> Response:
        return _json(records.query(entity, _bounded(_decoded(body, _Hashes).erp_key_hashes)))

    def insert(entity: str, body: bytes, request_id: str | None) -> Response:
        rows = _bounded(_decoded(body, _Inserts).records)
        return _batch(records.insert(entity, rows, request_id))

    def update(entity: str, body: bytes, request_id: str | None) -> Response:
        rows = _bounded(_decoded(body, _Updates).updates)
        return _batch(records.update(entity, rows, request_id))

    def delete(entity: str, body: bytes, request_id: str | None) -> Response:
        rows = _bounded(_decoded(body, _Deletes).uids)
        return _batch(records.delete(entity, rows, request_id))

    uid = "0190a1b2-c3d4-7e5f-8a6b-7c8d9e0f1a2b"
    add("/query", {"erp_key_hashes": [_RECORD_EXAMPLE["erp_key_hash"]]}, query)
    add("/insert", {"records": [_RECORD_EXAMPLE]}, insert)
    add("/update", {"updates": [{"uid": uid, "data": {"quantity": 11}}]}, update)
    add("/delete", {"uids": [uid]}, delete)
    router.include_router(batch)


def _single(records: Records, entity: str, outcome: Outcome, status: int) -> Response:
    if outcome.code is None:
        return _json(records.read(entity, outcome.uid or ""), status)
    answer: dict[str, object] = {"detail": outcome.error}
    if outcome.code == 409 and outcome.children is None:  # noqa: PLR2004  # HTTP's conflict
        answer["uid"] = outcome.uid
    if outcome.children is not None:
        answer["children"] = outcome.children
    if outcome.missing_parents is not None:
        answer["missing_parents"] = outcome.missing_parents
    return _json(msgspec.json.encode(answer), outcome.code)


def _batch(outcomes: Sequence[Outcome]) -> Response:
    failed = sum(outcome.code is not None for outcome in outcomes)
    body = msgspec.json.encode(
        {
            "success_count": len(outcomes) - failed,
            "failure_count": failed,
            "results": outcomes,
        }
    )
    return _json(body, _MULTI if failed else _OK)


def _decoded(body: bytes, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise HTTPException(422, str(error)) from error


def _bounded(rows: list[_T]) -> list[_T]:
    if len(rows) > MOST_ROWS:
        raise HTTPException(413, f"{len(rows)} rows; a batch call takes at most {MOST_ROWS}")
    return rows


def _json(body: bytes, status: int = _OK) -> Response:
    return Response(body, status, media_type="application/json")


def _described(*statuses: int) -> dict[int | str, dict[str, Any]]:
    texts = {
        207: "Some rows failed",
        404: "No such record",
        409: "The key hash is there, or live children refer to the record",
        413: f"More than {MOST_ROWS} rows",
        422: "A field is bad",
        424: "A parent is not there",
    }
    return {status: {"description": texts[status]} for status in statuses}


def _body(example: dict[str, Any]) -> dict[str, Any]:
    content = {"application/json": {"schema": {"type": "object"}, "example": example}}
    return {"requestBody": {"required": True, "content": content}}
