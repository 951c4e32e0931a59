import re
from typing import Any

import pytest

from syncflow_core.catalog import Api, Column
from syncflow_core.entity import Entity, Field, ParentRef, Rowversion
from syncflow_core.errors import ConfigError
from syncflow_core.fields import shape_of
from syncflow_core.transforms import Transform

API = Api(
    uid="u",
    slug="orders",
    name="Orders",
    delta_strategy="rowversion",
    business_key_columns=("ORDER_NO",),
    rowversion_column="ROWVERSION",
    columns=(
        Column(name="ORDER_NO", data_type="VARCHAR2(20)"),
        Column(name="QTY", data_type="NUMBER(12,3)"),
        Column(name="DUE", data_type="DATE"),
        Column(name="ROWVERSION", data_type="TIMESTAMP(6)"),
    ),
)


def test_what_the_declaration_leaves_open_comes_from_the_source() -> None:
    shape = shape_of(Entity(name="orders"), API)

    assert [(field.name, field.type) for field in shape.fields] == [
        ("order_no", "text"),
        ("qty", "decimal"),
        ("due", "timestamp"),
    ]
    assert shape.key_fields == ("order_no",)
    assert (shape.rowversion_column, shape.rowversion_kind) == ("ROWVERSION", "timestamp")
    assert shape.delta == "rowversion"


def test_the_declaration_wins_and_unmapped_columns_can_be_dropped() -> None:
    entity = Entity(
        name="orders",
        unmapped="drop",
        delta="hash",
        fields=[
            Field(source="ORDER_NO", target="no", transform=[Transform(upper=True)]),
            Field(source="DUE", type="date"),
        ],
        rowversion=Rowversion(column="QTY", kind="integer"),
    )

    shape = shape_of(entity, API)

    assert [(field.name, field.type) for field in shape.fields] == [("no", "text"), ("due", "date")]
    assert shape.key_fields == ("no",)
    assert (shape.rowversion_column, shape.rowversion_kind) == ("QTY", "integer")
    assert shape.delta == "hash"


def test_every_misfit_is_named_in_one_message() -> None:
    entity = Entity(
        name="orders",
        business_key=["NOWHERE"],
        fields=[Field(source="GONE"), Field(source="QTY", target="due")],
        parents={"site": ParentRef(entity="sites", key={"code": "site"})},
    )

    with pytest.raises(ConfigError) as caught:
        shape_of(entity, API)

    message = str(caught.value)
    assert "business_key: the source has no column 'NOWHERE'" in message
    assert "fields.gone: the source has no column 'GONE'" in message
    assert "two columns become 'due'" in message
    assert "parents.site: this entity has no target field 'site'" in message


def test_a_type_that_nobody_knows_must_be_declared() -> None:
    api = API.model_copy(
        update={"columns": (*API.columns, Column(name="GEO", data_type="SDO_GEOMETRY"))}
    )

    with pytest.raises(ConfigError, match="SDO_GEOMETRY is no type that SyncFlow knows"):
        shape_of(Entity(name="orders"), api)

    declared = Entity(name="orders", fields=[Field(source="GEO", type="json")])
    assert shape_of(declared, api).field("geo").type == "json"


@pytest.mark.parametrize(
    ("api", "entity", "fault"),
    [
        ({"business_key_columns": ()}, {}, "business_key: neither declared nor known to APISmith"),
        ({}, {"unmapped": "drop"}, "business_key: no field carries 'ORDER_NO' (unmapped: drop)"),
        (
            {},
            {"rowversion": {"column": "GONE"}},
            "rowversion: the source has no column 'GONE'",
        ),
        (
            {},
            {"fields": [{"source": "ROWVERSION", "pii": "mask"}]},
            "rowversion: 'ROWVERSION' is personal data (pii)",
        ),
        ({"rowversion_column": None}, {}, "delta: rowversion needs a rowversion column"),
        (
            {"columns": (*API.columns, Column(name="UID", data_type="NUMBER(9)"))},
            {},
            "fields: column UID would become the hub's own 'uid'; map it",
        ),
        (
            {"columns": (*API.columns, Column(name="GEO", data_type="SDO_GEOMETRY"))},
            {"fields": [{"source": "GEO", "target": "place"}]},
            "fields.place: SDO_GEOMETRY is no type that SyncFlow knows; declare a type",
        ),
    ],
)
def test_what_source_and_declaration_do_not_make_together_is_refused(
    api: dict[str, Any], entity: dict[str, Any], fault: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(fault)):
        shape_of(Entity.model_validate({"name": "orders", **entity}), API.model_copy(update=api))
