import importlib.resources
import json

import pytest
import yaml

from syncflow_core.catalog import Api
from syncflow_core.entity import Entity
from syncflow_core.fields import shape_of
from syncflow_core.sandbox import Sandbox, apismith, database, store, tables

TEXT = (
    importlib.resources.files("syncflow_core.sandbox").joinpath("entities.yaml").read_text("utf-8")
)
DECLARED = [Entity.model_validate(item) for item in yaml.safe_load(TEXT)["entities"]]


def test_the_file_declares_the_eight_tables() -> None:
    assert [entity.name for entity in DECLARED] == list(tables.ENTITIES)


@pytest.mark.parametrize("entity", DECLARED, ids=lambda entity: entity.name)
def test_the_fields_of_an_entity_are_those_of_its_truth(entity: Entity, sandbox: Sandbox) -> None:
    with database.connect(sandbox.database_url) as connection:
        table = store.table_named(connection, entity.name)
        row = connection.execute(
            f"SELECT truth FROM erp.t_{entity.name} WHERE truth IS NOT NULL LIMIT 1".encode()  # noqa: S608  # a name of ours
        ).fetchone()
    shape = shape_of(entity, Api.model_validate(apismith.describe(table)))

    assert row is not None
    assert {field.name for field in shape.fields} == set(json.loads(str(row[0])))
    assert list(shape.key_fields) == list(table.key_fields)
    assert {name: item.model_dump() for name, item in entity.parents.items()} == dict(table.parents)
    assert shape.rowversion_column == table.rowversion_column
    assert shape.delta == table.delta_strategy
