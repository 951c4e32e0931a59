"""The transport asks as often as it may, never longer than it may, and says what happened."""

import contextlib
import gzip
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate

import httpx
import jwt
import pytest
from machine import free_port

from syncflow_core.answers import Answer
from syncflow_core.breaker import FAILURES
from syncflow_core.errors import (
    ConfigError,
    ContractError,
    DoubtError,
    RejectedError,
    SyncFlowError,
    UnavailableError,
)
from syncflow_core.http import Transport
from syncflow_core.limiter import Limits, process_limiter
from syncflow_core.privacy import UNKNOWN
from syncflow_core.tokens import Login

PASSWORD = "secret-tiger"  # the tests look for it where it must not be
NOW = 1_700_000_000.0


class Clock:
    """Time that passes only when somebody sleeps, or is told to."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class Server:
    """An other side with the contract's tokens; *handler* answers what comes with a valid one."""

    def __init__(self, handler: Callable[[httpx.Request], httpx.Response]) -> None:
        self.handler = handler
        self.valid: set[str] = set()
        self.calls: list[str] = []
        self.seen: list[httpx.Request] = []
        self.refresh_status = 200
        self.login_status = 200
        self.lock = threading.Lock()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix("/api/v1")
        with self.lock:
            self.calls.append(path)
            self.seen.append(request)
            if path in {"/auth/login", "/auth/refresh"}:
                return self._token(path)
            token = request.headers.get("Authorization", "").removeprefix("Bearer ")
            if token not in self.valid:
                return httpx.Response(401, json={"detail": "expired"})
        return self.handler(request)

    def _token(self, path: str) -> httpx.Response:
        status = self.login_status if path == "/auth/login" else self.refresh_status
        if status != 200:
            return httpx.Response(status, json={"detail": "no"})
        token = f"token-{len(self.calls)}"
        self.valid = {token}
        given = {"access_token": token, "refresh_token": "again", "expires_in": 1800}
        return httpx.Response(200, json=given)


def transport_to(
    handler: Callable[[httpx.Request], httpx.Response],
    clock: Clock,
    *,
    url: str = "http://source.test",
    system: str = "apismith",
    **limits: float,
) -> Transport:
    return Transport(
        system,
        url,
        Login("scott", PASSWORD),
        limits=Limits(**limits),  # type: ignore[arg-type]  # whole numbers where they belong
        transport=httpx.MockTransport(handler),
        sleep=clock.sleep,
        clock=clock,
        now=lambda: NOW,
        jitter=lambda: 0.5,
    )


def in_turn(*answers: httpx.Response | Exception) -> Callable[[httpx.Request], httpx.Response]:
    waiting = iter(answers)

    def handler(_: httpx.Request) -> httpx.Response:
        answer = next(waiting)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return handler


def test_login_happens_once_and_the_token_travels() -> None:
    server = Server(lambda _: httpx.Response(200, json=[]))
    clock = Clock()
    with transport_to(server, clock) as transport:
        answers = [transport.request("GET", "/connectors", params={"a": "b c"}) for _ in range(3)]

    assert server.calls == ["/auth/login", "/connectors", "/connectors", "/connectors"]
    assert [answer.status for answer in answers] == [200] * 3
    assert answers[0].body == b"[]"
    assert answers[0].content_type == "application/json"
    assert len({request.headers["X-Request-ID"] for request in server.seen}) == 4
    assert server.seen[1].headers["Accept-Encoding"] == "gzip"


def test_what_does_not_leave_this_machine_is_not_compressed() -> None:
    server = Server(lambda _: httpx.Response(200, json=[]))
    with transport_to(server, Clock(), url="http://127.0.0.1:8007") as transport:
        transport.request("GET", "/connectors")

    assert server.seen[-1].headers["Accept-Encoding"] == "identity"


def test_a_token_is_refreshed_at_eighty_percent_of_its_life() -> None:
    server, clock = Server(lambda _: httpx.Response(200)), Clock()
    transport = transport_to(server, clock)
    transport.request("GET", "/x")
    clock.now = 0.8 * 1800 - 1
    transport.request("GET", "/x")
    clock.now = 0.8 * 1800
    transport.request("GET", "/x")

    assert server.calls == ["/auth/login", "/x", "/x", "/auth/refresh", "/x"]


def test_a_refused_token_is_refreshed_and_the_request_repeated() -> None:
    server, clock = Server(lambda _: httpx.Response(200)), Clock()
    transport = transport_to(server, clock)
    transport.request("GET", "/x")
    server.valid.clear()
    transport.request("POST", "/x", content=b"{}", safe=False)

    assert server.calls == ["/auth/login", "/x", "/x", "/auth/refresh", "/x"]
    assert clock.slept == []


def test_a_spent_refresh_token_leads_to_a_new_login() -> None:
    server, clock = Server(lambda _: httpx.Response(200)), Clock()
    transport = transport_to(server, clock)
    transport.request("GET", "/x")
    server.valid.clear()
    server.refresh_status = 401
    transport.request("GET", "/x")

    assert server.calls[-3:] == ["/auth/refresh", "/auth/login", "/x"]


def test_tokens_that_are_always_refused_end_in_one_refusal() -> None:
    server, clock = Server(lambda _: httpx.Response(401)), Clock()
    transport = transport_to(server, clock)
    with pytest.raises(RejectedError, match="401") as caught:
        transport.request("GET", "/x")

    assert caught.value.status == 401
    assert server.calls == ["/auth/login", "/x", "/auth/refresh", "/x", "/auth/login", "/x"]


def test_wrong_credentials_are_named_without_the_password() -> None:
    server, clock = Server(lambda _: httpx.Response(200)), Clock()
    server.login_status = 401
    transport = transport_to(server, clock)
    with pytest.raises(RejectedError, match="wrong credentials") as caught:
        transport.request("GET", "/x")

    assert PASSWORD not in f"{caught.value}{transport!r}{Login('scott', PASSWORD)!r}"
    assert server.calls == ["/auth/login"]


@pytest.mark.parametrize("name", ["APISmith", "ScheduleHub"])
def test_an_address_that_knows_no_login_is_doubted(name: str) -> None:
    server, clock = Server(lambda _: httpx.Response(200)), Clock()
    server.login_status = 404
    with pytest.raises(RejectedError) as caught:
        transport_to(server, clock, system=name.lower()).request("GET", "/x")

    told = (
        f"{name.lower()} at http://source.test knows no login (404): is this {name}? "
        f"check SYNCFLOW_{name.upper()}_URL"
    )
    assert (str(caught.value), caught.value.status) == (told, 404)
    # a login is nobody's data: the words stay where an entity has personal data
    assert UNKNOWN.told(told) == told
    assert server.calls == ["/auth/login"]


def test_a_token_server_that_fails_is_tried_a_bounded_number_of_times() -> None:
    server, clock = Server(lambda _: httpx.Response(200)), Clock()
    server.login_status = 500
    with pytest.raises(UnavailableError, match="500"):
        transport_to(server, clock, attempts=3).request("GET", "/x")

    assert server.calls == ["/auth/login"] * 3


@pytest.mark.parametrize("body", [b"{}", b"<html>", b'{"access_token":"a"}', b'{"access_token":5}'])
def test_a_login_without_a_usable_token_breaks_the_contract(body: bytes) -> None:
    transport = transport_to(lambda _: httpx.Response(200, content=body), Clock())
    with pytest.raises(ContractError, match="login"):
        transport.request("GET", "/x")


def test_a_token_without_expires_in_lives_as_long_as_it_says_itself() -> None:
    token = jwt.encode({"iat": 1000, "exp": 1100}, "k" * 32, algorithm="HS256")
    calls: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        calls.append(request.url.path)
        return httpx.Response(200, json={"access_token": token})

    clock = Clock()
    transport = transport_to(handler, clock)
    transport.request("GET", "/x")
    clock.now = 81
    transport.request("GET", "/x")

    assert calls.count("/api/v1/auth/login") == 2


def test_many_threads_share_one_login_and_one_refresh() -> None:
    server, clock = Server(lambda _: httpx.Response(200)), Clock()
    transport = transport_to(server, clock)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: transport.request("GET", "/x"), range(8)))
        server.valid.clear()
        list(pool.map(lambda _: transport.request("GET", "/x"), range(32)))

    assert server.calls.count("/auth/login") == 1
    assert server.calls.count("/auth/refresh") == 1


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_what_may_pass_is_asked_again_with_growing_jittered_waits(status: int) -> None:
    bad = [httpx.Response(status) for _ in range(2)]
    clock = Clock()
    server = Server(in_turn(*bad, httpx.Response(200)))
    transport_to(server, clock).request("GET", "/x")

    assert clock.slept == [0.25, 0.5]


@pytest.mark.parametrize("status", [400, 403, 404, 409, 410, 413, 422, 424])
def test_any_other_refusal_is_final(status: int) -> None:
    clock = Clock()
    server = Server(lambda _: httpx.Response(status, json={"detail": "no\nsuch thing"}))
    with pytest.raises(
        RejectedError, match=rf"GET /api/v1/x \({status}\): no such thing"
    ) as caught:
        transport_to(server, clock).request("GET", "/x")

    assert status == caught.value.status
    assert clock.slept == []


def test_the_detail_of_a_422_is_readable() -> None:
    detail = [{"loc": ["body", "limit"], "msg": "too large", "type": "value_error"}]
    server = Server(lambda _: httpx.Response(422, json={"detail": detail}))
    with pytest.raises(RejectedError, match=r"body\.limit: too large"):
        transport_to(server, Clock()).request("GET", "/x")


def test_an_expected_status_is_an_answer() -> None:
    server = Server(lambda _: httpx.Response(501))
    answer = transport_to(server, Clock()).request("POST", "/x", expect=frozenset({501}))

    assert answer.status == 501


def test_tries_end_after_their_number_and_after_their_time() -> None:
    server, clock = Server(lambda _: httpx.Response(500)), Clock()
    with pytest.raises(UnavailableError):
        transport_to(server, clock, attempts=4).request("GET", "/x")
    assert server.calls.count("/x") == 4

    server, clock = Server(lambda _: httpx.Response(500)), Clock()
    with pytest.raises(UnavailableError):
        transport_to(server, clock, attempts=99, total_s=10).request("GET", "/x")
    assert clock.now < 10 + 30


@pytest.mark.parametrize(
    ("value", "wait"),
    [
        ("5", 5.25),
        (formatdate(NOW + 7, usegmt=True), 7.25),
        (formatdate(NOW - 7, usegmt=True), 0.25),
        ("soon", 0.25),
        ("-3", 0.25),
        ("Fri, 99 Foo 2026", 0.25),
        ("", 0.25),
    ],
)
def test_retry_after_is_honoured_where_it_can_be_read(value: str, wait: float) -> None:
    clock = Clock()
    busy = httpx.Response(429, headers={"Retry-After": value})
    transport_to(Server(in_turn(busy, httpx.Response(200))), clock).request("GET", "/x")

    assert [wait] == pytest.approx(clock.slept)


def test_an_absurd_retry_after_ends_the_request_instead_of_sleeping() -> None:
    clock = Clock()
    server = Server(lambda _: httpx.Response(503, headers={"Retry-After": "86400"}))
    with pytest.raises(UnavailableError) as caught:
        transport_to(server, clock).request("GET", "/x")

    assert caught.value.retry_after_s == 86400
    assert clock.slept == []


def test_a_system_that_asks_for_time_is_left_alone_by_all_requests() -> None:
    clock = Clock()
    busy = httpx.Response(429, headers={"Retry-After": "5"})
    transport = transport_to(Server(in_turn(busy, httpx.Response(200))), clock, attempts=1)
    with pytest.raises(UnavailableError):
        transport.request("GET", "/x")
    transport.request("GET", "/y")

    assert clock.slept == [5]


LOST: list[Exception] = [
    httpx.ReadTimeout("timed out"),
    httpx.ReadError("reset"),
    httpx.WriteError("reset"),
    httpx.RemoteProtocolError("peer closed connection without sending complete message body"),
    httpx.DecodingError("bad gzip"),
]


@pytest.mark.parametrize("error", LOST, ids=lambda error: type(error).__name__)
def test_a_lost_answer_is_asked_for_again_but_a_write_is_in_doubt(error: Exception) -> None:
    clock = Clock()
    server = Server(in_turn(error, httpx.Response(200)))
    assert transport_to(server, clock).request("GET", "/x").status == 200

    server = Server(in_turn(error, httpx.Response(200)))
    with pytest.raises(DoubtError):
        transport_to(server, clock).request("POST", "/x", content=b"{}", safe=False)
    assert server.calls.count("/x") == 1


@pytest.mark.parametrize("status", [408, 500, 502, 503, 504, 599])
def test_a_write_that_was_answered_with_trouble_is_in_doubt(status: int) -> None:
    server = Server(in_turn(httpx.Response(status, headers={"Retry-After": "1"})))
    with pytest.raises(DoubtError):
        transport_to(server, Clock()).request("POST", "/x", content=b"{}", safe=False)


@pytest.mark.parametrize(
    "first", [httpx.Response(429), httpx.Response(425), httpx.ConnectError("refused")], ids=repr
)
def test_a_write_that_was_certainly_not_processed_is_sent_again(
    first: httpx.Response | Exception,
) -> None:
    server = Server(in_turn(first, httpx.Response(200)))
    answer = transport_to(server, Clock()).request("POST", "/x", content=b"{}", safe=False)

    assert answer.status == 200


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_XF24_a_redirect_is_not_followed_and_the_token_goes_nowhere(status: int) -> None:
    elsewhere = {"Location": "http://elsewhere.test/api/v1/x"}
    server = Server(lambda _: httpx.Response(status, headers=elsewhere))
    with pytest.raises(ContractError, match="redirects are not followed"):
        transport_to(server, Clock()).request("GET", "/x")

    assert {"source.test"} == {request.url.host for request in server.seen}


class Drip(httpx.SyncByteStream):
    """One byte after the other, ten seconds apart."""

    def __init__(self, clock: Clock, count: int) -> None:
        self.clock, self.count = clock, count

    def __iter__(self) -> Iterator[bytes]:
        for _ in range(self.count):
            self.clock.now += 10
            yield b"x"


def test_an_answer_that_drips_meets_the_deadline_of_the_whole_request() -> None:
    clock = Clock()
    server = Server(lambda _: httpx.Response(200, stream=Drip(clock, 1000)))
    with pytest.raises(UnavailableError, match="in time"):
        transport_to(server, clock, attempts=1).request("GET", "/x", deadline_s=60)
    assert clock.now == 70

    with pytest.raises(DoubtError):
        transport_to(server, clock, attempts=1).request("POST", "/x", safe=False, deadline_s=60)


def test_XF25_an_answer_beyond_the_size_limit_is_refused_also_when_it_was_compressed() -> None:
    bomb = gzip.compress(b"0" * 1_000_000)
    server = Server(
        lambda _: httpx.Response(200, content=bomb, headers={"Content-Encoding": "gzip"})
    )
    with pytest.raises(ContractError, match="limit of one answer"):
        transport_to(server, Clock(), body_bytes=100_000).request("GET", "/x")


def test_a_compressed_answer_is_read() -> None:
    packed = gzip.compress(b"[1]")
    server = Server(
        lambda _: httpx.Response(200, content=packed, headers={"Content-Encoding": "gzip"})
    )
    assert transport_to(server, Clock()).request("GET", "/x").body == b"[1]"


def test_a_body_that_its_reader_finds_broken_counts_as_lost() -> None:
    server = Server(in_turn(httpx.Response(200, content=b"{"), httpx.Response(200, content=b"{}")))

    def read(answer: Answer) -> object:
        try:
            return json.loads(answer.body)
        except ValueError as error:
            raise UnavailableError("broken") from error

    clock = Clock()
    assert transport_to(server, clock).call(read, "GET", "/x") == {}
    assert len(clock.slept) == 1


def test_nobody_there_is_said_with_the_variable_to_check() -> None:
    port = free_port()
    clock = Clock()
    transport = Transport(
        "apismith",
        f"http://127.0.0.1:{port}",
        Login("scott", PASSWORD),
        limits=Limits(attempts=2),
        sleep=clock.sleep,
    )
    message = (
        rf"apismith at http://127.0.0.1:{port} does not answer \(connection refused\): "
        "is it running\\? check SYNCFLOW_APISMITH_URL"
    )
    with transport, pytest.raises(UnavailableError, match=message):
        transport.request("GET", "/x")
    assert len(clock.slept) == 1


def answering(*bodies: bytes) -> tuple[str, threading.Thread]:
    """The address of a real server that gives each connection one answer and then hangs up."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(20)

    def serve() -> None:
        with listener:
            for body in bodies:
                connection, _ = listener.accept()
                with connection:
                    connection.settimeout(20)
                    asked = b""
                    while b"\r\n\r\n" not in asked:
                        asked += connection.recv(65536)
                    if asked.startswith(b"POST"):
                        length = int(asked.lower().partition(b"content-length: ")[2].split()[0])
                        while len(asked.partition(b"\r\n\r\n")[2]) < length:
                            asked += connection.recv(65536)
                    connection.sendall(body)

    thread = threading.Thread(target=serve)
    thread.start()
    return f"http://127.0.0.1:{listener.getsockname()[1]}", thread


def plain(body: bytes, length: int | None = None) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {length or len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body


GRANT = plain(b'{"access_token":"t","expires_in":60}')


@pytest.mark.parametrize(
    "cut",
    [
        plain(b"[1,2", 400),
        b"",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n[1,2\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Encoding: gzip\r\n\r\nXXXX",
        b"no http at all\r\n\r\n",
    ],
    ids=["short", "nothing", "chunks", "gzip", "noise"],
)
def test_an_answer_cut_on_its_way_is_never_taken_for_a_whole_one(cut: bytes) -> None:
    clock = Clock()
    address, thread = answering(GRANT, cut, plain(b"[1,2,3]"), cut)
    with Transport("apismith", address, Login("a", "b"), sleep=clock.sleep) as transport:
        assert transport.request("GET", "/x").body == b"[1,2,3]"
        with pytest.raises(DoubtError):
            transport.request("POST", "/x", content=b"{}", safe=False)
    thread.join(20)

    assert len(clock.slept) == 1


def test_a_certificate_that_is_not_trusted_is_a_matter_of_configuration() -> None:
    error = httpx.ConnectError("certificate verify failed")
    error.__cause__ = ssl.SSLCertVerificationError("self-signed")
    clock = Clock()
    with pytest.raises(ConfigError, match="not trusted"):
        transport_to(in_turn(error), clock).request("GET", "/x")
    assert clock.slept == []


def test_credentials_in_an_address_are_never_shown() -> None:
    transport = Transport("apismith", f"http://scott:{PASSWORD}@source.test", Login("a", "b"))

    assert transport.url == "http://source.test"
    transport.close()


def test_health_needs_no_token() -> None:
    server = Server(lambda _: httpx.Response(200))

    def handler(request: httpx.Request) -> httpx.Response:
        assert "Authorization" not in request.headers
        return httpx.Response(200, json={"status": "healthy"})

    server.handler = handler
    assert transport_to(handler, Clock()).health().status == 200
    with pytest.raises(SyncFlowError):
        transport_to(lambda _: httpx.Response(503), Clock()).health()


def test_requests_at_once_stay_within_the_limiter() -> None:
    at_once, most, lock = 0, 0, threading.Lock()
    together = threading.Barrier(2)

    def handler(request: httpx.Request) -> httpx.Response:
        nonlocal at_once, most
        if request.url.path.endswith("/login"):
            return httpx.Response(200, json={"access_token": "t", "expires_in": 60})
        with lock:
            at_once += 1
            most = max(most, at_once)
        together.wait(10)
        with lock:
            at_once -= 1
        return httpx.Response(200)

    transport = transport_to(handler, Clock(), connections=2)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: transport.request("GET", "/x"), range(8)))

    assert most == 2


def test_clients_of_one_address_share_a_limiter() -> None:
    assert process_limiter("http://a.test", 3) is process_limiter("http://a.test", 3)
    assert process_limiter("http://a.test", 3) is not process_limiter("http://b.test", 3)


class Outage:
    """An other side that is away between two moments, its health too."""

    def __init__(self, clock: Clock, begin: float, end: float) -> None:
        self.clock, self.begin, self.end = clock, begin, end
        self.health: list[float] = []
        self.asked: list[float] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        away = self.begin <= self.clock.now < self.end
        if request.url.path.endswith("/health"):
            self.health.append(self.clock.now)
        elif not request.url.path.endswith("/login"):
            self.asked.append(self.clock.now)
        if away:
            return httpx.Response(503, json={"detail": "down"})
        given = {"access_token": "t", "refresh_token": "again", "expires_in": 18_000}
        return httpx.Response(200, json=given)


@pytest.mark.parametrize("safe", [True, False])
def test_an_outage_is_waited_for_and_probed_by_health_alone(safe: bool) -> None:  # noqa: FBT001  # a parameter
    clock = Clock()
    outage = Outage(clock, 1, 101)
    transport = transport_to(outage, clock, total_s=300)
    transport.request("GET", "/x")
    clock.now = 2
    with contextlib.suppress(DoubtError):  # a write is in doubt once, before the breaker knows
        transport.request("POST", "/x", safe=safe)
    if not safe:
        for _ in range(FAILURES):
            with contextlib.suppress(DoubtError):
                transport.request("POST", "/x", safe=False)

    assert clock.now >= 101
    during = [at for at in outage.asked if 1 <= at < 101]
    assert len(during) == FAILURES, "then nothing but health is asked"
    assert len([at for at in outage.health if 1 <= at < 101]) < 12


def test_a_request_that_fails_while_the_system_is_healthy_is_no_outage(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/health"):
            return httpx.Response(200, json={"status": "healthy"})
        return httpx.Response(500 if request.url.path.endswith("/bad") else 200, json={})

    clock = Clock()
    server = Server(handler)
    server.valid = {"any"}
    transport = transport_to(server, clock)
    transport.request("GET", "/x")
    with pytest.raises(UnavailableError, match="answered 500"):
        transport.request("GET", "/bad")
    assert server.calls.count("/bad") == Limits().attempts
    assert clock.now < 30
    assert "again" not in caplog.text, "nobody said that it was away"


def test_an_outage_that_does_not_end_is_given_up_and_says_so() -> None:
    clock = Clock()
    transport = transport_to(Outage(clock, 1, 10_000), clock, total_s=120)
    transport.request("GET", "/x")
    clock.now = 2
    with pytest.raises(
        UnavailableError, match=r"apismith at http://source\.test has stopped answering"
    ):
        transport.request("GET", "/x")
    assert 122 <= clock.now < 140


def test_the_answer_that_ends_an_outage_is_told_whoever_asked(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()
    outage = Outage(clock, 1, 10_000)

    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/slow"):
            clock.now = 2  # while this one is on its way, the others find the system away
            with contextlib.suppress(UnavailableError):
                transport.request("GET", "/x")
            return httpx.Response(200, json={})
        return outage(request)

    transport = transport_to(handler, clock, total_s=30)
    transport.request("GET", "/x")
    transport.request("GET", "/slow")

    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert "has stopped answering" in told[0]
    assert "answers again" in told[1]
