"""The schema contract: what stops an entity, what is only reported."""

import pytest

from syncflow_core.catalog import Api, Column
from syncflow_core.contract import agree, contract_of, drift
from syncflow_core.entity import Entity, Field, Rowversion
from syncflow_core.errors import DriftError
from syncflow_core.transforms import Transform

BEFORE = {"ID": "NUMBER(9)", "NAME": "VARCHAR2(40)", "QTY": "NUMBER(12,2)", "RV": "TIMESTAMP(6)"}


def api(**columns: str) -> Api:
    found = tuple(Column(name=name, data_type=kind) for name, kind in columns.items())
    return Api(uid="u", slug="t", name="t", business_key_columns=("ID",), columns=found)


def without(name: str) -> Api:
    return api(**{key: kind for key, kind in BEFORE.items() if key != name})


KEEP = Entity(name="t")
DROP = Entity(
    name="t",
    unmapped="drop",
    rowversion=Rowversion(column="RV"),
    fields=[
        Field(source="ID"),
        Field(target="label", transform=[Transform(coalesce=["NAME"])]),
    ],
)


def test_the_same_columns_are_no_drift() -> None:
    found = drift(BEFORE, api(**BEFORE), KEEP)

    assert (found.broken, found.reported, found.text) == ((), (), "")


@pytest.mark.parametrize("name", BEFORE)
def test_a_kept_column_that_is_gone_breaks_the_contract(name: str) -> None:
    assert drift(BEFORE, without(name), KEEP).broken == (f"{name} ({BEFORE[name]}) is gone",)


@pytest.mark.parametrize(("name", "broken"), [("NAME", 1), ("RV", 1), ("ID", 1), ("QTY", 0)])
def test_of_a_dropping_entity_only_columns_that_are_read_break_it(name: str, broken: int) -> None:
    found = drift(BEFORE, without(name), DROP)

    assert (len(found.broken), len(found.reported)) == (broken, 1 - broken)


@pytest.mark.parametrize(
    ("kind", "broken"),
    [
        ("NUMBER(14,2)", False),
        ("NUMBER", False),
        ("NUMBER(12)", True),  # an integer now
        ("VARCHAR2(20)", True),
        ("FLOAT", True),
    ],
)
def test_a_wider_type_is_reported_and_another_one_breaks(
    kind: str,
    broken: bool,  # noqa: FBT001  # the table's last column
) -> None:
    found = drift(BEFORE, api(**{**BEFORE, "QTY": kind}), KEEP)

    assert bool(found.broken) is broken
    assert f"QTY was NUMBER(12,2) and is {kind}" in found.text


def test_a_new_column_is_reported() -> None:
    found = drift(BEFORE, api(**BEFORE, NEW="DATE"), KEEP)

    assert (found.broken, found.reported) == ((), ("NEW (DATE) is new",))


def test_a_broken_contract_stops_the_entity_and_says_what_to_do() -> None:
    with pytest.raises(DriftError) as stopped:
        agree(BEFORE, without("NAME"), KEEP)

    assert (stopped.value.system, stopped.value.entity) == ("apismith", "t")
    assert "NAME (VARCHAR2(40)) is gone; nothing was read or written" in str(stopped.value)
    assert str(stopped.value).endswith("syncflow entities accept t")


def test_what_is_only_reported_stops_nothing() -> None:
    assert agree(BEFORE, api(**BEFORE, NEW="DATE"), KEEP).reported == ("NEW (DATE) is new",)


def test_the_type_says_its_precision_wherever_apismith_does() -> None:
    columns = (
        Column(name="A", data_type="NUMBER", precision=12, scale=3),
        Column(name="B", data_type="number(12,3)"),
        Column(name="C", data_type="VARCHAR2", max_length=40),
    )
    one = Api(uid="u", slug="t", name="t", columns=columns)

    assert contract_of(one) == {"A": "NUMBER(12,3)", "B": "NUMBER(12,3)", "C": "VARCHAR2(40)"}
