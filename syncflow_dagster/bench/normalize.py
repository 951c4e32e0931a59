"""``syncflow bench normalize``: pages to rows, five layers, both hashes, without a network.

Belongs here: making the pages, and the order of the steps.
Does not belong here: timing (``measure``).

The pages are the sandbox's wide table: sixteen columns, about 330 bytes a row, sent as APISmith sends
them. ``--dirty`` takes order lines instead, which hold what real ERPs hold: padding, mixed dates,
thousands separators, numbers of twenty digits. ``--slices`` makes and measures one slice after the
other, as a sweep does; ``--odd`` spoils pages, each by one row that only the exact reader takes.
"""

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import polars as pl

from syncflow_core.columns import ROW
from syncflow_core.fields import Shape
from syncflow_core.frames import PART_ROWS
from syncflow_core.identity import add_identity, split_duplicates
from syncflow_core.normalize import normalize
from syncflow_core.pages import JSON, parse_page
from syncflow_dagster.bench.measure import Benchmark
from syncflow_dagster.bench.rows import PAGE_ROWS, WIDE, pages, shape_named

THREADS = 2


def run(  # each is an option of the command
    *,
    rows: int,
    times: int,
    slices: int,
    odd: int,
    dirty: bool,
    save: Path | None,
    compare: Path | None = None,
) -> None:
    """Measure and report."""
    name = "order_lines" if dirty else WIDE
    shape = shape_named(name)
    bounds = [rows * number // slices for number in range(slices + 1)]
    benchmark = Benchmark("normalize", rows, parameters={"slices": slices, "odd pages": odd})
    _once(Benchmark("warm", rows), list(pages(name, 0, min(bounds[1], 200_000))), shape)
    for _ in range(times):
        benchmark.begin()
        for start, end in pairwise(bounds):
            bodies = list(pages(name, start, end))
            benchmark.megabytes += sum(map(len, bodies)) / 1e6 / times
            for at in range(odd if start == 0 else 0):
                bodies[at] = _spoiled(bodies[at])
            _once(benchmark, bodies, shape)
    benchmark.report("parse", ("parse", "five layers", "hashes"), save, compare)


def _once(benchmark: Benchmark, bodies: list[bytes], shape: Shape) -> None:
    def frame_of(at: int) -> pl.DataFrame:
        body, bodies[at] = bodies[at], b""  # let go of, as the fetch does
        return parse_page(body, JSON, shape.api.columns).frame

    with benchmark.step("parse"), ThreadPoolExecutor(THREADS) as pool:
        read = list(pool.map(frame_of, range(len(bodies))))
    per_part = PART_ROWS // PAGE_ROWS
    with benchmark.step("gather"):
        parts = [
            pl.concat(read[at : at + per_part], rechunk=True).with_row_index(ROW)
            for at in range(0, len(read), per_part)
        ]
    del read
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
