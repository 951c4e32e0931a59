import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import xxhash
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from syncflow_core.catalog import Api, Column
from syncflow_core.columns import DATA_HASH, KEY_HASH, REFERENCE, REJECTED, ROW, ROWVERSION
from syncflow_core.entity import Entity
from syncflow_core.fields import Shape, shape_of
from syncflow_core.identity import (
    add_identity,
    hashed_fields,
    hashed_text,
    key_hash,
    key_hash_expr,
    split_collided,
    split_duplicates,
    text_hash_expr,
)

GOLDEN = Path(__file__).parents[1] / "golden"
TEXTS = st.text(st.characters(codec="utf-8"), max_size=12) | st.text("a|=\\b", max_size=6)


def shape(*, volatile: str | None = None, kind: str = "integer") -> Shape:
    names = ("ORDER_NO", "LINE_NO", "NOTE", "SEEN", "RV")
    columns = tuple(Column(name=name, data_type="VARCHAR2") for name in names)
    api = Api(uid="u", slug="t", name="t", business_key_columns=names[:2], columns=columns)
    fields = [] if volatile is None else [{"source": volatile, "volatile": True}]
    entity = {"name": "t", "rowversion": {"column": "RV", "kind": kind}, "fields": fields}
    return shape_of(Entity.model_validate(entity), api)


def frame(rows: list[tuple[str | None, ...]]) -> pl.DataFrame:
    names = ("order_no", "line_no", "note", "seen", ROWVERSION)
    return pl.DataFrame(rows, schema=dict.fromkeys(names, pl.String), orient="row").with_row_index(
        ROW
    )


def shuffled(rows: pl.DataFrame, seed: int) -> pl.DataFrame:
    order = list(range(rows.height))
    random.Random(seed).shuffle(order)  # noqa: S311  # an order, not a secret
    return rows.select(pl.all().gather(order)).with_columns(
        pl.int_range(rows.height, dtype=pl.UInt32).alias(ROW)
    )


def data_hash(values: dict[str, str | None]) -> bytes:
    return blake3(hashed_text(values).encode()).digest()


@pytest.mark.parametrize(
    "case", json.loads((GOLDEN / "identity.json").read_text()), ids=lambda c: c["label"]
)
def test_texts_and_hashes_are_the_golden_ones(case: dict[str, Any]) -> None:
    assert case["text"] == hashed_text(case["values"])
    assert case["xxh3_128"] == key_hash(case["values"]).hex()
    assert case["blake3"] == data_hash(case["values"]).hex()


@pytest.mark.parametrize(
    "case", json.loads((GOLDEN / "identity.json").read_text()), ids=lambda c: c["label"]
)
def test_the_hashes_of_rows_are_the_golden_ones(case: dict[str, Any]) -> None:
    values: dict[str, str | None] = case["values"]
    columns = tuple(Column(name=f"C{n}", data_type="VARCHAR2") for n in range(len(values)))
    key = tuple(column.name for column in columns)
    api = Api(uid="u", slug="t", name="t", business_key_columns=key, columns=columns)
    fields = [
        {"source": column.name, "target": name}
        for column, name in zip(columns, values, strict=True)
    ]
    rows = pl.DataFrame([values], schema=dict.fromkeys(values, pl.String))

    found = add_identity(
        rows, shape_of(Entity.model_validate({"name": "t", "fields": fields}), api)
    )

    assert found[DATA_HASH][0].hex() == case["blake3"]
    if None not in values.values():  # a key holds no NULL
        assert found[KEY_HASH][0].hex() == case["xxh3_128"]


@pytest.mark.parametrize(
    "case", json.loads((GOLDEN / "hashes.json").read_text()), ids=lambda c: c["label"]
)
def test_the_reference_packages_give_the_published_hashes(case: dict[str, Any]) -> None:
    data = (
        bytes.fromhex(case["input_hex"])
        if "input_hex" in case
        else bytes(n % 251 for n in range(case["length"]))
    )
    found = {"blake3": blake3(data).hexdigest(), "xxh3_128": xxhash.xxh3_128_hexdigest(data)}

    assert case["expected"] == found[case["algorithm"]]


def test_the_reference_is_in_key_order() -> None:
    found = add_identity(frame([("WO|1", "2", None, None, None)]), shape())

    assert found[REFERENCE].to_list() == ["order_no=WO\\|1|line_no=2"]


@given(
    st.lists(st.tuples(TEXTS, TEXTS, st.none() | TEXTS, st.none() | TEXTS), min_size=1, max_size=8)
)
def test_every_row_has_the_hashes_of_the_reference(rows: list[tuple[str | None, ...]]) -> None:
    whole = shape()
    found = add_identity(frame([(*row, None) for row in rows]), whole)

    for row in found.to_dicts():
        key = {name: row[name] for name in whole.key_fields}
        assert row[KEY_HASH] == key_hash(key)
        assert row[DATA_HASH] == data_hash({name: row[name] for name in hashed_fields(whole)})
        assert row[REFERENCE] == "|".join(hashed_text({n: key[n]}) for n in whole.key_fields)


@given(
    st.dictionaries(TEXTS, st.none() | TEXTS, max_size=4),
    st.dictionaries(TEXTS, st.none() | TEXTS, max_size=4),
)
def test_XN05_different_values_never_make_the_same_text(
    a: dict[str, str | None], b: dict[str, str | None]
) -> None:
    # A name is never empty (entity.Field), so the empty record is told from one nameless null.
    a, b = ({name: value for name, value in each.items() if name} for each in (a, b))

    assert (hashed_text(a) == hashed_text(b)) == (a == b)


def test_a_parents_key_hash_is_the_hash_of_the_parents_own_key() -> None:
    children = pl.DataFrame({"parent": ["WO|1", None, "WO2"], "line": ["1", "2", None]})
    found = children.select(
        key_hash_expr({"order_no": pl.col("parent"), "line_no": pl.col("line")})
    ).to_series()

    assert found.to_list() == [key_hash({"order_no": "WO|1", "line_no": "1"}), None, None]


def test_a_text_has_the_hash_of_the_reference_and_null_has_none() -> None:
    found = pl.DataFrame({"text": ["{}", None]}).select(text_hash_expr(pl.col("text")))

    assert found.to_series().to_list() == [xxhash.xxh3_128_digest(b"{}"), None]


def test_hashes_have_the_binary_widths_of_the_database() -> None:
    found = add_identity(frame([("a", "1", None, None, None)]), shape())

    assert (found.schema[KEY_HASH], found.schema[DATA_HASH]) == (pl.Binary, pl.Binary)
    assert (len(found[KEY_HASH][0]), len(found[DATA_HASH][0])) == (16, 32)


def test_an_empty_frame_gets_the_same_columns() -> None:
    found = add_identity(frame([]), shape())

    assert found.schema[KEY_HASH] == pl.Binary
    assert split_duplicates(found, shape()).kept.height == 0


def test_where_no_key_repeats_nothing_is_identical_and_nothing_is_filed() -> None:
    found = split_duplicates(add_identity(frame([("a", "1", "n", None, "1")]), shape()), shape())

    assert found.identical.schema == {ROW: pl.UInt32}
    assert found.losers.schema == REJECTED
    assert (found.kept.height, found.identical.height, found.losers.height) == (1, 0, 0)


@pytest.mark.parametrize("notes", [("x", "y"), ("y", "x")])
def test_a_row_without_a_rowversion_loses_against_one_that_has_one(notes: tuple[str, str]) -> None:
    rows = frame([("a", "1", notes[0], None, None), ("a", "1", notes[1], None, "1")])

    found = split_duplicates(add_identity(rows, shape()), shape())

    assert found.kept["note"].to_list() == [notes[1]]


def test_what_is_filed_says_which_record_it_is_and_why() -> None:
    number = "N" * 600
    rows = frame([(number, "1", "old", None, "1"), (number, "1", "new", None, "2")])

    found = split_duplicates(add_identity(rows, shape()), shape())

    assert found.losers.to_dicts() == [
        {
            ROW: 0,
            "stage": "identity",
            "layer": None,
            "rule": "duplicate_key",
            "column": None,
            "value": f"order_no={number}"[:500],
            "message": "another row of this key is newer, or wins by its data hash",
        }
    ]


def test_volatile_fields_do_not_change_the_data_hash() -> None:
    found = add_identity(
        frame([("a", "1", "n", "x", None), ("a", "1", "n", "y", None)]), shape(volatile="SEEN")
    )

    assert found[DATA_HASH].n_unique() == 1


def test_the_rowversion_is_no_part_of_the_data_hash() -> None:
    found = add_identity(frame([("a", "1", "n", "x", "1"), ("a", "1", "n", "x", "2")]), shape())

    assert found[DATA_HASH].n_unique() == 1


@pytest.mark.parametrize("seed", range(5))
def test_XF18_the_highest_rowversion_wins_in_any_row_order(seed: int) -> None:
    rows = frame(
        [("a", "1", "old", None, "9"), ("a", "1", "new", None, "10"), ("b", "1", "n", None, None)]
    )
    found = split_duplicates(add_identity(shuffled(rows, seed), shape()), shape())

    assert sorted(found.kept["note"]) == ["n", "new"]
    assert found.losers["rule"].to_list() == ["duplicate_key"]
    assert found.losers.schema == REJECTED
    assert found.identical.height == 0


@pytest.mark.parametrize("seed", range(5))
def test_without_rowversions_the_greatest_data_hash_wins_in_any_row_order(seed: int) -> None:
    rows = frame([("a", "1", note, None, None) for note in "xyz"])
    found = split_duplicates(add_identity(shuffled(rows, seed), shape()), shape())

    assert found.kept[DATA_HASH][0] == add_identity(rows, shape())[DATA_HASH].max()
    assert found.losers.height == 2


def test_identical_rows_are_counted_and_not_filed() -> None:
    rows = frame(
        [("a", "1", "n", None, "1"), ("a", "1", "n", None, "1"), ("a", "1", "n", None, "2")]
    )
    found = split_duplicates(add_identity(rows, shape()), shape())

    assert (found.kept[ROWVERSION].to_list(), found.identical.height, found.losers.height) == (
        ["2"],
        2,
        0,
    )


def test_every_row_is_kept_identical_or_filed() -> None:
    rows = frame([("a", str(n % 3), str(n % 2), None, None) for n in range(20)])
    found = split_duplicates(add_identity(rows, shape()), shape())
    seen = [*found.kept[ROW], *found.identical[ROW], *found.losers[ROW]]

    assert sorted(seen) == list(range(20))


def test_two_keys_with_one_hash_are_both_filed() -> None:
    rows = add_identity(
        frame(
            [("a", "1", "n", None, None), ("b", "1", "n", None, None), ("c", "1", "n", None, None)]
        ),
        shape(),
    )
    forced = rows.with_columns(
        pl.when(pl.col("order_no") == "c")
        .then(pl.col(KEY_HASH))
        .otherwise(pl.lit(b"\x00" * 16))
        .alias(KEY_HASH)
    )
    found = split_duplicates(forced, shape())

    assert found.kept["order_no"].to_list() == ["c"]
    assert (
        found.losers.select("rule", "message").rows()
        == [("key_collision", "another key has the same key hash")] * 2
    )


@pytest.mark.parametrize("seed", range(5))
def test_equal_rowversions_in_other_spellings_do_not_follow_the_row_order(seed: int) -> None:
    rows = frame([("a", "1", "n", None, "00ff"), ("a", "1", "n", None, "ff")])
    one = dataclasses.replace(shape(), rowversion_kind="hex")

    found = split_duplicates(add_identity(shuffled(rows, seed), one), one)

    assert found.kept[ROWVERSION].to_list() == ["ff"]


def known_references(*pairs: tuple[bytes, str | None]) -> pl.DataFrame:
    schema = {KEY_HASH: pl.Binary, REFERENCE: pl.String}
    return pl.DataFrame(list(pairs), schema=schema, orient="row")


@pytest.mark.parametrize(
    ("reference", "before", "collides"),
    [
        ("order_no=a|line_no=1", "order_no=a|line_no=1", False),
        ("order_no=a|line_no=1", "line_no=1|order_no=a", False),  # the fields in another order
        ("order_no=a|line_no=1", "order_no=a|line_no=2", True),
        ("order_no=a|line_no=1", "line_no=2|order_no=a", True),
        ("order_no=a|line_no=1", "order_no=a\\|line_no=1|line_no=1", True),
        ("order_no=a\\\\|line_no=1", "line_no=2|order_no=a\\\\", True),  # the value ends in a mark
        ("order_no=a|line_no=1", "part=a", False),  # some other program's text
        ("order_no=a|line_no=1", "plant=a|part=1", False),
        ("a\\=b=1", "a\\=c=1", False),  # a mark in a name
        ("order_no=a|line_no=1", None, False),
    ],
)
def test_a_key_hash_that_the_target_knows_as_another_keys_is_a_collision(
    reference: str,
    before: str | None,
    collides: bool,  # noqa: FBT001  # the table's last column
) -> None:
    key = b"\x00" * 16
    rows = pl.DataFrame({KEY_HASH: [key], REFERENCE: [reference]}).with_row_index(ROW)

    kept, filed = split_collided(rows, known_references((key, before)))

    assert kept.height == (0 if collides else 1)
    assert filed["rule"].to_list() == (["key_collision"] if collides else [])
    assert filed.schema == REJECTED


@pytest.mark.parametrize("seed", range(5))
def test_volatile_fields_of_equal_rows_do_not_follow_the_row_order(seed: int) -> None:
    rows = frame([("a", "1", "n", when, "1") for when in ("x", "z", "y")])
    volatile = shape(volatile="SEEN")

    found = split_duplicates(add_identity(shuffled(rows, seed), volatile), volatile)

    assert found.kept["seen"].to_list() == ["z"]
    assert found.identical.height == 2
