"""Measure the two servers: MB/s of pages, inserted records/s, and what their processes spent on it.

Belongs here: two loads over HTTP and the numbers they print, each with its inputs.
Does not belong here: SyncFlow's own benchmark.

``python -m syncflow_core.sandbox.measure --database-url postgresql://...`` seeds the table ``bench``
and empties the hub of that database.
"""

import argparse
import http.client
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from typing import TypeVar

import httpx

from syncflow_core.sandbox import database, erp
from syncflow_core.sandbox.process import Sandbox, SandboxError

_T = TypeVar("_T")
BATCH = 1_000


def measure_pages(client: httpx.Client, rows: int, limit: int, threads: int) -> dict[str, float]:
    """All pages of ``bench`` fetched once."""

    def fetch(offset: int) -> int:
        body = json.dumps({"offset": offset, "limit": limit}).encode()
        return len(_post(client, "/api/v1/runtime/bench/execute", body))

    return _loaded(client, fetch, range(0, rows, limit), threads, "mb", 1e-6)


def measure_inserts(client: httpx.Client, rows: int, threads: int) -> dict[str, float]:
    """So many records of 16 fields inserted by batches of 1,000."""

    def insert(body: bytes) -> int:
        answer = json.loads(_post(client, "/api/v1/bench/batch/insert", body))
        return int(answer["success_count"])

    bodies = [_body(first) for first in range(0, rows, BATCH)]
    return _loaded(client, insert, bodies, threads, "records", 1)


_connections = threading.local()


def _post(client: httpx.Client, path: str, body: bytes) -> bytes:
    """The answer's body, read by the standard library: it costs the machine less than the server does."""
    url = client.base_url
    connection: http.client.HTTPConnection | None = getattr(_connections, str(url.port), None)
    if connection is None:
        connection = http.client.HTTPConnection(url.host, url.port, timeout=60)
        setattr(_connections, str(url.port), connection)
    headers = {
        "Authorization": client.headers["Authorization"],
        "Content-Type": "application/json",
    }
    connection.request("POST", path, body, headers)
    answer = connection.getresponse()
    content = answer.read()
    if answer.status >= http.HTTPStatus.MULTIPLE_CHOICES:
        raise SandboxError(f"{path} answered {answer.status}")
    return content


def _loaded(
    client: httpx.Client,
    call: Callable[[_T], int],
    inputs: Iterable[_T],
    threads: int,
    unit: str,
    factor: float,
) -> dict[str, float]:
    spent = _cpu_s(client)
    began = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        amount = sum(pool.map(call, inputs)) * factor
    seconds = time.perf_counter() - began
    cpu_s = _cpu_s(client) - spent
    return {
        unit: round(amount, 1),
        "seconds": round(seconds, 3),
        f"{unit}_per_s": round(amount / seconds, 1),
        "server_cpu_s": round(cpu_s, 3),
        "server_cores": round(cpu_s / seconds, 2),
        f"{unit}_per_server_cpu_s": round(amount / cpu_s, 1),
    }


def _cpu_s(client: httpx.Client) -> float:
    return float(client.get("/sandbox/stats").json()["cpu_seconds"])


def _body(first: int) -> bytes:
    records = []
    for number in range(first, first + BATCH):
        key_hash = blake2b(str(number).encode(), digest_size=16).hexdigest()
        fields = {f"field_{at}": f"value {number * at}" for at in range(14)}
        records.append(
            {
                "erp_key_hash": key_hash,
                "erp_data_hash": key_hash * 2,
                "erp_rowversion": str(number),
                "erp_ref_str": f"id={number}",
                "parent_refs": {},
                "id": number,
                "price": 10.5,
                **fields,
            }
        )
    return json.dumps({"records": records}).encode()


def _client(url: str, sandbox: Sandbox) -> httpx.Client:
    login = {"username": sandbox.username, "password": sandbox.password}
    answer = httpx.post(f"{url}/api/v1/auth/login", json=login, trust_env=False)
    headers = {
        "Accept-Encoding": "identity",
        "Authorization": f"Bearer {answer.json()['access_token']}",
    }
    return httpx.Client(base_url=url, timeout=60, trust_env=False, headers=headers)


def main(arguments: list[str] | None = None) -> int:
    """Print one JSON line per measurement."""
    parser = argparse.ArgumentParser(prog="python -m syncflow_core.sandbox.measure")
    parser.add_argument("--database-url", required=True)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--inserts", type=int, default=200_000)
    parser.add_argument("--limit", type=int, default=10_000)
    options = parser.parse_args(arguments)
    database.prepare(options.database_url)
    with database.connect(options.database_url) as connection:
        began = time.perf_counter()
        erp.seed_bench(connection, rows=options.rows)
        seeded_s = round(time.perf_counter() - began, 1)
    _print(measure="seed", rows=options.rows, seconds=seeded_s, cores=os.cpu_count())
    with Sandbox.start(options.database_url) as sandbox:
        with _client(sandbox.apismith_url, sandbox) as client:
            for threads in (1, 4):
                numbers = measure_pages(client, options.rows, options.limit, threads)
                _print(measure="pages", limit=options.limit, threads=threads, **numbers)
        with _client(sandbox.schedulehub_url, sandbox) as client:
            client.post("/sandbox/reset").raise_for_status()
            numbers = measure_inserts(client, options.inserts, 4)
            _print(measure="inserts", batch=BATCH, threads=4, **numbers)
    return 0


def _print(**numbers: str | float | None) -> None:
    sys.stdout.write(json.dumps(numbers) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
