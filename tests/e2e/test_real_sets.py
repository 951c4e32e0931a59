"""Two real relational sets, loaded into the sandbox, end up equal in the hub.

Oracle HR+CO has a cycle (departments <-> employees), a self-reference and 9-digit timestamps.
"""

import csv
import gzip
import json
import os
import unicodedata
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from local import LOCAL
from place import Place

from syncflow_core.entity import Entity, ParentRef
from syncflow_core.sandbox import store
from syncflow_core.sandbox.compare import compare

DATA = os.environ.get("SYNCFLOW_TEST_DATA")
pytestmark = [
    pytest.mark.skipif(DATA is None, reason="SYNCFLOW_TEST_DATA names no folder with the sets"),
]


def clean(text: str, oracle_type: str) -> object:
    """What the hub must hold of one value: written for this test, nothing of SyncFlow's in it."""
    if text == "":
        return None
    if oracle_type.startswith(("NUMBER", "INTEGER")):
        plain = format(Decimal(text).normalize(), "f")
        return Decimal(plain)
    if oracle_type.startswith(("DATE", "TIMESTAMP")):
        whole, _, fraction = text.replace(" ", "T").partition(".")
        return f"{whole}.{fraction.rstrip('0')}".rstrip(".")
    if oracle_type == "BLOB":
        return text.lower()
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    return unicodedata.normalize("NFC", lines).strip() or None


def load(place: Place, folder: str) -> list[Entity]:
    """Put a set into the sandbox; the entities that sync it."""
    assert DATA is not None
    root = Path(DATA) / folder
    described = json.loads((root / "_schema.json").read_text(encoding="utf-8"))["tables"]
    entities = []
    with place.tables.connection() as connection:
        for name, table in described.items():
            types = {
                column: kind.removesuffix(" NOT NULL")
                for column, kind in table["oracle_types"].items()
            }
            with gzip.open(root / table["file"], "rt", encoding="utf-8", newline="") as file:
                rows = list(csv.DictReader(file))
            parents = {
                column.lower(): {
                    "entity": target.split(".")[0].lower(),
                    "key": {target.split(".")[1].lower(): column.lower()},
                }
                for column, target in (table.get("fk") or {}).items()
            }
            store.load_table(
                connection,
                store.Table(
                    name=name.lower(),
                    columns=[
                        {
                            "name": column,
                            "data_type": kind,
                            "nullable": not table["oracle_types"][column].endswith("NOT NULL"),
                        }
                        for column, kind in types.items()
                    ],
                    business_key=table["pk"],
                    key_fields=[column.lower() for column in table["pk"]],
                    parents=parents,  # type: ignore[arg-type]  # plain dicts of the same shape
                    has_truth=True,
                ),
                [{c: _served(v, types[c]) for c, v in row.items()} for row in rows],
                [{c.lower(): clean(v, types[c]) for c, v in row.items()} for row in rows],
            )
            entities.append(_entity(name.lower(), table, parents))
    references = [
        {"collection": entity.name, "name": reference, "parent": parent.entity}
        for entity in entities
        for reference, parent in entity.parents.items()
    ]
    LOCAL.post(
        f"{place.sandbox.schedulehub_url}/sandbox/references", json=references
    ).raise_for_status()
    return entities


def _served(text: str, oracle_type: str) -> object:
    if text == "":
        return None
    return Decimal(text) if oracle_type.startswith(("NUMBER", "INTEGER")) else text


def _entity(name: str, table: dict[str, Any], parents: dict[str, Any]) -> Entity:
    return Entity(
        name=name,
        business_key=table["pk"],
        parents={reference: ParentRef(**parent) for reference, parent in parents.items()},
    )


@pytest.mark.parametrize("folder", ["oracle_hr_co", "chinook"])
def test_XH05_a_real_set_is_equal_in_the_hub_and_then_quiet(place: Place, folder: str) -> None:
    place.apply(load(place, folder))

    first = place.sync()
    comparison = compare(place.url)

    assert {batch.status for batch in first.batches} == {"completed"}
    assert comparison.equal, comparison.table()
    assert sum(item.expected for item in comparison.entities) > 8_000
    second = place.sync()
    pushed = [
        batch.counts.inserted + batch.counts.updated + batch.counts.deleted
        for batch in second.batches
    ]
    assert set(pushed) == {0}
