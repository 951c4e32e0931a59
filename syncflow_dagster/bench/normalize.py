"""``syncflow bench normalize``: pages to rows, five layers, both hashes, without a network.

Belongs here: making the pages, and the order of the steps.
Does not belong here: timing (``measure``).

The pages are the sandbox's wide table: sixteen columns, about 330 bytes a row, sent as APISmith sends
them. ``--dirty`` takes order lines instead, which hold what real ERPs hold: padding, mixed dates,
thousands separators, numbers of twenty digits.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl

from syncflow_core.catalog import Api
from syncflow_core.columns import ROW
from syncflow_core.entity import Entity
from syncflow_core.fields import Shape, shape_of
from syncflow_core.frames import PART_ROWS
from syncflow_core.identity import add_identity, split_duplicates
from syncflow_core.normalize import normalize
from syncflow_core.pages import JSON, parse_page
from syncflow_core.sandbox import apismith, erp
from syncflow_core.sandbox.tables import MODELS
from syncflow_dagster.bench.measure import Benchmark
from syncflow_dagster.cli.demo import demo_entities

PAGE_ROWS = 10_000
THREADS = 2


def run(*, rows: int, times: int, dirty: bool, save: Path | None) -> None:
    """Measure and report."""
    name = "order_lines" if dirty else "bench"
    shape = _shape(name)
    bodies = list(_pages(name, rows))
    benchmark = Benchmark("normalize", rows, sum(map(len, bodies)) / 1e6)
    for number in range(times + 1):
        if number == 1:
            benchmark.steps.clear()  # the first run warms caches and does not count
        _once(benchmark, bodies, shape)
    benchmark.report("parse", ("parse", "five layers", "hashes"), save)


def _once(benchmark: Benchmark, bodies: list[bytes], shape: Shape) -> None:
    columns = shape.api.columns
    with benchmark.step("parse"), ThreadPoolExecutor(THREADS) as pool:
        pages = list(pool.map(lambda body: parse_page(body, JSON, columns).frame, bodies))
    per_part = PART_ROWS // PAGE_ROWS
    with benchmark.step("gather"):
        parts = [
            pl.concat(pages[at : at + per_part], rechunk=True).with_row_index(ROW)
            for at in range(0, len(pages), per_part)
        ]
    del pages
    with benchmark.step("five layers"):
        accepted = [normalize(part, shape).accepted for part in parts]
    del parts
    with benchmark.step("hashes"):
        identified = [add_identity(part, shape) for part in accepted]
    with benchmark.step("equal keys"):
        for part in identified:
            split_duplicates(part, shape)


def _shape(name: str) -> Shape:
    table = erp.table_of(MODELS[name], _sizes(1_000_000), truth=False)
    declared = next((entity for entity in demo_entities() if entity.name == name), None)
    return shape_of(declared or Entity(name=name), Api.model_validate(apismith.describe(table)))


def _sizes(rows: int) -> dict[str, int]:
    return {**erp.sizes_of(max(rows, erp.LEAST_ROWS)), "bench": rows}


def _pages(name: str, rows: int) -> Iterator[bytes]:
    for start in range(0, rows, PAGE_ROWS):
        end = min(start + PAGE_ROWS, rows)
        serials = pl.select(
            i=pl.int_range(start, end),
            rev=pl.lit(0, pl.Int64),
            rv=pl.int_range(start + 1, end + 1),
            flaw=pl.lit(None, pl.String),
        )
        docs = erp.make_rows(MODELS[name], serials, 1, _sizes(rows), truth=False)["doc"]
        meta = f'"metadata":{{"total_rows":{rows},"offset":{start},"limit":{PAGE_ROWS}}}'
        yield f'{{"success":true,"data":[{",".join(docs)}],{meta}}}'.encode()
