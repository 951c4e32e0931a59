"""What operators and programs need: calls by batch, totals of batches, alerts that were told, answers of
starts, lists by page; the key of a dead letter whose row hides it.

Revision: 0007_operations
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

revision = "0007_operations"
down_revision = "0006_journal_storage"
branch_labels = None
depends_on = None

PAGED = {"failed_records": "last_seen", "pending_children": "created_at"}
"""Tables that are looked through page by page, and what they are sorted by."""


def upgrade() -> None:
    op.add_column(
        "sync_batches",
        sa.Column("calls", JSONB(none_as_null=True), comment="HTTP calls by system, and waits"),
        schema="bridge",
    )
    op.add_column(
        "sync_batches",
        sa.Column(
            "totalled",
            sa.Boolean,
            nullable=False,
            server_default=sa.text("false"),
            comment="whether metric_totals has its accounts",
        ),
        schema="bridge",
    )
    op.create_index(
        "ix_sync_batches_untotalled",
        "sync_batches",
        ["finished_at"],
        schema="bridge",
        postgresql_where=sa.text("NOT totalled AND finished_at IS NOT NULL"),
    )
    op.create_table(
        "metric_totals",
        sa.Column("entity", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("labels", ARRAY(sa.Text), nullable=False),
        sa.Column("numbers", ARRAY(sa.Double), nullable=False),
        sa.ForeignKeyConstraint(
            ["entity"], ["bridge.entities.name"], name="fk_metric_totals_entity_entities"
        ),
        sa.PrimaryKeyConstraint("entity", "name", "labels", name="pk_metric_totals"),
        schema="bridge",
        comment="accounts of all batches that ever ended, those too that are forgotten",
    )
    op.add_column(
        "erp_sync_state",
        sa.Column(
            "watermark_at",
            sa.TIMESTAMP(timezone=True),
            comment="the watermark's moment, where it is a timestamp",
        ),
        schema="bridge",
    )
    op.add_column(
        "start_requests",
        sa.Column("answer", JSONB(none_as_null=True), comment="what the first one was told"),
        schema="bridge",
    )
    for table, moment in PAGED.items():
        op.create_index(
            f"ix_{table}_page",
            table,
            [sa.text(f"{moment} DESC"), sa.text("uid DESC")],
            schema="bridge",
        )
    op.add_column(
        "failed_records",
        sa.Column(
            "key_source",
            sa.Text,
            comment="the key as the source sent it, where raw does not tell it",
        ),
        schema="bridge",
    )
    op.create_table(
        "alerts",
        sa.Column("uid", sa.Uuid, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False, comment="an entity or a system"),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("since", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("ended_at", sa.TIMESTAMP(timezone=True), comment="null: it is wrong now"),
        sa.Column("batch", sa.Uuid, comment="no foreign key"),
        sa.Column("dagster_run_id", sa.Text),
        sa.Column(
            "told",
            JSONB,
            nullable=False,
            server_default=sa.text("'{}'::jsonb"),
            comment="when each notifier took each change: 'webhook firing' to the time",
        ),
        sa.PrimaryKeyConstraint("uid", name="pk_alerts"),
        schema="bridge",
        comment="what is wrong now, and what was and has not been told to be over",
    )
    op.create_index(
        "uq_alerts_open",
        "alerts",
        ["kind", "subject"],
        unique=True,
        schema="bridge",
        postgresql_where=sa.text("ended_at IS NULL"),
    )
    op.create_index(
        "ix_sync_batches_scans",
        "sync_batches",
        ["entity", sa.text("started_at DESC")],
        schema="bridge",
        postgresql_where=sa.text("kind IN ('full', 'slice')"),
    )
    _say("rows of the largest slice that the sweep has read")


def _say(comment: str) -> None:
    op.alter_column("background_sync_schedule", "slice_size", comment=comment, schema="bridge")


def downgrade() -> None:
    _say("rows; computed when a sweep begins")
    for table in PAGED:
        op.drop_index(f"ix_{table}_page", table, schema="bridge")
    op.drop_index("ix_sync_batches_scans", "sync_batches", schema="bridge")
    op.drop_table("alerts", schema="bridge")
    op.drop_column("failed_records", "key_source", schema="bridge")
    op.drop_column("start_requests", "answer", schema="bridge")
    op.drop_column("erp_sync_state", "watermark_at", schema="bridge")
    op.drop_table("metric_totals", schema="bridge")
    op.drop_index("ix_sync_batches_untotalled", "sync_batches", schema="bridge")
    op.drop_column("sync_batches", "totalled", schema="bridge")
    op.drop_column("sync_batches", "calls", schema="bridge")
