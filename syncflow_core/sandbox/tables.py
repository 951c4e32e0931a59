"""The ERP's tables: their columns, links and keys.

Belongs here: how each table's rows follow from serial and revision, written column by column.
Does not belong here: how many rows there are and putting them into the database (``erp``), how one value is
written (``cells``).

Source: product.md 11.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from syncflow_core.sandbox import cells, store
from syncflow_core.sandbox.cells import Cell, Draw
from syncflow_core.sandbox.wide import bench_cells

CHILDREN = 10
"""Serials that share a parent part; a third of them has none."""
_EPOCH = 1_735_689_600  # 2025-01-01T00:00:00Z, in seconds
_YEAR = 365 * 86_400
_NAMES = (
    "Müller & Söhne",
    "Ångström Werke",
    "Café Crème",
    "Société Générale de Pièces",
    "Smith Ltd",
)
_DECOMPOSED = (
    "Mu\u0308ller & So\u0308hne",
    "A\u030angstro\u0308m Werke",
    "Cafe\u0301 Cre\u0300me",
    "Socie\u0301te\u0301 Ge\u0301ne\u0301rale de Pie\u0300ces",
    "Smith Ltd",
)
STATUS = {"Planned": "PLANNED", "Released": "RELEASED", "In work": "STARTED", "Done": "CLOSED"}
"""Order status as the ERP spells it, and as the hub must hold it (``entities.yaml``, ``values``)."""

Sizes = Mapping[str, int]
"""Rows per table at seeding; links are drawn among these."""


@dataclass(frozen=True)
class Link:
    """A reference to a parent: its table, and the parent's serial (null: no parent) as an expression."""

    parent: str
    serial: Callable[[Draw, Sizes], pl.Expr]


@dataclass(frozen=True)
class Model:
    """One table: its cells, its links, its key."""

    name: str
    title: str
    key: Sequence[str]
    cells: Callable[[Draw, Sizes], list[Cell]]
    links: Mapping[str, Link]
    parents: Mapping[str, store.ParentInfo]
    rowversion: str | None = "ROWVERSION"
    delta: str = "rowversion"


def _site_code(column: str, serial: pl.Expr) -> Cell:
    code = cells.numbered("S", serial, 4)
    return cells.key(column, "CHAR(8)", code.str.pad_end(8), code)


def _part_no(column: str, serial: pl.Expr) -> Cell:
    return cells.key(column, "VARCHAR2(20)", cells.numbered("P-", serial, 9))


def _order_no(serial: pl.Expr) -> Cell:
    return cells.key("ORDER_NO", "VARCHAR2(20)", cells.numbered("SO", serial, 10))


def _line_no(line: pl.Expr) -> Cell:
    return cells.number_key("LINE_NO", "NUMBER(4,0)", (line % 3 + 1) * 10)


def _work_centre_id(serial: pl.Expr) -> Cell:
    code = cells.numbered("WORK-CENTRE", serial, 5).str.encode("hex")
    return cells.key("WC_ID", "RAW(16)", code.str.to_uppercase(), code)


def _rowversion() -> Cell:
    return cells.served_only("ROWVERSION", "NUMBER(20,0)", pl.col("rv").cast(pl.String))


def _seconds(draw: Draw, salt: str) -> pl.Expr:
    return draw.below(salt, _YEAR // 60) * 60 + _EPOCH


def _sites(draw: Draw, _sizes: Sizes) -> list[Cell]:
    name = pl.concat_str(pl.lit("Site "), draw.pick("NAME", ("North", "South", "East", "West")))
    return [
        _site_code("SITE_CODE", pl.col("i")),
        cells.text("NAME", "VARCHAR2(60)", draw, name),
        cells.text("COUNTRY", "CHAR(4)", draw, draw.pick("COUNTRY", ("DE", "FR", "SE", "GB"))),
        cells.moment("OPENED", draw, _seconds(draw, "OPENED")),
        cells.decimal("AREA_M2", "NUMBER(10,2)", draw, draw.below("AREA_M2", 9_000_000), 2),
        _rowversion(),
    ]


def _work_centres(draw: Draw, sizes: Sizes) -> list[Cell]:
    name = pl.concat_str(draw.pick("NAME", ("Lathe", "Press", "Oven", "Saw")), pl.lit(" no. 7"))
    return [
        _work_centre_id(pl.col("i")),
        _site_code("SITE_CODE", pl.col("i") % sizes["sites"]),
        cells.text("NAME", "VARCHAR2(60)", draw, name),
        cells.decimal("CAPACITY", "NUMBER(9,3)", draw, draw.below("CAPACITY", 24_001), 3),
        cells.optional(cells.double("EFFICIENCY", draw, 2), draw, 9),
        cells.precise("CREATED", draw, _seconds(draw, "CREATED")),
        _rowversion(),
    ]


def _parent_part() -> pl.Expr:
    serial = pl.col("i")
    return pl.when((serial >= CHILDREN) & (serial % 3 != 0)).then(serial // CHILDREN)


def _parts(draw: Draw, _sizes: Sizes) -> list[Cell]:
    parent = _part_no("PARENT_PART_NO", _parent_part())
    parent = Cell(
        parent.column,
        parent.data_type,
        parent.doc.fill_null("null"),
        parent.truth.fill_null("null"),
        parent.target,
        nullable=True,
    )
    what = pl.concat_str(
        draw.pick("WHAT", ("Gear", "Shaft", "Bolt", "Plate")), pl.lit(" M"), draw.below("M", 64)
    )
    lines = ("Handle with care\\nKeep dry", "One\\nTwo\\nThree", "x" * 300)
    spelt = ("Handle with care\\r\\nKeep dry", "One\\rTwo\\r\\nThree", "x" * 300)
    note = draw.below("NOTE", len(lines))
    twenty = pl.concat_str(pl.lit("9"), draw.below("BASE", 10**18).cast(pl.String).str.zfill(19))
    exact = pl.concat_str(
        (draw.below("EXACT/1", 10**17) + 10**17).cast(pl.String),
        pl.lit("."),
        draw.below("EXACT/2", 10**18).cast(pl.String).str.zfill(18),
        pl.lit("17"),
    )
    return [
        _part_no("PART_NO", pl.col("i")),
        parent,
        cells.text("DESCRIPTION", "VARCHAR2(120)", draw, what),
        cells.text("UOM", "VARCHAR2(8)", draw, draw.pick("UOM", ("EA", "KG", "M"))),
        cells.decimal("WEIGHT", "NUMBER(12,4)", draw, draw.below("WEIGHT", 10**8), 4),
        cells.integer("LEAD_TIME", "NUMBER(6,0)", draw, draw.below("LEAD_TIME", 20_000)),
        cells.digits("SERIAL_BASE", "NUMBER(20,0)", draw, twenty),
        cells.digits("EXACT_FACTOR", "NUMBER", draw, exact),
        cells.optional(
            cells.text("NOTES", "CLOB", draw, cells.chosen(note, lines), cells.chosen(note, spelt)),
            draw,
            4,
            empty=True,
        ),
        cells.served_only(
            "ROWVERSION", "RAW(8)", cells.quoted(pl.col("rv").cast(pl.String).str.zfill(16))
        ),
    ]


def _customers(draw: Draw, _sizes: Sizes) -> list[Cell]:
    number = draw.below("NAME", len(_NAMES))
    lower = cells.numbered("buyer", draw.below("EMAIL", 10_000), 5)
    mail = pl.concat_str(lower, pl.lit("@example.com"))
    spelt = pl.concat_str(lower.str.to_uppercase(), pl.lit("@Example.com"))
    yes = draw.below("ACTIVE", 3) > 0
    active = Cell(
        "ACTIVE",
        "CHAR(1)",
        pl.when(yes).then(pl.lit('"Y"')).otherwise(pl.lit('"N"')),
        pl.when(yes).then(pl.lit("true")).otherwise(pl.lit("false")),
        "active",
    )
    changed = pl.from_epoch(pl.col("rv") + _EPOCH * 1_000_000, time_unit="us")
    limit = draw.below("CREDIT_LIMIT", 20_000_000) - 5_000_000
    return [
        cells.number_key("CUSTOMER_NO", "NUMBER(10,0)", pl.col("i") + 1),
        cells.text(
            "NAME",
            "NVARCHAR2(80)",
            draw,
            cells.chosen(number, _NAMES),
            draw.variant(
                "NAME", 2, cells.chosen(number, _NAMES), [cells.chosen(number, _DECOMPOSED)]
            ),
        ),
        cells.optional(
            cells.text("EMAIL", "VARCHAR2(120)", draw, mail, spelt), draw, 7, empty=True
        ),
        active,
        cells.decimal("CREDIT_LIMIT", "NUMBER(14,2)", draw, limit, 2),
        cells.moment("SINCE", draw, _seconds(draw, "SINCE"), whole_days=True),
        cells.served_only(
            "UPDATED_AT", "TIMESTAMP(6)", cells.quoted(changed.dt.strftime("%Y-%m-%dT%H:%M:%S.%6f"))
        ),
    ]


def _orders(draw: Draw, sizes: Sizes) -> list[Cell]:
    number = draw.below("STATUS", len(STATUS))
    status = cells.text(
        "STATUS",
        "VARCHAR2(12)",
        draw,
        cells.chosen(number, tuple(STATUS.values())),
        cells.chosen(number, tuple(STATUS)),
    )
    customer = draw.below("customer", sizes.get("customers", 1), fixed=True) + 1
    return [
        _order_no(pl.col("i")),
        cells.number_key("CUSTOMER_NO", "NUMBER(10,0)", customer),
        status,
        cells.moment("ORDER_DATE", draw, _seconds(draw, "ORDER_DATE")),
        cells.optional(
            cells.moment("DUE_DATE", draw, _seconds(draw, "DUE_DATE"), whole_days=True), draw, 12
        ),
        cells.decimal("TOTAL", "NUMBER(14,2)", draw, draw.below("TOTAL", 10**9), 2),
        cells.instant("CREATED_AT", draw, _seconds(draw, "CREATED_AT")),
        cells.optional(
            cells.text("COMMENTS", "VARCHAR2(200)", draw, draw.pick("C", ("rush", "call first"))),
            draw,
            2,
            empty=True,
        ),
        _rowversion(),
    ]


def _order_lines(draw: Draw, sizes: Sizes) -> list[Cell]:
    discount = draw.below("DISCOUNT", 100_000) - 80_000
    return [
        _order_no(pl.col("i") // 3),
        _line_no(pl.col("i")),
        _part_no("PART_NO", draw.below("part", sizes.get("parts", 1))),
        cells.decimal("QTY", "NUMBER(12,3)", draw, draw.below("QTY", 10**7), 3).known_as(
            "quantity"
        ),
        cells.decimal("UNIT_PRICE", "NUMBER(12,4)", draw, draw.below("UNIT_PRICE", 10**8), 4),
        cells.optional(cells.decimal("DISCOUNT", "NUMBER(12,2)", draw, discount, 2), draw, 5),
        cells.moment("PROMISED", draw, _seconds(draw, "PROMISED"), utc=True).flawed('"2025-02-30"'),
        _rowversion(),
    ]


def _operations(draw: Draw, sizes: Sizes) -> list[Cell]:
    line = pl.col("i") // 2
    return [
        _order_no(line // 3),
        _line_no(line),
        cells.number_key("OP_NO", "NUMBER(4,0)", (pl.col("i") % 2 + 1) * 10),
        _work_centre_id(draw.below("work_centre", sizes.get("work_centres", 1))),
        cells.decimal("SETUP_H", "NUMBER(8,2)", draw, draw.below("SETUP_H", 4_000), 2).flawed(
            '"ABC"'
        ),
        cells.double("RUN_FACTOR", draw, 50),
        cells.optional(cells.precise("STARTED", draw, _seconds(draw, "STARTED")), draw, 3),
        cells.text("STATUS", "VARCHAR2(12)", draw, draw.pick("STATUS", ("OPEN", "DONE"))),
        _rowversion(),
    ]


def _stock_site(draw: Draw, sizes: Sizes) -> pl.Expr:
    """Even serials lie at even sites, odd ones at odd sites: no part has two rows for one site."""
    return draw.below("site", sizes.get("sites", 2) // 2, fixed=True) * 2 + pl.col("i") % 2


def _stock(draw: Draw, sizes: Sizes) -> list[Cell]:
    on_hand = draw.below("ON_HAND", 10**9) - 10**7
    return [
        _part_no("PART_NO", pl.col("i") // 2),
        _site_code("SITE_CODE", _stock_site(draw, sizes)),
        cells.decimal("ON_HAND", "NUMBER(14,3)", draw, on_hand, 3).flawed('"12,34,5"'),
        cells.decimal("RESERVED", "NUMBER(14,3)", draw, draw.below("RESERVED", 10**6), 3),
        cells.optional(cells.moment("COUNTED", draw, _seconds(draw, "COUNTED"), utc=True), draw, 6),
    ]


def _serial(of: Callable[[pl.Expr], pl.Expr]) -> Callable[[Draw, Sizes], pl.Expr]:
    return lambda _draw, _sizes: of(pl.col("i"))


def _drawn(salt: str, parent: str, *, fixed: bool = False) -> Callable[[Draw, Sizes], pl.Expr]:
    return lambda draw, sizes: draw.below(salt, sizes[parent], fixed=fixed)


def _parent(entity: str, **key: str) -> store.ParentInfo:
    return {"entity": entity, "key": key}


MODELS: dict[str, Model] = {
    model.name: model
    for model in (
        Model("sites", "Plants and stores", ["SITE_CODE"], _sites, {}, {}),
        Model(
            "work_centres",
            "Machines and teams",
            ["WC_ID"],
            _work_centres,
            {"site": Link("sites", lambda _draw, sizes: pl.col("i") % sizes["sites"])},
            {"site": _parent("sites", site_code="site_code")},
        ),
        Model(
            "parts",
            "Parts, each possibly part of another",
            ["PART_NO"],
            _parts,
            {"parent": Link("parts", lambda _draw, _sizes: _parent_part())},
            {"parent": _parent("parts", part_no="parent_part_no")},
        ),
        Model("customers", "Customers", ["CUSTOMER_NO"], _customers, {}, {}, "UPDATED_AT"),
        Model(
            "orders",
            "Sales orders",
            ["ORDER_NO"],
            _orders,
            {"customer": Link("customers", _drawn("customer", "customers", fixed=True))},
            {"customer": _parent("customers", customer_no="customer_no")},
        ),
        Model(
            "order_lines",
            "Lines of sales orders",
            ["ORDER_NO", "LINE_NO"],
            _order_lines,
            {
                "order": Link("orders", _serial(lambda serial: serial // 3)),
                "part": Link("parts", _drawn("part", "parts")),
            },
            {
                "order": _parent("orders", order_no="order_no"),
                "part": _parent("parts", part_no="part_no"),
            },
        ),
        Model(
            "operations",
            "Work to be done for an order line",
            ["ORDER_NO", "LINE_NO", "OP_NO"],
            _operations,
            {
                "order_line": Link("order_lines", _serial(lambda serial: serial // 2)),
                "work_centre": Link("work_centres", _drawn("work_centre", "work_centres")),
            },
            {
                "order_line": _parent("order_lines", order_no="order_no", line_no="line_no"),
                "work_centre": _parent("work_centres", wc_id="wc_id"),
            },
        ),
        Model(
            "stock",
            "Stock of a part at a site",
            ["PART_NO", "SITE_CODE"],
            _stock,
            {
                "part": Link("parts", _serial(lambda serial: serial // 2)),
                "site": Link("sites", _stock_site),
            },
            {
                "part": _parent("parts", part_no="part_no"),
                "site": _parent("sites", site_code="site_code"),
            },
            None,
            "hash",
        ),
        Model("bench", "A wide table to measure with", ["ID"], bench_cells, {}, {}),
    )
}
"""All tables, parents before children."""
ENTITIES = tuple(name for name in MODELS if name != "bench")
"""The eight tables of the ERP, parents before children."""
