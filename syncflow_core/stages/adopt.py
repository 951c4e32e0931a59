"""Adopt: take what the target already holds for known, on an entity's first batch.

Belongs here: listing a collection into ``synced_records``.
Does not belong here: deciding what differs (``delta``).

A bridge database that was lost, or a target that was filled by other means, must double nothing.

Source: product.md 4, "Known records".
"""

import dataclasses
from datetime import datetime

import polars as pl

from syncflow_core.bridge import records
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
from syncflow_core.parents import refs_expr
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

    Soft-deleted records are left out: an insert revives them.
    """
    entity = staged.shape.entity
    with connections.database.begin() as connection:
        before = load_state(connection, entity.name, entity.api)
    if before.adopted_at is not None:
        return []
    adopted = 0
    for page in connections.target.pages(entity.collection, FIELDS):
        live = page.filter(~pl.col("is_deleted").fill_null(value=False)).select(
            pl.col("erp_key_hash").alias(KEY_HASH),
            pl.col("erp_data_hash").alias(DATA_HASH),
            refs_expr(pl.col("parent_refs"), entity.parents).alias(PARENT_REFS),
            pl.col("erp_rowversion").alias(ROWVERSION),
            pl.col("uid").alias(HUB_UID),
            pl.col("erp_ref_str").alias(REFERENCE),
            pl.lit(None, dtype=pl.String).alias(KEY_SOURCE),
        )
        with connections.database.begin() as connection:
            lease.check(connection)
            records.save_acknowledged(connection, entity.name, live, staged.batch)
        adopted += live.height
        connections.progress(entity.name, "adopt", adopted, None)
    with connections.database.begin() as connection:
        lease.check(connection)
        save_state(
            connection, entity.name, entity.api, dataclasses.replace(before, adopted_at=now), now
        )
    return (
        [f"{adopted} records were in the target before the first batch; they are known now"]
        if adopted
        else []
    )
