"""Spot check: compare what source and hub hold of some records, drawn by chance.

Belongs here: asking both sides for single records; taking over what the hub really holds of those that
differ, so that a plan repairs them; what was found.
Does not belong here: telling what differs (``differences``), all records by hash (``reconcile``).

It compares content, so it sees too what was changed in the hub behind its hash.

Source: product.md 13.
"""

import secrets
from collections.abc import Callable
from datetime import datetime

import polars as pl
import sqlalchemy as sa

from syncflow_core.accuracy import lower_bound
from syncflow_core.bridge import batches, reconciliations, records
from syncflow_core.bridge.batches import Counts
from syncflow_core.bridge.identifiers import new_uid
from syncflow_core.bridge.reconciliations import Reconciliation
from syncflow_core.columns import DATA_HASH, KEY_HASH, KEY_SOURCE, PARENT_REFS, REFERENCE, ROW
from syncflow_core.content import content_hashes
from syncflow_core.contract import agree
from syncflow_core.differences import sample_verdicts
from syncflow_core.fields import Shape, shape_of
from syncflow_core.identity import add_identity, split_duplicates
from syncflow_core.keys import keys_of, source_keys, with_plain_references
from syncflow_core.normalize import normalize
from syncflow_core.parents import refs_text
from syncflow_core.schedulehub import BATCH_LIMIT
from syncflow_core.stages.reconcile import SHOWN, Reconciled, holding, registered
from syncflow_core.stages.work import Connections, Order


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
    with holding(connections, order) as lease:
        known = registered(connections, order.entity)
        with connections.database.begin() as connection:
            batches.open_batch(
                connection,
                uid=order.batch,
                entity=order.entity,
                entity_version=known.version,
                kind="plan",
                now=started,
                dagster_run_id=order.run_id,
                fence=lease.fence,
            )
        entity = known.entity
        api = connections.source.describe(entity.api)
        if known.contract is not None:
            agree(known.contract, api, entity)
        shape = shape_of(entity, api)
        sample = _drawn(connections, shape, size)
        rows, rejected = _source_rows(connections, shape, sample)
        held = _held_by_hub(connections, shape, sample)
    judged = sample_verdicts(
        sample.filter(~pl.col(KEY_HASH).is_in(rejected.implode())),
        rows,
        held,
        deletes_ignored=entity.deletes == "ignore",
    )
    wrong = judged.filter(pl.col("#wrong").is_not_null())
    if repair:
        with holding(connections, order) as lease, connections.database.begin() as connection:
            lease.check(connection)
            _take_over(connection, order, wrong)
    counts = dict(wrong["#wrong"].value_counts().iter_rows())
    right = judged.height - wrong.height
    found = Reconciliation(
        uid=new_uid(),
        entity=order.entity,
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
            "rejected": sample.height - judged.height,
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


def _take_over(connection: sa.Connection, order: Order, wrong: pl.DataFrame) -> None:
    """Know of these records what the hub holds by content, whatever hash it shows."""
    there = wrong.filter(pl.col("#hub").is_not_null()).select(
        KEY_HASH, pl.col("#hub").alias(DATA_HASH), pl.col("#hub_refs").alias(PARENT_REFS)
    )
    records.save_acknowledged(connection, order.entity, there, order.batch)
    missing = wrong.filter(pl.col("#hub").is_null())[KEY_HASH]
    records.mark_deleted(connection, order.entity, missing, order.batch)


def _drawn(connections: Connections, shape: Shape, size: int) -> pl.DataFrame:
    """Known records by chance: those whose key can be spelled for the source."""
    expected = records.load_expected(connections.database, shape.entity.name)
    sample = expected.sample(min(size, expected.height), seed=secrets.randbelow(2**32))
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
    rows = connections.source.look_up(shape.api, keys).frame.with_row_index(ROW)
    result = normalize(rows, shape)
    # of several rows of one key the one that a sync takes
    found = split_duplicates(add_identity(result.accepted, shape), shape)
    refused = rows.filter(pl.col(ROW).is_in(result.rejected[ROW].implode()))
    return found.kept.select(KEY_HASH, DATA_HASH), keys_of(refused, shape)[KEY_HASH]


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
