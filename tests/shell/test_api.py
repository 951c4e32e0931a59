"""The REST API on a port of its own: who may what, what is refused and how, what is described."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, get_args
from uuid import UUID, uuid4

import httpx
import jwt
import polars as pl
import pytest
from fastapi import FastAPI
from ported import ported

from syncflow_core.bridge import batches, plans
from syncflow_core.bridge.database import Database
from syncflow_core.bridge.entities import apply_entities
from syncflow_core.bridge.plans import PLANNED
from syncflow_core.entity import Entity
from syncflow_core.errors import ConfigError
from syncflow_core.privacy import Role
from syncflow_core.settings import Settings
from syncflow_dagster.api.app import MOST_BYTES, create_app
from syncflow_dagster.api.gateway import DagsterGateway
from syncflow_dagster.api.security import Verifier, issue, secret_of

SECRET = "a secret of more than thirty-two bytes"
NOW = datetime.now(tz=UTC)
SETTINGS = Settings(api_writes_per_minute=1_000, api_refusals_per_minute=1_000)
GATEWAY = DagsterGateway("http://127.0.0.1:9")


@pytest.fixture
def app(database: Database) -> FastAPI:
    with database.begin() as connection:
        apply_entities(connection, [Entity(name="orders")])
    return create_app(SETTINGS, database, GATEWAY, Verifier(SETTINGS, SECRET))


@contextmanager
def served(app: FastAPI) -> Iterator[httpx.Client]:
    """The application on a free port, and a client for it."""
    with ported(app) as url, httpx.Client(base_url=url, trust_env=False) as client:
        yield client


@pytest.fixture
def client(app: FastAPI) -> Iterator[httpx.Client]:
    with served(app) as opened:
        yield opened


@pytest.fixture
def plan(database: Database) -> UUID:
    with database.begin() as connection:
        apply_entities(connection, [Entity(name="orders")])
        batch = batches.open_batch(
            connection, entity="orders", entity_version=1, kind="full", now=NOW
        )
        return plans.save_plan(
            connection,
            entity="orders",
            kind="withheld",
            batch=batch,
            counts={"updates": 0, "deletes": 7},
            records=pl.DataFrame(schema=PLANNED),
            samples=[{"op": "delete", "record": "id=<script>=cmd|'"}],
            reason="7 of 8 known records would be deleted",
            run_id=None,
            now=NOW,
        )


def token(role: Role = "operator", **claims: Any) -> str:
    made = {
        "sub": "anna",
        "role": role,
        "aud": "syncflow",
        "iat": NOW,
        "exp": NOW + timedelta(hours=1),
        **claims,
    }
    return jwt.encode({k: v for k, v in made.items() if v is not None}, SECRET, algorithm="HS256")


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


def calls(app: FastAPI) -> list[tuple[str, str]]:
    """Every documented call but those that need no token."""
    found = [
        (method.upper(), re.sub(r"\{\w+\}", str(uuid4()), path))
        for path, methods in app.openapi()["paths"].items()
        for method in methods
    ]
    return [call for call in found if "/health" not in call[1]]


def test_every_call_needs_a_token(app: FastAPI, client: httpx.Client) -> None:
    answers = {call: client.request(*call) for call in calls(app)}

    assert len(answers) >= 4
    assert {call: answer.status_code for call, answer in answers.items()} == dict.fromkeys(
        answers, 401
    )
    for answer in answers.values():
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["www-authenticate"] == "Bearer"


ENCODED_NONE = jwt.encode(
    {"sub": "anna", "role": "admin", "aud": "syncflow", "exp": NOW + timedelta(hours=1)},
    None,
    algorithm="none",
)


@pytest.mark.parametrize(
    "text",
    [
        ENCODED_NONE,
        token(exp=NOW - timedelta(minutes=5)),
        token(exp=None),
        token(aud="other"),
        token(aud=None),
        token(sub=None),
        token(role="root"),  # type: ignore[arg-type]  # no role of ours
        token() + "x",
        token()[:-4] + "AAAA",
        "nonsense",
        jwt.encode({"sub": "a", "role": "admin", "aud": "syncflow"}, "another secret " * 3),
        jwt.encode(
            {"sub": "a", "role": "admin", "aud": "syncflow", "exp": NOW + timedelta(hours=1)},
            SECRET * 2,
            algorithm="HS512",
        ),
    ],
)
def test_a_token_that_is_not_ours_or_not_good_any_more_is_401(
    client: httpx.Client, text: str
) -> None:
    answer = client.get("/api/v1/plans", headers=bearer(text))

    assert answer.status_code == 401
    assert SECRET not in answer.text


def needed(method: str, path: str) -> Role:
    """Who may call it, at least: who reads, who runs, who declares."""
    if method == "GET":
        return "viewer"
    return "operator" if path.startswith(("/api/v1/sync", "/api/v1/plans")) else "admin"


@pytest.mark.parametrize("role", get_args(Role))
def test_each_role_may_what_it_is_for_and_no_more(
    app: FastAPI, client: httpx.Client, plan: UUID, role: Role
) -> None:
    roles = list(get_args(Role))
    answers = {
        call: client.request(*call, headers=bearer(token(role)), json={}).status_code
        for call in calls(app)
    }

    forbidden = {call for call, status in answers.items() if status == 403}
    assert forbidden == {call for call in answers if roles.index(needed(*call)) > roles.index(role)}
    assert len(answers) >= 25
    # another's ids lead nowhere, whoever asks
    missing = {
        call
        for call in set(answers) - forbidden
        if re.search(r"[0-9a-f]{8}-[0-9a-f-]{27}", call[1])
    }
    assert {answers[call] for call in missing} <= {404, 422}
    assert client.get(f"/api/v1/plans/{plan}", headers=bearer(token(role))).is_success


def test_a_plan_is_listed_and_shown_with_its_samples(client: httpx.Client, plan: UUID) -> None:
    operator = bearer(token())

    listed = client.get("/api/v1/plans", params={"entity": "orders"}, headers=operator).json()
    shown = client.get(f"/api/v1/plans/{plan}", headers=operator).json()

    assert [item["uid"] for item in listed["items"]] == [str(plan)]
    assert "samples" not in listed["items"][0]
    assert shown["samples"] == [{"op": "delete", "record": "id=<script>=cmd|'"}]
    assert shown["counts"] == {"updates": 0, "deletes": 7}
    others = client.get("/api/v1/plans", params={"status": "applied"}, headers=operator)
    assert others.json() == {"items": []}


def test_errors_are_problem_details(client: httpx.Client, plan: UUID, database: Database) -> None:
    operator = bearer(token())
    with database.begin() as connection:
        plans.expire_plan(connection, plan)

    found = [
        client.get(f"/api/v1/plans/{uuid4()}", headers=operator),
        client.get("/api/v1/plans/none", headers=operator),
        client.post(f"/api/v1/plans/{plan}/apply", headers=operator),
        client.post("/api/v1/plans", json={"entities": ["nope"]}, headers=operator),
        client.post("/api/v1/plans", json={"slice": 99}, headers=operator),
        client.post("/api/v1/plans", json={"mode": "x", "more": 1}, headers=operator),
        client.post("/api/v1/plans", json={"entities": ["orders"]}, headers=operator),
        client.get("/api/v1/nothing", headers=operator),
        client.delete("/api/v1/plans", headers=operator),
        client.post("/api/v1/plans", content=b"{" * MOST_BYTES * 2, headers=operator),
    ]

    assert [answer.status_code for answer in found] == [
        404,
        422,
        409,
        422,
        422,
        422,
        503,  # nobody listens where Dagster should be
        404,
        405,
        413,
    ]
    for answer in found:
        problem = answer.json()
        assert answer.headers["content-type"] == "application/problem+json"
        assert (problem["status"], bool(problem["detail"])) == (answer.status_code, True)
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert "retry-after" in found[6].headers
    assert {tuple(fault["loc"]) for fault in found[5].json()["errors"]} == {
        ("body", "mode"),
        ("body", "more"),
    }


def test_a_database_that_is_away_is_503_and_says_nothing_secret() -> None:
    away = Database("postgresql://u:s3cret@127.0.0.1:9/x")
    app = create_app(SETTINGS, away, GATEWAY, Verifier(SETTINGS, SECRET))

    with served(app) as client:
        answer = client.get("/api/v1/plans", headers=bearer(token()))

    assert answer.status_code == 503
    assert "s3cret" not in answer.text


def test_every_call_is_described_with_its_errors_and_examples(app: FastAPI) -> None:
    described = app.openapi()

    operations = [call for methods in described["paths"].values() for call in methods.values()]
    assert len({call["operationId"] for call in operations}) == len(operations)
    for call in operations:
        if call["operationId"] not in {"health", "ready"}:
            assert {"401", "403", "503"} <= set(call["responses"])
    for name, schema in described["components"]["schemas"].items():
        for field, shape in schema.get("properties", {}).items():
            assert "examples" in shape or _is_made_of_described(shape), f"{name}.{field}"
            assert "description" in shape or "$ref" in shape, f"{name}.{field}"


def _is_made_of_described(shape: dict[str, Any]) -> bool:
    """Whether it is a list of a shape, or a shape, that has examples of its own."""
    return "$ref" in str(shape)


def test_the_secret_is_the_environments_else_the_homes_own(tmp_path: Any) -> None:
    with pytest.raises(ConfigError, match="shorter than 32 bytes"):
        secret_of(Settings(api_secret="short"), loopback=True)  # type: ignore[arg-type]  # parsed
    with pytest.raises(ConfigError, match="bound to 127"):
        secret_of(Settings(home=tmp_path), loopback=False)

    made = secret_of(Settings(home=tmp_path), loopback=True)

    assert secret_of(Settings(home=tmp_path), loopback=True) == made
    assert (tmp_path / "api-secret").stat().st_mode & 0o777 == 0o600
    text = issue(SETTINGS, made, name="a", role="viewer", life=timedelta(days=1), now=NOW)
    assert jwt.get_unverified_header(text)["alg"] == "HS256"
