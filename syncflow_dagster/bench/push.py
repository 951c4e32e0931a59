"""``syncflow bench push``: changed records to the local sandbox, and a first load with and without a journal.

Belongs here: the records, the hubs that they go to, and the order of the steps.
Does not belong here: timing (``measure``).

The records are the sandbox's wide table: sixteen columns. The changed ones go to the sandbox's
ScheduleHub, a process of its own, over HTTP. The first load goes to a hub that answers at once, in this
process, so that what is measured is SyncFlow's own time: bodies, the client, journal and state in
PostgreSQL. Part of it is done once more without a journal, to tell what that costs.
"""

import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Final

import httpx
import polars as pl
import sqlalchemy as sa

from syncflow_core.apismith import Source
from syncflow_core.bridge import batches, records
from syncflow_core.bridge.database import Database
from syncflow_core.bridge.entities import apply_entities
from syncflow_core.bridge.journal import WriteOp
from syncflow_core.bridge.leases import Lease
from syncflow_core.bridge.slots import SharedLimiter
from syncflow_core.columns import DATA_HASH, HUB_UID, KEY_HASH, OP, OPS, PARENT_REFS, ROW
from syncflow_core.entity import Entity
from syncflow_core.fields import Shape
from syncflow_core.frames import PART_ROWS, FrameStore
from syncflow_core.identity import add_identity
from syncflow_core.limiter import Limits
from syncflow_core.normalize import normalize
from syncflow_core.pages import JSON, parse_page
from syncflow_core.sandbox import Sandbox
from syncflow_core.schedulehub import Target
from syncflow_core.settings import Settings
from syncflow_core.stages.sender import SAVES_AT_ONCE, Sender, prepared
from syncflow_core.stages.work import Connections
from syncflow_dagster.bench.measure import Benchmark
from syncflow_dagster.bench.rows import WIDE, pages, shape_named
from syncflow_dagster.bench.scratch import scratch_database
from syncflow_dagster.clock import utc_now
from syncflow_dagster.sandbox import environment

HUB_ROWS: Final = 50_000
"""What the sandbox's hub holds before some of it changes."""


def run(
    *, rows: int, times: int, changed: int, save: Path | None, compare: Path | None = None
) -> None:
    """Measure and report."""
    shape = shape_named(WIDE)
    parts = list(_identified(rows, shape))
    benchmark = Benchmark("push", rows, parameters={"changed": changed})
    with scratch_database() as database, Sandbox.start(database.url) as sandbox:
        with database.begin() as connection:
            apply_entities(connection, [Entity(name=WIDE)])
        warm = Benchmark("warm", rows)
        _first_load(warm, database, [parts[0].head(50_000)], shape)
        _changes(warm, database, sandbox, parts[0], min(changed, 1_000), shape)
        for _ in range(times):
            benchmark.begin()
            _changes(benchmark, database, sandbox, parts[0], changed, shape)
            _first_load(benchmark, database, parts, shape)
    benchmark.report("first load, hub excluded", ("changed to the sandbox",), save, compare)


def _identified(rows: int, shape: Shape) -> Iterator[pl.DataFrame]:
    """The rows as they are staged before the push, in parts."""
    for first in range(0, rows, PART_ROWS):
        last = min(first + PART_ROWS, rows)
        raw = pl.concat(
            [parse_page(body, JSON, shape.api.columns).frame for body in pages(WIDE, first, last)],
            rechunk=True,
        )
        accepted = normalize(raw.with_row_index(ROW), shape).accepted
        yield add_identity(accepted, shape).with_columns(
            pl.lit("{}").alias(PARENT_REFS),
            pl.lit("insert", dtype=OPS).alias(OP),
            pl.lit(None, dtype=pl.String).alias(HUB_UID),
        )


def _changes(
    benchmark: Benchmark,
    database: Database,
    sandbox: Sandbox,
    part: pl.DataFrame,
    changed: int,
    shape: Shape,
) -> None:
    """Fill the hub, then update so many of its records."""
    _empty(database)
    settings = Settings.model_validate(
        {
            name.removeprefix("SYNCFLOW_").lower(): value
            for name, value in environment(sandbox).items()
        }
    )
    with _sender(database, settings, None, shape) as sender:
        for ready in prepared(part.head(HUB_ROWS), shape):
            sender.send(ready)
        sender.finish()
    chosen = part.head(changed).drop(HUB_UID)
    with database.begin() as connection:
        known = records.load_known_of(connection, WIDE, chosen[KEY_HASH])
    edited = chosen.join(known.select(KEY_HASH, HUB_UID), on=KEY_HASH, how="inner").with_columns(
        pl.lit("update", dtype=OPS).alias(OP)
    )
    other = edited.with_columns(pl.col(DATA_HASH).reverse(), pl.col("remark").reverse())
    with (
        _sender(database, settings, None, shape) as sender,
        benchmark.step("changed to the sandbox", changed),
    ):
        for ready in prepared(other.select(part.columns), shape):
            sender.send(ready)
        sender.finish()
    if sender.counts["updated"] != changed:
        raise AssertionError(f"{sender.counts} after {changed} changes")


def _first_load(
    benchmark: Benchmark, database: Database, parts: Sequence[pl.DataFrame], shape: Shape
) -> None:
    """Insert everything into a hub that answers at once; the first part once more without a journal."""
    settings = Settings.model_validate({"schedulehub_url": "http://127.0.0.1"})
    rows = sum(part.height for part in parts)
    first = parts[0].height
    for name, kind, chosen, number in (
        ("first part, without journal", _Unwritten, parts[:1], first),
        ("first part, with journal", Sender, parts[:1], first),
        ("first load, hub excluded", Sender, parts, rows),
    ):
        _empty(database)
        with (
            _sender(database, settings, _instant_hub(), shape, kind=kind) as sender,
            benchmark.step(name, number),
        ):
            for part in chosen:
                for ready in prepared(part, shape):
                    sender.send(ready)
            sender.finish()
        if sender.counts["inserted"] != number:
            raise AssertionError(f"{sender.counts} after {number} inserts")


class _Unwritten(Sender):
    """A sender without a journal."""

    def open_intents(self, calls: Sequence[tuple[WriteOp, pl.Series]]) -> list[uuid.UUID]:
        """Write nothing down."""
        return [uuid.UUID(int=0) for _ in calls]

    def close_intents(
        self, connection: sa.Connection, intents: Sequence[uuid.UUID], now: datetime
    ) -> None:
        """Nothing was written down."""


@contextmanager
def _sender(  # what a sender is made of
    database: Database,
    settings: Settings,
    transport: httpx.BaseTransport | None,
    shape: Shape,
    *,
    kind: type[Sender] = Sender,
) -> Iterator[Sender]:
    """A sender in a batch of its own, with the lease of its entity."""
    limiter = SharedLimiter(database, "schedulehub", Limits().connections)
    with (
        Lease.acquire(database, WIDE) as lease,
        Target.open(settings, transport=transport, limiter=limiter) as target,
    ):
        with database.begin() as connection:
            batch = batches.open_batch(
                connection, entity=WIDE, entity_version=1, kind="full", now=utc_now()
            )
        connections = Connections(
            open_source=_no_source,
            open_target=lambda: target,
            database=database,
            frames=FrameStore(""),
        )
        with ThreadPoolExecutor(SAVES_AT_ONCE) as beside:
            yield kind(
                connections,
                shape.entity,
                batch,
                lease,
                utc_now,
                shape=shape,
                beside=beside,
            )
    limiter.close()


def _instant_hub() -> httpx.MockTransport:
    """A hub that has inserted whatever it is sent, at once."""
    token = {"access_token": "t", "refresh_token": "r", "token_type": "bearer", "expires_in": 1800}
    results = "".join(
        f'{{"index":{at},"uid":"01983b1e-7c1e-7cc3-98c4-{at:012}","status":"inserted"}},'
        for at in range(1_000)
    ).split("},")[:-1]

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/auth/login"):
            return httpx.Response(200, json=token)
        rows = request.content.count(b'"erp_key_hash"')
        body = f'{{"success_count":{rows},"failure_count":0,"results":[{"},".join(results[:rows])}}}]}}'
        return httpx.Response(200, content=body.encode())

    return httpx.MockTransport(answer)


def _empty(database: Database) -> None:
    with database.begin() as connection:
        connection.execute(
            sa.text(
                "TRUNCATE bridge.synced_records, bridge.push_journal, bridge.record_events, "
                "hub.records, hub.effects"
            )
        )


def _no_source() -> Source:
    raise AssertionError("a push reads nothing")
