"""What a provable delta needs: plans record by record, sweeps, contracts by version, reconciliations.

Revision: 0002_plans
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0002_plans"
down_revision = "0001_bridge"
branch_labels = None
depends_on = None

TABLES = (  # in the order in which they can be dropped
    "reconciliations",
    "installation",
    "sweep_slices",
    "entity_contracts",
    "plan_records",
)


def _at(name: str, *, nullable: bool = False, now: bool = False) -> sa.Column:
    default = sa.text("now()") if now else None
    return sa.Column(name, sa.TIMESTAMP(timezone=True), server_default=default, nullable=nullable)


def upgrade() -> None:
    op.add_column(
        "synced_records",
        sa.Column(
            "hub_hash",
            sa.LargeBinary(),
            nullable=True,
            comment="what the hub shows, where data_hash was recomputed since it was sent",
        ),
        schema="bridge",
    )
    op.add_column(
        "synced_records",
        sa.Column(
            "field_digests",
            sa.LargeBinary(),
            nullable=True,
            comment="two bytes of the fields' layout, then two of each value, by name",
        ),
        schema="bridge",
    )
    op.add_column(
        "entities",
        sa.Column("contract_version", sa.Integer(), nullable=True),
        schema="bridge",
    )
    op.add_column("plans", sa.Column("dagster_run_id", sa.Text(), nullable=True), schema="bridge")
    op.add_column("plans", sa.Column("reason", sa.Text(), nullable=True), schema="bridge")
    op.create_check_constraint(
        op.f("ck_plans_kind"), "plans", "kind IN ('sync', 'withheld')", schema="bridge"
    )
    op.create_table(
        "plan_records",
        sa.Column("plan", sa.Uuid(), nullable=False),
        sa.Column("key_hash", sa.LargeBinary(), nullable=False),
        sa.Column("op", sa.Text(), nullable=False),
        sa.Column("reference", sa.Text(), nullable=True),
        sa.Column("data_hash", sa.LargeBinary(), nullable=True),
        sa.Column("parent_refs", sa.Text(), nullable=True),
        sa.CheckConstraint("op IN ('insert', 'update', 'delete')", name=op.f("ck_plan_records_op")),
        sa.ForeignKeyConstraint(
            ["plan"],
            ["bridge.plans.uid"],
            name=op.f("fk_plan_records_plan_plans"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("plan", "key_hash", name=op.f("pk_plan_records")),
        schema="bridge",
        comment="what an open plan would write, record by record",
    )
    op.create_table(
        "entity_contracts",
        sa.Column("entity", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("columns", JSONB(), nullable=False, comment="source columns, name to type"),
        sa.Column("change", sa.Text(), nullable=False, comment="against the version before"),
        _at("accepted_at"),
        sa.ForeignKeyConstraint(
            ["entity"], ["bridge.entities.name"], name=op.f("fk_entity_contracts_entity_entities")
        ),
        sa.PrimaryKeyConstraint("entity", "version", name=op.f("pk_entity_contracts")),
        schema="bridge",
        comment="each version of an entity's schema contract",
    )
    op.create_table(
        "sweep_slices",
        sa.Column("entity", sa.Text(), nullable=False),
        sa.Column("slice", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("slices", sa.Integer(), nullable=False, comment="how many make the sweep"),
        sa.Column("batch", sa.Uuid(), nullable=False),
        sa.Column("counted", sa.BigInteger(), nullable=False),
        sa.Column("complete", sa.Boolean(), nullable=False),
        sa.Column("unkeyed", sa.BigInteger(), nullable=False, comment="rows without readable key"),
        sa.Column("key_hashes", sa.LargeBinary(), nullable=False, comment="16 bytes each"),
        sa.Column("head", JSONB(), nullable=False, comment="first keys as the source sent them"),
        sa.Column("tail", JSONB(), nullable=False, comment="last keys as the source sent them"),
        _at("finished_at"),
        sa.ForeignKeyConstraint(
            ["batch"],
            ["bridge.sync_batches.uid"],
            name=op.f("fk_sweep_slices_batch_sync_batches"),
        ),
        sa.ForeignKeyConstraint(
            ["entity"], ["bridge.entities.name"], name=op.f("fk_sweep_slices_entity_entities")
        ),
        sa.PrimaryKeyConstraint("entity", "slice", name=op.f("pk_sweep_slices")),
        schema="bridge",
        comment="what the slices of the sweep under way have seen",
    )
    op.create_table(
        "installation",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("place", sa.Text(), nullable=False, comment="server, time line and database"),
        sa.Column("written_by", sa.BigInteger(), nullable=False, comment="xmin of this very row"),
        _at("noted_at", now=True),
        sa.CheckConstraint("id = 1", name=op.f("ck_installation_one")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_installation")),
        schema="bridge",
        comment="tells this database from a copy of it that was restored",
    )
    op.create_table(
        "reconciliations",
        sa.Column("uid", sa.Uuid(), nullable=False),
        sa.Column("entity", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        _at("started_at"),
        _at("finished_at"),
        sa.Column("dagster_run_id", sa.Text(), nullable=True),
        sa.Column("compared", sa.BigInteger(), nullable=False),
        sa.Column("counts", JSONB(), nullable=False, comment="differences by side and kind"),
        sa.Column("accuracy", sa.Double(), nullable=False),
        sa.Column("bound", sa.Double(), nullable=False, comment="lower, at 95 % confidence"),
        sa.Column("samples", JSONB(), nullable=False),
        sa.Column("repaired", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.CheckConstraint("kind IN ('whole', 'sample')", name=op.f("ck_reconciliations_kind")),
        sa.ForeignKeyConstraint(
            ["entity"], ["bridge.entities.name"], name=op.f("fk_reconciliations_entity_entities")
        ),
        sa.PrimaryKeyConstraint("uid", name=op.f("pk_reconciliations")),
        schema="bridge",
        comment="how records compared with hub and source",
    )
    op.create_index(
        "ix_reconciliations_history",
        "reconciliations",
        ["entity", sa.text("started_at DESC")],
        schema="bridge",
    )


def downgrade() -> None:
    for table in TABLES:
        op.drop_table(table, schema="bridge")
    op.drop_constraint(op.f("ck_plans_kind"), "plans", schema="bridge")
    op.drop_column("plans", "reason", schema="bridge")
    op.drop_column("plans", "dagster_run_id", schema="bridge")
    op.drop_column("entities", "contract_version", schema="bridge")
    op.drop_column("synced_records", "field_digests", schema="bridge")
    op.drop_column("synced_records", "hub_hash", schema="bridge")
