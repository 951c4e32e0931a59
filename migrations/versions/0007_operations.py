"""What operators and programs need: calls by batch, alerts that were told, the answer of a start;
the key of a dead letter whose row hides it.

Revision: 0007_operations
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0007_operations"
down_revision = "0006_journal_storage"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "sync_batches",
        sa.Column("calls", JSONB(none_as_null=True), comment="HTTP calls by system, and waits"),
        schema="bridge",
    )
    op.add_column(
        "start_requests",
        sa.Column("answer", JSONB(none_as_null=True), comment="what the first one was told"),
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
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False, comment="an entity, a system, a window"),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("since", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("told_at", sa.TIMESTAMP(timezone=True)),
        sa.PrimaryKeyConstraint("kind", "subject", name="pk_alerts"),
        schema="bridge",
        comment="what is wrong now, each told once (told_at null: not yet)",
    )


def downgrade() -> None:
    op.drop_table("alerts", schema="bridge")
    op.drop_column("failed_records", "key_source", schema="bridge")
    op.drop_column("start_requests", "answer", schema="bridge")
    op.drop_column("sync_batches", "calls", schema="bridge")
