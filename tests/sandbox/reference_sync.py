"""A sync in a few lines that owes nothing to SyncFlow: the truth is put into the hub as it stands."""

import hashlib
import json

import httpx

from syncflow_core.sandbox import database, store

ORDER = (
    "sites",
    "work_centres",
    "parts",
    "customers",
    "orders",
    "order_lines",
    "operations",
    "stock",
)


def key_hash(names: list[str], fields: dict[str, object]) -> str:
    text = "|".join(f"{name}={fields[name]}" for name in sorted(names))
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def fill_hub(database_url: str, hub: httpx.Client) -> dict[str, int]:
    """Insert every truth whose parents are there; answers how many per entity were refused for parents."""
    refused = {}
    with database.connect(database_url) as connection:
        for name in ORDER:
            table = store.table_named(connection, name)
            records = _records(connection, table)
            waiting = len(records) + 1
            while records and len(records) < waiting:
                waiting = len(records)
                records = _insert(hub, name, records)
            refused[name] = len(records)
    return refused


def _records(connection: database.Connection, table: store.Table) -> list[str]:
    records = []
    statement = f"SELECT truth FROM erp.t_{table.name} WHERE truth IS NOT NULL ORDER BY id".encode()  # noqa: S608  # a name of ours
    for (text,) in connection.execute(statement):
        truth = json.loads(str(text))
        refs = {}
        for name, parent in table.parents.items():
            key = {theirs: truth[ours] for theirs, ours in parent["key"].items()}
            refs[name] = None if None in key.values() else key_hash(list(key), key)
        head = {
            "erp_key_hash": key_hash(list(table.key_fields), truth),
            "erp_data_hash": hashlib.sha256(str(text).encode()).hexdigest(),
            "erp_rowversion": None,
            "erp_ref_str": "",
            "parent_refs": refs,
        }
        records.append(f"{json.dumps(head)[:-1]},{str(text)[1:]}")
    return records


def _insert(hub: httpx.Client, collection: str, records: list[str]) -> list[str]:
    """The records that were refused for missing parents."""
    left = []
    for first in range(0, len(records), 1000):
        part = records[first : first + 1000]
        body = f'{{"records":[{",".join(part)}]}}'
        answer = hub.post(f"/api/v1/{collection}/batch/insert", content=body)
        assert answer.status_code in {200, 207}, answer.text
        for result in answer.json()["results"]:
            if result["status"] == "failed":
                assert result["code"] == 424, result
                left.append(part[result["index"]])
    return left
