"""A record's data hash by content: equal to what normalization would send, different from all else."""

import json

import polars as pl
import pytest

from syncflow_core.body import json_objects
from syncflow_core.catalog import Api, Column
from syncflow_core.columns import DATA_HASH, ROW
from syncflow_core.content import content_hashes
from syncflow_core.entity import Entity
from syncflow_core.fields import Shape, shape_of
from syncflow_core.identity import add_identity
from syncflow_core.normalize import normalize

COLUMNS = {
    "ID": "NUMBER(9)",
    "T": "VARCHAR2",
    "D": "NUMBER(38,10)",
    "F": "BINARY_DOUBLE",
    "B": "BOOLEAN",
    "TS": "TIMESTAMP",
    "J": "JSON",
    "R": "RAW",
    "I": "INTERVAL DAY TO SECOND",
}
ROWS = [
    {
        "ID": "1",
        "T": 'quote " back \\ tab\t ü \u2028 😀',
        "D": "12345678901234567890.1234567891",
        "F": "1e22",
        "B": "Y",
        "TS": "08-DEC-25 10.30.00.123456789 AM",
        "J": '{"b":[1,2.50],"a":"x"}',
        "R": "DEAD",
        "I": "+01 02:03:04",
    },
    {"ID": "2"},
]


def shape() -> Shape:
    columns = tuple(Column(name=name, data_type=kind) for name, kind in COLUMNS.items())
    api = Api(uid="u", slug="t", name="t", business_key_columns=("ID",), columns=columns)
    return shape_of(Entity(name="t"), api)


def sent() -> tuple[pl.DataFrame, list[dict[str, str]]]:
    """Rows with their hashes, and each one's fields as the hub gives them back: JSON text by name."""
    raw = pl.DataFrame(
        [{name: row.get(name) for name in COLUMNS} for row in ROWS],
        schema=dict.fromkeys(COLUMNS, pl.String),
    ).with_row_index(ROW)
    frame = add_identity(normalize(raw, shape()).accepted, shape())
    bodies = json_objects(frame, shape().fields, extra=())
    return frame, [fields_of(body) for body in bodies]


def fields_of(body: str) -> dict[str, str]:
    import msgspec  # noqa: PLC0415  # here alone: it keeps numbers as they are written

    raws = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    return {name: bytes(raw).decode() for name, raw in raws.items()}


def test_what_was_sent_has_the_hash_that_was_sent() -> None:
    frame, held = sent()

    assert content_hashes(held, shape())[DATA_HASH].to_list() == frame[DATA_HASH].to_list()


def test_a_field_that_the_hub_leaves_out_is_null() -> None:
    frame, held = sent()
    shorter = [{k: v for k, v in record.items() if v != "null"} for record in held]

    assert content_hashes(shorter, shape())[DATA_HASH].to_list() == frame[DATA_HASH].to_list()


@pytest.mark.parametrize(
    ("field", "token"),
    [
        ("t", '"other"'),
        ("t", "5"),
        ("d", '"12345678901234567890.1234567891"'),  # a text where a number was sent
        ("d", "12345678901234567890.1234567892"),
        ("b", '"true"'),
        ("b", "false"),
        ("ts", '"2025-12-08T10:30:00"'),
        ("ts", "5"),
        ("j", '{"a":"x","b":[1,2]}'),
        ("r", '"beef"'),
        ("i", "null"),
        ("f", '"not a number"'),
    ],
)
def test_any_other_value_has_another_hash(field: str, token: str) -> None:
    frame, held = sent()
    changed = [{**held[0], field: token}]

    assert content_hashes(changed, shape())[DATA_HASH][0] != frame[DATA_HASH][0]


@pytest.mark.parametrize(
    ("field", "token"),
    [
        ("d", "12345678901234567890.12345678910"),
        ("f", "10000000000000000000000.0"),
        ("ts", '"2025-12-08T10:30:00.123456789"'),
        ("j", '{ "a" : "x" , "b" : [ 1 , 2.5 ] }'),
        ("t", json.dumps(ROWS[0]["T"])),
    ],
)
def test_another_spelling_of_the_same_value_has_the_same_hash(field: str, token: str) -> None:
    frame, held = sent()

    assert content_hashes([{**held[0], field: token}], shape())[DATA_HASH][0] == frame[DATA_HASH][0]


def test_no_record_has_no_hash() -> None:
    assert content_hashes([], shape()).height == 0
