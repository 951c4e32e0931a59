"""One test's whole SyncFlow, driven in process or by command."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg

from syncflow_core.bridge.database import Database
from syncflow_core.bridge.entities import apply_entities, load_entities
from syncflow_core.entity import Entity
from syncflow_core.parents import lineage
from syncflow_core.sandbox import Sandbox
from syncflow_dagster.launch import Run, run_sync
from syncflow_dagster.orders import Mode

SYNCFLOW = str(Path(sys.executable).parent / "syncflow")


@dataclass
class Place:
    """Where one test's SyncFlow lives."""

    home: Path
    url: str
    database: Database
    sandbox: Sandbox
    instance: dg.DagsterInstance
    environment: dict[str, str] = field(default_factory=dict)

    def apply(self, entities: Sequence[Entity]) -> None:
        with self.database.begin() as connection:
            apply_entities(connection, entities)

    def sync(self, *names: str, mode: Mode = "full", slice_: int | None = None) -> Run:
        """Sync in this process; every entity without names."""
        with self.database.begin() as connection:
            entities = load_entities(connection)
        chosen = names or lineage(entities).order
        return run_sync(
            self.instance, self.database, entities, chosen, mode=mode, slice_=slice_, wait_s=5
        )

    def command(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run ``syncflow`` as a user does."""
        return subprocess.run(
            [SYNCFLOW, *arguments],
            env={**self.environment, **more},
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )


def lines(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


def outcome(run: Run, entity: str) -> dict[str, int]:
    """What a run's own batch of the entity counted, zeros left out."""
    batch = next(item for item in run.batches if item.entity == entity and item.kind != "retry")
    return {name: count for name, count in vars(batch.counts).items() if count}
