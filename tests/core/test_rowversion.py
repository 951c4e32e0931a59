from datetime import UTC, datetime

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncflow_core.catalog import Api, Column
from syncflow_core.entity import Entity, RowversionKind
from syncflow_core.fields import shape_of
from syncflow_core.normalize.version import canonical
from syncflow_core.rowversion import (
    is_newer,
    moment_of,
    newest,
    sortable,
)

ORDERED: dict[RowversionKind, list[str]] = {
    "integer": ["-5", "-1", "0", "2", "10", "9007199254740992", "9007199254740993", "9" * 38],
    "timestamp": [
        "0001-01-01T00:00:00",
        "2025-12-08T10:30:00Z",
        "2025-12-08T10:30:00.000000001Z",
        "2025-12-08T10:30:00.1Z",
        "2025-12-08T10:30:01Z",
        "9999-12-31T23:59:59Z",
    ],
    "hex": ["0", "9", "0a", "00ff", "0100", "ffffffffffffffff", "010000000000000000"],
    "text": ["", "A", "B", "a", "ä"],
}


@pytest.mark.parametrize("kind", ORDERED)
def test_each_kind_has_its_exact_order(kind: RowversionKind) -> None:
    rows = pl.DataFrame({"value": ORDERED[kind]})
    pairs = rows.join(rows, how="cross", suffix="_b").with_columns(
        is_newer(pl.col("value"), pl.col("value_b"), kind).alias("newer")
    )

    for a, b, newer in pairs.rows():
        assert newer == (ORDERED[kind].index(a) > ORDERED[kind].index(b)), (a, b)


@pytest.mark.parametrize("kind", ORDERED)
def test_the_newest_is_the_last_in_order(kind: RowversionKind) -> None:
    first, *others = ORDERED[kind]

    for texts in ([None, *others, first], [None, *reversed(others), None, first]):
        assert newest(pl.Series(texts), kind) == others[-1]


def test_there_is_no_newest_of_nothing() -> None:
    assert newest(pl.Series([None], dtype=pl.String), "integer") is None


@pytest.mark.parametrize(
    ("kind", "came", "becomes"),
    [
        ("integer", "0010", "10"),
        ("integer", "1e3", "1000"),
        ("integer", "10.0", "10"),
        ("timestamp", "2025-12-08 10:30:00.500", "2025-12-08T10:30:00.5"),
        ("timestamp", "2025-12-08T10:30:00+01:00", "2025-12-08T09:30:00Z"),
        ("hex", "0x00000000000007D1", "00000000000007d1"),
        ("hex", "07D1", "07d1"),
        ("text", " v1 ", "v1"),
        ("text", "", None),
        ("integer", None, None),
    ],
)
def test_a_rowversion_has_one_canonical_text(
    kind: RowversionKind, came: str | None, becomes: str | None
) -> None:
    outcome = canonical(pl.Series([came], dtype=pl.String), kind)

    assert (outcome.text.to_list(), outcome.faults) == ([becomes], ())


@pytest.mark.parametrize(
    ("kind", "came"),
    [("integer", "1.5"), ("integer", "x"), ("timestamp", "01/02/2025"), ("hex", "xyz")],
)
def test_what_is_none_of_its_kind_is_refused(kind: RowversionKind, came: str) -> None:
    outcome = canonical(pl.Series(["", came]), kind)

    assert [(fault.refused.rule, fault.positions.to_list()) for fault in outcome.faults] == [
        ("rowversion", [1])
    ]


def test_a_naive_timestamp_is_read_in_the_declared_zone() -> None:
    assert (
        canonical(pl.Series(["2025-07-08T10:30:00"]), "timestamp", "Europe/Berlin").text[0]
        == "2025-07-08T08:30:00Z"
    )


def test_padding_makes_no_hex_newer() -> None:
    pair = pl.DataFrame({"a": ["0007d1"], "b": ["7d1"]})

    assert pair.select(is_newer(pl.col("a"), pl.col("b"), "hex")).item() is False


def test_a_timestamp_with_and_one_without_a_zone_compare_as_if_both_were_utc() -> None:
    pair = pl.DataFrame({"a": ["2025-12-08T10:30:00.1Z"], "b": ["2025-12-08T10:30:00.1"]})
    a, b = pl.col("a"), pl.col("b")

    found = pair.select(is_newer(a, b, "timestamp").alias("a"), is_newer(b, a, "timestamp"))
    assert found.row(0) == (False, False)


def test_what_is_no_integer_is_neither_newer_nor_older_than_one() -> None:
    pair = pl.DataFrame({"a": ["v1"], "b": ["1"]})  # the kind was another one when it was sent

    assert pair.select(is_newer(pl.col("a"), pl.col("b"), "integer")).item() is None


def test_null_is_neither_newer_nor_older() -> None:
    pair = pl.DataFrame({"a": [None], "b": ["1"]}, schema={"a": pl.String, "b": pl.String})

    assert pair.select(is_newer(pl.col("a"), pl.col("b"), "integer")).item() is None


@given(st.lists(st.integers(-(10**38) + 1, 10**38 - 1), min_size=1, max_size=20))
def test_integers_sort_as_integers(numbers: list[int]) -> None:
    rows = pl.DataFrame({"value": [str(n) for n in numbers]})

    assert rows.sort(sortable(pl.col("value"), "integer"))["value"].to_list() == [
        str(n) for n in sorted(numbers)
    ]


@pytest.mark.parametrize(
    ("kind", "zone", "text", "moment"),
    [
        ("timestamp", None, "08-DEC-25", datetime(2025, 12, 8, tzinfo=UTC)),
        ("timestamp", None, "2025-12-08T10:30:00Z", datetime(2025, 12, 8, 10, 30, tzinfo=UTC)),
        (
            "timestamp",
            "Europe/Berlin",
            "2025-12-08 10:30:00.123456789",
            datetime(2025, 12, 8, 9, 30, 0, 123_456, tzinfo=UTC),
        ),
        ("timestamp", None, "no moment", None),
        ("integer", None, "20251208", None),
    ],
)
def test_a_watermark_is_a_moment_where_it_is_a_timestamp(
    kind: RowversionKind, zone: str | None, text: str, moment: datetime | None
) -> None:
    entity = {"name": "t", "rowversion": {"column": "RV", "kind": kind}, "time_zone": zone}
    columns = tuple(Column(name=name, data_type="VARCHAR2(40)") for name in ("ID", "RV"))
    api = Api(uid="u", slug="t", name="t", business_key_columns=("ID",), columns=columns)

    assert moment_of(text, shape_of(Entity.model_validate(entity), api)) == moment
