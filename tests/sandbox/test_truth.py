"""SyncFlow's normalizer and the truth meet here: two ways to the same values."""

import importlib.resources
import json

import polars as pl
import pytest
import yaml

from syncflow_core.catalog import Api
from syncflow_core.columns import ROW
from syncflow_core.entity import Entity
from syncflow_core.fields import shape_of
from syncflow_core.normalize import normalize
from syncflow_core.sandbox import Sandbox, apismith, database, erp, store

TEXT = (
    importlib.resources.files("syncflow_core.sandbox").joinpath("entities.yaml").read_text("utf-8")
)
DECLARED = [Entity.model_validate(item) for item in yaml.safe_load(TEXT)["entities"]]


def as_text(value: object) -> str | None:
    """A JSON value as a normalized frame holds it."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value)


@pytest.mark.parametrize("entity", DECLARED, ids=lambda entity: entity.name)
def test_normalized_rows_equal_their_truth_and_bad_rows_are_rejected(
    entity: Entity, sandbox: Sandbox
) -> None:
    with database.connect(sandbox.database_url) as connection:
        table = store.table_named(connection, entity.name)
        rows = connection.execute(
            f"SELECT doc, truth FROM erp.t_{entity.name} ORDER BY id".encode()  # noqa: S608  # our name
        ).fetchall()
    docs = [json.loads(str(doc), parse_int=str, parse_float=str) for doc, _ in rows]
    truths = [truth and json.loads(str(truth), parse_int=str, parse_float=str) for _, truth in rows]
    names = [column["name"] for column in table.columns]
    raw = pl.DataFrame(
        {name: [as_text(doc.get(name)) for doc in docs] for name in names},
        schema=dict.fromkeys(names, pl.String()),
    ).with_row_index(ROW)
    result = normalize(raw, shape_of(entity, Api.model_validate(apismith.describe(table))))

    bad = [number for number, truth in enumerate(truths) if truth is None]
    assert result.rejected[ROW].to_list() == bad
    assert len(bad) <= erp.BAD_PER_TABLE
    accepted = result.accepted.to_dicts()
    for row in accepted:
        truth = {name: as_text(value) for name, value in truths[row[ROW]].items()}
        assert {name: row[name] for name in truth} == truth
