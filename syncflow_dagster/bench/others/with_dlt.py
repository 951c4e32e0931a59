"""The wide table into PostgreSQL by dlt: pages as Arrow tables, merged by ID.

Belongs here: the pipeline, in the quickest form that dlt's documentation shows.
Does not belong here: anything of SyncFlow's; what dlt leaves out is told in ``compare``.

It runs where dlt is installed (``make compare``). A sync of everything merges by the strategy ``cdc``,
which also deletes what did not come; one of the newer rows by ``upsert``. Files are Parquet, loaded
by ADBC's COPY. The pages are asked for by dlt's own thread pool.
"""

import io
from collections.abc import Iterator, Mapping
from typing import Any

import dlt
import httpx
import pyarrow as pa
from pyarrow import json as arrow_json

from syncflow_dagster.bench.others.child import Task, serve

PAGE = 10_000
TIMEOUT_S = 120
TEXT, WHOLE, TIME = pa.string(), pa.int64(), pa.timestamp("us")
ROW = pa.struct(
    {
        "ID": WHOLE,
        "CODE": TEXT,
        "NAME": TEXT,
        "STATUS": TEXT,
        "SITE": TEXT,
        "UOM": TEXT,
        "QTY": WHOLE,
        "PRICE": pa.decimal128(12, 2),
        "WEIGHT": pa.decimal128(12, 3),
        "LEAD_TIME": WHOLE,
        "PRIORITY": WHOLE,
        "CREATED": TIME,
        "DUE": TIME,
        "PLANNER": TEXT,
        "REMARK": TEXT,
        "ROWVERSION": WHOLE,
    }
)
ANSWER = arrow_json.ParseOptions(
    explicit_schema=pa.schema({"data": pa.list_(ROW)}), unexpected_field_behavior="ignore"
)


class Source:
    """APISmith, as far as a pipeline asks it."""

    def __init__(self, task: Task) -> None:
        self.client = httpx.Client(
            base_url=f"{task.apismith_url}/api/v1/", timeout=TIMEOUT_S, trust_env=False
        )
        account = {"username": task.username, "password": task.password}
        token = self.client.post("auth/login", json=account).raise_for_status().json()
        self.client.headers["Authorization"] = f"Bearer {token['access_token']}"

    def ask(self, offset: int, limit: int, newest: int | None) -> httpx.Response:
        """A page's answer, of the rows that are not older than *newest*."""
        filters = [] if newest is None else [_not_older(newest)]
        asked = {"offset": offset, "limit": limit, "sort": [{"field": "ID"}], "filters": filters}
        return self.client.post("runtime/bench/execute", json=asked).raise_for_status()

    def total(self, newest: int | None) -> int:
        """How many rows there are."""
        return int(self.ask(0, 1, newest).json()["metadata"]["total_rows"])

    def page(self, offset: int, newest: int | None) -> pa.Table:
        """A page as an Arrow table, read by Arrow's own parser of JSON."""
        body = self.ask(offset, PAGE, newest).content
        whole = arrow_json.ReadOptions(block_size=len(body) + 1)
        answer = arrow_json.read_json(io.BytesIO(body), read_options=whole, parse_options=ANSWER)
        return pa.Table.from_struct_array(answer["data"].combine_chunks().values)


def _not_older(newest: int) -> dict[str, object]:
    return {"field": "ROWVERSION", "operator": ">=", "value": newest}


_page = dlt.defer(Source.page)
"""A page that one of dlt's threads asks for."""


def all_rows(source: Source) -> Iterator[Any]:
    """Every page."""
    for offset in range(0, source.total(None), PAGE):
        yield _page(source, offset, None)


def newer_rows(
    source: Source,
    # without a primary key dlt does not look for rows that came before: the merge makes them one
    cursor: Any = dlt.sources.incremental("ROWVERSION", initial_value=0, primary_key=()),  # noqa: ANN401, B008  # dlt's way
) -> Iterator[Any]:
    """The pages of rows that are not older than the newest one of the last load."""
    newest = cursor.last_value or None
    for offset in range(0, source.total(newest), PAGE):
        yield _page(source, offset, newest)


def work(task: Task) -> Mapping[str, object]:
    """One load; answers how many rows went into the staging table."""
    pipeline = dlt.pipeline(
        "compare",
        pipelines_dir=f"{task.home}/dlt",
        destination=dlt.destinations.postgres(task.database_url),
        dataset_name="dlt",
    )
    first = pipeline.first_run
    incremental = task.incremental or first  # the first load begins the cursor
    rows = dlt.resource(
        newer_rows if incremental else all_rows,
        name="bench",
        primary_key="ID",
        write_disposition={"disposition": "merge", "strategy": "upsert" if incremental else "cdc"},
    )
    pipeline.run(rows(Source(task)), loader_file_format="parquet")
    return {"fetched": pipeline.last_trace.last_normalize_info.row_counts.get("bench", 0)}


if __name__ == "__main__":
    serve(work)
