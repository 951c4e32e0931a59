"""Every row that was written has exactly one outcome, and none is invented."""

import json
from collections.abc import Callable

import httpx
import polars as pl
import pytest

from syncflow_core.errors import ConfigError, ContractError, RejectedError, UnavailableError
from syncflow_core.limiter import Limits
from syncflow_core.outcomes import DOUBT, OK
from syncflow_core.schedulehub import BATCH_LIMIT, HubRecord, Target
from syncflow_core.settings import Settings

KEY = bytes(range(16))
DATA = bytes(range(32))
Handler = Callable[[httpx.Request], httpx.Response]


def texts(*values: str) -> pl.Series:
    return pl.Series(values, dtype=pl.String)


def target_of(handler: Handler) -> tuple[Target, list[str]]:
    """A target whose hub is *handler*, and the calls that reach it."""
    calls: list[str] = []

    def hub(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/auth/login"):
            return httpx.Response(200, json={"access_token": "t", "expires_in": 1800})
        calls.append(f"{request.method} {request.url.path.removeprefix('/api/v1')}")
        return handler(request)

    settings = Settings.model_construct(schedulehub_url="http://hub.test")
    limits = Limits(attempts=2, backoff_s=0)
    return Target.open(settings, transport=httpx.MockTransport(hub), limits=limits), calls


def record(**changes: object) -> dict[str, object]:
    return {
        "uid": "u1",
        "erp_key_hash": KEY.hex(),
        "erp_data_hash": DATA.hex(),
        "erp_rowversion": "7",
        "erp_ref_str": "order_no=1",
        "parent_refs": {"order": KEY.hex()},
        "is_deleted": False,
    } | changes


def results(*rows: dict[str, object], status: int = 207) -> Handler:
    body = {"success_count": 0, "failure_count": 0, "results": list(rows)}
    return lambda _: httpx.Response(status, json=body)


def test_a_missing_address_is_named() -> None:
    with pytest.raises(ConfigError, match="SYNCFLOW_SCHEDULEHUB_URL"):
        Target.open(Settings.model_construct(schedulehub_url=None))


def test_a_record_is_found_with_its_fields_exactly_as_the_hub_wrote_them() -> None:
    body = json.dumps([record()])[:-2] + (
        ',"price":0.1234567890123456789012345678,"name":"ü","note":null,"tags":[1, 2.50]}]'
    )
    target, calls = target_of(lambda _: httpx.Response(200, content=body.encode()))

    expected = HubRecord(
        uid="u1",
        key_hash=KEY,
        data_hash=DATA,
        rowversion="7",
        reference="order_no=1",
        parent_refs={"order": KEY.hex()},
        is_deleted=False,
        fields={
            "price": "0.1234567890123456789012345678",
            "name": '"ü"',
            "note": "null",
            "tags": "[1, 2.50]",
        },
    )
    assert expected == target.find("orders", KEY)
    assert calls == ["GET /orders"]


def test_a_record_that_is_not_there_is_none_and_two_of_one_key_break_the_contract() -> None:
    target, _ = target_of(lambda _: httpx.Response(200, json=[]))
    assert target.find("orders", KEY) is None

    target, _ = target_of(lambda _: httpx.Response(200, json=[record(), record(uid="u2")]))
    with pytest.raises(ContractError, match="2 records of one key"):
        target.find("orders", KEY)


@pytest.mark.parametrize(
    "changes", [{"uid": 5}, {"erp_key_hash": "zz"}, {"erp_key_hash": "00"}, {"erp_data_hash": "00"}]
)
def test_a_malformed_record_breaks_the_contract(changes: dict[str, object]) -> None:
    target, _ = target_of(lambda _: httpx.Response(200, json=[record(**changes)]))
    with pytest.raises(ContractError):
        target.find("orders", KEY)


def test_the_list_comes_page_by_page_in_columns() -> None:
    kept = [record(uid=f"u{i}", qty=i, erp_rowversion=None if i else 5) for i in range(3)]

    def handler(request: httpx.Request) -> httpx.Response:
        offset = int(request.url.params["offset"])
        assert (
            (request.url.params["fields"])
            == "uid,erp_key_hash,erp_rowversion,parent_refs,is_deleted,qty,erp_data_hash"
        )
        return httpx.Response(200, json={"items": kept[offset : offset + 2], "total": 3})

    target, calls = target_of(handler)
    fields = ["uid", "erp_key_hash", "erp_rowversion", "parent_refs", "is_deleted", "qty"]
    pages = list(target.pages("orders", [*fields, "erp_data_hash"]))

    refs = '{"order":"' + KEY.hex() + '"}'
    assert [page.height for page in pages] == [2, 1]
    assert ("u0", KEY, "5", refs, False, "0", DATA) == pages[0].row(0)
    assert ("u2", KEY, None, refs, False, "2", DATA) == pages[1].row(0)
    assert pl.Binary == pages[0].schema["erp_key_hash"]
    assert len(calls) == 2


def test_a_list_that_ends_before_its_total_breaks_the_contract() -> None:
    target, _ = target_of(lambda _: httpx.Response(200, json={"items": [], "total": 3}))
    with pytest.raises(ContractError, match="0 of 3"):
        list(target.pages("orders", ["uid"]))


@pytest.mark.parametrize(
    "body",
    [
        {"items": []},
        {"total": 1},
        [],
        {"items": [{"erp_key_hash": KEY.hex()}], "total": 1},
        {"items": [{"uid": "u", "erp_key_hash": "00"}], "total": 1},
    ],
)
def test_a_malformed_list_breaks_the_contract(body: object) -> None:
    target, _ = target_of(lambda _: httpx.Response(200, json=body))
    with pytest.raises(ContractError):
        list(target.pages("orders", ["uid", "erp_key_hash"]))


def test_a_broken_body_of_a_read_is_asked_for_again() -> None:
    answers = iter([b'[{"uid":', json.dumps([record()]).encode()])
    target, calls = target_of(lambda _: httpx.Response(200, content=next(answers)))

    assert [found.uid for found in target.query("orders", [KEY])] == ["u1"]
    assert len(calls) == 2


def test_a_query_without_keys_asks_nobody() -> None:
    target, calls = target_of(lambda _: httpx.Response(500))

    assert target.query("orders", []) == []
    assert calls == []


def test_a_query_falls_back_to_single_reads() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            return httpx.Response(404)
        mine = request.url.params["filter"] == KEY.hex()
        return httpx.Response(200, json=[record()] if mine else [])

    target, calls = target_of(handler)
    for _ in range(2):
        assert [found.uid for found in target.query("orders", [KEY[::-1], KEY])] == ["u1"]
    assert calls.count("POST /orders/batch/query") == 1


def test_results_are_matched_by_index_whatever_their_order() -> None:
    sent: list[bytes] = []

    def handler(request: httpx.Request) -> httpx.Response:
        sent.append(request.content)
        return results(
            {"index": 2, "status": "failed", "code": 424, "missing_parents": ["order"]},
            {"index": 0, "status": "inserted", "uid": "a"},
            {"index": 1, "status": "failed", "code": 409, "uid": "b", "error": "is there"},
        )(request)

    target, calls = target_of(handler)
    outcomes = target.insert("orders", texts('{"q":1.10}', '{"q":2}', '{"q":3}'))

    assert outcomes.rows() == [
        (OK, "a", None, None),
        (409, "b", "is there", None),
        (424, None, None, ["order"]),
    ]
    assert sent == [b'{"records":[{"q":1.10},{"q":2},{"q":3}]}']
    assert calls == ["POST /orders/batch/insert"]


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [{"index": 7, "status": "inserted", "uid": "x"}],
        [{"index": 0, "status": "updated", "uid": "x"}],
        [{"index": 0, "status": "inserted"}],
        [{"index": 0, "status": "failed", "error": "?"}],
        [
            {"index": 0, "status": "inserted", "uid": "x"},
            {"index": 0, "status": "failed", "code": 422},
        ],
        [{"index": 0, "status": "wonderful"}],
        [{"status": "inserted", "uid": "x"}],
    ],
)
def test_a_row_without_a_clear_result_is_in_doubt(rows: list[dict[str, object]]) -> None:
    target, _ = target_of(results(*rows))

    assert target.insert("orders", texts("{}"))["code"].to_list() == [DOUBT]


@pytest.mark.parametrize(
    "body", [b"", b'{"results":[', b'{"error":"x"}', b"[]", b"<html>", b"\xff"]
)
def test_a_write_with_an_unreadable_answer_is_in_doubt_and_not_repeated(body: bytes) -> None:
    target, calls = target_of(lambda _: httpx.Response(200, content=body))
    outcomes = target.update("orders", texts("u1", "u2"), texts("{}", "{}"))

    assert outcomes["code"].to_list() == [DOUBT, DOUBT]
    assert len(calls) == 1


@pytest.mark.parametrize("status", [408, 500, 502, 503, 504])
def test_a_write_without_an_answer_is_in_doubt_and_not_repeated(status: int) -> None:
    target, calls = target_of(lambda _: httpx.Response(status))

    assert target.delete("orders", texts("u1"))["code"].to_list() == [DOUBT]
    assert len(calls) == 1


@pytest.mark.parametrize("status", [400, 403, 413, 422])
def test_a_call_refused_as_a_whole_is_for_the_caller(status: int) -> None:
    target, _ = target_of(lambda _: httpx.Response(status))
    with pytest.raises(RejectedError) as caught:
        target.insert("orders", texts("{}"))
    assert status == caught.value.status


def test_a_hub_that_puts_writes_off_has_written_nothing() -> None:
    target, calls = target_of(lambda _: httpx.Response(429))
    with pytest.raises(UnavailableError):
        target.insert("orders", texts("{}"))
    assert len(calls) == 2


def test_update_and_delete_bodies_are_the_contracts() -> None:
    sent: list[object] = []

    def handler(request: httpx.Request) -> httpx.Response:
        sent.append(json.loads(request.content))
        done = "updated" if request.url.path.endswith("update") else "deleted"
        return results({"index": 0, "status": done, "uid": "u1"}, status=200)(request)

    target, _ = target_of(handler)
    assert target.update("orders", texts("u1"), texts('{"q":1}'))["code"].to_list() == [OK]
    assert target.delete("orders", texts("u1"))["code"].to_list() == [OK]
    assert sent == [{"updates": [{"uid": "u1", "data": {"q": 1}}]}, {"uids": ["u1"]}]


def test_nothing_to_write_asks_nobody_and_too_much_is_the_callers_mistake() -> None:
    target, calls = target_of(lambda _: httpx.Response(500))

    assert target.insert("orders", texts()).is_empty()
    with pytest.raises(AssertionError):
        target.insert("orders", texts(*["{}"] * (BATCH_LIMIT + 1)))
    assert calls == []


SINGLE = [
    ("insert", 201, {"uid": "n"}, (OK, "n", None, None)),
    ("insert", 201, {}, DOUBT),
    ("insert", 409, {"detail": "is there", "uid": "b"}, (409, "b", "is there", None)),
    (
        "insert",
        424,
        {"detail": "no", "missing_parents": ["order"]},
        (424, None, "no", ["order"]),
    ),
    ("insert", 422, {"detail": "bad"}, (422, None, "bad", None)),
    ("insert", 500, {}, DOUBT),
    ("insert", 400, {}, 400),
    ("update", 200, record(), (OK, "u1", None, None)),
    ("update", 404, {"detail": "gone"}, (404, "u1", "gone", None)),
    ("update", 422, {}, 422),
    ("update", 424, {"missing_parents": []}, 424),
    ("delete", 200, record(), (OK, "u1", None, None)),
    ("delete", 404, "gone", (404, "u1", "status 404", None)),
    ("delete", 409, {"detail": "has children", "children": 3}, (409, "u1", "has children", None)),
    ("delete", 429, {}, DOUBT),
]


@pytest.mark.parametrize("missing", [404, 405, 501])
@pytest.mark.parametrize(("op", "status", "body", "expected"), SINGLE)
def test_without_batch_calls_each_row_has_the_same_outcome(
    op: str, status: int, body: object, expected: object, missing: int
) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        if "/batch/" in request.url.path:
            return httpx.Response(missing)
        return httpx.Response(status, json=body)

    target, calls = target_of(handler)
    for _ in range(2):
        if op == "insert":
            outcomes = target.insert("orders", texts("{}"))
        elif op == "update":
            outcomes = target.update("orders", texts("u1"), texts("{}"))
        else:
            outcomes = target.delete("orders", texts("u1"))
        (row,) = outcomes.rows()
        assert expected in (row, row[0])

    assert sum("/batch/" in call for call in calls) == 1


def test_single_calls_keep_the_order_of_the_rows() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        if "/batch/" in request.url.path:
            return httpx.Response(405)
        return httpx.Response(201, json={"uid": json.loads(request.content)["n"]})

    target, _ = target_of(handler)
    outcomes = target.insert("orders", texts(*(json.dumps({"n": str(n)}) for n in range(100))))

    assert outcomes["uid"].to_list() == [str(n) for n in range(100)]


def test_answers_that_are_clean_and_those_that_are_not_are_read_alike() -> None:
    def answered(*rows: dict[str, object]) -> pl.DataFrame:
        return target_of(results(*rows))[0].insert("orders", texts("{}", "{}", "{}"))

    clean: list[dict[str, object]] = [
        {"index": n, "uid": f"u{n}", "status": "inserted"} for n in range(3)
    ]

    assert answered(*clean).equals(answered(*clean[::-1]))
    assert answered(*clean[:2])["code"].to_list() == [OK, OK, DOUBT]
    assert answered(*clean, clean[0])["code"].to_list() == [OK, OK, OK]
    assert answered(*clean[:2], {**clean[2], "index": "2"})["code"].to_list() == [DOUBT] * 3
