"""The bridge database's first shape: every table of ``syncflow_core.bridge.tables``.

Revision: 0001_bridge
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

revision = "0001_bridge"
down_revision = None
branch_labels = None
depends_on = None

TABLES = (  # in the order in which they can be dropped
    "start_requests",
    "scan_proofs",
    "push_journal",
    "plans",
    "pending_deletes",
    "pending_children",
    "leases",
    "failed_records",
    "erp_sync_state",
    "sync_batches",
    "field_mappings",
    "entity_versions",
    "background_sync_schedule",
    "target_limits",
    "synced_records",
    "record_events",
    "entities",
)


def upgrade() -> None:  # one statement per table
    op.create_table(
        "entities",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("uid", sa.Uuid(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False, comment="the version that syncs use"),
        sa.Column("enabled", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column(
            "contract",
            JSONB(),
            nullable=True,
            comment="source columns as last accepted: the schema contract",
        ),
        sa.Column(
            "created_at",
            sa.TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column(
            "updated_at",
            sa.TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_entities")),
        sa.UniqueConstraint("uid", name=op.f("uq_entities_uid")),
        schema="bridge",
        comment="entities by name; their declarations are in entity_versions and field_mappings",
    )
    op.create_table(
        "record_events",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("entity", sa.Text(), nullable=False),
        sa.Column("key_hash", sa.LargeBinary(), nullable=False),
        sa.Column("batch", sa.Uuid(), nullable=True, comment="no foreign key"),
        sa.Column("at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("detail", JSONB(none_as_null=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_record_events")),
        schema="bridge",
        comment="the history of each record, kept for a set time",
    )
    op.create_index(
        "ix_record_events_at",
        "record_events",
        ["at"],
        unique=False,
        schema="bridge",
        postgresql_using="brin",
    )
    op.create_index(
        "ix_record_events_story",
        "record_events",
        ["entity", "key_hash", "id"],
        unique=False,
        schema="bridge",
    )
    op.create_table(
        "synced_records",
        sa.Column("entity", sa.Text(), nullable=False),
        sa.Column("key_hash", sa.LargeBinary(), nullable=False, comment="16 bytes, XXH3-128"),
        sa.Column("data_hash", sa.LargeBinary(), nullable=True, comment="32 bytes, BLAKE3-256"),
        sa.Column("parent_refs", sa.Text(), nullable=True, comment="canonical JSON"),
        sa.Column("rowversion", sa.Text(), nullable=True),
        sa.Column("hub_uid", sa.Uuid(), nullable=True),
        sa.Column("reference", sa.Text(), nullable=True),
        sa.Column(
            "key_source", sa.Text(), nullable=True, comment="the key as the source sent it, JSON"
        ),
        sa.Column("deleted", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column(
            "batch",
            sa.Uuid(),
            nullable=True,
            comment="of the last acknowledged write; no foreign key",
        ),
        sa.PrimaryKeyConstraint("entity", "key_hash", name=op.f("pk_synced_records")),
        schema="bridge",
        comment="what the hub last acknowledged",
    )
    op.create_table(
        "target_limits",
        sa.Column("system", sa.Text(), nullable=False),
        sa.Column("state", JSONB(), nullable=False),
        sa.Column(
            "updated_at",
            sa.TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("system", name=op.f("pk_target_limits")),
        schema="bridge",
        comment="limiter and breaker, shared by all runs",
    )
    op.create_table(
        "background_sync_schedule",
        sa.Column("entity", sa.Text(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("window_start", sa.Time(), nullable=False),
        sa.Column("window_end", sa.Time(), nullable=False),
        sa.Column("time_zone", sa.Text(), nullable=True, comment="null: the installation's"),
        sa.Column("nights", sa.Integer(), nullable=False),
        sa.Column(
            "slice_size",
            sa.BigInteger(),
            nullable=True,
            comment="rows; computed when a sweep begins",
        ),
        sa.Column("current_offset", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("sweep_number", sa.Integer(), server_default="0", nullable=False),
        sa.Column("last_slice", sa.Integer(), nullable=True),
        sa.Column(
            "last_night",
            sa.Date(),
            nullable=True,
            comment="the evening's date of the last slice done",
        ),
        sa.Column("next_run_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column(
            "updated_at",
            sa.TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "current_offset >= 0", name=op.f("ck_background_sync_schedule_current_offset")
        ),
        sa.CheckConstraint(
            "nights BETWEEN 1 AND 366", name=op.f("ck_background_sync_schedule_nights")
        ),
        sa.ForeignKeyConstraint(
            ["entity"],
            ["bridge.entities.name"],
            name=op.f("fk_background_sync_schedule_entity_entities"),
        ),
        sa.PrimaryKeyConstraint("entity", name=op.f("pk_background_sync_schedule")),
        schema="bridge",
        comment="the night window and the sweep's progress",
    )
    op.create_table(
        "entity_versions",
        sa.Column("entity", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("declaration", JSONB(), nullable=False, comment="all but the fields"),
        sa.Column(
            "created_at",
            sa.TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["entity"], ["bridge.entities.name"], name=op.f("fk_entity_versions_entity_entities")
        ),
        sa.PrimaryKeyConstraint("entity", "version", name=op.f("pk_entity_versions")),
        schema="bridge",
        comment="each version of an entity's declaration",
    )
    op.create_table(
        "field_mappings",
        sa.Column("entity", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("target_field", sa.Text(), nullable=False),
        sa.Column("source_field", sa.Text(), nullable=True),
        sa.Column("type", sa.Text(), nullable=True),
        sa.Column("transformation", JSONB(), nullable=True),
        sa.Column("default_value", JSONB(none_as_null=True), nullable=True),
        sa.Column("required", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column(
            "options", JSONB(), nullable=False, comment="the declaration's other keys, as given"
        ),
        sa.ForeignKeyConstraint(
            ["entity", "version"],
            ["bridge.entity_versions.entity", "bridge.entity_versions.version"],
            name=op.f("fk_field_mappings_entity_version_entity_versions"),
        ),
        sa.PrimaryKeyConstraint("entity", "version", "position", name=op.f("pk_field_mappings")),
        sa.UniqueConstraint(
            "entity",
            "version",
            "target_field",
            name=op.f("uq_field_mappings_entity_version_target_field"),
        ),
        schema="bridge",
        comment="the only copy of an entity's fields, by version",
    )
    op.create_table(
        "sync_batches",
        sa.Column("uid", sa.Uuid(), nullable=False, comment="UUID version 7"),
        sa.Column("entity", sa.Text(), nullable=False),
        sa.Column("entity_version", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("dagster_run_id", sa.Text(), nullable=True),
        sa.Column(
            "partition",
            sa.Text(),
            nullable=True,
            comment="slice keys, comma separated; null for none",
        ),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("started_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("finished_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("fetched", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("normalized", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("rejected", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("inserted", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("updated", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("deleted", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("unchanged", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("pending", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("failed", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("withheld", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("withheld_deletes", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("retried", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("rows_per_second", sa.Double(), nullable=True),
        sa.Column("watermark_before", sa.Text(), nullable=True),
        sa.Column("watermark_after", sa.Text(), nullable=True),
        sa.Column("seconds", JSONB(), nullable=True, comment="by stage, and total"),
        sa.Column(
            "proof",
            JSONB(none_as_null=True),
            nullable=True,
            comment="what was known of completeness",
        ),
        sa.Column(
            "fence",
            sa.BigInteger(),
            nullable=True,
            comment="the lease's number that this batch wrote under",
        ),
        sa.Column("error", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "kind IN ('full', 'incremental', 'slice', 'retry', 'plan', 'adopt')",
            name=op.f("ck_sync_batches_kind"),
        ),
        sa.CheckConstraint(
            "status IN ('pending', 'running', 'completed', 'partial', 'withheld', 'failed', 'stopped')",
            name=op.f("ck_sync_batches_status"),
        ),
        sa.ForeignKeyConstraint(
            ["entity", "entity_version"],
            ["bridge.entity_versions.entity", "bridge.entity_versions.version"],
            name=op.f("fk_sync_batches_entity_entity_version_entity_versions"),
        ),
        sa.ForeignKeyConstraint(
            ["entity"], ["bridge.entities.name"], name=op.f("fk_sync_batches_entity_entities")
        ),
        sa.PrimaryKeyConstraint("uid", name=op.f("pk_sync_batches")),
        schema="bridge",
        comment="one row per execution of one entity",
    )
    op.create_index(
        "ix_sync_batches_dagster_run_id",
        "sync_batches",
        ["dagster_run_id"],
        unique=False,
        schema="bridge",
    )
    op.create_index(
        "ix_sync_batches_history",
        "sync_batches",
        ["entity", sa.literal_column("started_at DESC")],
        unique=False,
        schema="bridge",
    )
    op.create_index(
        "ix_sync_batches_live",
        "sync_batches",
        ["entity"],
        unique=False,
        schema="bridge",
        postgresql_where=sa.text("status IN ('pending', 'running')"),
    )
    op.create_index(
        "ix_sync_batches_started_at",
        "sync_batches",
        [sa.literal_column("started_at DESC")],
        unique=False,
        schema="bridge",
    )
    op.create_table(
        "erp_sync_state",
        sa.Column("entity", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False, comment="APISmith's slug"),
        sa.Column("watermark", sa.Text(), nullable=True, comment="last rowversion acknowledged"),
        sa.Column("last_full_scan_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("last_batch", sa.Uuid(), nullable=True),
        sa.Column("adopted_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column(
            "encoding_version",
            sa.Integer(),
            nullable=True,
            comment="of the hashes in synced_records",
        ),
        sa.Column(
            "entity_version", sa.Integer(), nullable=True, comment="of the hashes in synced_records"
        ),
        sa.Column("counts", JSONB(none_as_null=True), nullable=True),
        sa.Column(
            "updated_at",
            sa.TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["entity"], ["bridge.entities.name"], name=op.f("fk_erp_sync_state_entity_entities")
        ),
        sa.ForeignKeyConstraint(
            ["last_batch"],
            ["bridge.sync_batches.uid"],
            name=op.f("fk_erp_sync_state_last_batch_sync_batches"),
        ),
        sa.PrimaryKeyConstraint("entity", "source", name=op.f("pk_erp_sync_state")),
        schema="bridge",
        comment="how far an entity has come",
    )
    op.create_table(
        "failed_records",
        sa.Column("uid", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("entity", sa.Text(), nullable=False),
        sa.Column(
            "key_hash",
            sa.LargeBinary(),
            nullable=True,
            comment="16 bytes; null where there is no usable key",
        ),
        sa.Column(
            "raw_digest",
            sa.LargeBinary(),
            nullable=True,
            comment="digest of the raw row where there is no key",
        ),
        sa.Column("reference", sa.Text(), nullable=True),
        sa.Column("stage", sa.Text(), nullable=False),
        sa.Column("layer", sa.SmallInteger(), nullable=True),
        sa.Column("rule", sa.Text(), nullable=False),
        sa.Column("column_name", sa.Text(), nullable=True),
        sa.Column("value", sa.Text(), nullable=True),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("raw", sa.Text(), nullable=True, comment="the row as the source sent it, JSON"),
        sa.Column("attempts", sa.Integer(), server_default="1", nullable=False),
        sa.Column("due_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("first_batch", sa.Uuid(), nullable=True),
        sa.Column("last_batch", sa.Uuid(), nullable=True),
        sa.Column("first_seen", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("last_seen", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("resolved_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("resolution", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "(resolved_at IS NULL) = (resolution IS NULL)", name=op.f("ck_failed_records_resolved")
        ),
        sa.CheckConstraint(
            "key_hash IS NOT NULL OR raw_digest IS NOT NULL", name=op.f("ck_failed_records_named")
        ),
        sa.ForeignKeyConstraint(
            ["entity"], ["bridge.entities.name"], name=op.f("fk_failed_records_entity_entities")
        ),
        sa.ForeignKeyConstraint(
            ["first_batch"],
            ["bridge.sync_batches.uid"],
            name=op.f("fk_failed_records_first_batch_sync_batches"),
        ),
        sa.ForeignKeyConstraint(
            ["last_batch"],
            ["bridge.sync_batches.uid"],
            name=op.f("fk_failed_records_last_batch_sync_batches"),
        ),
        sa.PrimaryKeyConstraint("uid", name=op.f("pk_failed_records")),
        schema="bridge",
        comment="dead letters: one open row per (entity, key hash or raw digest)",
    )
    op.create_index(
        "ix_failed_records_due",
        "failed_records",
        ["entity", "due_at"],
        unique=False,
        schema="bridge",
        postgresql_where=sa.text("resolved_at IS NULL"),
    )
    op.create_index(
        "ix_failed_records_last_batch",
        "failed_records",
        ["last_batch"],
        unique=False,
        schema="bridge",
    )
    op.create_index(
        "uq_failed_records_open",
        "failed_records",
        ["entity", sa.literal_column("coalesce(key_hash, raw_digest)")],
        unique=True,
        schema="bridge",
        postgresql_where=sa.text("resolved_at IS NULL"),
    )
    op.create_table(
        "leases",
        sa.Column("entity", sa.Text(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False, comment="host, process and run, for people"),
        sa.Column(
            "backend_pid",
            sa.Integer(),
            nullable=True,
            comment="of the session that holds the advisory lock",
        ),
        sa.Column("batch", sa.Uuid(), nullable=True),
        sa.Column("dagster_run_id", sa.Text(), nullable=True),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("acquired_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("heartbeat_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("released_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["batch"], ["bridge.sync_batches.uid"], name=op.f("fk_leases_batch_sync_batches")
        ),
        sa.ForeignKeyConstraint(
            ["entity"], ["bridge.entities.name"], name=op.f("fk_leases_entity_entities")
        ),
        sa.PrimaryKeyConstraint("entity", name=op.f("pk_leases")),
        schema="bridge",
        comment="who syncs an entity; the advisory lock decides, this row informs and fences",
    )
    op.create_table(
        "pending_children",
        sa.Column("uid", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("entity", sa.Text(), nullable=False),
        sa.Column("key_hash", sa.LargeBinary(), nullable=False),
        sa.Column("reference_name", sa.Text(), nullable=False),
        sa.Column("parent_entity", sa.Text(), nullable=False),
        sa.Column("parent_key_hash", sa.LargeBinary(), nullable=False),
        sa.Column("reference", sa.Text(), nullable=True),
        sa.Column(
            "key_source", sa.Text(), nullable=True, comment="the key as the source sent it, JSON"
        ),
        sa.Column(
            "payload", sa.Text(), nullable=False, comment="the record without parent_refs, JSON"
        ),
        sa.Column(
            "parent_refs", sa.Text(), nullable=True, comment="as they ought to be, canonical JSON"
        ),
        sa.Column("data_hash", sa.LargeBinary(), nullable=True),
        sa.Column("rowversion", sa.Text(), nullable=True),
        sa.Column(
            "kind",
            sa.Text(),
            nullable=False,
            comment="deferred: the record is in the hub, only this reference is not",
        ),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("due_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("state", sa.Text(), server_default="waiting", nullable=False),
        sa.Column("batch", sa.Uuid(), nullable=True),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("updated_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.CheckConstraint("kind IN ('parked', 'deferred')", name=op.f("ck_pending_children_kind")),
        sa.CheckConstraint(
            "state IN ('waiting', 'released', 'dead', 'cancelled')",
            name=op.f("ck_pending_children_state"),
        ),
        sa.ForeignKeyConstraint(
            ["batch"],
            ["bridge.sync_batches.uid"],
            name=op.f("fk_pending_children_batch_sync_batches"),
        ),
        sa.ForeignKeyConstraint(
            ["entity"], ["bridge.entities.name"], name=op.f("fk_pending_children_entity_entities")
        ),
        sa.ForeignKeyConstraint(
            ["parent_entity"],
            ["bridge.entities.name"],
            name=op.f("fk_pending_children_parent_entity_entities"),
        ),
        sa.PrimaryKeyConstraint("uid", name=op.f("pk_pending_children")),
        schema="bridge",
        comment="children whose parent is not in the hub yet; one line per missing reference",
    )
    op.create_index(
        "ix_pending_children_due",
        "pending_children",
        ["entity", "due_at"],
        unique=False,
        schema="bridge",
        postgresql_where=sa.text("state = 'waiting'"),
    )
    op.create_index(
        "ix_pending_children_parent",
        "pending_children",
        ["parent_entity", "parent_key_hash"],
        unique=False,
        schema="bridge",
        postgresql_where=sa.text("state IN ('waiting', 'dead')"),
    )
    op.create_index(
        "uq_pending_children_open",
        "pending_children",
        ["entity", "key_hash", "reference_name"],
        unique=True,
        schema="bridge",
        postgresql_where=sa.text("state IN ('waiting', 'dead')"),
    )
    op.create_table(
        "pending_deletes",
        sa.Column("entity", sa.Text(), nullable=False),
        sa.Column("key_hash", sa.LargeBinary(), nullable=False),
        sa.Column("hub_uid", sa.Uuid(), nullable=True),
        sa.Column("batch", sa.Uuid(), nullable=True),
        sa.Column(
            "created_at",
            sa.TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["batch"],
            ["bridge.sync_batches.uid"],
            name=op.f("fk_pending_deletes_batch_sync_batches"),
        ),
        sa.ForeignKeyConstraint(
            ["entity"], ["bridge.entities.name"], name=op.f("fk_pending_deletes_entity_entities")
        ),
        sa.PrimaryKeyConstraint("entity", "key_hash", name=op.f("pk_pending_deletes")),
        schema="bridge",
        comment="deletes that wait until the record's children are gone",
    )
    op.create_table(
        "plans",
        sa.Column("uid", sa.Uuid(), nullable=False),
        sa.Column("entity", sa.Text(), nullable=False),
        sa.Column("batch", sa.Uuid(), nullable=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), server_default="open", nullable=False),
        sa.Column("counts", JSONB(), nullable=False),
        sa.Column(
            "ceiling",
            JSONB(none_as_null=True),
            nullable=True,
            comment="what the approval allows at most",
        ),
        sa.Column("samples", JSONB(none_as_null=True), nullable=True),
        sa.Column(
            "created_at",
            sa.TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("approved_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("approved_by", sa.Text(), nullable=True),
        sa.Column("applied_batch", sa.Uuid(), nullable=True),
        sa.CheckConstraint(
            "status IN ('open', 'approved', 'applied', 'expired')", name=op.f("ck_plans_status")
        ),
        sa.ForeignKeyConstraint(
            ["applied_batch"],
            ["bridge.sync_batches.uid"],
            name=op.f("fk_plans_applied_batch_sync_batches"),
        ),
        sa.ForeignKeyConstraint(
            ["batch"], ["bridge.sync_batches.uid"], name=op.f("fk_plans_batch_sync_batches")
        ),
        sa.ForeignKeyConstraint(
            ["entity"], ["bridge.entities.name"], name=op.f("fk_plans_entity_entities")
        ),
        sa.PrimaryKeyConstraint("uid", name=op.f("pk_plans")),
        schema="bridge",
        comment="what a batch would do, or withheld, until a person has decided",
    )
    op.create_index(
        "ix_plans_entity_status", "plans", ["entity", "status"], unique=False, schema="bridge"
    )
    op.create_table(
        "push_journal",
        sa.Column("uid", sa.Uuid(), nullable=False),
        sa.Column("entity", sa.Text(), nullable=False),
        sa.Column("batch", sa.Uuid(), nullable=True),
        sa.Column("op", sa.Text(), nullable=False),
        sa.Column("key_hashes", ARRAY(sa.LargeBinary()), nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=True),
        sa.Column(
            "opened_at",
            sa.TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("closed_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.CheckConstraint("op IN ('insert', 'update', 'delete')", name=op.f("ck_push_journal_op")),
        sa.CheckConstraint(
            "outcome IN ('done', 'settled', 'failed')", name=op.f("ck_push_journal_outcome")
        ),
        sa.CheckConstraint(
            "(closed_at IS NULL) = (outcome IS NULL)", name=op.f("ck_push_journal_closed")
        ),
        sa.ForeignKeyConstraint(
            ["batch"], ["bridge.sync_batches.uid"], name=op.f("fk_push_journal_batch_sync_batches")
        ),
        sa.ForeignKeyConstraint(
            ["entity"], ["bridge.entities.name"], name=op.f("fk_push_journal_entity_entities")
        ),
        sa.PrimaryKeyConstraint("uid", name=op.f("pk_push_journal")),
        schema="bridge",
        comment="intents of write calls; what is open after a crash is in doubt",
    )
    op.create_index(
        "ix_push_journal_open",
        "push_journal",
        ["entity"],
        unique=False,
        schema="bridge",
        postgresql_where=sa.text("closed_at IS NULL"),
    )
    op.create_table(
        "scan_proofs",
        sa.Column("batch", sa.Uuid(), nullable=False),
        sa.Column(
            "slice", sa.Integer(), autoincrement=False, nullable=False, comment="0: no slices"
        ),
        sa.Column("declared_total", sa.BigInteger(), nullable=True),
        sa.Column("counted", sa.BigInteger(), nullable=False),
        sa.Column("final_total", sa.BigInteger(), nullable=True),
        sa.Column("pages", sa.Integer(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=True),
        sa.Column("complete", sa.Boolean(), nullable=False),
        sa.Column("note", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["batch"], ["bridge.sync_batches.uid"], name=op.f("fk_scan_proofs_batch_sync_batches")
        ),
        sa.PrimaryKeyConstraint("batch", "slice", name=op.f("pk_scan_proofs")),
        schema="bridge",
        comment="whether a scan saw everything, and why not",
    )
    op.create_table(
        "start_requests",
        sa.Column("idempotency_key", sa.Text(), nullable=False),
        sa.Column("body_digest", sa.LargeBinary(), nullable=False),
        sa.Column("batch", sa.Uuid(), nullable=True),
        sa.Column(
            "created_at",
            sa.TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["batch"],
            ["bridge.sync_batches.uid"],
            name=op.f("fk_start_requests_batch_sync_batches"),
        ),
        sa.PrimaryKeyConstraint("idempotency_key", name=op.f("pk_start_requests")),
        schema="bridge",
        comment="starts asked for with an Idempotency-Key",
    )


def downgrade() -> None:
    for table in TABLES:
        op.drop_table(table, schema="bridge")
