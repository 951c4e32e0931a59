"""Every golden case, one by one and all at once: the same answer from a row alone and within a column."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from syncflow_core.catalog import Api, Column
from syncflow_core.columns import ROW
from syncflow_core.entity import Entity
from syncflow_core.fields import Shape, shape_of
from syncflow_core.normalize import Normalized, normalize

GOLDEN = Path(__file__).parents[1] / "golden"
FILES = ("number", "text", "moment", "coerce", "mapping")


def cases_of(name: str) -> list[dict[str, Any]]:
    cases: list[dict[str, Any]] = json.loads((GOLDEN / f"{name}.json").read_text())
    return cases


def shape_for(case: dict[str, Any]) -> Shape:
    columns = (Column(name="ID", data_type="NUMBER(9)"), Column(name="V", data_type=case["oracle"]))
    api = Api(uid="u", slug="t", name="t", business_key_columns=("ID",), columns=columns)
    field = {"source": "V", "type": case["type"], **case.get("options", {})}
    entity = {
        "name": "t",
        "time_zone": case.get("time_zone"),
        "date_order": case.get("date_order"),
        "fields": [field],
    }
    return shape_of(Entity.model_validate(entity), api)


def normalized(values: list[str | None], shape: Shape) -> Normalized:
    rows = range(len(values))
    schema = {ROW: pl.UInt32, "ID": pl.String, "V": pl.String}
    raw = pl.DataFrame({ROW: list(rows), "ID": [str(n) for n in rows], "V": values}, schema=schema)
    return normalize(raw, shape)


def answers(result: Normalized) -> dict[int, tuple[str, str | None]]:
    good = {row[ROW]: ("value", row["v"]) for row in result.accepted.to_dicts()}
    bad = {row[ROW]: ("rule", row["rule"]) for row in result.rejected.to_dicts()}
    return good | bad


def expected(case: dict[str, Any]) -> tuple[str, str | None]:
    return ("rule", case["rejected"]) if "rejected" in case else ("value", case["expected"])


@pytest.mark.parametrize("name", FILES)
def test_a_value_alone_becomes_what_the_case_says(name: str) -> None:
    found = [
        (case, answers(normalized([case["input"]], shape_for(case)))) for case in cases_of(name)
    ]

    assert len(found) > 10
    assert [
        f"{case['label']}: {answer}, not {expected(case)}"
        for case, answer in found
        if answer != {0: expected(case)}
    ] == []


@pytest.mark.parametrize("name", FILES)
def test_a_value_among_others_becomes_what_it_becomes_alone(name: str) -> None:
    groups: dict[str, list[dict[str, Any]]] = {}
    for case in cases_of(name):
        declared = {
            key: case.get(key) for key in ("oracle", "type", "options", "time_zone", "date_order")
        }
        groups.setdefault(json.dumps(declared), []).append(case)

    for cases in groups.values():
        result = normalized([case["input"] for case in cases], shape_for(cases[0]))
        assert answers(result) == {n: expected(case) for n, case in enumerate(cases)}


@pytest.mark.parametrize("name", ["number", "text", "moment"])
def test_what_came_out_comes_out_again_unchanged(name: str) -> None:
    for case in cases_of(name):
        plain = {key: case[key] for key in ("oracle", "type", "time_zone") if key in case}
        if case.get("expected") is not None:
            again = normalized(
                [case["expected"]], shape_for({**plain, "options": {"invalid_unicode": "replace"}})
            )
            assert (case["label"], answers(again)) == (
                case["label"],
                {0: ("value", case["expected"])},
            )


@pytest.mark.parametrize("name", FILES)
def test_the_labels_of_a_file_differ(name: str) -> None:
    labels = [case["label"] for case in json.loads((GOLDEN / f"{name}.json").read_text())]

    assert len(set(labels)) == len(labels) > 50
