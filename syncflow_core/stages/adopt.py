"""Adopt: take what the target already holds for known, on an entity's first batch.

Belongs here: listing a collection into ``synced_records``.
Does not belong here: deciding what differs (``delta``).

A bridge database that was lost, or a target that was filled by other means, must double nothing.

Source: product.md 4, "Known records".
"""

import dataclasses
from datetime import datetime

import polars as pl

from syncflow_core.bridge import pending, plans, records
from syncflow_core.bridge.installation import notice_restore
from syncflow_core.bridge.leases import Lease
from syncflow_core.bridge.state import load_state, save_state
from syncflow_core.columns import (
    DATA_HASH,
    HUB_UID,
    KEY_HASH,
    KEY_SOURCE,
    PARENT_REFS,
    REFERENCE,
    ROWVERSION,
)
from syncflow_core.delta import gone
from syncflow_core.entity import Entity
from syncflow_core.parents import refs_expr
from syncflow_core.stages.taken_over import hiding
from syncflow_core.stages.work import Connections, Staged

FIELDS = (
    "uid",
    "erp_key_hash",
    "erp_data_hash",
    "erp_rowversion",
    "erp_ref_str",
    "parent_refs",
    "is_deleted",
)


def adopt(connections: Connections, staged: Staged, lease: Lease, now: datetime) -> list[str]:
    """Make ``synced_records`` hold the target's records, once in an entity's life; say how many.

    Once more after the bridge database was restored from a copy: then what it knows of the target is
    out of date; and where the entity goes to another collection now: the old one's records stay there,
    and are this entity's no more. Soft-deleted records are left out, an insert revives them; records without a key hash
    were made by nobody who knows the ERP, and stay as they are.
    """
    entity = staged.shape.entity
    with connections.database.begin() as connection:
        restored = notice_restore(connection, now)
        before = load_state(connection, entity.name, entity.api)
    moved = not before.speaks_of(entity.collection)
    if before.adopted_at is not None and not moved:
        return []
    adopted, foreign = 0, 0
    listed = [pl.Series(KEY_HASH, [], dtype=pl.Binary)]
    hidden = hiding(connections, entity, staged.shape)
    for page in connections.target.pages(entity.collection, FIELDS):
        foreign += page["erp_key_hash"].null_count()
        live = live_records(page, entity)
        with connections.database.begin() as connection:
            lease.check(connection)
            known_now = hidden.known(connection, live)
            records.save_acknowledged(connection, entity.name, known_now, staged.batch)
        adopted += live.height
        listed.append(live[KEY_HASH])
        connections.progress(entity.name, "adopt", adopted, None)
    known = records.load_known(connections.database, entity.name)
    absent = gone(known, pl.concat(listed))[KEY_HASH]
    with connections.database.begin() as connection:
        lease.check(connection)
        if len(absent):
            records.mark_deleted(connection, entity.name, absent, staged.batch)
        if moved:
            plans.expire_plans(connection, entity.name, "withheld")
            pending.cancel_deletes(connection, entity.name, absent)
        after = dataclasses.replace(before, adopted_at=now, collection=entity.collection)
        save_state(connection, entity.name, entity.api, after, now)
    notes = []
    if moved:
        notes.append(
            f"the collection is {entity.collection} now, it was {before.collection}: what was sent "
            f"there stays and is left alone, {adopted} records were here before"
        )
    elif restored or before.last_batch is not None:
        notes.append(
            f"the bridge database was restored from a copy: the target's {adopted} records were "
            f"taken over anew, {len(absent)} that the copy knew are not there"
        )
    elif adopted:
        notes.append(
            f"{adopted} records were in the target before the first batch; they are known now"
        )
    if foreign:
        notes.append(f"{foreign} records of the target have no key hash; they are left alone")
    return notes


def live_records(page: pl.DataFrame, entity: Entity) -> pl.DataFrame:
    """The records of a listed page that are alive and have a key, as ``save_acknowledged`` takes them."""
    keyed = pl.col("erp_key_hash").is_not_null()
    return page.filter(keyed & ~pl.col("is_deleted").fill_null(value=False)).select(
        pl.col("erp_key_hash").alias(KEY_HASH),
        pl.col("erp_data_hash").alias(DATA_HASH),
        refs_expr(pl.col("parent_refs"), entity.parents).alias(PARENT_REFS),
        pl.col("erp_rowversion").alias(ROWVERSION),
        pl.col("uid").alias(HUB_UID),
        pl.col("erp_ref_str").alias(REFERENCE),
        pl.lit(None, dtype=pl.String).alias(KEY_SOURCE),
    )
