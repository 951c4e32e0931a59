"""The API against its own description: whatever fits it is answered, whatever does not is refused, nothing breaks."""

import json
import os
from collections.abc import Iterator
from datetime import timedelta
from uuid import uuid4

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from ported import ported
from schemathesis.config import SchemathesisConfig

from syncflow_core.bridge.database import Database
from syncflow_core.bridge.entities import apply_entities
from syncflow_core.entity import Entity, ParentRef
from syncflow_core.settings import Settings
from syncflow_dagster.api.app import create_app
from syncflow_dagster.api.gateway import DagsterGateway
from syncflow_dagster.api.security import Verifier, issue
from syncflow_dagster.clock import utc_now

SECRET = "a secret of more than thirty-two bytes"
EXAMPLES = int(os.environ.get("SYNCFLOW_FUZZ", "4"))
"""Requests of each kind to each call; ``make fuzz`` makes more."""
CONFIG = {
    "checks": {
        # what the description cannot say: that an entity, a slice or a plan exists
        "positive_data_acceptance": {"expected-statuses": ["2xx", "404", "409", "422", "503"]},
    },
}


@pytest.fixture(scope="module")
def address(module_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The API on a free port, with entities, without a Dagster webserver."""
    home = tmp_path_factory.mktemp("home")
    chosen = Settings(
        home=home, api_writes_per_minute=10_000_000, api_refusals_per_minute=10_000_000
    )
    with Database(module_url) as database:
        with database.begin() as connection:
            child = Entity(
                name="lines", parents={"order": ParentRef(entity="orders", key={"id": "order_id"})}
            )
            apply_entities(connection, [Entity(name="orders"), child])
        gateway = DagsterGateway("http://dagster.test", transport=httpx.MockTransport(_dagster))
        app = create_app(chosen, database, gateway, Verifier(chosen, SECRET))
        with ported(app) as url:
            yield url


def _dagster(request: httpx.Request) -> httpx.Response:
    """Takes every run, and knows none."""
    if "launchRun" in json.loads(request.content)["query"]:
        launched = {"__typename": "LaunchRunSuccess", "run": {"runId": str(uuid4())}}
        return httpx.Response(200, json={"data": {"launchRun": launched}})
    return httpx.Response(
        200, json={"data": {"runsOrError": {"__typename": "Runs", "results": []}}}
    )


def _description() -> schemathesis.BaseSchema:
    nowhere = Database("postgresql://nobody@127.0.0.1:9/none")
    chosen = Settings()
    gateway = DagsterGateway("http://127.0.0.1:9")
    app = create_app(chosen, nowhere, gateway, Verifier(chosen, SECRET))
    return schemathesis.openapi.from_dict(
        app.openapi(), config=SchemathesisConfig.from_dict(CONFIG)
    )


schema = _description()
TOKEN = issue(Settings(), SECRET, name="fuzz", role="admin", life=timedelta(days=1), now=utc_now())


@schema.exclude(operation_id="ready").parametrize()  # 503 is one of its answers
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES < 50,
    suppress_health_check=list(HealthCheck),
)
def test_every_call_keeps_to_its_description(case: schemathesis.Case, address: str) -> None:
    case.call_and_validate(base_url=address, headers={"Authorization": f"Bearer {TOKEN}"})
