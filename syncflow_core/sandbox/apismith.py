"""APISmith: serves the ERP's tables page by page.

Belongs here: the calls of contract.md, "APISmith: reads the ERP", and the control calls seed and day.
Does not belong here: the SQL of a page (``pages``), the rows (``erp``, ``days``).
"""

import contextlib
import io
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

import psycopg
import pyarrow as pa
from fastapi import APIRouter, FastAPI, HTTPException, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response
from starlette.types import ASGIApp

from syncflow_core.sandbox import days, erp, pages, store
from syncflow_core.sandbox.database import Connection, Pool
from syncflow_core.sandbox.faults import Faults
from syncflow_core.sandbox.pages import Execute, Reader
from syncflow_core.sandbox.store import Table
from syncflow_core.sandbox.web import API, Switches, Tokens, make_app

CONNECTIONS = 6
CONNECTOR_UID = "2f7a5a1e-5c0f-5a55-9c63-6f1d3a1d7d11"
JSON, NDJSON, ARROW = (
    "application/json",
    "application/x-ndjson",
    "application/vnd.apache.arrow.stream",
)


class Seed(BaseModel):
    """How to seed: the eight tables, or the wide one."""

    model_config = ConfigDict(extra="forbid")

    rows: Annotated[int, Field(ge=1)] = 50_000
    seed: int = 1
    truth: bool = True
    table: str = Field(default="erp", pattern="^(erp|bench)$")


class Day(BaseModel):
    """Shares of each table that change, come and go."""

    model_config = ConfigDict(extra="forbid")

    changed: Annotated[float, Field(ge=0, le=1)] = 0.01
    inserted: Annotated[float, Field(ge=0, le=1)] = 0.002
    deleted: Annotated[float, Field(ge=0, le=1)] = 0.002


class Served:
    """What the server counts and can be told to lack."""

    def __init__(self) -> None:
        self.pages = 0
        self.bytes = 0
        self.media = {NDJSON, ARROW}

    def switch(self, switches: Switches) -> None:
        """Set the switches that concern this server."""
        for media, wanted in ((NDJSON, switches.ndjson), (ARROW, switches.arrow)):
            if wanted is not None:
                (self.media.add if wanted else self.media.discard)(media)


def make_apismith(database_url: str, tokens: Tokens) -> ASGIApp:
    """The server as an ASGI application; connections are opened when first needed."""
    pool = Pool(database_url, CONNECTIONS)
    served = Served()

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        pool.close()

    def stats() -> dict[str, object]:
        with pool.connection() as connection:
            return {
                "tables": erp.count_rows(connection),
                "pages": served.pages,
                "bytes": served.bytes,
            }

    router = APIRouter(prefix=API)
    router.include_router(_router(pool, served))
    return make_app(
        "APISmith (sandbox)",
        tokens,
        [router, control_calls(pool)],
        faults=Faults(),
        switch=served.switch,
        stats=stats,
        lifespan=lifespan,
    )


def _router(pool: Pool, served: Served) -> APIRouter:
    router = APIRouter(tags=["APISmith"])
    reader = Reader()

    @router.get("/connectors")
    def list_connectors() -> list[dict[str, object]]:
        """The databases that APISmith reads."""
        return [{"uid": CONNECTOR_UID, "name": "ERP", "type": "oracle", "is_active": True}]

    @router.get("/apis")
    def list_apis(
        page: Annotated[int, Query(ge=1)] = 1,
        page_size: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> dict[str, object]:
        """The APIs, by name, page by page."""
        with pool.connection() as connection:
            found = store.tables(connection)
        first = (page - 1) * page_size
        return {
            "items": [describe(table) for table in found[first : first + page_size]],
            "total": len(found),
            "page": page,
            "page_size": page_size,
            "total_pages": -(-len(found) // page_size),
        }

    @router.get("/apis/slug/{slug}", responses={404: {"description": "No such API"}})
    def read_api(slug: str) -> dict[str, object]:
        """One API: its columns, key, rowversion."""
        with pool.connection() as connection:
            return describe(_table(connection, slug))

    @router.post(
        "/runtime/{slug}/execute",
        response_model=None,
        responses={
            200: {"content": {JSON: {}, NDJSON: {}, ARROW: {}}, "description": "One page of rows"},
            404: {"description": "No such API"},
        },
    )
    def execute(slug: str, request: Request, query: Execute | None = None) -> Response:
        """One page of rows, in the form that ``Accept`` asks for, else as JSON."""
        began = time.perf_counter()
        asked = request.headers.get("accept", "")
        media = next((item for item in (NDJSON, ARROW) if item in asked), JSON)
        with pool.connection() as connection:
            table = _table(connection, slug)
            if not table.active:
                return _failure("API_INACTIVE", f"the API {slug} is switched off")
            try:
                response = _answer(
                    connection,
                    reader,
                    table,
                    query or Execute(),
                    media if media in served.media else JSON,
                    began,
                )
            except (pages.BadQueryError, psycopg.DataError) as error:
                raise HTTPException(422, str(error).splitlines()[0]) from error
        served.pages += 1
        served.bytes += len(response.body)
        return response

    return router


def control_calls(pool: Pool) -> APIRouter:
    """``/sandbox/seed`` and ``/sandbox/day``."""
    router = APIRouter(prefix="/sandbox", tags=["sandbox"])

    @router.post("/seed")
    def seed(body: Seed) -> dict[str, int]:
        """Seed anew; answers rows per table."""
        with pool.connection() as connection:
            if body.table == "bench":
                return erp.seed_bench(connection, rows=body.rows, seed=body.seed, truth=body.truth)
            if body.rows < erp.LEAST_ROWS:
                raise HTTPException(422, f"rows: at least {erp.LEAST_ROWS}")
            return erp.seed_erp(connection, rows=body.rows, seed=body.seed, truth=body.truth)

    @router.post("/day")
    def day(body: Day) -> dict[str, Any]:
        """Let a day pass; answers what changed per table."""
        with pool.connection() as connection:
            return {
                name: counts.as_dict()
                for name, counts in days.pass_day(
                    connection, changed=body.changed, inserted=body.inserted, deleted=body.deleted
                ).items()
            }

    return router


def describe(table: Table) -> dict[str, object]:
    """The API as contract.md shapes it."""
    return {
        "uid": table.uid,
        "slug": table.name,
        "name": table.name.upper(),
        "description": table.title,
        "connector_uid": CONNECTOR_UID,
        "is_active": table.active,
        "delta_strategy": table.delta_strategy,
        "business_key_columns": list(table.business_key),
        "rowversion_column": table.rowversion_column,
        "columns": [
            {"nullable": True, "precision": None, "scale": None, "max_length": None, **column}
            for column in table.columns
        ],
    }


def _table(connection: Connection, slug: str) -> Table:
    try:
        return store.table_named(connection, slug)
    except LookupError as error:
        raise HTTPException(404, f"no API {slug!r}") from error


def _failure(code: str, message: str) -> Response:
    body = f'{{"success":false,"error":{{"code":"{code}","message":"{message}"}}}}'
    return Response(body, media_type=JSON)


def _answer(  # one page: where from, what, in which form, since when
    connection: Connection, reader: Reader, table: Table, query: Execute, media: str, began: float
) -> Response:
    if media == ARROW:
        columns = reader.read_columns(connection, table, query)
        total = reader.total(connection, table, query)
        return Response(_arrow(columns), media_type=ARROW, headers={"X-Total-Rows": str(total)})
    page = reader.read(connection, table, query, "\n" if media == NDJSON else ",")
    if media == NDJSON:
        headers = {"X-Total-Rows": str(page.total)}
        return Response(page.rows + b"\n" if page.rows else b"", media_type=NDJSON, headers=headers)
    place = (
        f'"offset":{query.first},"limit":{query.size}'
        if query.page is None and query.page_size is None
        else f'"page":{query.page or 1},"page_size":{query.size}'
    )
    spent_ms = round((time.perf_counter() - began) * 1000, 3)
    tail = (
        f'],"metadata":{{"total_rows":{page.total},{place},"execution_time_ms":{spent_ms}}}}}'
    ).encode()
    return Response(b"".join((b'{"success":true,"data":[', page.rows, tail)), media_type=JSON)


def _arrow(columns: dict[str, list[str | None]]) -> bytes:
    """An Arrow IPC stream; every column is text, as the driver gives it."""
    table = pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})
    buffer = io.BytesIO()
    with pa.ipc.new_stream(buffer, table.schema) as writer:
        writer.write_table(table)
    return buffer.getvalue()
