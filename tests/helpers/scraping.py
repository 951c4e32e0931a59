"""Prometheus, as far as a test needs it: asks an application for its metrics, and reads them."""

import asyncio
from datetime import UTC, datetime, timedelta

import httpx
from fastapi import FastAPI
from prometheus_client import parser

from syncflow_core.bridge.database import Database
from syncflow_core.settings import Settings
from syncflow_dagster.api.app import create_app
from syncflow_dagster.api.gateway import DagsterGateway
from syncflow_dagster.api.security import Verifier, issue

SECRET = "a secret of more than thirty-two bytes"

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def application(settings: Settings, database: Database) -> FastAPI:
    """The API over a database; nobody is where Dagster should be."""
    gateway = DagsterGateway("http://127.0.0.1:9")
    return create_app(settings, database, gateway, Verifier(settings, SECRET))


def scrape(app: FastAPI, *, accept: str = "*/*") -> httpx.Response:
    """The answer that a viewer gets, without a port."""
    settings: Settings = app.state.settings
    now = datetime.now(tz=UTC)
    life = timedelta(hours=1)
    token = issue(settings, SECRET, name="prometheus", role="viewer", life=life, now=now)

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://api.test") as client:
            headers = {"Authorization": f"Bearer {token}", "Accept": accept}
            return await client.get("/api/v1/metrics", headers=headers)

    return asyncio.run(ask())


def samples_of(text: str) -> Samples:
    """Every sample by its name and labels; each is there once."""
    found: Samples = {}
    for family in parser.text_string_to_metric_families(text):
        for sample in family.samples:
            key = sample.name, frozenset(sample.labels.items())
            assert key not in found, key
            found[key] = sample.value
    return found


def of(samples: Samples, name: str, **labels: str) -> float:
    """The sample of this name (without ``syncflow_``) and exactly these labels."""
    return samples[f"syncflow_{name}", frozenset(labels.items())]
