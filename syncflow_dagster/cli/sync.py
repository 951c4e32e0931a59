"""``syncflow sync``: run assets in this process, show how far they are, end with the right status.

Belongs here: choosing what runs, printing what came of it.
Does not belong here: the run (``launch``).

Source: design.md, "Command line"; product.md, "Accounts, statuses, exits".
"""

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from syncflow_core.bridge.batches import Batch, Counts
from syncflow_core.errors import ConfigError, SyncFlowError
from syncflow_core.parents import lineage
from syncflow_dagster.choices import Mode
from syncflow_dagster.cli.ending import (
    StoppedError,
    json_line,
    outcome_line,
    run_to_end,
    tell_on_stderr,
)
from syncflow_dagster.cli.show import batch_table
from syncflow_dagster.launch import run_sync
from syncflow_dagster.session import session


@dataclass(frozen=True)
class Choice:
    """What the arguments say."""

    names: tuple[str, ...] = ()
    every: bool = False
    full: bool = False
    incremental: bool = False
    slice_: int | None = None
    wait_s: float = 60.0
    as_json: bool = False

    @property
    def mode(self) -> Mode:
        """How to read."""
        return "full" if self.full else "incremental" if self.incremental else "auto"

    def check(self, verb: str) -> None:
        """Refuse arguments that contradict each other.

        Raises:
            ConfigError: They do.
        """
        if self.every == bool(self.names):
            both = ", not both" if self.every else ""
            raise ConfigError(f"name the entities to {verb}, or give --all{both}")
        if sum([self.full, self.incremental, self.slice_ is not None]) > 1:
            raise ConfigError("--full, --incremental and --slice exclude each other")


def run(choice: Choice) -> int:
    """Sync what was chosen; the exit status.

    With ``--json`` each entity that was named has its line, also where nothing could begin.
    """
    try:
        return _run(choice)
    except SyncFlowError as error:
        status = "stopped" if isinstance(error, StoppedError) else "failed"
        if choice.as_json:
            for name in dict.fromkeys(choice.names):
                sys.stdout.write(outcome_line(name, None, status, Counts(), {}) + "\n")
        raise


def _run(choice: Choice) -> int:
    choice.check("sync")
    with session() as opened:
        names = (
            lineage(opened.entities).order if choice.every else tuple(dict.fromkeys(choice.names))
        )
        ended = run_to_end(
            lambda: run_sync(
                opened.instance,
                opened.database,
                opened.entities,
                names,
                mode=choice.mode,
                slice_=choice.slice_,
                slices=opened.settings.slices,
                wait_s=choice.wait_s,
            ),
            show=not choice.as_json,
        )
    found = ended.run.batches
    if choice.as_json:
        for batch in with_released(found, len(names)):
            sys.stdout.write(json_line(batch) + "\n")
        sys.stdout.flush()
        tell_on_stderr(found)
    else:
        batch_table(found)
    return ended.status(found)


def with_released(batches: Sequence[Batch], entities: int) -> list[Batch]:
    """The entities' own batches, each with what the run retried and deleted for it besides."""
    lines = []
    for batch in batches[:entities]:
        beside = [other.counts for other in batches[entities:] if other.entity == batch.entity]
        counts = dataclasses.replace(
            batch.counts,
            retried=batch.counts.retried + sum(item.retried for item in beside),
            deleted=batch.counts.deleted + sum(item.deleted for item in beside),
        )
        lines.append(dataclasses.replace(batch, counts=counts))
    return lines
