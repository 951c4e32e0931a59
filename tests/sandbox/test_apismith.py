import gzip
import json
from typing import Any

import httpx
import pyarrow as pa
import pytest
from local import LOCAL

from syncflow_core.sandbox import Sandbox, database, store

COLUMNS: list[store.ColumnInfo] = [
    {"name": "ID", "data_type": "NUMBER(10,0)"},
    {"name": "CODE", "data_type": "CHAR(4)"},
    {"name": "AMOUNT", "data_type": "NUMBER"},
    {"name": "HASH", "data_type": "RAW(4)"},
    {"name": "CHANGED", "data_type": "TIMESTAMP(6)"},
]
WIDE = 12345678901234567890123456789012345678
THINGS = store.Table("things", COLUMNS, ["ID"], rowversion_column="CHANGED")


@pytest.fixture(scope="module", autouse=True)
def things(sandbox: Sandbox) -> int:
    """2,500 rows, loaded in no particular order."""
    rows = [
        {
            "ID": number * 7919 % 2503,
            "CODE": f"C{number % 10}  ",
            "AMOUNT": WIDE if number == 1 else f"{number % 100 + 1},000.50-",
            "HASH": f"{number:08x}",
            "CHANGED": f"2026-01-01T00:{number // 60:02}:{number % 60:02}.500000",
        }
        for number in range(1, 2501)
    ]
    with database.connect(sandbox.database_url) as connection:
        return store.load_table(connection, THINGS, rows)


def execute(client: httpx.Client, slug: str = "things", /, **body: Any) -> httpx.Response:
    return client.post(f"/api/v1/runtime/{slug}/execute", json=body)


def ids(answer: httpx.Response) -> list[int]:
    return [row["ID"] for row in answer.json()["data"]]


def test_health_needs_no_token_and_everything_else_does(sandbox: Sandbox) -> None:
    with httpx.Client(base_url=sandbox.apismith_url, trust_env=False) as client:
        assert client.get("/api/v1/health").json() == {"status": "healthy"}
        for answer in (client.get("/api/v1/apis"), execute(client)):
            assert answer.status_code == 401
            assert "detail" in answer.json()


def test_wrong_credentials_are_401(sandbox: Sandbox) -> None:
    answer = LOCAL.post(
        f"{sandbox.apismith_url}/api/v1/auth/login",
        json={"username": "syncflow", "password": "no"},
    )
    assert answer.status_code == 401


def test_a_refresh_token_gives_a_new_access_token_until_it_is_spent(
    sandbox: Sandbox, apismith: httpx.Client
) -> None:
    login = apismith.post(
        "/api/v1/auth/login", json={"username": "syncflow", "password": sandbox.password}
    ).json()
    assert login.keys() == {"access_token", "refresh_token", "token_type", "expires_in"}
    assert (login["token_type"], login["expires_in"]) == ("bearer", 1800)

    body = {"refresh_token": login["refresh_token"]}
    apismith.post("/sandbox/switches", json={"refresh_uses": 1})
    first = apismith.post("/api/v1/auth/refresh", json=body)
    second = apismith.post("/api/v1/auth/refresh", json=body)
    apismith.post("/sandbox/switches", json={"refresh_uses": None})

    headers = {"Authorization": f"Bearer {first.json()['access_token']}"}
    assert apismith.get("/api/v1/connectors", headers=headers).status_code == 200
    assert second.status_code == 401


def test_apis_are_listed_page_by_page(apismith: httpx.Client) -> None:
    first = apismith.get("/api/v1/apis", params={"page": 1, "page_size": 4}).json()
    items = [
        item
        for page in range(1, first["total_pages"] + 1)
        for item in apismith.get("/api/v1/apis", params={"page": page, "page_size": 4}).json()[
            "items"
        ]
    ]

    assert first.keys() == {"items", "total", "page", "page_size", "total_pages"}
    assert len(items) == first["total"] == len({item["uid"] for item in items})
    assert {"orders", "things"} <= {item["slug"] for item in items}


def test_an_api_is_described_as_the_contract_says(apismith: httpx.Client) -> None:
    api = apismith.get("/api/v1/apis/slug/things").json()

    assert api["business_key_columns"] == ["ID"]
    assert api["rowversion_column"] == "CHANGED"
    assert api["columns"][0].keys() == {
        "name", "data_type", "nullable", "precision", "scale", "max_length",
    }  # fmt: skip
    assert apismith.get("/api/v1/apis/slug/nothing").status_code == 404
    assert execute(apismith, "nothing").status_code == 404


def test_pages_of_any_size_make_the_whole_table_in_key_order(
    apismith: httpx.Client, things: int
) -> None:
    for size in (10_000, 1_000, 777, 333):
        seen = [
            number
            for offset in range(0, things, size)
            for number in ids(execute(apismith, offset=offset, limit=size))
        ]
        assert seen == sorted(seen)
        assert len(set(seen)) == things
    assert ids(execute(apismith, offset=things, limit=10)) == []


def test_asking_for_the_order_that_rows_have_anyway_changes_no_page(
    apismith: httpx.Client, things: int
) -> None:
    key = [{"field": "ID", "direction": "asc"}]
    for offset in range(0, things, 700):
        asked = execute(apismith, offset=offset, limit=700, sort=key).json()
        assert asked["data"] == execute(apismith, offset=offset, limit=700).json()["data"]
    backwards = execute(
        apismith, offset=things - 10, limit=10, sort=[{"field": "ID", "direction": "desc"}]
    ).json()["data"]
    assert backwards == execute(apismith, limit=10).json()["data"][::-1]


def test_older_installations_page_by_number(apismith: httpx.Client, things: int) -> None:
    answer = execute(apismith, page=2, page_size=10)

    assert ids(answer) == ids(execute(apismith, offset=10, limit=10))
    metadata = answer.json()["metadata"]
    assert (metadata["page"], metadata["page_size"], metadata["total_rows"]) == (2, 10, things)


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ([("ID", "=", 5)], lambda row: row["ID"] == 5),
        ([("ID", "=", "5")], lambda row: row["ID"] == 5),
        ([("ID", "in", [1, 2, 3])], lambda row: row["ID"] in {1, 2, 3}),
        ([("ID", "in", [])], lambda _: False),
        ([("ID", ">=", 100), ("ID", "<", 110)], lambda row: 100 <= row["ID"] < 110),
        ([("ID", "!=", 7)], lambda row: row["ID"] != 7),
        ([("CODE", "=", "C3  ")], lambda row: row["CODE"] == "C3  "),
        ([("CODE", ">", "C8")], lambda row: row["CODE"] > "C8"),
        ([("AMOUNT", "<=", -99000.5)], lambda row: row["AMOUNT"] in {"99,000.50-", "100,000.50-"}),
        ([("AMOUNT", "=", WIDE)], lambda row: row["AMOUNT"] == WIDE),
        ([("HASH", "=", "000000AA")], lambda row: row["HASH"] == "000000aa"),
        ([("CHANGED", ">=", "2026-01-01 00:41:00")], lambda row: row["CHANGED"] >= "2026-01-01T00:41:00"),
        ([("CHANGED", "=", "2026-01-01T00:00:01.5")], lambda row: row["CHANGED"] == "2026-01-01T00:00:01.500000"),
    ],
)  # fmt: skip
def test_filters_compare_by_the_columns_type(
    apismith: httpx.Client, conditions: list[tuple[str, str, object]], expected: object
) -> None:
    assert callable(expected)
    rows = execute(apismith, limit=10_000).json()["data"]
    filters = [{"field": f, "operator": o, "value": v} for f, o, v in conditions]
    answer = execute(apismith, limit=10_000, filters=filters)

    assert answer.json()["data"] == [row for row in rows if expected(row)]
    assert answer.json()["metadata"]["total_rows"] == len(answer.json()["data"])


def test_rows_are_sorted_by_several_columns(apismith: httpx.Client) -> None:
    sort = [{"field": "CODE", "direction": "desc"}, {"field": "CHANGED", "direction": "asc"}]
    rows = execute(apismith, limit=10_000, sort=sort).json()["data"]

    by_changed = sorted(rows, key=lambda row: row["CHANGED"])
    assert rows == sorted(by_changed, key=lambda row: row["CODE"], reverse=True)


@pytest.mark.parametrize(
    "body",
    [
        {"limit": 10_001},
        {"offset": -1},
        {"filters": [{"field": "NOPE", "operator": "=", "value": 1}]},
        {"filters": [{"field": "ID", "operator": "like", "value": 1}]},
        {"filters": [{"field": "ID", "operator": "=", "value": "five"}]},
        {"filters": [{"field": "CHANGED", "operator": ">", "value": "yesterday or so"}]},
        {"sort": [{"field": "NOPE", "direction": "asc"}]},
    ],
)
def test_a_bad_query_is_422(apismith: httpx.Client, body: dict[str, Any]) -> None:
    answer = execute(apismith, **body)

    assert answer.status_code == 422
    assert answer.json()["detail"]


def test_numbers_keep_every_digit(apismith: httpx.Client) -> None:
    answer = execute(apismith, filters=[{"field": "AMOUNT", "operator": "=", "value": WIDE}])

    assert f'"AMOUNT":{WIDE}' in answer.text


def test_ndjson_and_arrow_hold_the_same_rows(apismith: httpx.Client, things: int) -> None:
    rows = execute(apismith, limit=50).json()["data"]
    path = "/api/v1/runtime/things/execute"
    lines = apismith.post(path, json={"limit": 50}, headers={"Accept": "application/x-ndjson"})
    arrow = apismith.post(
        path, json={"limit": 50}, headers={"Accept": "application/vnd.apache.arrow.stream"}
    )

    assert lines.headers["content-type"].startswith("application/x-ndjson")
    assert [json.loads(line) for line in lines.text.splitlines()] == rows
    assert arrow.headers["content-type"] == "application/vnd.apache.arrow.stream"
    with pa.ipc.open_stream(arrow.content) as reader:
        found = reader.read_all().to_pylist()
    assert found == [{name: str(value) for name, value in row.items()} for row in rows]
    assert lines.headers["x-total-rows"] == arrow.headers["x-total-rows"] == str(things)


def test_a_server_that_does_not_know_ndjson_answers_json(apismith: httpx.Client) -> None:
    apismith.post("/sandbox/switches", json={"ndjson": False})
    answer = apismith.post(
        "/api/v1/runtime/things/execute", json={}, headers={"Accept": "application/x-ndjson"}
    )
    apismith.post("/sandbox/switches", json={"ndjson": True})

    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["success"] is True


def test_answers_are_compressed_only_when_asked(apismith: httpx.Client) -> None:
    plain = execute(apismith)
    path = "/api/v1/runtime/things/execute"
    with apismith.stream("POST", path, json={}, headers={"Accept-Encoding": "gzip"}) as answer:
        packed = b"".join(answer.iter_raw())

    assert "content-encoding" not in plain.headers
    assert answer.headers["content-encoding"] == "gzip"
    assert json.loads(gzip.decompress(packed))["data"] == plain.json()["data"]


def test_the_request_id_is_echoed_also_with_errors(
    apismith: httpx.Client, sandbox: Sandbox
) -> None:
    headers = {"X-Request-ID": "request-1"}
    answers = [
        apismith.get("/api/v1/connectors", headers=headers),
        apismith.get("/api/v1/apis/slug/nothing", headers=headers),
        LOCAL.get(f"{sandbox.apismith_url}/api/v1/apis", headers=headers),
    ]

    assert [answer.status_code for answer in answers] == [200, 404, 401]
    assert {answer.headers["x-request-id"] for answer in answers} == {"request-1"}


def test_single_edits_show_on_the_next_page_at_any_offset(
    sandbox: Sandbox, apismith: httpx.Client, things: int
) -> None:
    row = {"ID": 99_999, "CODE": "NEW", "CHANGED": "2027-01-01T00:00:00"}
    with database.connect(sandbox.database_url) as connection:
        store.insert_row(connection, "things", row)
        inserted = execute(apismith, offset=2_500).json()
        store.update_row(connection, "things", {"ID": 99_999}, {**row, "CODE": "OLD"})
        updated = execute(apismith, offset=2_500).json()
        count = store.delete_row(connection, "things", {"ID": 99_999})
        deleted = execute(apismith, offset=2_500).json()

    assert inserted["data"] == [row]
    assert inserted["metadata"]["total_rows"] == things + 1
    assert [item["CODE"] for item in updated["data"]] == ["OLD"]
    assert (count, deleted["data"], deleted["metadata"]["total_rows"]) == (1, [], things)


def test_an_inactive_api_fails_with_status_200(sandbox: Sandbox, apismith: httpx.Client) -> None:
    with database.connect(sandbox.database_url) as connection:
        store.set_active(connection, "things", active=False)
        answer = execute(apismith)
        described = apismith.get("/api/v1/apis/slug/things").json()
        store.set_active(connection, "things", active=True)

    assert answer.status_code == 200
    assert answer.json()["success"] is False
    assert answer.json()["error"]["code"] == "API_INACTIVE"
    assert described["is_active"] is False


def test_the_openapi_names_every_call_of_the_contract(apismith: httpx.Client) -> None:
    paths = apismith.get("/openapi.json").json()["paths"]

    assert {
        "/api/v1/health",
        "/api/v1/auth/login",
        "/api/v1/auth/refresh",
        "/api/v1/connectors",
        "/api/v1/apis",
        "/api/v1/apis/slug/{slug}",
        "/api/v1/runtime/{slug}/execute",
    } <= paths.keys()
