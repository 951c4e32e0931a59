"""``syncflow retry``: try once more what was not delivered.

Belongs here: choosing what is tried, printing what came of it.
Does not belong here: trying (``retrying``, ``syncflow_core.stages.undelivered``).

Source: product.md 10.
"""

import dataclasses
import sys
from collections.abc import Sequence

from syncflow_core.bridge.batches import Batch
from syncflow_core.errors import ConfigError
from syncflow_dagster.choices import refuse_unknown
from syncflow_dagster.cli.session import session
from syncflow_dagster.cli.show import batch_table, console, progress_bars
from syncflow_dagster.cli.sync import (
    Signals,
    exit_status,
    json_line,
    quiet_dagster,
    tell_on_stderr,
)
from syncflow_dagster.launch import run_job
from syncflow_dagster.retrying import JOB


def run(names: Sequence[str], *, wait_s: float, as_json: bool) -> int:
    """Retry these entities, all that have something to try without any; the exit status, as a sync's."""
    quiet_dagster()
    with session() as opened:
        refuse_unknown(names, opened.entities)
        stop = Signals()
        with stop, progress_bars(show=not as_json):
            result = run_job(
                opened.instance,
                opened.database,
                opened.entities,
                JOB,
                {"entities": list(names), "wait_s": wait_s},
                slices=opened.settings.slices,
            )
    if as_json:
        for batch in _by_entity(result.batches):
            sys.stdout.write(json_line(batch) + "\n")
        tell_on_stderr(result.batches)
    elif result.batches:
        batch_table(result.batches)
    else:
        console().print("nothing is undelivered")
    if result.stopped:
        return 128 + stop.last()
    if not result.succeeded and not result.batches:
        raise ConfigError(f"run {result.run_id} failed; the Dagster UI has its log")
    return exit_status(result.batches)


def _by_entity(batches: Sequence[Batch]) -> list[Batch]:
    """One line for each entity: its own retry, and what others released for it on the way."""
    lines: dict[str, Batch] = {}
    for batch in batches:
        before = lines.get(batch.entity)
        if before is None:
            lines[batch.entity] = batch
            continue
        own = batch if exit_status([batch]) > exit_status([before]) else before
        lines[batch.entity] = dataclasses.replace(own, counts=before.counts + batch.counts)
    return list(lines.values())
