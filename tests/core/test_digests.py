"""Two bytes a field: which fields changed, and whether a record was hashed as it would be now."""

from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncflow_core.catalog import Api, Column
from syncflow_core.digests import DIGESTS, changed_fields, field_digests, layout, of_layout
from syncflow_core.entity import Entity
from syncflow_core.fields import Shape, shape_of


def shape(*fields: dict[str, Any]) -> Shape:
    columns = tuple(Column(name=name, data_type="VARCHAR2") for name in ("ID", "A", "B"))
    api = Api(uid="u", slug="t", name="t", business_key_columns=("ID",), columns=columns)
    return shape_of(Entity.model_validate({"name": "t", "fields": list(fields)}), api)


PLAIN = shape()
VALUE = st.one_of(st.none(), st.text(max_size=4))


def rows(*values: tuple[str | None, ...]) -> pl.DataFrame:
    return pl.DataFrame(
        list(values), schema=dict.fromkeys(("id", "a", "b"), pl.String), orient="row"
    )


def differing(before: tuple[str | None, ...], after: tuple[str | None, ...]) -> list[str] | None:
    digests = field_digests(rows(before, after), PLAIN)
    pair = pl.DataFrame({"old": digests[:1], "new": digests[1:]})
    found = pair.select(changed_fields(pl.col("old"), pl.col("new"), PLAIN)).item()
    return None if found is None else list(found)


@given(st.tuples(VALUE, VALUE, VALUE), st.tuples(VALUE, VALUE, VALUE))
def test_the_fields_that_differ_are_named(
    before: tuple[str | None, ...], after: tuple[str | None, ...]
) -> None:
    found = differing(before, after)
    truly = [n for n, x, y in zip(("id", "a", "b"), before, after, strict=True) if x != y]

    assert found is not None
    assert set(found) <= set(truly)  # two values may share a digest, a same one never differs
    nulls = [
        n
        for n, x, y in zip(("id", "a", "b"), before, after, strict=True)
        if (x is None) != (y is None)
    ]
    assert set(nulls) <= set(found)


def test_most_changes_are_seen() -> None:
    frame = rows(*((str(n), str(n), None) for n in range(2_000)))
    digests = field_digests(frame, PLAIN)
    pair = pl.DataFrame({"old": digests[:-1], "new": digests[1:]})

    found = pair.select(changed_fields(pl.col("old"), pl.col("new"), PLAIN).list.len()).to_series()

    assert (found == 2).mean() > 0.99


@pytest.mark.parametrize(
    "field",
    [
        {"source": "A", "target": "other"},
        {"source": "A", "type": "integer"},
        {"source": "A", "volatile": True},
    ],
)
def test_another_name_type_or_coverage_is_another_layout(field: dict[str, Any]) -> None:
    other = shape(field)
    digests = field_digests(rows(("1", "2", "3")), PLAIN)

    assert layout(other) != layout(PLAIN)
    held = digests.to_frame().select(
        of_layout(pl.col(DIGESTS), PLAIN).alias("own"),
        of_layout(pl.col(DIGESTS), other).alias("other"),
    )
    assert held.row(0) == (True, False)


def test_unknown_digests_say_nothing() -> None:
    digests = field_digests(rows(("1", "2", "3")), PLAIN)
    pair = pl.DataFrame({"old": pl.Series([None], dtype=pl.Binary), "new": digests})

    found = pair.select(
        changed_fields(pl.col("old"), pl.col("new"), PLAIN).alias("changed"),
        of_layout(pl.col("old"), PLAIN).alias("own"),
    )

    assert found.row(0) == (None, False)


def test_no_row_has_no_digest() -> None:
    assert field_digests(rows(), PLAIN).len() == 0
