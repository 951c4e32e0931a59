"""The evening on which a sweep began: what missed nights have left is reckoned from it.

Revision: 0005_nights
"""

import sqlalchemy as sa
from alembic import op

revision = "0005_nights"
down_revision = "0004_suspects"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "background_sync_schedule",
        sa.Column(
            "sweep_night",
            sa.Date(),
            nullable=True,
            comment="the evening of the sweep's first slice",
        ),
        schema="bridge",
    )


def downgrade() -> None:
    op.drop_column("background_sync_schedule", "sweep_night", schema="bridge")
