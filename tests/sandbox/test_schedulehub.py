import hashlib
import json
import uuid
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from syncflow_core.sandbox import Sandbox, database, effects


def key(name: str) -> str:
    return hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()


def record(name: str, **fields: object) -> dict[str, object]:
    return {
        "erp_key_hash": key(name),
        "erp_data_hash": hashlib.sha256(json.dumps(fields).encode()).hexdigest(),
        "erp_rowversion": "1",
        "erp_ref_str": f"name={name}",
        "parent_refs": {},
        **fields,
    }


def insert(hub: httpx.Client, collection: str, *records: object) -> list[dict[str, object]]:
    answer = hub.post(f"/api/v1/{collection}/batch/insert", json={"records": records})
    assert answer.status_code in {200, 207}, answer.text
    results: list[dict[str, object]] = answer.json()["results"]
    return results


def test_a_record_comes_back_as_it_was_sent_with_a_uid_of_version_7(hub: httpx.Client) -> None:
    sent = record("a", quantity=10.5, note="Müller\n", nested={"b": [1, None]})
    answer = hub.post("/api/v1/orders", json=sent)

    assert answer.status_code == 201
    uid = answer.json().pop("uid")
    assert uuid.UUID(uid).version == 7
    assert answer.json() == {**sent, "uid": uid, "is_deleted": False}
    assert hub.get("/api/v1/orders", params={"filter": key("a")}).json() == [answer.json()]
    assert hub.get("/api/v1/orders", params={"filter": key("b")}).json() == []
    assert hub.get("/api/v1/sites", params={"filter": key("a")}).json() == []


def test_numbers_keep_every_digit(hub: httpx.Client) -> None:
    numbers = (
        '"big":12345678901234567890123456789012345678,"exact":0.12345678901234567890,"ten":10.50'
    )
    body = f"{json.dumps(record('a'))[:-1]},{numbers}}}"
    answer = hub.post("/api/v1/orders", content=body)
    uid = answer.json()["uid"]
    patched = hub.patch(f"/api/v1/orders/{uid}", content='{"other":1.10}')
    listed = hub.get("/api/v1/orders", params={"fields": "big,exact,ten,other"})

    assert numbers in answer.text
    assert numbers in patched.text
    assert listed.text.startswith(f'{{"items":[{{{numbers},"other":1.10}}]')


def test_a_key_hash_that_is_there_is_409_with_its_uid(hub: httpx.Client) -> None:
    uid = hub.post("/api/v1/orders", json=record("a")).json()["uid"]
    answer = hub.post("/api/v1/orders", json=record("a"))
    results = insert(hub, "orders", record("b"), record("a"), record("b"))

    assert (answer.status_code, answer.json()["uid"]) == (409, uid)
    assert [item["status"] for item in results] == ["inserted", "failed", "failed"]
    assert [item["uid"] for item in results] == [results[0]["uid"], uid, results[0]["uid"]]
    assert [item.get("code") for item in results] == [None, 409, 409]


@pytest.mark.parametrize(
    "bad",
    [
        3,
        [],
        {},
        {"erp_key_hash": "abc"},
        {"erp_key_hash": "A" * 32},
        {**record("a"), "erp_data_hash": "ab"},
        {**record("a"), "erp_rowversion": 5},
        {**record("a"), "parent_refs": {"order": 5}},
        {**record("a"), "parent_refs": []},
    ],
)
def test_a_bad_record_is_422_alone_and_in_a_batch(hub: httpx.Client, bad: object) -> None:
    single = hub.post("/api/v1/orders", json=bad)
    results = insert(hub, "orders", bad, record("good"))

    assert (single.status_code, results[0]["code"]) == (422, 422)
    assert results[1]["status"] == "inserted"


@pytest.mark.parametrize("call", ["query", "insert", "update", "delete"])
def test_a_batch_takes_1000_rows_and_no_more(hub: httpx.Client, call: str) -> None:
    name, row = {
        "query": ("erp_key_hashes", key("x")),
        "insert": ("records", {}),
        "update": ("updates", {"uid": "x", "data": {}}),
        "delete": ("uids", "x"),
    }[call]
    path = f"/api/v1/orders/batch/{call}"

    assert hub.post(path, json={name: [row] * 1001}).status_code == 413
    assert hub.post(path, json={name: [row] * 1000}).status_code in {200, 207}
    assert hub.post(path, json={"wrong": []}).status_code == 422


def test_a_missing_parent_is_424_with_the_references_names(hub: httpx.Client) -> None:
    hub.post("/api/v1/orders", json=record("order"))
    good = record("l1") | {"parent_refs": {"order": key("order"), "part": None}}
    bad = record("l2") | {"parent_refs": {"order": key("no"), "part": key("neither")}}
    single = hub.post("/api/v1/order_lines", json=bad)
    results = insert(hub, "order_lines", good, bad)

    assert (single.status_code, single.json()["missing_parents"]) == (424, ["order", "part"])
    assert results[0]["status"] == "inserted"
    assert (results[1]["code"], results[1]["missing_parents"]) == (424, ["order", "part"])


def test_a_known_reference_is_looked_up_in_its_own_collection(hub: httpx.Client) -> None:
    hub.post("/api/v1/sites", json=record("x"))
    wrong = hub.post("/api/v1/order_lines", json=record("l") | {"parent_refs": {"order": key("x")}})
    unknown = hub.post("/api/v1/order_lines", json=record("l") | {"parent_refs": {"any": key("x")}})

    assert (wrong.status_code, unknown.status_code) == (424, 201)


def test_a_parent_earlier_in_the_same_call_counts_as_there(hub: httpx.Client) -> None:
    child = record("child") | {"parent_refs": {"parent": key("parent")}}

    early = insert(hub, "parts", child, record("parent"))
    assert [item["status"] for item in early] == ["failed", "inserted"]
    hub.post("/sandbox/reset")
    late = insert(hub, "parts", record("parent"), child)
    assert [item["status"] for item in late] == ["inserted", "inserted"]
    assert hub.delete(f"/api/v1/parts/{late[0]['uid']}").json()["children"] == 1


def test_a_patch_keeps_what_it_does_not_send(hub: httpx.Client) -> None:
    uid = hub.post("/api/v1/orders", json=record("a", one=1, two=2)).json()["uid"]
    answer = hub.patch(f"/api/v1/orders/{uid}", json={"two": 3, "erp_rowversion": "9"})

    assert answer.status_code == 200
    fields = answer.json()
    assert (fields["one"], fields["two"], fields["erp_rowversion"]) == (1, 3, "9")
    assert fields["erp_data_hash"] == record("a", one=1, two=2)["erp_data_hash"]


def test_updates_fail_row_by_row(hub: httpx.Client) -> None:
    uid = hub.post("/api/v1/orders", json=record("a")).json()["uid"]
    other = str(uuid.uuid4())
    updates = [
        {"uid": uid, "data": {"x": 1}},
        {"uid": other, "data": {"x": 1}},
        {"uid": "nonsense", "data": {"x": 1}},
        {"uid": uid, "data": {"erp_key_hash": key("b")}},
        {"uid": uid, "data": {"parent_refs": {"customer": key("nobody")}}},
        {"uid": uid, "data": 5},
    ]
    answer = hub.post("/api/v1/orders/batch/update", json={"updates": updates})
    results = answer.json()["results"]

    assert answer.status_code == 207
    assert [item.get("code") for item in results] == [None, 404, 404, 422, 424, 422]
    assert hub.patch(f"/api/v1/orders/{other}", json={}).status_code == 404


def test_a_deleted_record_is_gone_but_known_and_revives_with_its_uid(hub: httpx.Client) -> None:
    uid = hub.post("/api/v1/orders", json=record("a", x=1)).json()["uid"]
    deleted = hub.delete(f"/api/v1/orders/{uid}")

    assert (deleted.status_code, deleted.json()["is_deleted"]) == (200, True)
    assert hub.delete(f"/api/v1/orders/{uid}").status_code == 404
    assert hub.patch(f"/api/v1/orders/{uid}", json={"x": 2}).status_code == 404
    assert hub.get("/api/v1/orders").json() == {"items": [], "total": 0}
    query = hub.post("/api/v1/orders/batch/query", json={"erp_key_hashes": [key("a"), key("b")]})
    assert [(item["uid"], item["is_deleted"]) for item in query.json()] == [(uid, True)]

    revived = hub.post("/api/v1/orders", json=record("a", x=3))
    assert (revived.status_code, revived.json()["uid"], revived.json()["x"]) == (201, uid, 3)
    assert revived.json()["is_deleted"] is False


def test_a_parent_is_deleted_only_after_its_children(hub: httpx.Client) -> None:
    parent = hub.post("/api/v1/orders", json=record("order")).json()["uid"]
    line = record("line") | {"parent_refs": {"order": key("order")}}
    child = hub.post("/api/v1/order_lines", json=line).json()["uid"]
    refused = hub.delete(f"/api/v1/orders/{parent}")
    batch = hub.post("/api/v1/orders/batch/delete", json={"uids": [parent, "x"]}).json()["results"]

    assert (refused.status_code, refused.json()["children"]) == (409, 1)
    assert [item["code"] for item in batch] == [409, 404]
    hub.patch(f"/api/v1/order_lines/{child}", json={"parent_refs": {}})
    assert hub.delete(f"/api/v1/orders/{parent}").status_code == 200
    again = hub.patch(f"/api/v1/order_lines/{child}", json={"parent_refs": {"order": key("order")}})
    assert again.status_code == 424


def test_pages_by_uid_make_the_whole_collection(hub: httpx.Client) -> None:
    for first in range(0, 2500, 500):
        insert(hub, "sites", *(record(str(number)) for number in range(first, first + 500)))
    params = {"fields": "uid,erp_key_hash,erp_data_hash,erp_rowversion"}
    for limit in (10_000, 1_000, 300):
        items = [
            item
            for offset in range(0, 2500, limit)
            for item in hub.get(
                "/api/v1/sites", params={**params, "offset": offset, "limit": limit}
            ).json()["items"]
        ]
        uids = [item["uid"] for item in items]
        assert uids == sorted(uids)
        assert len(set(uids)) == 2500
    assert hub.get("/api/v1/sites", params={"limit": 10_001}).status_code == 422
    assert items[0].keys() == {"uid", "erp_key_hash", "erp_data_hash", "erp_rowversion"}


def test_calls_at_once_insert_each_record_once(hub: httpx.Client) -> None:
    records = [record(str(number)) for number in range(300)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: insert(hub, "sites", *records), range(4)))

    statuses = [item["status"] for results in answers for item in results]
    assert statuses.count("inserted") == 300
    assert hub.get("/api/v1/sites").json()["total"] == 300
    assert len({item["uid"] for results in answers for item in results}) == 300


@pytest.mark.parametrize("status", [404, 405, 501])
def test_batch_calls_can_be_missing(hub: httpx.Client, status: int) -> None:
    hub.post("/sandbox/switches", json={"batch_missing": status})
    answers = [
        hub.post(f"/api/v1/sites/batch/{call}", json={})
        for call in ("query", "insert", "update", "delete")
    ]
    assert {answer.status_code for answer in answers} == {status}
    assert hub.post("/api/v1/sites", json=record("a")).status_code == 201


def test_records_can_be_refused_by_rule(hub: httpx.Client) -> None:
    rule = {"collection": "sites", "field": "uom", "value": "XX"}
    hub.post("/sandbox/switches", json={"reject": [rule]})
    results = insert(hub, "sites", record("a", uom="XX"), record("b", uom="EA"))
    uid = results[1]["uid"]

    assert [item.get("code") for item in results] == [422, None]
    assert hub.patch(f"/api/v1/sites/{uid}", json={"uom": "XX"}).status_code == 422
    assert hub.post("/api/v1/orders", json=record("a", uom="XX")).status_code == 201


def test_every_applied_write_leaves_one_effect(hub: httpx.Client, sandbox: Sandbox) -> None:
    uid = hub.post("/api/v1/orders", json=record("a", x=1)).json()["uid"]
    hub.post("/api/v1/orders", json=record("a", x=1))
    hub.patch(f"/api/v1/orders/{uid}", json={"x": 2, "erp_data_hash": "b" * 64})
    assert effects.updated_twice(sandbox.database_url) == []
    hub.patch(f"/api/v1/orders/{uid}", json={"x": 2, "erp_data_hash": "b" * 64})
    hub.delete(f"/api/v1/orders/{uid}")
    hub.post("/api/v1/orders", json=record("a", x=3))

    assert effects.count_effects(sandbox.database_url) == {
        "orders": {"insert": 1, "update": 2, "delete": 1, "revive": 1}
    }
    assert effects.inserted_twice(sandbox.database_url) == []
    (repeat,) = effects.updated_twice(sandbox.database_url)
    assert (repeat.collection, repeat.key_hash, repeat.uid) == ("orders", key("a"), uid)
    assert not repeat.changed


def test_a_database_that_is_away_is_503_and_the_next_call_goes_through(
    hub: httpx.Client, sandbox: Sandbox
) -> None:
    def end_connections() -> None:
        with database.connect(sandbox.database_url) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND application_name = 'sandbox-schedulehub'"
            )

    hub.post("/api/v1/sites", json=record("a"))
    end_connections()
    statuses: list[int] = []
    while not statuses or statuses[-1] == 503:
        statuses.append(hub.get("/api/v1/sites").status_code)

    assert statuses[0] == 503
    assert statuses[-1] == 200


def test_the_openapi_names_every_call_of_the_contract(hub: httpx.Client) -> None:
    paths = hub.get("/openapi.json").json()["paths"]
    calls = {(path, method) for path, item in paths.items() for method in item}

    assert {
        ("/api/v1/{entity}", "get"),
        ("/api/v1/{entity}", "post"),
        ("/api/v1/{entity}/{uid}", "patch"),
        ("/api/v1/{entity}/{uid}", "delete"),
        ("/api/v1/{entity}/batch/query", "post"),
        ("/api/v1/{entity}/batch/insert", "post"),
        ("/api/v1/{entity}/batch/update", "post"),
        ("/api/v1/{entity}/batch/delete", "post"),
    } <= calls
