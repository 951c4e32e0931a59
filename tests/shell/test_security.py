"""Whose tokens are taken, who may what, and how much one may ask."""

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from fastapi import HTTPException
from hypothesis import given
from hypothesis import strategies as st
from ported import ported

from syncflow_core.bridge.database import Database
from syncflow_core.errors import ConfigError, UnavailableError
from syncflow_core.settings import Settings
from syncflow_dagster.api.app import MOST_DEEP, create_app, depth_of
from syncflow_dagster.api.gateway import DagsterGateway
from syncflow_dagster.api.limits import Bucket
from syncflow_dagster.api.security import Verifier, verifier_of

SECRET = "a secret of more than thirty-two bytes"
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
ISSUER = "https://login.test"


def keys() -> dict[str, Any]:
    """What the issuer serves."""
    public = [
        json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(RSA.public_key()))
        | {"kid": "rsa", "alg": "RS256"},
        json.loads(jwt.algorithms.ECAlgorithm.to_jwk(EC.public_key()))
        | {"kid": "ec", "alg": "ES256"},
    ]
    return {"keys": public}


@contextmanager
def issuer() -> Iterator[str]:
    """The issuer's keys on a free port; the address."""

    class Keys(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(keys()).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Keys)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/keys"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def served() -> Iterator[str]:
    with issuer() as url:
        yield url


def claims(**more: Any) -> dict[str, Any]:
    now = datetime.now(tz=UTC)
    given = {
        "sub": "anna",
        "role": "viewer",
        "aud": "syncflow",
        "iss": ISSUER,
        "exp": now + timedelta(hours=1),
        **more,
    }
    return {name: value for name, value in given.items() if value is not None}


def signed(key: Any, algorithm: str, kid: str, **more: Any) -> str:
    return jwt.encode(claims(**more), key, algorithm=algorithm, headers={"kid": kid})


def verifier(url: str | None, secret: str | None = SECRET, **more: Any) -> Verifier:
    return Verifier(Settings(api_jwks_url=url, api_issuer=ISSUER, **more), secret)


def test_tokens_of_an_issuer_are_taken_by_its_served_keys(served: str) -> None:
    taken = verifier(served)

    found = [
        taken.caller_of(signed(RSA, "RS256", "rsa")),
        taken.caller_of(signed(EC, "ES256", "ec", role="admin")),
        taken.caller_of(jwt.encode(claims(iss=None), SECRET, algorithm="HS256")),
    ]

    assert [(who.name, who.role) for who in found] == [
        ("anna", "viewer"),
        ("anna", "admin"),
        ("anna", "viewer"),
    ]


def _public_key_as_secret() -> str:
    """HS256 over the bytes of the public key: the confusion of a signature with a secret."""
    header, body = (
        base64.urlsafe_b64encode(json.dumps(part, default=str).encode()).rstrip(b"=")
        for part in (
            {"alg": "HS256", "kid": "rsa"},
            claims(exp=int(datetime.now(tz=UTC).timestamp()) + 3600),
        )
    )
    public = jwt.algorithms.RSAAlgorithm.to_jwk(RSA.public_key()).encode()
    mac = hmac.new(public, header + b"." + body, hashlib.sha256).digest()
    return b".".join([header, body, base64.urlsafe_b64encode(mac).rstrip(b"=")]).decode()


OTHER = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PAST = datetime.now(tz=UTC) - timedelta(hours=1)


@pytest.mark.parametrize(
    "token",
    [
        signed(OTHER, "RS256", "rsa"),
        signed(RSA, "RS256", "unknown"),
        signed(RSA, "RS512", "rsa"),
        signed(RSA, "RS256", "rsa", iss="https://other.test"),
        signed(RSA, "RS256", "rsa", iss=None),
        signed(RSA, "RS256", "rsa", aud="another"),
        signed(RSA, "RS256", "rsa", exp=PAST),
        signed(RSA, "RS256", "rsa", exp=None),
        signed(RSA, "RS256", "rsa", role="root"),
        signed(RSA, "RS256", "rsa", role=["admin"]),
        jwt.encode(claims(), "", algorithm="none"),
        jwt.encode(claims(), "another secret of more than thirty bytes", algorithm="HS256"),
        _public_key_as_secret(),
        signed(RSA, "RS256", "rsa")[:-4] + "AAAA",
        "",
        "a.b.c",
        "é" * 40,
    ],
    ids=range(17),
)
def test_any_other_token_is_refused(served: str, token: str) -> None:
    with pytest.raises(HTTPException) as refused:
        verifier(served).caller_of(token)
    assert refused.value.status_code == 401


def test_without_a_secret_or_an_issuer_its_kind_of_token_is_not_taken(served: str) -> None:
    own = jwt.encode(claims(), SECRET, algorithm="HS256")
    for taken, token in (
        (verifier(served, None), own),
        (verifier(None), signed(RSA, "RS256", "rsa")),
    ):
        with pytest.raises(HTTPException, match="algorithm"):
            taken.caller_of(token)


def test_keys_that_cannot_be_fetched_are_no_wrong_token() -> None:
    with pytest.raises(UnavailableError, match="keys"):
        verifier("http://127.0.0.1:9/keys").caller_of(signed(RSA, "RS256", "rsa"))


def test_an_address_of_keys_is_https_unless_it_is_here() -> None:
    with pytest.raises(ValueError, match="https"):
        Settings(api_jwks_url="http://login.test/keys")
    assert verifier_of(Settings(api_jwks_url="https://login.test/keys"), loopback=False)
    with pytest.raises(ConfigError, match="SYNCFLOW_API_SECRET"):
        verifier_of(Settings(), loopback=False)


@pytest.fixture
def address(database: Database) -> Iterator[str]:
    chosen = Settings(api_writes_per_minute=3, api_refusals_per_minute=3)
    gateway = DagsterGateway("http://127.0.0.1:9")
    with ported(create_app(chosen, database, gateway, Verifier(chosen, SECRET))) as url:
        yield url


Client = Callable[..., httpx.Client]


@pytest.fixture
def client(address: str) -> Iterator[Client]:
    """Makes callers with the claims that it is given."""
    with ExitStack() as opened:

        def make(**more: Any) -> httpx.Client:
            token = jwt.encode(claims(**more), SECRET, algorithm="HS256")
            headers = {"Authorization": f"Bearer {token}"}
            made = httpx.Client(base_url=address, headers=headers, trust_env=False)
            return opened.enter_context(made)

        yield make


def test_one_caller_changes_only_so_much_in_a_minute_and_reads_on(client: Client) -> None:
    operator = client(role="operator")
    other = client(role="operator", sub="ben")
    unknown = {"entities": ["nothing"]}

    answers = [operator.post("/api/v1/sync/start", json=unknown) for _ in range(4)]

    assert [answer.status_code for answer in answers] == [422, 422, 422, 429]
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 20
    assert answers[-1].headers["content-type"] == "application/problem+json"
    assert operator.get("/api/v1/plans").status_code == 200
    assert other.post("/api/v1/sync/start", json=unknown).status_code == 422


def test_an_address_that_tries_wrong_tokens_is_not_listened_to_for_a_while(client: Client) -> None:
    wrong = client()
    wrong.headers["Authorization"] = "Bearer nonsense"
    right = client()

    before = right.get("/api/v1/plans").status_code
    tried = [wrong.get("/api/v1/plans").status_code for _ in range(4)]

    assert (before, tried) == (200, [401, 401, 401, 429])
    assert right.get("/api/v1/plans").status_code == 429


def test_a_body_that_nests_too_deep_is_refused_before_it_is_read(client: Client) -> None:
    admin = client(role="admin")
    deep = "[" * 100_000 + "]" * 100_000

    answer = admin.post(
        "/api/v1/entities", content=deep, headers={"Content-Type": "application/json"}
    )

    assert (answer.status_code, "nests deeper" in answer.text) == (422, True)


def test_answers_carry_the_headers_of_an_api_and_no_other_origin_is_let_in(client: Client) -> None:
    viewer = client()
    answer: httpx.Response = viewer.get(
        "/api/v1/plans", headers={"Origin": "https://elsewhere.test"}
    )
    asked = viewer.options(
        "/api/v1/plans",
        headers={"Origin": "https://elsewhere.test", "Access-Control-Request-Method": "GET"},
    )
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert "access-control-allow-origin" not in {**answer.headers, **asked.headers}
    assert asked.status_code == 405


@given(
    st.recursive(
        st.none() | st.text(alphabet='[{}]"\\a'),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=20,
    )
)
def test_depth_is_that_of_the_value_whatever_its_strings_hold(value: object) -> None:
    def depth(part: object) -> int:
        if isinstance(part, dict):
            part = list(part.values())
        return 1 + max(map(depth, part), default=0) if isinstance(part, list) else 0

    assert depth_of(json.dumps(value).encode()) == depth(value)
    assert depth_of(b"[" * (MOST_DEEP + 1)) == MOST_DEEP + 1


def test_a_bucket_fills_again_with_time() -> None:
    now = [0.0]
    bucket = Bucket(60, lambda: now[0])
    assert [bucket.take("a") for _ in range(60)] == [0.0] * 60
    assert bucket.take("a") == pytest.approx(1.0)
    now[0] += 2
    assert (bucket.wait_s("a"), bucket.wait_s("b")) == (0.0, 0.0)
    assert [bool(bucket.take("a")) for _ in range(3)] == [False, False, True]
