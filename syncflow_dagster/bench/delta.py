"""``syncflow bench delta``: incoming against known records, in memory and out of PostgreSQL, and saving them.

Belongs here: making the records, a database for them, and the order of the steps.
Does not belong here: timing (``measure``).

The database is made on the bridge's server and removed at the end. One record in a hundred has changed,
one in a thousand is new, one in a thousand is gone. Every other record has a parent: a record without
one has no references to read, which is quicker. Both saves go as in a push: in its groups, each with
a transaction of its own.
"""

import hashlib
import multiprocessing
import tempfile
import uuid
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Final

import polars as pl
import pyarrow as pa
import sqlalchemy as sa

from syncflow_core.bridge import records
from syncflow_core.bridge.database import Database
from syncflow_core.columns import (
    DATA_HASH,
    HUB_UID,
    KEY_HASH,
    KEY_SOURCE,
    OP,
    PARENT_REFS,
    REFERENCE,
    ROW,
    ROWVERSION,
)
from syncflow_core.delta import classify, gone
from syncflow_core.digests import DIGESTS
from syncflow_core.frames import PART_ROWS
from syncflow_core.stages.delta import NARROW
from syncflow_core.stages.sender import groups
from syncflow_core.stages.writer import GROUP_ROWS
from syncflow_dagster.bench.measure import Benchmark, Measured
from syncflow_dagster.bench.scratch import scratch_database

ENTITY: Final = "bench"
DIGEST_BYTES: Final = 34  # of sixteen fields
WARM_ROWS: Final = 200_000


def run(
    *, rows: int, times: int, changed: float, save: Path | None, compare: Path | None = None
) -> None:
    """Measure and report."""
    benchmark = Benchmark("delta", rows, parameters={"changed": changed})
    with scratch_database() as database, tempfile.TemporaryDirectory() as folder:
        warm = Benchmark("warm", rows)
        _once(warm, database, min(rows, WARM_ROWS), changed, Path(folder))
        for _ in range(times):
            benchmark.begin()
            _once(benchmark, database, rows, changed, Path(folder))
    benchmark.report("classify", ("known from PostgreSQL", "classify"), save, compare)


def _once(
    benchmark: Benchmark, database: Database, rows: int, changed: float, folder: Path
) -> None:
    with database.begin() as connection:
        connection.execute(sa.text("TRUNCATE bridge.synced_records"))
    # made in another process: this one holds what the stage compares, and no more
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as child:
        first = child.submit(_prepare, database.url, rows, changed, folder).result()
    benchmark.add("first save", first)
    incoming = pl.read_ipc(folder / "incoming.arrow")
    edited = pl.read_ipc(folder / "edited.arrow")
    with benchmark.step("known from PostgreSQL"):
        known = records.load_known(database, ENTITY)
    with benchmark.step("classify"):
        verdicts = classify(incoming, known, kind="integer", guarded=False)
        absent = gone(known, incoming[KEY_HASH])
    found = verdicts.filter(pl.col(OP) == "update").height
    if (found, absent.height) != (edited.height, rows // 1000):
        raise AssertionError(f"{found} records have changed and {absent.height} are gone")
    with benchmark.step("changed save", edited.height):
        for group in edited.iter_slices(GROUP_ROWS):
            with database.begin() as connection:
                records.save_acknowledged(connection, ENTITY, group, uuid.uuid4())


def _prepare(url: str, rows: int, changed: float, folder: Path) -> Measured:
    """Make the records, save them as a first load does, and leave the incoming rows in the folder."""
    acknowledged = _acknowledged(rows, "known")
    with Database(url) as database:
        benchmark = Benchmark("prepare", rows)
        with benchmark.step("first save"):
            for part in acknowledged.iter_slices(PART_ROWS):
                for group in groups(part):
                    with database.begin() as connection:
                        records.insert_acknowledged(connection, ENTITY, group, uuid.uuid4())
    everything = _incoming(acknowledged, changed)
    everything.select(NARROW).write_ipc(folder / "incoming.arrow")
    everything.filter("#edited").drop(ROW, "#edited").write_ipc(folder / "edited.arrow")
    step = benchmark.steps["first save"]
    return Measured(step.seconds[0], step.cpu_seconds[0], step.megabytes)


def _acknowledged(rows: int, seed: str) -> pl.DataFrame:
    """Records as they are saved after their first push; the same seed makes the same ones."""
    numbers = pl.select(n=pl.int_range(rows)).to_series()
    text = numbers.cast(pl.String)
    return pl.DataFrame(
        {
            KEY_HASH: _random(rows, 16, f"{seed} key"),
            DATA_HASH: _random(rows, 32, f"{seed} data"),
            ROWVERSION: text,
            PARENT_REFS: _parent_refs(rows, f"{seed} parent"),
            HUB_UID: "01983b1e-7c1e-7cc3-98c4-" + text.str.zfill(12),
            REFERENCE: "id=" + text,
            KEY_SOURCE: '{"ID":' + text + "}",
            DIGESTS: _random(rows, DIGEST_BYTES, f"{seed} digests"),
        }
    )


def _incoming(known: pl.DataFrame, changed: float) -> pl.DataFrame:
    """The source's rows in another order: some changed, a thousandth new, a thousandth gone."""
    few = known.height // 1000
    fresh = _acknowledged(few, "new")
    number = pl.int_range(pl.len())
    other = _random(known.height, 32, "changed data")
    edited = known.with_columns(
        (number < int(known.height * changed)).alias("#edited")
    ).with_columns(
        pl.when("#edited").then(pl.lit(other)).otherwise(pl.col(DATA_HASH)).alias(DATA_HASH)
    )
    new = fresh.with_columns(pl.lit(value=False).alias("#edited"))
    return (
        pl.concat([edited.head(known.height - few), new])
        .sample(fraction=1, shuffle=True, seed=1)
        .with_row_index(ROW)
    )


def _parent_refs(rows: int, seed: str) -> pl.Series:
    """One reference for every other record, none for the rest."""
    keys = pl.lit(_random(rows, 16, seed)).bin.encode("hex")
    referring = pl.lit('{"parent":"') + keys + pl.lit('"}')
    odd = pl.int_range(rows) % 2 == 1
    return pl.select(pl.when(odd).then(referring).otherwise(pl.lit("{}"))).to_series()


def _random(rows: int, width: int, seed: str) -> pl.Series:
    """So many random values of *width* bytes."""
    values = hashlib.shake_128(seed.encode()).digest(rows * width)
    fixed = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(width), rows, [None, pa.py_buffer(values)]
    )
    return pl.Series(fixed.cast(pa.binary()), dtype=pl.Binary)
