"""The wide table to measure with: sixteen clean columns, made fast.

Belongs here: the columns of ``bench``.
Does not belong here: the ERP's own tables (``tables``), the measurement (``syncflow_dagster.bench``).
"""

from collections.abc import Mapping

import polars as pl

from syncflow_core.sandbox import cells
from syncflow_core.sandbox.cells import Cell, Draw

FIRST = 1_735_689_600  # 2025-01-01T00:00:00Z, in seconds
MINUTES = 365 * 24 * 60


def bench_cells(draw: Draw, _sizes: Mapping[str, int]) -> list[Cell]:
    """The columns of ``bench``."""
    at = pl.from_epoch(draw.below("AT", MINUTES) * 60 + FIRST, time_unit="s").dt.strftime(
        "%Y-%m-%dT%H:%M:%S"
    )
    number = draw.below("NUMBER", 10**9)
    cents = pl.concat_str(draw.below("CENTS", 10**6).cast(pl.String), pl.lit(".25"))
    status = draw.pick("STATUS", ("PLANNED", "RELEASED", "STARTED", "CLOSED"))
    return [
        cells.number_key("ID", "NUMBER(12,0)", pl.col("i") + 1),
        _plain("CODE", "VARCHAR2(20)", cells.quoted(cells.numbered("C", number, 10))),
        _plain(
            "NAME", "VARCHAR2(60)", cells.quoted(cells.numbered("Item number ", number // 7, 9))
        ),
        _plain("STATUS", "VARCHAR2(12)", cells.quoted(status)),
        _plain("SITE", "VARCHAR2(8)", cells.quoted(cells.numbered("S", number % 40, 4))),
        _plain("UOM", "VARCHAR2(8)", cells.quoted(draw.pick("UOM", ("EA", "KG", "M")))),
        _plain("QTY", "NUMBER(9,0)", number),
        _plain("PRICE", "NUMBER(12,2)", cents),
        _plain(
            "WEIGHT", "NUMBER(12,3)", pl.concat_str((number % 9999).cast(pl.String), pl.lit(".125"))
        ),
        _plain("LEAD_TIME", "NUMBER(4,0)", number % 365),
        _plain("PRIORITY", "NUMBER(2,0)", number % 10),
        _plain("CREATED", "DATE", cells.quoted(at)),
        _plain("DUE", "DATE", cells.quoted(at)),
        _plain("PLANNER", "VARCHAR2(30)", cells.quoted(cells.numbered("planner.", number % 50, 3))),
        _plain(
            "REMARK", "VARCHAR2(200)", cells.quoted(pl.concat_str(pl.lit("batch "), number // 3))
        ),
        cells.served_only("ROWVERSION", "NUMBER(20,0)", pl.col("rv").cast(pl.String)),
    ]


def _plain(column: str, data_type: str, literal: pl.Expr) -> Cell:
    return Cell(column, data_type, literal, literal, column.lower())
