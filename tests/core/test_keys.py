"""Keys of single rows: read whatever else is wrong, and spelled for the source."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncflow_core.catalog import Api, Column
from syncflow_core.columns import KEY_HASH, KEY_SOURCE, REFERENCE, ROW
from syncflow_core.entity import Entity
from syncflow_core.fields import Shape, shape_of
from syncflow_core.identity import hashed_text, key_hash
from syncflow_core.keys import (
    key_sources,
    keys_of,
    source_keys,
    values_of,
    with_plain_references,
)


def shape() -> Shape:
    columns = (
        Column(name="NO", data_type="VARCHAR2"),
        Column(name="LINE", data_type="NUMBER(9)"),
        Column(name="QTY", data_type="NUMBER(9)"),
    )
    api = Api(uid="u", slug="t", name="t", business_key_columns=("NO", "LINE"), columns=columns)
    return shape_of(Entity(name="t"), api)


def test_a_row_with_another_field_wrong_has_its_key() -> None:
    raw = pl.DataFrame(
        {
            ROW: [0, 1, 2],
            "NO": [" A ", None, "B"],
            "LINE": ["01", "2", "x"],
            "QTY": ["bad", "1", "1"],
        },
        schema_overrides={ROW: pl.UInt32},
    )

    found = keys_of(raw, shape())

    assert found.select(ROW, KEY_HASH).rows() == [(0, key_hash({"no": "A", "line": "1"}))]


@given(st.dictionaries(st.text("ab|=\\", min_size=1), st.text("ab|=\\"), min_size=1, max_size=3))
def test_a_reference_gives_its_values_back(values: dict[str, str]) -> None:
    assert values_of(hashed_text(values)) == values


@pytest.mark.parametrize(
    ("key_source", "reference", "expected"),
    [
        ('{"NO":" A","LINE":1}', None, [{"NO": " A", "LINE": 1}]),
        ('{"NO":"A","LINE":1}', "no=A|line=1", [{"NO": "A", "LINE": 1}]),
        (
            '{"NO":" A","LINE":"01"}',
            "no=A|line=1",
            [{"NO": " A", "LINE": "01"}, {"NO": "A", "LINE": "1"}],
        ),
        (None, "no=A|line=1", [{"NO": "A", "LINE": "1"}]),
        ('{"OLD":1}', "no=A|line=1", [{"NO": "A", "LINE": "1"}]),
        (None, "part=A", []),
        (None, None, []),
    ],
)
def test_a_key_is_spelled_as_the_source_sent_it_and_as_the_reference_has_it(
    key_source: str | None, reference: str | None, expected: list[dict[str, object]]
) -> None:
    assert source_keys(key_source, reference, shape()) == expected


def test_a_time_in_a_key_is_spelled_as_the_source_sent_it_alone() -> None:
    columns = (Column(name="AT", data_type="DATE"),)
    api = Api(uid="u", slug="t", name="t", business_key_columns=("AT",), columns=columns)

    found = source_keys(
        '{"AT":"08-DEC-25"}', "at=2025-12-08T00:00:00", shape_of(Entity(name="t"), api)
    )

    assert found == [{"AT": "08-DEC-25"}]


def test_the_key_of_a_raw_row_is_kept_as_it_came_or_not_at_all() -> None:
    rows = [
        '{"NO":" \u00c4","LINE":1.50,"QTY":"x"}',
        '{"NO":"A"}',  # a part of the key
        '{"NO":"A","LINE":null}',
        '{"NO":"A","LINE":[1]}',
        '["A","1"]',
        '{"NO":',
        None,
    ]

    assert key_sources(rows, shape()) == ['{"NO": " \u00c4", "LINE": "1.50"}', *[None] * 6]


def test_a_reference_that_hides_its_key_is_spelled_anew_where_the_sent_key_is_known() -> None:
    hashes = [key_hash({"no": no, "line": "1"}) for no in "ABC"]
    hidden = [f"no=***|line=1 [{found.hex()}]" for found in hashes]
    named = pl.DataFrame(
        {
            KEY_HASH: hashes,
            REFERENCE: ["no=A [1]|line=1", hidden[1], hidden[2]],
            KEY_SOURCE: [None, '{"NO":" B","LINE":"01"}', '{"OLD":"C"}'],
        },
        schema_overrides={KEY_SOURCE: pl.String},
    )

    found = with_plain_references(named, shape())

    assert found[REFERENCE].to_list() == ["no=A [1]|line=1", "no=B|line=1", None]
    assert found.drop(REFERENCE).equals(named.drop(REFERENCE))
    assert with_plain_references(named[:1], shape()).equals(named[:1])
