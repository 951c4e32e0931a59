"""Reconcile: compare what SyncFlow believes with what hub and source hold, whole or by a sample.

Belongs here: finding what is missing, extra or different, by record; taking over what the hub really
holds, so that a plan repairs it.
Does not belong here: pushing the repair (a plan is applied like any other, ``plan``).

The whole compares every record's key hash, data hash and references with the hub's, and asks a plan
what the source has that the hub has not. A sample asks both sides for single records and compares
their content, so it sees too what was changed in the hub behind its hash.

Source: product.md 13.
"""

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import polars as pl
import sqlalchemy as sa

from syncflow_core.accuracy import lower_bound
from syncflow_core.bridge import batches, plans, reconciliations, records
from syncflow_core.bridge.batches import Counts
from syncflow_core.bridge.entities import Registered, load_registered
from syncflow_core.bridge.identifiers import new_uid
from syncflow_core.bridge.leases import Lease
from syncflow_core.bridge.plans import Plan
from syncflow_core.bridge.reconciliations import Reconciliation
from syncflow_core.columns import (
    DATA_HASH,
    KEY_HASH,
    KEY_SOURCE,
    PARENT_REFS,
    REFERENCE,
    ROW,
)
from syncflow_core.content import content_hashes
from syncflow_core.contract import agree
from syncflow_core.errors import ConfigError
from syncflow_core.fields import Shape, shape_of
from syncflow_core.identity import add_identity, split_duplicates
from syncflow_core.keys import keys_of, source_keys, with_plain_references
from syncflow_core.normalize import normalize
from syncflow_core.parents import refs_text
from syncflow_core.schedulehub import BATCH_LIMIT
from syncflow_core.stages.adopt import FIELDS, live_records
from syncflow_core.stages.plan import make_plan
from syncflow_core.stages.taken_over import hiding
from syncflow_core.stages.whole import stage
from syncflow_core.stages.work import Connections, Order, Staged

SHOWN: Final = 100
"""Differences that are kept by name."""


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
    with _held(connections, order) as lease:
        entity = _registered(connections, name).entity
        held = pl.concat(
            [
                live_records(page, entity)
                for page in connections.target.pages(entity.collection, FIELDS)
            ]
        )
        hidden = hiding(connections, entity)
        expected = records.load_expected(connections.database, name)
        missing = expected.join(held, on=KEY_HASH, how="anti")
        extra = held.join(expected, on=KEY_HASH, how="anti")
        both = held.join(
            expected.select(
                KEY_HASH,
                pl.col(DATA_HASH).alias("#expected_hash"),
                pl.col(PARENT_REFS).alias("#expected_refs"),
            ),
            on=KEY_HASH,
        )
        different = both.filter(
            pl.col(DATA_HASH).ne_missing(pl.col("#expected_hash"))
            | pl.col(PARENT_REFS).ne_missing(pl.col("#expected_refs"))
        ).select(held.columns)
        if repair:
            with connections.database.begin() as connection:
                lease.check(connection)
                records.mark_deleted(connection, name, missing[KEY_HASH], order.batch)
                taken = hidden.known(connection, pl.concat([extra, different]))
                records.save_acknowledged(connection, name, taken, order.batch)
    staged = stage(connections, order, now=now)
    # an empty source never deletes, so no plan says that all of these are not there
    emptied = not staged.counts["fetched"] and entity.deletes != "ignore"
    unproven = _unproven(connections, staged)
    plan = make_plan(connections, staged, now=now)
    with connections.database.begin() as connection:
        planned = plans.load_records(connection, plan.uid)[KEY_HASH]
    sides = {
        "missing": missing,
        "extra": hidden.shown(extra),
        "different": hidden.shown(different),
    }
    at_fault = [planned, unproven[KEY_HASH], *(frame[KEY_HASH] for frame in sides.values())]
    if emptied:
        at_fault.append(expected[KEY_HASH])
    wrong = pl.concat(at_fault).n_unique()
    compared = pl.concat([expected[KEY_HASH], held[KEY_HASH], planned]).n_unique()
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
            "source_extra": expected.height
            if emptied
            else plan.counts["deletes"] + unproven.height,
            "pending": plan.counts["pending"],
            "rejected": plan.counts["rejected"],
        },
        accuracy=1 - wrong / compared if compared else 1.0,
        bound=1 - wrong / compared if compared else 1.0,
        samples=[
            {"side": "hub", "kind": kind, "record": reference or "(no reference)"}
            for kind, frame in sides.items()
            for reference in frame[REFERENCE].head(SHOWN)
        ]
        + [
            {"side": "source", "kind": _KINDS[row["op"]], "record": row["record"]}
            for row in plan.samples
        ]
        + [
            {"side": "source", "kind": "extra", "record": reference or "(no reference)"}
            for reference in unproven[REFERENCE].head(SHOWN)
        ],
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


_KINDS: Final = {"insert": "missing", "update": "different", "delete": "extra"}


def reconcile_sample(
    connections: Connections,
    order: Order,
    size: int,
    *,
    now: Callable[[], datetime],
    repair: bool = False,
) -> Reconciled:
    """Ask source and hub for some records, drawn by chance, and compare what they hold.

    Args:
        connections: Both systems and the database.
        order: The entity, and the batch that is on record for it; nothing is read but the sample.
        size: Records to draw.
        now: The clock for what is kept.
        repair: Whether what the hub really holds of those that differ is taken over; a plan that is made
            then sets them right.
    """
    started = now()
    name = order.entity
    with _held(connections, order) as lease:
        registered = _registered(connections, name)
        with connections.database.begin() as connection:
            batches.open_batch(
                connection,
                uid=order.batch,
                entity=name,
                entity_version=registered.version,
                kind="plan",
                now=started,
                dagster_run_id=order.run_id,
                fence=lease.fence,
            )
        entity = registered.entity
        api = connections.source.describe(entity.api)
        if registered.contract is not None:
            agree(registered.contract, api, entity)
        shape = shape_of(entity, api)
        expected = records.load_expected(connections.database, name)
        seed = secrets.randbelow(2**32)
        sample = _askable(expected.sample(min(size, expected.height), seed=seed), shape)
        rows, rejected = _source_rows(connections, shape, sample)
        held = _held_by_hub(connections, shape, sample)
    ignored = entity.deletes == "ignore"
    judged = (
        sample.select(KEY_HASH, REFERENCE, pl.col(PARENT_REFS).alias("#refs"))
        .join(rows.rename({DATA_HASH: "#source"}), on=KEY_HASH, how="left")
        .join(held.rename({DATA_HASH: "#hub"}), on=KEY_HASH, how="left")
        .filter(~pl.col(KEY_HASH).is_in(rejected.implode()))
        .with_columns(
            pl.when(pl.col("#hub").is_null() & pl.col("#source").is_null())
            .then(None)
            .when(pl.col("#hub").is_null())
            .then(pl.lit("hub_missing"))
            .when(pl.col("#source").is_null())
            .then(None if ignored else pl.lit("source_extra"))
            .when(pl.col("#hub") != pl.col("#source"))
            .then(pl.lit("source_different"))
            .when(pl.col("#refs").ne_missing(pl.col("#hub_refs")))
            .then(pl.lit("hub_different"))
            .alias("#wrong")
        )
    )
    wrong = judged.filter(pl.col("#wrong").is_not_null())
    if repair:
        with _held(connections, order) as lease, connections.database.begin() as connection:
            lease.check(connection)
            _take_over(connection, order, wrong)
    counts = dict(wrong["#wrong"].value_counts().iter_rows())
    right = judged.height - wrong.height
    found = Reconciliation(
        uid=new_uid(),
        entity=name,
        kind="sample",
        started_at=started,
        finished_at=now(),
        dagster_run_id=order.run_id,
        compared=judged.height,
        counts={
            **{
                f"{side}_{kind}": counts.get(f"{side}_{kind}", 0)
                for side in ("hub", "source")
                for kind in ("missing", "extra", "different")
            },
            "pending": 0,
            "rejected": len(rejected),
        },
        accuracy=right / judged.height if judged.height else 1.0,
        bound=lower_bound(right, judged.height),
        samples=[
            dict(zip(("side", "kind"), kind.split("_"), strict=True)) | {"record": reference}
            for kind, reference in wrong.select("#wrong", REFERENCE).head(SHOWN).iter_rows()
        ],
        repaired=repair and wrong.height > 0,
    )
    with connections.database.begin() as connection:
        reconciliations.save_reconciliation(connection, found)
        batches.close_batch(
            connection,
            order.batch,
            "completed",
            Counts(),
            now=now(),
            calls=connections.tally.take(order.batch),
        )
    return Reconciled(found)


@contextmanager
def _held(connections: Connections, order: Order) -> Iterator[Lease]:
    """Hold the entity, so that no sync moves what is being compared."""
    lease = Lease.acquire(
        connections.database, order.entity, run_id=order.run_id, wait_s=order.wait_s
    )
    with lease:
        yield lease


def _registered(connections: Connections, name: str) -> Registered:
    with connections.database.begin() as connection:
        found = load_registered(connection, [name], enabled=None)
    if not found:
        raise ConfigError(f"there is no entity {name}", entity=name)
    return found[0]


def _take_over(connection: sa.Connection, order: Order, wrong: pl.DataFrame) -> None:
    """Know of these records what the hub holds by content, whatever hash it shows."""
    there = wrong.filter(pl.col("#hub").is_not_null()).select(
        KEY_HASH, pl.col("#hub").alias(DATA_HASH), pl.col("#hub_refs").alias(PARENT_REFS)
    )
    records.save_acknowledged(connection, order.entity, there, order.batch)
    missing = wrong.filter(pl.col("#hub").is_null())[KEY_HASH]
    records.mark_deleted(connection, order.entity, missing, order.batch)


def _askable(sample: pl.DataFrame, shape: Shape) -> pl.DataFrame:
    """The records whose key can be spelled for the source."""
    named = with_plain_references(sample, shape).select(KEY_SOURCE, REFERENCE).iter_rows()
    askable = [bool(source_keys(text, reference, shape)) for text, reference in named]
    return sample.filter(pl.Series(askable, dtype=pl.Boolean))


def _source_rows(
    connections: Connections, shape: Shape, sample: pl.DataFrame
) -> tuple[pl.DataFrame, pl.Series]:
    """``#key_hash`` and ``#data_hash`` of the sampled records' rows now; keys of those rejected."""
    named = with_plain_references(sample, shape).select(KEY_SOURCE, REFERENCE)
    keys = [
        key for text, reference in named.iter_rows() for key in source_keys(text, reference, shape)
    ]
    rows = connections.source.look_up(shape.api, keys).frame.unique().with_row_index(ROW)
    result = normalize(rows, shape)
    found = split_duplicates(add_identity(result.accepted, shape), shape)
    refused = rows.filter(pl.col(ROW).is_in(result.rejected[ROW].implode()))
    rejected = keys_of(refused, shape)[KEY_HASH]
    return found.kept.select(KEY_HASH, DATA_HASH), rejected


def _held_by_hub(connections: Connections, shape: Shape, sample: pl.DataFrame) -> pl.DataFrame:
    """``#key_hash``, ``#data_hash`` by content and ``#hub_refs`` of the records alive in the hub."""
    keys = sample[KEY_HASH]
    held = [
        record
        for at in range(0, len(keys), BATCH_LIMIT)
        for record in connections.target.query(
            shape.entity.collection, keys[at : at + BATCH_LIMIT].to_list()
        )
        if not record.is_deleted
    ]
    hashes = content_hashes([record.fields for record in held], shape)
    return pl.DataFrame(
        {
            KEY_HASH: pl.Series([record.key_hash for record in held], dtype=pl.Binary),
            DATA_HASH: hashes[DATA_HASH],
            "#hub_refs": pl.Series(
                [refs_text(record.parent_refs, shape.entity.parents) for record in held],
                dtype=pl.String,
            ),
        }
    )
