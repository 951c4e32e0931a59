"""The seeded ERP: eight tables of a manufacturer, and a wide one to measure with.

Belongs here: how many rows each table has, making them, seeding.
Does not belong here: the tables' columns and links (``tables``), what changes later (``days``).

A row is a pure function of seed, table, serial and revision: seeding and later days make rows by the
same expressions, so a changed row is the same serial with the next revision.

Source: product.md 11.
"""

import polars as pl

from syncflow_core.sandbox import cells, store
from syncflow_core.sandbox.cells import Cell, Draw
from syncflow_core.sandbox.database import Connection
from syncflow_core.sandbox.tables import ENTITIES, MODELS, Model, Sizes

SLICE = 250_000
"""Rows made and copied at a time: bounds memory at 10 million rows."""
BAD_PER_TABLE = 4
"""Rows with an impossible value in each table of ``FLAWED``."""
FLAWED = ("order_lines", "operations", "stock")
ORPHANS_TO_ARRIVE = 4
"""Order lines whose order is among the next ones to be inserted."""
ORPHANS_FOR_EVER = 4
NEVER = 900_000_000
"""Serial of the first order that never comes."""
LEAST_ROWS = 1_000


def seed_erp(
    connection: Connection, *, rows: int = 50_000, seed: int = 1, truth: bool = True
) -> dict[str, int]:
    """The eight tables hold ``rows`` rows in all, the same for the same seed; answers rows per table.

    Raises:
        ValueError: Fewer than 1,000 rows, too few for eight tables and their bad rows.
    """
    if rows < LEAST_ROWS:
        raise ValueError(f"rows: {rows} is less than {LEAST_ROWS}")
    sizes = sizes_of(rows)
    with connection.transaction():
        connection.execute("DELETE FROM erp.state WHERE name NOT LIKE '%/bench'")
        for name in ENTITIES:
            _seed_table(connection, MODELS[name], _serials(name, sizes), seed, sizes, truth=truth)
            remember(connection, f"next/{name}", sizes[name])
            remember(connection, f"size/{name}", sizes[name])
        remember(connection, "seed", seed)
        remember(connection, "rows", rows)
        remember(connection, "day", 0)
    return count_rows(connection)


def seed_bench(
    connection: Connection, *, rows: int, seed: int = 1, truth: bool = False
) -> dict[str, int]:
    """The table ``bench`` of 16 columns holds ``rows`` clean rows; the other tables are untouched."""
    frame = pl.select(i=pl.int_range(rows), flaw=pl.lit(None, pl.String))
    with connection.transaction():
        _seed_table(connection, MODELS["bench"], frame, seed, {"bench": rows}, truth=truth)
        remember(connection, "next/bench", rows)
        remember(connection, "size/bench", rows)
        connection.execute(
            "INSERT INTO erp.state VALUES ('seed', %s), ('day', 0) ON CONFLICT DO NOTHING", [seed]
        )
    return {"bench": rows}


def sizes_of(rows: int) -> dict[str, int]:
    """How the rows are shared out, special rows apart.

    >>> sizes_of(50_000)["order_lines"], sum(sizes_of(50_000).values())
    (18000, 49992)
    """
    orders = rows * 12 // 100
    sizes = {
        "sites": min(40, max(4, rows // 1000)),
        "work_centres": min(400, max(8, rows // 200)),
        "parts": rows * 12 // 100,
        "customers": rows * 5 // 100,
        "orders": orders,
        "order_lines": 3 * orders,
        "stock": rows * 12 // 100,
    }
    orphans = ORPHANS_TO_ARRIVE + ORPHANS_FOR_EVER
    return {**sizes, "operations": rows - sum(sizes.values()) - orphans}


def count_rows(connection: Connection) -> dict[str, int]:
    """Rows per table, as counted when it was last settled."""
    return {table.name: table.row_count for table in store.tables(connection)}


def remember(connection: Connection, name: str, value: int) -> None:
    """The state of this name has this value."""
    connection.execute(
        "INSERT INTO erp.state VALUES (%s, %s) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        [name, value],
    )


def state(connection: Connection) -> dict[str, int]:
    """Everything remembered: seed, day, sizes and next serials."""
    return {
        str(name): int(str(value))
        for name, value in connection.execute("SELECT name, value FROM erp.state")
    }


def make_rows(
    model: Model, frame: pl.DataFrame, seed: int, sizes: Sizes, *, truth: bool
) -> pl.DataFrame:
    """The rows of these serials, as ``store.append`` takes them.

    Args:
        model: The table.
        frame: ``i``, ``rev`` (Int64), ``rv`` (Int64, the rowversion's number), ``flaw`` (String).
        seed: The ERP's seed.
        sizes: Rows per table at seeding.
        truth: Whether to make the truth too.
    """
    draw = Draw(seed, model.name)
    made = model.cells(draw, sizes)
    by_name = {cell.column: cell for cell in made}
    keys = {
        f"k{number}": by_name[name].doc.str.strip_chars('"')
        for number, name in enumerate(model.key, start=1)
    }
    version = (
        pl.lit(None, pl.String)
        if model.rowversion is None
        else by_name[model.rowversion].doc.str.strip_chars('"')
    )
    return frame.select(
        **keys,
        rv_text=version,
        serial=pl.col("i"),
        rev=pl.col("rev"),
        flaw=pl.col("flaw"),
        doc=cells.doc_of(made),
        truth=cells.truth_of(made) if truth else pl.lit(None, pl.String),
    ).rename({"rv_text": "rv"})


def table_of(model: Model, sizes: Sizes, *, truth: bool) -> store.Table:
    """The table's description for APISmith and the comparison."""
    made = model.cells(Draw(0, model.name), sizes)
    targets = {cell.column: cell.target or "" for cell in made}
    return store.Table(
        name=model.name,
        columns=[_column(cell) for cell in made],
        business_key=model.key,
        title=model.title,
        key_fields=[targets[name] for name in model.key],
        rowversion_column=model.rowversion,
        delta_strategy=model.delta,
        parents=model.parents,
        has_truth=truth,
    )


def _column(cell: Cell) -> store.ColumnInfo:
    return {"name": cell.column, "data_type": cell.data_type, "nullable": cell.nullable}


def _seed_table(
    connection: Connection,
    model: Model,
    serials: pl.DataFrame,
    seed: int,
    sizes: Sizes,
    *,
    truth: bool,
) -> None:
    table = table_of(model, sizes, truth=truth)
    store.create(connection, table)
    for part in serials.iter_slices(SLICE):
        frame = part.with_columns(rev=pl.lit(0, pl.Int64), rv=pl.col("i") + 1_000_000)
        store.append(connection, table, make_rows(model, frame, seed, sizes, truth=truth))
    store.index(connection, table)


def _serials(name: str, sizes: Sizes) -> pl.DataFrame:
    """The serials that a table is seeded with: orphans behind the others, the last few flawed."""
    count = sizes[name]
    flawed = pl.col("i").is_between(count - BAD_PER_TABLE, count - 1) & pl.lit(name in FLAWED)
    frame = pl.select(i=pl.int_range(count)).with_columns(
        flaw=pl.when(flawed).then(pl.lit("impossible"))
    )
    if name != "order_lines":
        return frame
    orders = [sizes["orders"] + number for number in range(ORPHANS_TO_ARRIVE)]
    orders += [NEVER + number for number in range(ORPHANS_FOR_EVER)]
    orphans = pl.DataFrame({"i": [3 * order for order in orders]})
    return pl.concat([frame, orphans.with_columns(flaw=pl.lit(None, pl.String))])
