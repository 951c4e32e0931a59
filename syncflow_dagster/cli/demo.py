"""``syncflow demo``: the main job, end to end, on this machine, with proof that it is done.

Belongs here: the order of the demonstration and what it prints.
Does not belong here: syncing (``launch``), comparing (``syncflow_core.sandbox.compare``, which owes
nothing to SyncFlow's own code).

Source: product.md 10 and 11.
"""

import os
import time
from pathlib import Path

import httpx
import sqlalchemy as sa

from syncflow_core.bridge import migrate
from syncflow_core.bridge.database import Database
from syncflow_core.bridge.entities import apply_entities, load_entities
from syncflow_core.errors import ConfigError
from syncflow_core.parents import lineage
from syncflow_core.private import make_folder
from syncflow_core.sandbox import Sandbox
from syncflow_core.sandbox.compare import compare
from syncflow_core.settings import Settings, read_settings
from syncflow_dagster.cli.sandbox import start
from syncflow_dagster.cli.show import batch_table, progress_bars
from syncflow_dagster.home import DEMO_MARK, open_instance, prepare
from syncflow_dagster.launch import Run, run_sync
from syncflow_dagster.logs import quiet_dagster
from syncflow_dagster.sandbox import demo_entities, environment
from syncflow_dagster.terminal import console


def run(*, rows: int, seed: int) -> int:
    """Three syncs and a comparison; 0 when hub and ERP are equal, record by record."""
    started = time.monotonic()
    screen = console()
    os.environ["SYNCFLOW_DATABASE_URL"] = ""  # the demo empties its database: only its own
    settings = read_settings()
    _claim(settings.home_path)
    prepare(settings)
    quiet_dagster()
    with Database.open(settings) as database:
        screen.print(f"database   embedded PostgreSQL under {settings.home_path}")
        _empty(database)
        entities = demo_entities()
        with database.begin() as connection:
            apply_entities(connection, entities)
        with start(database, rows=rows, seed=seed, apismith_port=0, schedulehub_port=0) as sandbox:
            screen.print(f"APISmith   {sandbox.apismith_url} over an ERP of {rows:,} rows")
            screen.print(f"ScheduleHub {sandbox.schedulehub_url}, empty")
            os.environ.update(environment(sandbox))
            third = _three_syncs(settings, database, sandbox)
            quiet = sum(
                batch.counts.inserted + batch.counts.updated + batch.counts.deleted
                for batch in third.batches
            )
            comparison = compare(database.url)
    screen.print("\nhub and ERP, record by record", style="bold")
    screen.print(comparison.table(), markup=False)
    equal = comparison.equal and quiet == 0
    if equal:
        screen.print("\nequal: the hub holds what the ERP holds, no more, no less", style="green")
    else:
        screen.print("\nNOT EQUAL", style="red")
        if quiet:
            screen.print(f"the third sync pushed {quiet} records although nothing had changed")
    screen.print(f"{time.monotonic() - started:.1f} s in all")
    screen.print(
        "\nNext: make up (syncflow up, where it is installed), then http://127.0.0.1:3000 shows these runs in the Dagster UI"
    )
    return 0 if equal else 1


def _three_syncs(settings: Settings, database: Database, sandbox: Sandbox) -> Run:
    with database.begin() as connection:
        entities = load_entities(connection)
    names = lineage(entities).order

    def sync(title: str) -> Run:
        with open_instance(settings) as instance, progress_bars(show=True):
            result = run_sync(
                instance, database, entities, names, mode="full", slices=settings.slices
            )
        batch_table(result.batches, title=f"\n{title}")
        return result

    sync("first sync: everything is new")
    day = httpx.post(f"{sandbox.apismith_url}/sandbox/day", json={}, timeout=60, trust_env=False)
    day.raise_for_status()
    passed = day.json()
    total = {
        what: sum(counts[what] for counts in passed.values())
        for what in ("inserted", "changed", "deleted")
    }
    console().print(
        f"\na day passes in the ERP: {total['inserted']} rows inserted, {total['changed']} changed, "
        f"{total['deleted']} deleted"
    )
    sync("second sync: only the day's changes")
    return sync("third sync: nothing has changed")


def _claim(home: Path) -> None:
    """Make the home the demo's.

    Raises:
        ConfigError: Somebody's own data is there.
    """
    if home.exists() and any(home.iterdir()) and not (home / DEMO_MARK).exists():
        raise ConfigError(
            f"{home} is not the demo's, and the demo empties its home: "
            "set SYNCFLOW_HOME to another folder"
        )
    make_folder(home)
    (home / DEMO_MARK).touch()


def _empty(database: Database) -> None:
    """A database without a past: no batches, no ERP, no hub."""
    with database.begin() as connection:
        for name in ("bridge", "erp", "hub"):
            connection.execute(sa.text(f"DROP SCHEMA IF EXISTS {name} CASCADE"))
    migrate.upgrade(database.url)
