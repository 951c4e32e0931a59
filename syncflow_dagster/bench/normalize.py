"""``syncflow bench normalize``: pages to rows, five layers, both hashes, without a network.

Belongs here: making the pages, and the order of the steps.
Does not belong here: timing (``measure``).

The pages are the sandbox's wide table: sixteen columns, about 330 bytes a row, sent as APISmith sends
them. ``--dirty`` takes order lines instead, which hold what real ERPs hold: padding, mixed dates,
thousands separators, numbers of twenty digits. ``--slices`` makes and measures one slice after the
other, as a sweep does; ``--odd`` spoils pages, each by one row that only the exact reader takes.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
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


def run(  # each is an option of the command
    *, rows: int, times: int, slices: int, odd: int, dirty: bool, save: Path | None
) -> None:
    """Measure and report."""
    name = "order_lines" if dirty else "bench"
    shape = _shape(name)
    bounds = [rows * number // slices for number in range(slices + 1)]
    benchmark = Benchmark("normalize", rows, parameters={"slices": slices, "odd pages": odd})
    _once(Benchmark("warm", rows), list(_pages(name, 0, min(bounds[1], 200_000))), shape)
    for _ in range(times):
        benchmark.begin()
        for start, end in pairwise(bounds):
            bodies = list(_pages(name, start, end))
            benchmark.megabytes += sum(map(len, bodies)) / 1e6 / times
            for at in range(odd if start == 0 else 0):
                bodies[at] = _spoiled(bodies[at])
            _once(benchmark, bodies, shape)
    benchmark.report("parse", ("parse", "five layers", "hashes"), save)


def _once(benchmark: Benchmark, bodies: list[bytes], shape: Shape) -> None:
    def frame_of(at: int) -> pl.DataFrame:
        body, bodies[at] = bodies[at], b""  # let go of, as the fetch does
        return parse_page(body, JSON, shape.api.columns).frame

    with benchmark.step("parse"), ThreadPoolExecutor(THREADS) as pool:
        pages = list(pool.map(frame_of, range(len(bodies))))
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


def _spoiled(body: bytes) -> bytes:
    """The page with a lone surrogate in its first row: nothing but the exact reader takes that row."""
    return body.replace(b'"data":[{"', b'"data":[{"#odd":"\\ud800","', 1)


def _shape(name: str) -> Shape:
    table = erp.table_of(MODELS[name], _sizes(1_000_000), truth=False)
    declared = next((entity for entity in demo_entities() if entity.name == name), None)
    return shape_of(declared or Entity(name=name), Api.model_validate(apismith.describe(table)))


def _sizes(rows: int) -> dict[str, int]:
    return {**erp.sizes_of(max(rows, erp.LEAST_ROWS)), "bench": rows}


def _pages(name: str, first: int, last: int) -> Iterator[bytes]:
    for start in range(first, last, PAGE_ROWS):
        end = min(start + PAGE_ROWS, last)
        serials = pl.select(
            i=pl.int_range(start, end),
            rev=pl.lit(0, pl.Int64),
            rv=pl.int_range(start + 1, end + 1),
            flaw=pl.lit(None, pl.String),
        )
        docs = erp.make_rows(MODELS[name], serials, 1, _sizes(last), truth=False)["doc"]
        meta = f'"metadata":{{"total_rows":{last},"offset":{start},"limit":{PAGE_ROWS}}}'
        yield f'{{"success":true,"data":[{",".join(docs)}],{meta}}}'.encode()
