"""The rows that benchmarks work on: the sandbox's tables, as APISmith sends them.

Belongs here: pages of any size, and the shape that they have.
Does not belong here: what is measured with them.
"""

from collections.abc import Iterator
from typing import Final

import polars as pl

from syncflow_core.catalog import Api
from syncflow_core.entity import Entity
from syncflow_core.fields import Shape, shape_of
from syncflow_core.sandbox import apismith, erp
from syncflow_core.sandbox.tables import MODELS
from syncflow_dagster.sandbox import demo_entities

WIDE: Final = "bench"
"""The table of sixteen clean columns."""
PAGE_ROWS: Final = 10_000


def shape_named(name: str) -> Shape:
    """The shape of a table of the sandbox's."""
    table = erp.table_of(MODELS[name], _sizes(1_000_000), truth=False)
    declared = next((entity for entity in demo_entities() if entity.name == name), None)
    return shape_of(declared or Entity(name=name), Api.model_validate(apismith.describe(table)))


def _sizes(rows: int) -> dict[str, int]:
    return {**erp.sizes_of(max(rows, erp.LEAST_ROWS)), "bench": rows}


def pages(name: str, first: int, last: int) -> Iterator[bytes]:
    """The table's rows from *first* to before *last*, as bodies of whole answers."""
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
