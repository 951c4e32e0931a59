"""``syncflow plan`` and ``syncflow apply``: what a sync would do, and yes to it.

Belongs here: choosing what is planned, printing plans.
Does not belong here: making and applying them (``planning``, ``syncflow_core.stages.plan``).

Source: product.md 4 and 10.
"""

import getpass
import sys
from collections import Counter
from collections.abc import Sequence
from uuid import UUID

import msgspec
from rich.table import Table

from syncflow_core.bridge import plans
from syncflow_core.bridge.batches import Batch
from syncflow_core.bridge.database import Database
from syncflow_core.bridge.plans import Plan
from syncflow_core.errors import ConfigError
from syncflow_core.printable import printable, printable_json
from syncflow_core.settings import read_settings
from syncflow_dagster.choices import refuse_slice, refuse_unknown
from syncflow_dagster.cli.ending import json_line, run_job_to_end, tell_on_stderr
from syncflow_dagster.cli.show import batch_table
from syncflow_dagster.cli.sync import Choice
from syncflow_dagster.clock import utc_now
from syncflow_dagster.logs import log_to_stderr
from syncflow_dagster.op_jobs import APPLY, PLAN
from syncflow_dagster.planning import SAMPLE_COLUMNS
from syncflow_dagster.session import session
from syncflow_dagster.terminal import console

COUNTS = ("inserts", "updates", "deletes", "pending", "unchanged", "rejected", "fetched", "known")


def run(choice: Choice) -> int:
    """Plan what was chosen and print the plans; the exit status, as a sync's."""
    choice.check("plan")
    with session() as opened:
        refuse_unknown(choice.names, opened.entities, opened.database)
        refuse_slice(choice.slice_, opened.settings.slices)
        ended = run_job_to_end(
            opened,
            PLAN,
            {
                "entities": list(choice.names),
                "mode": choice.mode,
                "slice": choice.slice_ or 0,
                "wait_s": choice.wait_s,
            },
            show=not choice.as_json,
        )
        with opened.database.begin() as connection:
            made = plans.list_plans(connection, run_id=ended.run.run_id, kind="sync", limit=10_000)
    made.reverse()
    _print(made, as_json=choice.as_json)
    planned = {plan.batch for plan in made}
    failed = [batch for batch in ended.run.batches if batch.uid not in planned]
    if choice.as_json:
        for batch in failed:
            sys.stdout.write(printable_json(msgspec.json.encode(_failed(batch))) + "\n")
    tell_on_stderr(failed)
    return ended.status(failed)


def show(texts: Sequence[str], *, as_json: bool) -> None:
    """Print these plans, or all that are open."""
    settings = read_settings()
    log_to_stderr(settings)
    with Database.open(settings) as database:
        database.check_schema()
        with database.begin() as connection:
            found = (
                [plans.load_plan(connection, uid_of(text)) for text in texts]
                if texts
                else plans.list_plans(connection)
            )
    if not found and not as_json:
        console().print("no plan is open (syncflow plan ENTITY... makes one)")
    _print(found, as_json=as_json)


def apply(texts: Sequence[str], *, wait_s: float, as_json: bool) -> int:
    """Approve these plans and do what they say; the exit status, as a sync's."""
    uids = list(dict.fromkeys(uid_of(text) for text in texts))
    with session() as opened:
        with opened.database.begin() as connection:
            for uid in uids:  # said here at once what the run would say in its log
                plans.approve_plan(connection, uid, by=_who(), now=utc_now())
        ended = run_job_to_end(
            opened,
            APPLY,
            {"plans": [str(uid) for uid in uids], "approved_by": _who(), "wait_s": wait_s},
            show=not as_json,
        )
    found = ended.run.batches
    if as_json:
        for batch in found:
            if batch.kind != "retry":
                sys.stdout.write(json_line(batch) + "\n")
        tell_on_stderr(found)
    elif found:
        batch_table(found)
    return ended.status(found)


def uid_of(text: str) -> UUID:
    """The plan's uid.

    Raises:
        ConfigError: The text is none.
    """
    try:
        return UUID(text)
    except ValueError as error:
        raise ConfigError(f"{text!r} is no plan's id (syncflow plan lists them)") from error


def is_uid(text: str) -> bool:
    """Whether the text is a plan's id and no entity's name."""
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def _who() -> str:
    return getpass.getuser()


def _print(found: Sequence[Plan], *, as_json: bool) -> None:
    if as_json:
        for plan in found:
            sys.stdout.write(printable_json(msgspec.json.encode(_plain(plan))) + "\n")
        return
    for plan in found:
        _print_one(plan)


def _print_one(plan: Plan) -> None:
    screen = console()
    screen.print(
        f"\n{plan.entity}  plan {plan.uid}  {plan.kind}, {plan.status}",
        markup=False,
        style="bold",
    )
    shown = [f"{name} {plan.counts[name]:,}" for name in COUNTS if plan.counts.get(name)]
    if not _does_anything(plan):
        shown.insert(0, "nothing to do")
    screen.print("  " + ", ".join(shown), markup=False)
    if plan.reason:
        screen.print(f"  {printable(plan.reason)}", markup=False, style="dim")
    if plan.samples:
        table = Table(box=None, pad_edge=False)
        for heading in SAMPLE_COLUMNS:
            table.add_column(heading, overflow="fold")
        for row in plan.samples:
            table.add_row(*(printable(str(row.get(name) or "")) for name in SAMPLE_COLUMNS))
        screen.print(table)
        if left := _beyond(plan):
            screen.print(f"  and {left}", markup=False)
    if plan.status == "open" and _does_anything(plan):
        screen.print(f"  syncflow apply {plan.uid}", markup=False)


def _does_anything(plan: Plan) -> bool:
    return any(plan.counts.get(name) for name in ("inserts", "updates", "deletes", "pending"))


def _beyond(plan: Plan) -> str:
    """How many records of each operation the samples leave out."""
    shown = Counter({(str(row["op"]), str(row["record"])) for row in plan.samples})
    ops = Counter(op for op, _ in shown)
    left = {op: plan.counts.get(f"{op}s", 0) - ops[op] for op in ("insert", "update", "delete")}
    return ", ".join(f"{number:,} more {op}s" for op, number in left.items() if number > 0)


def _failed(batch: Batch) -> dict[str, object]:
    """An entity without a plan, with the keys that one has."""
    return {
        "entity": batch.entity,
        "plan": None,
        "kind": "sync",
        "status": batch.status,
        "counts": {},
        "samples": [],
        "reason": batch.error,
        "batch": str(batch.uid),
        "created_at": batch.started_at.isoformat(),
    }


def _plain(plan: Plan) -> dict[str, object]:
    return {
        "entity": plan.entity,
        "plan": str(plan.uid),
        "kind": plan.kind,
        "status": plan.status,
        "counts": dict(plan.counts),
        "samples": [dict(row) for row in plan.samples],
        "reason": plan.reason,
        "batch": None if plan.batch is None else str(plan.batch),
        "created_at": plan.created_at.isoformat(),
    }
