"""Records that were on their way when a worker died, so that none of them kills one again and again.

Revision: 0004_suspects
"""

import sqlalchemy as sa
from alembic import op

revision = "0004_suspects"
down_revision = "0003_collections"
branch_labels = None
depends_on = None


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


def downgrade() -> None:
    op.drop_table("suspects", schema="bridge")
