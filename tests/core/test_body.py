import json
from typing import Any

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from syncflow_core.body import json_objects
from syncflow_core.catalog import Api, Column, FieldType
from syncflow_core.columns import DATA_HASH, KEY_HASH, PARENT_REFS, REFERENCE, ROWVERSION
from syncflow_core.entity import Entity, Field
from syncflow_core.fields import Shape, shape_of

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)


def shape(types: dict[str, FieldType]) -> Shape:
    columns = tuple(Column(name=name, data_type="VARCHAR2") for name in types)
    api = Api(uid="u", slug="t", name="t", business_key_columns=(columns[0].name,), columns=columns)
    fields = [Field(source=name, target=name, type=kind) for name, kind in types.items()]
    return shape_of(Entity(name="t", fields=fields), api)


def frame(**columns: list[str | None]) -> pl.DataFrame:
    height = len(next(iter(columns.values())))
    return pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String)).with_columns(
        pl.lit(b"\x01" * 16).alias(KEY_HASH),
        pl.lit(b"\x02" * 32).alias(DATA_HASH),
        pl.Series(ROWVERSION, ["7"] * height, dtype=pl.String),
        pl.Series(REFERENCE, ["id=1"] * height, dtype=pl.String),
    )


def parsed(texts: pl.Series) -> list[dict[str, Any]]:
    return [json.loads(text, parse_float=str, parse_int=str) for text in texts]


def test_numbers_booleans_and_json_are_bare_and_all_else_is_quoted() -> None:
    types: dict[str, FieldType] = {
        "t": "text",
        "i": "integer",
        "d": "decimal",
        "f": "float",
        "b": "boolean",
        "on": "date",
        "at": "timestamp",
        "z": "timestamp_tz",
        "p": "duration",
        "x": "binary",
        "j": "json",
    }
    values = [
        "007",
        "10",
        "10.5",
        "1.1",
        "true",
        "2025-12-08",
        "2025-12-08T10:30:00",
        "2025-12-08T10:30:00Z",
        "P1D",
        "00",
        '{"a":1}',
    ]
    text = json_objects(
        frame(**{n: [v] for n, v in zip(types, values, strict=True)}), shape(types).fields
    )[0]

    assert text == (
        '{"t":"007","i":10,"d":10.5,"f":1.1,"b":true,"on":"2025-12-08","at":"2025-12-08T10:30:00",'
        '"z":"2025-12-08T10:30:00Z","p":"P1D","x":"00","j":{"a":1},'
        f'"erp_key_hash":"{"01" * 16}","erp_data_hash":"{"02" * 32}","erp_rowversion":"7","erp_ref_str":"id=1","parent_refs":{{}}}}'
    )


def test_nulls_are_null() -> None:
    rows = frame(t=[None, "a"], d=["1", None]).with_columns(
        pl.lit(None, pl.String).alias(ROWVERSION)
    )
    found = parsed(json_objects(rows, shape({"t": "text", "d": "decimal"}).fields))

    assert [(row["t"], row["d"], row["erp_rowversion"]) for row in found] == [
        (None, "1", None),
        ("a", None, None),
    ]


def test_references_travel_as_they_are() -> None:
    rows = frame(t=["a"]).with_columns(pl.lit('{"order":null}').alias(PARENT_REFS))

    assert parsed(json_objects(rows, shape({"t": "text"}).fields))[0]["parent_refs"] == {
        "order": None
    }


def test_no_digit_is_lost() -> None:
    number = "0.1234567890123456789012345678901234567"

    assert f'"d":{number},' in json_objects(frame(d=[number]), shape({"d": "decimal"}).fields)[0]


def test_every_character_that_json_knows_arrives() -> None:
    every = "".join(map(chr, [*range(0x80), 0x2028, 0x2029, 0xFFFF, 0x1F600]))

    assert parsed(json_objects(frame(t=[every]), shape({"t": "text"}).fields))[0]["t"] == every


@given(st.lists(st.none() | TEXT, min_size=1, max_size=6))
def test_any_text_arrives_as_it_was(texts: list[str | None]) -> None:
    found = parsed(json_objects(frame(t=texts), shape({"t": "text"}).fields))

    assert [row["t"] for row in found] == texts


def test_awkward_field_names_are_escaped() -> None:
    name = 'a"\\b'

    assert (
        parsed(json_objects(frame(**{name: ["x"]}), shape({name: "text"}).fields))[0][name] == "x"
    )


def test_an_empty_frame_makes_no_objects() -> None:
    assert json_objects(frame(t=[]), shape({"t": "text"}).fields).len() == 0
