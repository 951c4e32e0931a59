"""Let a day pass in the ERP: rows change, come and go, by known shares, the same for the same seed.

Belongs here: choosing the rows of a day and writing them.
Does not belong here: what a row looks like (``erp``).

Children of a deleted parent are deleted with it, new and changed rows refer to living parents only,
and each day repairs one bad row of a table that has any; so the truth stays consistent.

Source: product.md 11.
"""

import io
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import polars as pl
from psycopg import sql

from syncflow_core.sandbox import erp, store
from syncflow_core.sandbox.cells import Draw
from syncflow_core.sandbox.database import Connection
from syncflow_core.sandbox.tables import MODELS, Model, Sizes

RV_PER_DAY = 1_000_000_000_000
"""Rowversions of a day begin at its number times this: later than all before."""
_ROWS = pl.Schema({"i": pl.Int64(), "rev": pl.Int64(), "flaw": pl.String()})


@dataclass(frozen=True)
class Counts:
    """What a day did to one table; ``repaired`` rows are among ``changed``."""

    inserted: int
    changed: int
    deleted: int
    repaired: int

    def as_dict(self) -> dict[str, int]:
        """The counts by name."""
        return asdict(self)


@dataclass(frozen=True)
class _Today:
    number: int
    seed: int
    sizes: Sizes
    state: Mapping[str, int]

    def order(self, name: str) -> pl.Expr:
        """An order of serials that looks random and is the day's own."""
        return Draw(self.seed, name).below(f"day/{self.number}", 1 << 60, fixed=True)


def pass_day(
    connection: Connection,
    *,
    changed: float = 0.01,
    inserted: float = 0.002,
    deleted: float = 0.002,
    tables: tuple[str, ...] | None = None,
) -> dict[str, Counts]:
    """A day has passed in every table that this ERP made; answers the exact counts.

    Args:
        connection: One that commits by itself; the day is one transaction.
        changed: Share of a table's rows that get new values and a new rowversion.
        inserted: Share of rows that come, at least one; sites do not come.
        deleted: Share of rows that go, rounded down, their children not counted in.
        tables: Only these; None is all. Leaving out a child of a table with deletes leaves orphans.
    """
    with connection.transaction():
        known = erp.state(connection)
        number = known["day"] + 1
        sizes = {name[5:]: size for name, size in known.items() if name.startswith("size/")}
        today = _Today(number, known["seed"], sizes, known)
        described = {table.name: table for table in store.tables(connection)}
        names = [n for n in MODELS if n in described and n in sizes and (not tables or n in tables)]
        before = {name: _read(connection, described[name]) for name in names}
        gone = _gone(today, before, deleted)
        live = {name: frame.join(gone[name], on="i", how="anti") for name, frame in before.items()}
        counts = {}
        for name in names:
            fresh, edited = _fresh_and_edited(today, MODELS[name], live, changed, inserted)
            live[name] = pl.concat([live[name], fresh.select("i", "rev", "flaw")])
            repaired = edited.filter("repaired").height
            _write(connection, described[name], today, gone[name], fresh, edited)
            counts[name] = Counts(fresh.height, edited.height, gone[name].height, repaired)
            if fresh.height:
                erp.remember(connection, f"next/{name}", _next(today, name, fresh))
        erp.remember(connection, "day", number)
    return counts


def _read(connection: Connection, table: store.Table) -> pl.DataFrame:
    statement = sql.SQL(
        "COPY (SELECT serial, rev, flaw FROM {} WHERE serial IS NOT NULL) TO STDOUT (FORMAT csv)"
    ).format(table.place)
    buffer = io.BytesIO()
    with connection.cursor().copy(statement) as copy:
        for piece in copy:
            buffer.write(piece)
    if not buffer.tell():
        return pl.DataFrame(schema=_ROWS)
    buffer.seek(0)
    return pl.read_csv(buffer, has_header=False, schema=_ROWS)


def _gone(
    today: _Today, before: Mapping[str, pl.DataFrame], share: float
) -> dict[str, pl.DataFrame]:
    """Serials deleted per table: chosen ones, and the children of all that are deleted."""
    gone: dict[str, pl.DataFrame] = {}
    for name, frame in before.items():
        model = MODELS[name]
        linked = _with_links(today, model, frame)
        doomed = pl.lit(value=False)
        for reference, link in model.links.items():
            if link.parent != name and link.parent in gone:
                doomed |= pl.col(reference).is_in(gone[link.parent]["i"].implode())
        cascade = linked.filter(doomed)
        rest = linked.filter(~doomed & pl.col("flaw").is_null())
        for reference, link in model.links.items():
            if link.parent == name:  # a part that others are part of stays
                rest = rest.filter(~pl.col("i").is_in(linked[reference].drop_nulls().implode()))
        if name == "order_lines":
            rest = rest.filter(pl.col("i") < 3 * today.sizes["orders"])
        chosen = rest.sort(today.order(name)).head(math.floor(frame.height * share))
        gone[name] = pl.concat([cascade.select("i"), chosen.select("i")])
    return gone


def _fresh_and_edited(
    today: _Today,
    model: Model,
    live: Mapping[str, pl.DataFrame],
    changed: float,
    inserted: float,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    frame = live[model.name]
    wanted = 0 if model.name == "sites" else math.ceil(frame.height * inserted)
    first = today.state[f"next/{model.name}"]
    candidates = pl.select(
        i=pl.int_range(first, first + 4 * wanted + 64), rev=pl.lit(0, pl.Int64), flaw=_no_flaw()
    ).join(frame, on="i", how="anti")
    fresh = _attached(today, model, candidates, live).sort("i").head(wanted)

    bad = frame.filter(pl.col("flaw").is_not_null()).sort("i").head(1)
    good = frame.filter(pl.col("flaw").is_null()).with_columns(pl.col("rev") + 1)
    good = _attached(today, model, good, live).sort(today.order(model.name))
    edited = pl.concat(
        [
            bad.with_columns(pl.col("rev") + 1, flaw=_no_flaw(), repaired=pl.lit(value=True)),
            good.head(round(frame.height * changed)).with_columns(repaired=pl.lit(value=False)),
        ]
    )
    return fresh, edited


def _attached(
    today: _Today, model: Model, rows: pl.DataFrame, live: Mapping[str, pl.DataFrame]
) -> pl.DataFrame:
    """The rows all of whose parents live."""
    linked = _with_links(today, model, rows)
    for reference, link in model.links.items():
        parents = live[link.parent]["i"].implode()
        linked = linked.filter(pl.col(reference).is_null() | pl.col(reference).is_in(parents))
    return linked.select("i", "rev", "flaw")


def _with_links(today: _Today, model: Model, frame: pl.DataFrame) -> pl.DataFrame:
    draw = Draw(today.seed, model.name)
    return frame.with_columns(
        **{name: link.serial(draw, today.sizes) for name, link in model.links.items()}
    )


def _no_flaw() -> pl.Expr:
    return pl.lit(None, pl.String)


def _next(today: _Today, name: str, fresh: pl.DataFrame) -> int:
    """The serial after the last one that came; lines of orders yet to come are not passed over."""
    last = fresh.select(pl.col("i").max()).item()
    return max(today.state[f"next/{name}"], int(last) + 1)


def _write(  # one table's day, all of it
    connection: Connection,
    table: store.Table,
    today: _Today,
    gone: pl.DataFrame,
    fresh: pl.DataFrame,
    edited: pl.DataFrame,
) -> None:
    statement = sql.SQL("DELETE FROM {} WHERE serial = ANY(%s)").format(table.place)
    connection.execute(statement, [gone["i"].to_list() + edited["i"].to_list()])
    rows = pl.concat([edited.select("i", "rev", "flaw"), fresh.select("i", "rev", "flaw")])
    rows = rows.with_columns(rv=today.number * RV_PER_DAY + pl.int_range(pl.len()))
    made = erp.make_rows(MODELS[table.name], rows, today.seed, today.sizes, truth=table.has_truth)
    store.append(connection, table, made)
    store.settle(connection, table)
