"""The ten tables that product.md names, and those that only complete one of them.

Two take a line per record and carry no foreign keys: ``synced_records`` and ``record_events``. A
foreign key is a trigger per row, which costs seconds per million; their ``entity`` and ``batch``
come from a lease that was checked in the same transaction.
"""

from typing import Final, get_args

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from syncflow_core.bridge.tables.shapes import (
    at_column,
    batch_column,
    count_column,
    entity_column,
    metadata,
    one_of,
)
from syncflow_core.bridge.tables.words import BatchKind, BatchStatus, ChildKind, ChildState

COUNTS: Final = (
    "fetched",
    "normalized",
    "rejected",
    "inserted",
    "updated",
    "deleted",
    "unchanged",
    "pending",
    "failed",
    "withheld",
    "withheld_deletes",
    "retried",
)
"""The count columns of ``sync_batches``."""


entities = sa.Table(
    "entities",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("uid", sa.Uuid, nullable=False, unique=True),
    sa.Column("version", sa.Integer, nullable=False, comment="the version that syncs use"),
    sa.Column("enabled", sa.Boolean, nullable=False, server_default=sa.text("true")),
    sa.Column("contract", JSONB, comment="source columns as last accepted: the schema contract"),
    sa.Column("contract_version", sa.Integer),
    at_column("created_at", now=True),
    at_column("updated_at", now=True),
    comment="entities by name; their declarations are in entity_versions and field_mappings",
)

entity_versions = sa.Table(
    "entity_versions",
    metadata,
    entity_column(primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("declaration", JSONB, nullable=False, comment="all but the fields"),
    at_column("created_at", now=True),
    comment="each version of an entity's declaration",
)

entity_contracts = sa.Table(
    "entity_contracts",
    metadata,
    entity_column(primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("columns", JSONB, nullable=False, comment="source columns, name to type"),
    sa.Column("change", sa.Text, nullable=False, comment="against the version before"),
    at_column("accepted_at"),
    comment="each version of an entity's schema contract",
)

field_mappings = sa.Table(
    "field_mappings",
    metadata,
    sa.Column("entity", sa.Text, primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("target_field", sa.Text, nullable=False),
    sa.Column("source_field", sa.Text),
    sa.Column("type", sa.Text),
    sa.Column("transformation", JSONB),
    sa.Column("default_value", JSONB(none_as_null=True)),
    sa.Column("required", sa.Boolean, nullable=False, server_default=sa.text("false")),
    sa.Column("options", JSONB, nullable=False, comment="the declaration's other keys, as given"),
    sa.ForeignKeyConstraint(
        ["entity", "version"], ["bridge.entity_versions.entity", "bridge.entity_versions.version"]
    ),
    sa.UniqueConstraint("entity", "version", "target_field"),
    comment="the only copy of an entity's fields, by version",
)

sync_batches = sa.Table(
    "sync_batches",
    metadata,
    sa.Column("uid", sa.Uuid, primary_key=True, comment="UUID version 7"),
    entity_column(nullable=False),
    sa.Column("entity_version", sa.Integer, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("dagster_run_id", sa.Text),
    sa.Column("partition", sa.Text, comment="slice keys, comma separated; null for none"),
    sa.Column("status", sa.Text, nullable=False),
    at_column("started_at"),
    at_column("finished_at", nullable=True),
    *(count_column(name) for name in COUNTS),
    sa.Column("rows_per_second", sa.Double),
    sa.Column("watermark_before", sa.Text),
    sa.Column("watermark_after", sa.Text),
    sa.Column("seconds", JSONB, comment="by stage, and total"),
    sa.Column("proof", JSONB(none_as_null=True), comment="what was known of completeness"),
    sa.Column("fence", sa.BigInteger, comment="the lease's number that this batch wrote under"),
    sa.Column("error", sa.Text),
    sa.Column("calls", JSONB(none_as_null=True), comment="HTTP calls by system, and waits"),
    sa.Column(
        "totalled",
        sa.Boolean,
        nullable=False,
        server_default=sa.text("false"),
        comment="whether metric_totals has its accounts",
    ),
    one_of("kind", get_args(BatchKind)),
    one_of("status", get_args(BatchStatus)),
    sa.ForeignKeyConstraint(
        ["entity", "entity_version"],
        ["bridge.entity_versions.entity", "bridge.entity_versions.version"],
    ),
    sa.Index("ix_sync_batches_history", "entity", sa.text("started_at DESC")),
    sa.Index(
        "ix_sync_batches_scans",
        "entity",
        sa.text("started_at DESC"),
        postgresql_where=sa.text("kind IN ('full', 'slice')"),
    ),
    sa.Index("ix_sync_batches_started_at", sa.text("started_at DESC")),
    sa.Index("ix_sync_batches_dagster_run_id", "dagster_run_id"),
    sa.Index(
        "ix_sync_batches_live",
        "entity",
        postgresql_where=sa.text("status IN ('pending', 'running')"),
    ),
    sa.Index(
        "ix_sync_batches_untotalled",
        "finished_at",
        postgresql_where=sa.text("NOT totalled AND finished_at IS NOT NULL"),
    ),
    comment="one row per execution of one entity",
)

failed_records = sa.Table(
    "failed_records",
    metadata,
    sa.Column("uid", sa.Uuid, primary_key=True, server_default=sa.text("gen_random_uuid()")),
    entity_column(nullable=False),
    sa.Column("key_hash", sa.LargeBinary, comment="16 bytes; null where there is no usable key"),
    sa.Column("raw_digest", sa.LargeBinary, comment="digest of the raw row where there is no key"),
    sa.Column("reference", sa.Text),
    sa.Column("stage", sa.Text, nullable=False),
    sa.Column("layer", sa.SmallInteger),
    sa.Column("rule", sa.Text, nullable=False),
    sa.Column("column_name", sa.Text),
    sa.Column("value", sa.Text),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("raw", sa.Text, comment="the row as the source sent it, JSON"),
    sa.Column(
        "key_source", sa.Text, comment="the key as the source sent it, where raw does not tell it"
    ),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="1"),
    at_column("due_at", nullable=True),
    batch_column("first_batch", index=True),
    batch_column("last_batch"),
    at_column("first_seen"),
    at_column("last_seen"),
    at_column("resolved_at", nullable=True),
    sa.Column("resolution", sa.Text),
    sa.CheckConstraint("key_hash IS NOT NULL OR raw_digest IS NOT NULL", name="named"),
    sa.CheckConstraint("(resolved_at IS NULL) = (resolution IS NULL)", name="resolved"),
    sa.Index(
        "uq_failed_records_open",
        "entity",
        sa.text("coalesce(key_hash, raw_digest)"),
        unique=True,
        postgresql_where=sa.text("resolved_at IS NULL"),
    ),
    sa.Index(
        "ix_failed_records_due",
        "entity",
        "due_at",
        postgresql_where=sa.text("resolved_at IS NULL"),
    ),
    sa.Index("ix_failed_records_last_batch", "last_batch"),
    sa.Index("ix_failed_records_page", sa.text("last_seen DESC"), sa.text("uid DESC")),
    comment="dead letters: one open row per (entity, key hash or raw digest)",
)

pending_children = sa.Table(
    "pending_children",
    metadata,
    sa.Column("uid", sa.Uuid, primary_key=True, server_default=sa.text("gen_random_uuid()")),
    entity_column(nullable=False),
    sa.Column("key_hash", sa.LargeBinary, nullable=False),
    sa.Column("reference_name", sa.Text, nullable=False),
    sa.Column("parent_entity", sa.Text, sa.ForeignKey("bridge.entities.name"), nullable=False),
    sa.Column("parent_key_hash", sa.LargeBinary, nullable=False),
    sa.Column("reference", sa.Text),
    sa.Column("key_source", sa.Text, comment="the key as the source sent it, JSON"),
    sa.Column("payload", sa.Text, nullable=False, comment="the record without parent_refs, JSON"),
    sa.Column("parent_refs", sa.Text, comment="as they ought to be, canonical JSON"),
    sa.Column("data_hash", sa.LargeBinary),
    sa.Column("rowversion", sa.Text),
    sa.Column(
        "kind",
        sa.Text,
        nullable=False,
        comment="deferred: the record is in the hub, only this reference is not",
    ),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    at_column("due_at", nullable=True),
    sa.Column("state", sa.Text, nullable=False, server_default="waiting"),
    batch_column("batch", index=True),
    at_column("created_at"),
    at_column("updated_at"),
    one_of("kind", get_args(ChildKind)),
    one_of("state", get_args(ChildState)),
    sa.Index(
        "uq_pending_children_open",
        "entity",
        "key_hash",
        "reference_name",
        unique=True,
        postgresql_where=sa.text("state IN ('waiting', 'dead')"),
    ),
    sa.Index(
        "ix_pending_children_parent",
        "parent_entity",
        "parent_key_hash",
        postgresql_where=sa.text("state IN ('waiting', 'dead')"),
    ),
    sa.Index(
        "ix_pending_children_due",
        "entity",
        "due_at",
        postgresql_where=sa.text("state = 'waiting'"),
    ),
    sa.Index("ix_pending_children_page", sa.text("created_at DESC"), sa.text("uid DESC")),
    comment="children whose parent is not in the hub yet; one line per missing reference",
)

pending_deletes = sa.Table(
    "pending_deletes",
    metadata,
    entity_column(primary_key=True),
    sa.Column("key_hash", sa.LargeBinary, primary_key=True),
    sa.Column("hub_uid", sa.Uuid),
    batch_column("batch", index=True),
    at_column("created_at", now=True),
    comment="deletes that wait until the record's children are gone",
)

erp_sync_state = sa.Table(
    "erp_sync_state",
    metadata,
    entity_column(primary_key=True),
    sa.Column("source", sa.Text, primary_key=True, comment="APISmith's slug"),
    sa.Column("watermark", sa.Text, comment="last rowversion acknowledged"),
    sa.Column(
        "watermark_at",
        sa.TIMESTAMP(timezone=True),
        comment="the watermark's moment, where it is a timestamp",
    ),
    at_column("last_full_scan_at", nullable=True),
    batch_column("last_batch"),
    at_column("adopted_at", nullable=True),
    sa.Column("collection", sa.Text, comment="the target's, as adopted"),
    sa.Column("encoding_version", sa.Integer, comment="of the hashes in synced_records"),
    sa.Column("entity_version", sa.Integer, comment="of the hashes in synced_records"),
    sa.Column("counts", JSONB(none_as_null=True)),
    at_column("updated_at", now=True),
    comment="how far an entity has come",
)

background_sync_schedule = sa.Table(
    "background_sync_schedule",
    metadata,
    entity_column(primary_key=True),
    sa.Column("enabled", sa.Boolean, nullable=False),
    sa.Column("window_start", sa.Time, nullable=False),
    sa.Column("window_end", sa.Time, nullable=False),
    sa.Column("time_zone", sa.Text, comment="null: the installation's"),
    sa.Column("nights", sa.Integer, nullable=False),
    sa.Column(
        "slice_size", sa.BigInteger, comment="rows of the largest slice that the sweep has read"
    ),
    sa.Column("current_offset", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("sweep_number", sa.Integer, nullable=False, server_default="0"),
    sa.Column("last_slice", sa.Integer),
    sa.Column("last_night", sa.Date, comment="the evening's date of the last slice done"),
    sa.Column("sweep_night", sa.Date, comment="the evening of the sweep's first slice"),
    at_column("next_run_at", nullable=True),
    at_column("updated_at", now=True),
    sa.CheckConstraint("nights BETWEEN 1 AND 366", name="nights"),
    sa.CheckConstraint("current_offset >= 0", name="current_offset"),
    comment="the night window and the sweep's progress",
)

synced_records = sa.Table(
    "synced_records",
    metadata,
    sa.Column("entity", sa.Text, primary_key=True),
    sa.Column("key_hash", sa.LargeBinary, primary_key=True, comment="16 bytes, XXH3-128"),
    sa.Column("data_hash", sa.LargeBinary, comment="32 bytes, BLAKE3-256"),
    sa.Column("parent_refs", sa.Text, comment="canonical JSON"),
    sa.Column("rowversion", sa.Text),
    sa.Column("hub_uid", sa.Uuid),
    sa.Column("reference", sa.Text),
    sa.Column("key_source", sa.Text, comment="the key as the source sent it, JSON"),
    sa.Column("deleted", sa.Boolean, nullable=False, server_default=sa.text("false")),
    sa.Column("batch", sa.Uuid, comment="of the last acknowledged write; no foreign key"),
    sa.Column(
        "hub_hash",
        sa.LargeBinary,
        comment="what the hub shows, where data_hash was recomputed since it was sent",
    ),
    sa.Column(
        "field_digests",
        sa.LargeBinary,
        comment="two bytes of the fields' layout, then two of each value, by name",
    ),
    comment="what the hub last acknowledged",
)

push_journal = sa.Table(
    "push_journal",
    metadata,
    sa.Column("uid", sa.Uuid, primary_key=True),
    entity_column(nullable=False),
    batch_column("batch", index=True),
    sa.Column("op", sa.Text, nullable=False),
    sa.Column("key_hashes", ARRAY(sa.LargeBinary), nullable=False),
    sa.Column("fence", sa.BigInteger),
    at_column("opened_at", now=True),
    at_column("closed_at", nullable=True),
    sa.Column("outcome", sa.Text),
    one_of("op", ("insert", "update", "delete")),
    one_of("outcome", ("done", "settled", "failed")),
    sa.CheckConstraint("(closed_at IS NULL) = (outcome IS NULL)", name="closed"),
    sa.Index("ix_push_journal_open", "entity", postgresql_where=sa.text("closed_at IS NULL")),
    comment="intents of write calls; what is open after a crash is in doubt",
)

record_events = sa.Table(
    "record_events",
    metadata,
    sa.Column("entity", sa.Text, primary_key=True),
    sa.Column("key_hash", sa.LargeBinary, primary_key=True),
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("batch", sa.Uuid, comment="no foreign key"),
    at_column("at"),
    sa.Column("event", sa.Text, nullable=False),
    sa.Column("detail", JSONB(none_as_null=True)),
    sa.Index("ix_record_events_at", "at", postgresql_using="brin"),
    comment="the history of each record, kept for a set time",
)
