"""``syncflow reconcile``: compare records with hub and source, all or a sample.

Belongs here: choosing what is compared, printing what was found.
Does not belong here: comparing (``syncflow_core.stages.reconcile``).

Source: product.md 10 and 13.
"""

import sys
from collections.abc import Sequence

import msgspec
from rich.table import Table

from syncflow_core.bridge import plans, reconciliations
from syncflow_core.bridge.batches import Batch
from syncflow_core.bridge.reconciliations import Reconciliation
from syncflow_core.parents import lineage
from syncflow_core.printable import printable, printable_json
from syncflow_dagster.choices import refuse_unknown
from syncflow_dagster.cli.ending import run_job_to_end, tell_on_stderr
from syncflow_dagster.op_jobs import RECONCILE
from syncflow_dagster.session import session
from syncflow_dagster.terminal import console


def run(names: Sequence[str], *, sample: int, repair: bool, wait_s: float, as_json: bool) -> int:
    """Reconcile these entities, all without any; 1 where records differ, else as a sync's."""
    with session() as opened:
        refuse_unknown(names, opened.entities, opened.database)
        ended = run_job_to_end(
            opened,
            RECONCILE,
            {"entities": list(names), "sample": sample, "repair": repair, "wait_s": wait_s},
            show=not as_json,
        )
        with opened.database.begin() as connection:
            last = [
                reconciliations.last_reconciliation(connection, name)
                for name in lineage(opened.entities).order
            ]
            found = [item for item in last if item and item.dagster_run_id == ended.run.run_id]
            made = {
                plan.entity: str(plan.uid)
                for plan in plans.list_plans(connection, run_id=ended.run.run_id, limit=10_000)
            }
    for item in found:
        if as_json:
            sys.stdout.write(
                printable_json(msgspec.json.encode(_plain(item, made.get(item.entity)))) + "\n"
            )
        else:
            _show(item, made.get(item.entity))
    failed = [batch for batch in ended.run.batches if batch.status in {"failed", "stopped"}]
    if as_json:
        for batch in failed:
            sys.stdout.write(printable_json(msgspec.json.encode(_failed(batch, sample))) + "\n")
    tell_on_stderr(failed)
    return max(ended.status(failed), int(any(item.differences for item in found)))


def _show(found: Reconciliation, plan: str | None) -> None:
    screen = console()
    share = f"{found.accuracy:.4%} of {found.compared:,} records are as they must be"
    if found.kind == "sample":
        share += f" (a sample: at least {found.bound:.4%} of all, at 95 % confidence)"
    screen.print(f"\n{found.entity}: {share}", markup=False, style="bold")
    counts = [f"{name.replace('_', ' ')} {n:,}" for name, n in found.counts.items() if n]
    screen.print("  " + (", ".join(counts) or "no difference"), markup=False)
    if found.samples:
        table = Table(box=None, pad_edge=False)
        for heading in ("side", "kind", "record"):
            table.add_column(heading, overflow="fold")
        for row in found.samples:
            table.add_row(*(printable(str(row[name])) for name in ("side", "kind", "record")))
        screen.print(table)
        if found.differences > len(found.samples):
            screen.print(f"and {found.differences - len(found.samples):,} more", markup=False)
    if plan is not None and found.differences:
        hub = any(n for name, n in found.counts.items() if name.startswith("hub_"))
        if hub and not found.repaired:
            screen.print("  --repair takes over what the hub holds, so that a plan sets it right")
        # without a repair the plan knows what differs from the source alone
        if found.repaired or any(
            n for name, n in found.counts.items() if not name.startswith("hub_")
        ):
            screen.print(f"  syncflow apply {plan}", markup=False)


def _plain(found: Reconciliation, plan: str | None) -> dict[str, object]:
    return {
        "entity": found.entity,
        "kind": found.kind,
        "status": "different" if found.differences else "equal",
        "compared": found.compared,
        "counts": dict(found.counts),
        "accuracy": found.accuracy,
        "accuracy_at_least": found.bound,
        "samples": [dict(row) for row in found.samples],
        "repaired": found.repaired,
        "plan": plan,
        "error": None,
    }


def _failed(batch: Batch, sample: int) -> dict[str, object]:
    """An entity that could not be compared, with the keys of one that was."""
    return {
        "entity": batch.entity,
        "kind": "sample" if sample else "whole",
        "status": batch.status,
        "compared": 0,
        "counts": {},
        "accuracy": None,
        "accuracy_at_least": None,
        "samples": [],
        "repaired": False,
        "plan": None,
        "error": batch.error,
    }
