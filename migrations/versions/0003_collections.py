"""Which collection of the target a state speaks of: another one begins anew.

Revision: 0003_collections
"""

import sqlalchemy as sa
from alembic import op

revision = "0003_collections"
down_revision = "0002_plans"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "erp_sync_state",
        sa.Column("collection", sa.Text(), nullable=True, comment="the target's, as adopted"),
        schema="bridge",
    )


def downgrade() -> None:
    op.drop_column("erp_sync_state", "collection", schema="bridge")
