"""Records that a worker died of, perhaps; indexes by which old batches go, one index for events.

Revision: 0004_suspects
"""

import sqlalchemy as sa
from alembic import op

revision = "0004_suspects"
down_revision = "0003_collections"
branch_labels = None
depends_on = None

OF_BATCHES = [
    ("failed_records", "first_batch"),
    ("pending_children", "batch"),
    ("pending_deletes", "batch"),
    ("push_journal", "batch"),
]
"""Columns by which old batches are looked for before they go."""


def upgrade() -> None:
    op.create_table(
        "suspects",
        sa.Column("entity", sa.Text(), nullable=False),
        sa.Column("key_hash", sa.LargeBinary(), nullable=False),
        sa.Column(
            "deaths", sa.Integer(), nullable=False, comment="workers that died while sending it"
        ),
        sa.ForeignKeyConstraint(
            ["entity"], ["bridge.entities.name"], name=op.f("fk_suspects_entity_entities")
        ),
        sa.PrimaryKeyConstraint("entity", "key_hash", name=op.f("pk_suspects")),
        schema="bridge",
        comment="records that were on their way when a worker died, and did not arrive",
    )
    # one index tells a record's story and tells its lines apart: two cost a first load a tenth more
    op.drop_index("ix_record_events_story", "record_events", schema="bridge")
    op.drop_constraint("pk_record_events", "record_events", schema="bridge")
    op.create_primary_key(
        "pk_record_events", "record_events", ["entity", "key_hash", "id"], schema="bridge"
    )
    for table, column in OF_BATCHES:
        op.create_index(op.f(f"ix_{table}_{column}"), table, [column], schema="bridge")


def downgrade() -> None:
    op.drop_constraint("pk_record_events", "record_events", schema="bridge")
    op.create_primary_key("pk_record_events", "record_events", ["id"], schema="bridge")
    op.create_index(
        "ix_record_events_story", "record_events", ["entity", "key_hash", "id"], schema="bridge"
    )
    for table, column in OF_BATCHES:
        op.drop_index(op.f(f"ix_{table}_{column}"), table, schema="bridge")
    op.drop_table("suspects", schema="bridge")
