"""``syncflow retry``: try once more what was not delivered.

Belongs here: choosing what is tried, printing what came of it.
Does not belong here: trying (``retrying``, ``syncflow_core.stages.undelivered``).

Source: product.md 10.
"""

import dataclasses
import sys
from collections.abc import Sequence

from syncflow_core.bridge.batches import Batch
from syncflow_dagster.choices import refuse_unknown
from syncflow_dagster.cli.ending import exit_status, json_line, run_job_to_end, tell_on_stderr
from syncflow_dagster.cli.show import batch_table
from syncflow_dagster.op_jobs import RETRY
from syncflow_dagster.session import session
from syncflow_dagster.terminal import console


def run(names: Sequence[str], *, wait_s: float, as_json: bool) -> int:
    """Retry these entities, all that have something to try without any; the exit status, as a sync's."""
    with session() as opened:
        refuse_unknown(names, opened.entities, opened.database)
        ended = run_job_to_end(
            opened, RETRY, {"entities": list(names), "wait_s": wait_s}, show=not as_json
        )
    found = ended.run.batches
    if as_json:
        for batch in _by_entity(found):
            sys.stdout.write(json_line(batch) + "\n")
        tell_on_stderr(found)
    elif any(map(_did_anything, found)):
        batch_table(found)
    elif ended.run.succeeded:
        console().print("nothing is undelivered")
    return ended.status(found)


def _did_anything(batch: Batch) -> bool:
    notes = (batch.proof or {}).get("notes")
    return bool(batch.error or notes or any(dataclasses.astuple(batch.counts)))


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
