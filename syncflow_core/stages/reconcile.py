"""Reconcile: compare all that SyncFlow believes with what hub and source hold.

Belongs here: reading both sides whole, by hash; taking over what the hub really holds, so that a plan
repairs it; what was found, and the plan.
Does not belong here: telling what differs (``differences``), single records by content (``spot_check``),
pushing the repair (a plan is applied like any other, ``plan``).

What the source has that the hub has not is asked of a plan.

Source: product.md 13.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import polars as pl

from syncflow_core.bridge import plans, reconciliations, records
from syncflow_core.bridge.entities import Registered, load_registered
from syncflow_core.bridge.identifiers import new_uid
from syncflow_core.bridge.leases import Lease
from syncflow_core.bridge.plans import Plan
from syncflow_core.bridge.reconciliations import Reconciliation
from syncflow_core.columns import KEY_HASH, REFERENCE
from syncflow_core.differences import hub_differences
from syncflow_core.errors import ConfigError
from syncflow_core.stages.adopt import FIELDS, live_records
from syncflow_core.stages.plan import make_plan
from syncflow_core.stages.taken_over import hiding
from syncflow_core.stages.whole import stage
from syncflow_core.stages.work import Connections, Order, Staged

SHOWN: Final = 100
"""Differences that are kept by name."""
_KINDS: Final = {"insert": "missing", "update": "different", "delete": "extra"}


@dataclass(frozen=True)
class Reconciled:
    """What was found, and the plan that would set it right."""

    found: Reconciliation
    plan: Plan | None = None


def reconcile_whole(
    connections: Connections, order: Order, *, repair: bool, now: Callable[[], datetime]
) -> Reconciled:
    """Compare all records with the hub, and all rows of the source with both.

    Args:
        connections: Both systems, the database, the frames.
        order: A dry run of the entity, full.
        repair: Whether what the hub really holds is taken over; the plan then sets it right.
        now: The clock for what is kept.

    Returns:
        What was found, and the plan of all that is to be done.
    """
    started = now()
    name = order.entity
    with holding(connections, order) as lease:
        entity = registered(connections, name).entity
        pages = connections.target.pages(entity.collection, FIELDS)
        held = pl.concat([live_records(page, entity) for page in pages])
        hidden = hiding(connections, entity)
        expected = records.load_expected(connections.database, name)
        hub = hub_differences(expected, held)
        if repair:
            with connections.database.begin() as connection:
                lease.check(connection)
                records.mark_deleted(connection, name, hub.missing[KEY_HASH], order.batch)
                taken = hidden.known(connection, pl.concat([hub.extra, hub.different]))
                records.save_acknowledged(connection, name, taken, order.batch)
    staged = stage(connections, order, now=now)
    # an empty source never deletes, so no plan says that all of these are not there
    emptied = not staged.counts["fetched"] and entity.deletes != "ignore"
    unproven = _unproven(connections, staged)
    plan = make_plan(connections, staged, now=now)
    with connections.database.begin() as connection:
        planned = plans.load_records(connection, plan.uid)[KEY_HASH]
        if planned.is_empty():  # nobody has anything to approve
            plans.expire_plan(connection, plan.uid)
    sides = {
        "missing": hub.missing,
        "extra": hidden.shown(hub.extra),
        "different": hidden.shown(hub.different),
    }
    at_fault = [planned, unproven[KEY_HASH], *(frame[KEY_HASH] for frame in sides.values())]
    if emptied:
        at_fault.append(expected[KEY_HASH])
    compared = pl.concat([expected[KEY_HASH], held[KEY_HASH], planned]).n_unique()
    accuracy = 1 - pl.concat(at_fault).n_unique() / compared if compared else 1.0
    extra = expected.height if emptied else plan.counts["deletes"] + unproven.height
    found = Reconciliation(
        uid=new_uid(),
        entity=name,
        kind="whole",
        started_at=started,
        finished_at=now(),
        dagster_run_id=order.run_id,
        compared=compared,
        counts={
            **{f"hub_{kind}": frame.height for kind, frame in sides.items()},
            "source_missing": plan.counts["inserts"],
            "source_different": plan.counts["updates"],
            "source_extra": extra,
            "pending": plan.counts["pending"],
            "rejected": plan.counts["rejected"],
        },
        accuracy=accuracy,
        bound=accuracy,
        samples=_named(sides, plan, unproven),
        repaired=repair and any(frame.height for frame in sides.values()),
    )
    with connections.database.begin() as connection:
        reconciliations.save_reconciliation(connection, found)
    return Reconciled(found, plan)


def _unproven(connections: Connections, staged: Staged) -> pl.DataFrame:
    """Records that the source does not have, though the scan is no proof of it.

    Returns:
        ``#key_hash`` and ``#reference``.
    """
    keys = pl.Series(KEY_HASH, [], dtype=pl.Binary)
    if "unproven" in staged.frames:
        keys = connections.frames.read(staged.frames["unproven"])[KEY_HASH]
    with connections.database.begin() as connection:
        return records.load_key_sources(connection, staged.name, keys).select(KEY_HASH, REFERENCE)


def _named(
    sides: Mapping[str, pl.DataFrame], plan: Plan, unproven: pl.DataFrame
) -> list[dict[str, str]]:
    """Some of the differences, by side, kind and record."""
    # a plan has a sample for each field of a record that changes
    planned = dict.fromkeys((row["op"], row["record"]) for row in plan.samples)
    return [
        *(line for kind, frame in sides.items() for line in _lines("hub", kind, frame)),
        *({"side": "source", "kind": _KINDS[op], "record": record} for op, record in planned),
        *_lines("source", "extra", unproven),
    ]


def _lines(side: str, kind: str, frame: pl.DataFrame) -> Iterator[dict[str, str]]:
    for reference in frame[REFERENCE].head(SHOWN):
        yield {"side": side, "kind": kind, "record": reference or "(no reference)"}


@contextmanager
def holding(connections: Connections, order: Order) -> Iterator[Lease]:
    """Hold the entity, so that no sync moves what is being compared."""
    lease = Lease.acquire(
        connections.database, order.entity, run_id=order.run_id, wait_s=order.wait_s
    )
    with lease:
        yield lease


def registered(connections: Connections, name: str) -> Registered:
    """The entity as it is declared, enabled or not.

    Raises:
        ConfigError: There is none of this name.
    """
    with connections.database.begin() as connection:
        found = load_registered(connection, [name], enabled=None)
    if not found:
        raise ConfigError(f"there is no entity {name}", entity=name)
    return found[0]
