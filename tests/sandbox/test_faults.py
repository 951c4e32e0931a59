import json
import threading

import httpx
import pytest

from syncflow_core.sandbox import Sandbox, effects

PATH = "/api/v1/runtime/orders/execute"


def fault(client: httpx.Client, match: dict[str, object] | None = None, **action: object) -> None:
    answer = client.post("/sandbox/faults", json=[{"match": match or {}, "action": action}])
    assert answer.status_code == 200, answer.text


def statuses(client: httpx.Client, count: int) -> list[int]:
    return [client.post(PATH, json={"limit": 1}).status_code for _ in range(count)]


def test_a_status_with_body_and_headers(apismith: httpx.Client) -> None:
    fault(apismith, status=503, body='{"detail":"busy"}', headers={"Retry-After": "5"})
    answer = apismith.post(PATH, json={}, headers={"X-Request-ID": "r"})

    assert (answer.status_code, answer.json()) == (503, {"detail": "busy"})
    assert (answer.headers["retry-after"], answer.headers["x-request-id"]) == ("5", "r")


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        ({"nth": 2}, [200, 500, 200, 200]),
        ({"since": 3}, [200, 200, 500, 500]),
        ({"every": 2}, [200, 500, 200, 500]),
        ({"times": 3}, [500, 500, 500, 200]),
        ({"path": "/runtime/parts/"}, [200, 200, 200, 200]),
        ({"path": "/runtime/ord"}, [500, 500, 500, 500]),
        ({"method": "GET"}, [200, 200, 200, 200]),
        ({"probability": 0}, [200, 200, 200, 200]),
        ({"probability": 1}, [500, 500, 500, 500]),
    ],
)
def test_a_rule_strikes_the_requests_it_matches(
    apismith: httpx.Client, match: dict[str, object], expected: list[int]
) -> None:
    fault(apismith, match, status=500)

    assert statuses(apismith, 4) == expected
    (state,) = apismith.get("/sandbox/faults").json()
    assert state["hits"] == expected.count(500)


def test_the_same_seed_strikes_the_same_requests(apismith: httpx.Client) -> None:
    runs = []
    for _ in range(2):
        fault(apismith, {"probability": 0.5, "seed": 3}, status=500)
        runs.append(statuses(apismith, 12))

    assert runs[0] == runs[1]
    assert {200, 500} == set(runs[0])


def test_removed_faults_strike_no_more_and_say_what_they_did(apismith: httpx.Client) -> None:
    fault(apismith, status=500)
    statuses(apismith, 2)

    assert apismith.delete("/sandbox/faults").json()[0]["hits"] == 2
    assert statuses(apismith, 1) == [200]


@pytest.mark.parametrize("bad", [{"match": {"path": "("}}, {"action": {"nope": 1}}, {}])
def test_a_malformed_rule_is_refused(apismith: httpx.Client, bad: dict[str, object]) -> None:
    assert apismith.post("/sandbox/faults", json=[bad]).status_code == 422


def test_a_connection_dropped_before_the_handler_leaves_no_trace(
    hub: httpx.Client, sandbox: Sandbox
) -> None:
    fault(hub, {"times": 1}, drop="before")
    with pytest.raises(httpx.TransportError):
        hub.post("/api/v1/sites", json={"erp_key_hash": "a" * 32})

    assert effects.count_effects(sandbox.database_url) == {}


def test_an_acknowledgement_lost_after_the_commit_leaves_the_record(
    hub: httpx.Client, sandbox: Sandbox
) -> None:
    fault(hub, {"times": 1}, drop="after")
    body = {"records": [{"erp_key_hash": "a" * 32}]}
    with pytest.raises(httpx.TransportError):
        hub.post("/api/v1/sites/batch/insert", json=body)

    assert hub.get("/api/v1/sites").json()["total"] == 1
    assert effects.count_effects(sandbox.database_url) == {"sites": {"insert": 1}}


def test_a_request_delivered_twice_has_one_effect(hub: httpx.Client, sandbox: Sandbox) -> None:
    fault(hub, {"times": 1}, twice=True)
    answer = hub.post("/api/v1/sites", json={"erp_key_hash": "a" * 32})

    assert answer.status_code == 409
    assert effects.count_effects(sandbox.database_url) == {"sites": {"insert": 1}}


def test_a_truncated_body_is_shorter_than_its_length(apismith: httpx.Client) -> None:
    whole = apismith.post(PATH, json={"limit": 100}).content
    fault(apismith, {"times": 1}, truncate=0.5)
    received: list[bytes] = []
    with apismith.stream("POST", PATH, json={"limit": 100}) as answer:
        length = int(answer.headers["content-length"])
        with pytest.raises(httpx.TransportError):
            received.extend(answer.iter_raw(1024))

    assert abs(length - len(whole)) < 10  # the time spent is part of the body
    assert 0 < len(b"".join(received)) < length


def test_a_body_can_be_replaced_after_the_handler_has_run(hub: httpx.Client) -> None:
    fault(hub, {"times": 1}, body="<html>log in</html>", headers={"Content-Type": "text/html"})
    answer = hub.post("/api/v1/sites", json={"erp_key_hash": "a" * 32})

    assert (answer.text, answer.headers["content-type"]) == ("<html>log in</html>", "text/html")
    assert hub.get("/api/v1/sites").json()["total"] == 1


def test_a_page_can_be_repeated_instead_of_the_next(apismith: httpx.Client) -> None:
    fault(apismith, {"nth": 2}, repeat=True)
    pages = [
        apismith.post(PATH, json={"offset": offset, "limit": 5}).json()["data"]
        for offset in (0, 5, 10)
    ]

    assert pages[0] == pages[1]
    assert pages[1] != pages[2]


def test_totals_lie_and_pages_are_short_on_demand(apismith: httpx.Client) -> None:
    plain = apismith.post(PATH, json={"limit": 10}).json()["data"]
    fault(apismith, put={"metadata.total_rows": 7}, cut={"data": 3})
    answer = apismith.post(PATH, json={"limit": 10}).json()

    assert answer["metadata"]["total_rows"] == 7
    assert answer["data"] == plain[:7]


def test_a_result_can_be_missing_from_a_batch_answer(hub: httpx.Client) -> None:
    fault(hub, {"path": "batch/insert"}, cut={"results": 1})
    records = [{"erp_key_hash": letter * 32} for letter in "abc"]
    answer = hub.post("/api/v1/sites/batch/insert", json={"records": records}).json()

    assert [item["index"] for item in answer["results"]] == [0, 1]
    assert hub.get("/api/v1/sites").json()["total"] == 3


def test_a_server_that_hangs_is_left_by_the_clients_time_limit(apismith: httpx.Client) -> None:
    fault(apismith, {"times": 1}, hang=True)
    with pytest.raises(httpx.ReadTimeout):
        apismith.post(PATH, json={}, timeout=0.2)

    assert statuses(apismith, 1) == [200]


def test_a_slow_body_comes_in_pieces(apismith: httpx.Client) -> None:
    fault(apismith, {"times": 1}, drip_s=0.001)
    with apismith.stream("POST", PATH, json={"limit": 3}) as answer:
        pieces = list(answer.iter_raw(chunk_size=None))

    assert len(pieces) > 2
    assert len(json.loads(b"".join(pieces))["data"]) == 3


def test_a_delayed_answer_is_overtaken_by_the_next(apismith: httpx.Client) -> None:
    order: list[str] = []
    fault(apismith, {"nth": 1}, delay_s=0.5)

    def wait() -> None:
        apismith.post(PATH, json={"limit": 1})
        order.append("slow")

    slow = threading.Thread(target=wait)
    slow.start()
    while apismith.get("/sandbox/faults").json()[0]["hits"] == 0:
        pass
    apismith.post(PATH, json={"limit": 1})
    order.append("fast")
    slow.join()

    assert order == ["fast", "slow"]


def test_all_tokens_expire_at_once(sandbox: Sandbox) -> None:
    login = {"username": "syncflow", "password": sandbox.password}
    with httpx.Client(base_url=sandbox.apismith_url, trust_env=False) as client:
        tokens = client.post("/api/v1/auth/login", json=login).json()
        client.headers["Authorization"] = f"Bearer {tokens['access_token']}"
        fault(client, {"path": "/connectors", "times": 1}, expire_tokens="access")
        answers = [client.get("/api/v1/connectors").status_code for _ in range(2)]
        refreshed = client.post(
            "/api/v1/auth/refresh", json={"refresh_token": tokens["refresh_token"]}
        )
        client.headers["Authorization"] = f"Bearer {refreshed.json()['access_token']}"

        assert answers == [401, 401]
        assert client.get("/api/v1/connectors").status_code == 200
        client.delete("/sandbox/faults")
