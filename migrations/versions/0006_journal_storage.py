"""The journal's key hashes are stored as they come: hashes do not get smaller by compressing them.

Revision: 0006_journal_storage
"""

from alembic import op

revision = "0006_journal_storage"
down_revision = "0005_nights"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE bridge.push_journal ALTER COLUMN key_hashes SET STORAGE EXTERNAL")


def downgrade() -> None:
    op.execute("ALTER TABLE bridge.push_journal ALTER COLUMN key_hashes SET STORAGE EXTENDED")
