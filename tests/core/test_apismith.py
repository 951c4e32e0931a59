"""The source is asked as the contract says, and a scan tells whether it saw everything."""

import json
import threading
from collections.abc import Callable, Mapping

import httpx
import pytest

from syncflow_core.apismith import Filter, Sort, Source
from syncflow_core.catalog import Api
from syncflow_core.errors import ConfigError, ContractError, RejectedError, UnavailableError
from syncflow_core.limiter import Limits
from syncflow_core.scan import scan
from syncflow_core.settings import Settings

Handler = Callable[[httpx.Request], httpx.Response]
DESCRIPTION: dict[str, object] = {
    "uid": "a1",
    "slug": "lines",
    "name": "Lines",
    "description": "",
    "connector_uid": "c1",
    "is_active": True,
    "delta_strategy": "hash",
    "business_key_columns": ["ORDER_NO", "LINE_NO"],
    "rowversion_column": None,
    "columns": [
        {"name": "ORDER_NO", "data_type": "VARCHAR2"},
        {"name": "LINE_NO", "data_type": "NUMBER(4)"},
    ],
}
API = Api.model_validate(DESCRIPTION)


def source_of(handler: Handler, *, page_paging: bool = False, lines: bool = False) -> Source:
    def system(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/auth/login"):
            return httpx.Response(200, json={"access_token": "t", "expires_in": 1800})
        return handler(request)

    return Source.open(
        Settings.model_construct(
            apismith_url="http://source.test",
            apismith_pagination="page" if page_paging else "offset",
            apismith_pages="ndjson" if lines else "json",
        ),
        transport=httpx.MockTransport(system),
        limits=Limits(attempts=3, backoff_s=0),
    )


def row(number: int) -> dict[str, object]:
    return {"ORDER_NO": f"O{number:05d}", "LINE_NO": number}


class Table:
    """A table behind ``execute``; *short* is the most rows of any page, *total* what it declares."""

    def __init__(
        self, count: int, *, short: int = 10_000, total: Callable[[int], int] | None = None
    ) -> None:
        self.rows = [row(number) for number in range(count)]
        self.short = short
        self.declared = total
        self.asked: list[dict[str, object]] = []
        self.lock = threading.Lock()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        asked = json.loads(request.content)
        with self.lock:
            self.asked.append(asked)
            number = len(self.asked)
        if "page" in asked:
            offset, limit = (asked["page"] - 1) * asked["page_size"], asked["page_size"]
        else:
            offset, limit = asked["offset"], asked["limit"]
        data = self.rows[offset : offset + min(limit, self.short)]
        total = self.declared(number) if self.declared else len(self.rows)
        return answer(data, total, offset, limit)


def answer(
    data: list[dict[str, object]], total: int, offset: int = 0, limit: int = 10_000
) -> httpx.Response:
    metadata = {"total_rows": total, "offset": offset, "limit": limit, "execution_time_ms": 1}
    return httpx.Response(200, json={"success": True, "data": data, "metadata": metadata})


def numbers(pages: object) -> list[int]:
    return [int(text) for page in pages for text in page.frame["LINE_NO"]]  # type: ignore[attr-defined]  # a Scan


def test_a_missing_address_is_named() -> None:
    with pytest.raises(ConfigError, match="SYNCFLOW_APISMITH_URL"):
        Source.open(Settings.model_construct(apismith_url=None))


def listing(page: int, pages: int, slugs: list[str]) -> dict[str, object]:
    items = [DESCRIPTION | {"slug": slug} for slug in slugs]
    return {"items": items, "total": 3, "page": page, "page_size": 2, "total_pages": pages}


def test_all_pages_of_the_listing_are_read() -> None:
    answers = {"1": listing(1, 2, ["a", "b"]), "2": listing(2, 2, ["c"])}
    source = source_of(
        lambda request: httpx.Response(200, json=answers[request.url.params["page"]])
    )

    assert [api.slug for api in source.apis()] == ["a", "b", "c"]


def test_a_listing_without_its_page_count_breaks_the_contract() -> None:
    body = {key: value for key, value in listing(1, 1, []).items() if key != "total_pages"}
    with pytest.raises(
        ContractError, match=r"total_pages.*; is this APISmith\? check SYNCFLOW_APISMITH_URL$"
    ):
        source_of(lambda _: httpx.Response(200, json=body)).apis()


def test_an_api_is_described() -> None:
    paths: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        paths.append(request.url.raw_path.decode())
        return httpx.Response(200, json=DESCRIPTION)

    assert source_of(handler).describe("li/nes") == API
    assert paths == ["/api/v1/apis/slug/li%2Fnes"]


def test_an_unknown_slug_is_answered_with_similar_ones() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        if "/slug/" in request.url.path:
            return httpx.Response(404, json={"detail": "no"})
        return httpx.Response(200, json=listing(1, 1, ["order_lines", "items"]))

    with pytest.raises(ConfigError, match=r"no API 'order_line'; did you mean 'order_lines'\?"):
        source_of(handler).describe("order_line")


def test_an_inactive_api_is_a_matter_of_configuration() -> None:
    source = source_of(lambda _: httpx.Response(200, json=DESCRIPTION | {"is_active": False}))
    with pytest.raises(ConfigError, match="not active"):
        source.describe("lines")


@pytest.mark.parametrize(
    "changes",
    [
        {"columns": None},
        {"columns": [{"name": "A"}]},
        {"delta_strategy": "guess"},
        {"columns": [{"name": "A", "data_type": "DATE"}, {"name": "A", "data_type": "RAW"}]},
    ],
)
def test_a_malformed_description_breaks_the_contract(changes: dict[str, object]) -> None:
    source = source_of(lambda _: httpx.Response(200, json=DESCRIPTION | changes))
    with pytest.raises(ContractError, match=r"columns|delta_strategy"):
        source.describe("lines")


def test_a_page_is_asked_for_as_the_contract_says() -> None:
    table = Table(30)
    page = source_of(table).execute(
        API,
        offset=10,
        limit=5,
        filters=[
            Filter("LINE_NO", ">=", "12345678901234567890.10"),
            Filter("ORDER_NO", "in", ["1", "2"]),
            Filter("LINE_NO", "in", ["1", "x", 2]),
        ],
        sort=[Sort("ORDER_NO"), Sort("LINE_NO", "desc")],
    )

    assert [f"O{n:05d}" for n in range(10, 15)] == page.frame["ORDER_NO"].to_list()
    assert table.asked[0] == {
        "offset": 10,
        "limit": 5,
        "filters": [
            {"field": "LINE_NO", "operator": ">=", "value": 12345678901234567890.10},
            {"field": "ORDER_NO", "operator": "in", "value": ["1", "2"]},
            {"field": "LINE_NO", "operator": "in", "value": [1, "x", 2]},
        ],
        "sort": [
            {"field": "ORDER_NO", "direction": "asc"},
            {"field": "LINE_NO", "direction": "desc"},
        ],
    }


def test_older_installations_are_asked_by_page() -> None:
    table = Table(30)
    page = source_of(table, page_paging=True).execute(API, offset=10, limit=5)

    assert table.asked[0] == {"page": 3, "page_size": 5}
    assert page.frame["LINE_NO"][0] == "10"


@pytest.mark.parametrize("knows", [True, False])
def test_lines_are_asked_for_and_json_is_taken_from_servers_that_do_not_know_them(
    knows: bool,  # noqa: FBT001  # pytest passes it
) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        assert request.headers["Accept"].startswith("application/x-ndjson")
        if not knows:
            return answer([row(1)], 7)
        headers = {"Content-Type": "application/x-ndjson", "X-Total-Rows": "7"}
        return httpx.Response(200, content=json.dumps(row(1)) + "\n", headers=headers)

    page = source_of(handler, lines=True).execute(API)
    assert (page.rows, page.total_rows) == (1, 7)


def test_the_total_is_asked_for_with_one_row() -> None:
    table = Table(30)

    assert source_of(table).total(API, [Filter("LINE_NO", ">", 1)]) == 30
    assert table.asked[0]["limit"] == 1


def test_a_broken_page_is_asked_for_again_then_named() -> None:
    whole = answer([row(1)], 1)
    answers = iter([httpx.Response(200, json={}), whole])
    calls = 0

    def handler(_: httpx.Request) -> httpx.Response:
        nonlocal calls
        calls += 1
        cut = httpx.Response(200, content=whole.content[:-5], headers=whole.headers)
        del cut.headers["Content-Length"]
        return cut if calls == 1 else next(answers)

    with pytest.raises(ContractError, match="API 'lines', page at offset 20"):
        source_of(handler).execute(API, offset=20)
    assert calls == 2

    always = httpx.Headers({"Content-Type": "application/json"})
    source = source_of(lambda _: httpx.Response(200, content=b'{"success":tr', headers=always))
    with pytest.raises(UnavailableError, match="page at offset 20,000: the body is broken"):
        source.execute(API, offset=20_000)


def test_a_failure_of_the_source_is_named_with_its_page() -> None:
    body = {"success": False, "error": {"code": "ORA-01555", "message": "snapshot too old"}}
    with pytest.raises(RejectedError, match=r"offset 0: .*ORA-01555: snapshot too old"):
        source_of(lambda _: httpx.Response(200, json=body)).execute(API)


@pytest.mark.parametrize("status", [401, 403, 404, 422])
def test_a_refused_page_is_a_refusal(status: int) -> None:
    with pytest.raises(RejectedError) as caught:
        source_of(lambda _: httpx.Response(status)).execute(API)
    assert status == caught.value.status


def test_a_page_of_another_offset_or_with_too_many_rows_breaks_the_contract() -> None:
    with pytest.raises(ContractError, match="for offset 0"):
        source_of(lambda _: answer([row(1)], 9)).execute(API, offset=5, limit=1)
    with pytest.raises(ContractError, match="2 rows, 1 asked"):
        source_of(lambda _: answer([row(1), row(2)], 9)).execute(API, limit=1)


def test_a_sign_in_page_is_not_an_empty_table() -> None:
    page = httpx.Response(200, html="<form>")
    with pytest.raises(ContractError, match="text/html"):
        source_of(lambda _: page).execute(API)


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 95])
@pytest.mark.parametrize("by_page", [False, True])
@pytest.mark.parametrize("expected", [0, 5, 40, 1_000])
def test_a_scan_sees_every_row_once_in_order(count: int, by_page: bool, expected: int) -> None:  # noqa: FBT001  # pytest passes it
    source = source_of(Table(count), page_paging=by_page)
    pages = scan(source, API, expected=expected, page_size=10, threads=3)

    assert list(range(count)) == numbers(pages)
    proof = pages.proof
    assert (count, count, count, True, "") == (
        proof.declared_total,
        proof.final_total,
        proof.counted,
        proof.complete,
        proof.note,
    )
    assert max(1, -(-count // 10)) == proof.pages


def test_pages_that_are_expected_are_asked_for_at_once() -> None:
    table, all_there = Table(30), threading.Barrier(3)

    def handler(request: httpx.Request) -> httpx.Response:
        if json.loads(request.content)["limit"] == 10:
            all_there.wait(timeout=10)
        return table(request)

    pages = scan(source_of(handler), API, expected=30, page_size=10, threads=3)

    assert list(range(30)) == numbers(pages)
    assert len(table.asked) == 4, "and once more behind the last one"


def test_a_page_that_was_expected_and_is_refused_is_not_missed() -> None:
    table = Table(15)

    def handler(request: httpx.Request) -> httpx.Response:
        beyond = json.loads(request.content)["offset"] > 15
        return httpx.Response(422) if beyond else table(request)

    pages = scan(source_of(handler), API, expected=45, page_size=10)

    assert list(range(15)) == numbers(pages)
    assert pages.proof.complete


def test_rows_expected_behind_the_declared_end_leave_the_scan_incomplete() -> None:
    source = source_of(Table(90, total=lambda _: 80))
    pages = scan(source, API, expected=90, page_size=10, threads=1)
    list(pages)

    assert not pages.proof.complete


@pytest.mark.parametrize("short", [1, 3, 7])
def test_short_pages_do_not_end_a_scan(short: int) -> None:
    pages = scan(source_of(Table(50, short=short)), API, page_size=10)

    assert list(range(50)) == numbers(pages)
    assert pages.proof.complete


@pytest.mark.parametrize(
    ("first", "last", "expected"), [(0, 10, 10), (35, 60, 25), (90, 200, 5), (95, 99, 0), (7, 8, 1)]
)
def test_a_slice_is_a_range_of_rows(first: int, last: int, expected: int) -> None:
    pages = scan(source_of(Table(95)), API, first=first, last=last, page_size=10)

    assert list(range(first, first + expected)) == numbers(pages)
    assert (expected, True) == (pages.proof.counted, pages.proof.complete)


def test_the_order_is_the_business_keys_unless_another_is_given() -> None:
    table = Table(5)
    list(scan(source_of(table), API))
    list(scan(source_of(table), API, sort=[Sort("LINE_NO")]))

    keys = [{"field": "ORDER_NO", "direction": "asc"}, {"field": "LINE_NO", "direction": "asc"}]
    assert keys == table.asked[0]["sort"]
    assert keys[1:] == table.asked[-1]["sort"]


def test_a_repeated_page_ends_the_scan_instead_of_looping() -> None:
    data = [row(number) for number in range(10)]
    source = source_of(lambda request: answer(data, 100, json.loads(request.content)["offset"]))
    with pytest.raises(ContractError, match="the page at row 10 is the page at row 0 once more"):
        list(scan(source, API, page_size=10))


def test_rows_that_do_not_arrive_leave_the_scan_incomplete() -> None:
    pages = scan(source_of(Table(90, total=lambda _: 100)), API, page_size=10)

    assert list(range(90)) == numbers(pages)
    assert not pages.proof.complete
    assert pages.proof.note == "90 rows came, 100 were declared"


def test_rows_behind_the_declared_end_leave_the_scan_incomplete() -> None:
    pages = scan(source_of(Table(90, total=lambda _: 80)), API, page_size=10)

    assert list(range(80)) == numbers(pages)
    assert not pages.proof.complete


def test_a_total_that_changes_leaves_the_scan_incomplete() -> None:
    totals = [120, 119, 121]
    pages = scan(source_of(Table(120, total=lambda n: totals[n % 3])), API, page_size=50, threads=1)
    list(pages)

    assert not pages.proof.complete
    assert "the total changed between 119 and 121 rows" in pages.proof.note


def test_rows_added_at_the_end_are_read_too() -> None:
    table = Table(20)

    def handler(request: httpx.Request) -> httpx.Response:
        given = table(request)
        if len(table.asked) == 2:
            table.rows.extend(row(number) for number in range(20, 35))
        return given

    pages = scan(source_of(handler), API, page_size=10, threads=1)

    assert list(range(35)) == numbers(pages)
    assert (
        pages.proof.declared_total,
        pages.proof.final_total,
        pages.proof.complete,
    ) == (20, 35, False)


def test_a_failing_page_ends_the_scan_without_a_proof() -> None:
    table = Table(100)

    def handler(request: httpx.Request) -> httpx.Response:
        broken = json.loads(request.content)["offset"] == 40
        return httpx.Response(500) if broken else table(request)

    pages = scan(source_of(handler), API, page_size=10)
    seen: list[int] = []
    with pytest.raises(UnavailableError):
        seen.extend(number for page in pages for number in numbers([page]))

    assert list(range(40)) == seen
    with pytest.raises(RuntimeError):
        _ = pages.proof


def test_pages_read_ahead_are_bounded() -> None:
    table = Table(1000)
    pages = iter(scan(source_of(table), API, page_size=10, threads=2, read_ahead=3))
    next(pages)
    next(pages)
    pages.close()  # type: ignore[attr-defined]  # a generator

    assert len(table.asked) <= 1 + 3 + 1


def keyed(table: Table, keys: list[Mapping[str, object]]) -> Handler:
    """Answers the filters ``in`` as a database would, at most 10,000 rows a page."""

    def handler(request: httpx.Request) -> httpx.Response:
        asked = json.loads(request.content)
        table.asked.append(asked)
        found = [
            item
            for item in table.rows
            if all(item[part["field"]] in part["value"] for part in asked["filters"])
        ]
        offset, limit = asked["offset"], min(asked["limit"], table.short)
        return answer(found[offset : offset + limit], len(found), offset)

    assert keys
    return handler


@pytest.mark.parametrize("short", [10_000, 3, 1])
def test_rows_are_looked_up_by_key_however_many_there_are(short: int) -> None:
    table = Table(1000, short=short)
    keys: list[Mapping[str, object]] = [
        {"ORDER_NO": f"O{n:05d}", "LINE_NO": str(n)} for n in range(0, 900, 2)
    ]
    keys.append({"ORDER_NO": "O99999", "LINE_NO": "1"})
    frame = source_of(keyed(table, keys)).look_up(API, keys).frame

    found = set(frame["LINE_NO"].to_list())
    assert {str(n) for n in range(0, 900, 2)} <= found
    assert frame.columns == ["ORDER_NO", "LINE_NO"]
    assert source_of(keyed(table, keys)).look_up(API, []).frame.is_empty()
