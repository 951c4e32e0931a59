"""The tables beside the ten: plans, proofs, sweeps, leases, limits, suspects, what was compared, totals."""

from typing import get_args

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from syncflow_core.bridge.tables.shapes import (
    at_column,
    batch_column,
    entity_column,
    metadata,
    one_of,
)
from syncflow_core.bridge.tables.words import PlanKind, PlanStatus

plans = sa.Table(
    "plans",
    metadata,
    sa.Column("uid", sa.Uuid, primary_key=True),
    entity_column(nullable=False),
    batch_column("batch"),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False, server_default="open"),
    sa.Column("counts", JSONB, nullable=False),
    sa.Column("ceiling", JSONB(none_as_null=True), comment="what the approval allows at most"),
    sa.Column("samples", JSONB(none_as_null=True)),
    at_column("created_at", now=True),
    at_column("approved_at", nullable=True),
    sa.Column("approved_by", sa.Text),
    batch_column("applied_batch"),
    sa.Column("dagster_run_id", sa.Text),
    sa.Column("reason", sa.Text),
    one_of("status", get_args(PlanStatus)),
    one_of("kind", get_args(PlanKind)),
    sa.Index("ix_plans_entity_status", "entity", "status"),
    comment="what a batch would do, or withheld, until a person has decided",
)

plan_records = sa.Table(
    "plan_records",
    metadata,
    sa.Column(
        "plan", sa.Uuid, sa.ForeignKey("bridge.plans.uid", ondelete="CASCADE"), primary_key=True
    ),
    sa.Column("key_hash", sa.LargeBinary, primary_key=True),
    sa.Column("op", sa.Text, nullable=False),
    sa.Column("reference", sa.Text),
    sa.Column("data_hash", sa.LargeBinary),
    sa.Column("parent_refs", sa.Text),
    one_of("op", ("insert", "update", "delete")),
    comment="what an open plan would write, record by record",
)

sweep_slices = sa.Table(
    "sweep_slices",
    metadata,
    entity_column(primary_key=True),
    sa.Column("slice", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("slices", sa.Integer, nullable=False, comment="how many make the sweep"),
    batch_column("batch", nullable=False),
    sa.Column("counted", sa.BigInteger, nullable=False),
    sa.Column("complete", sa.Boolean, nullable=False),
    sa.Column("unkeyed", sa.BigInteger, nullable=False, comment="rows without readable key"),
    sa.Column("key_hashes", sa.LargeBinary, nullable=False, comment="16 bytes each"),
    sa.Column("head", JSONB, nullable=False, comment="first keys as the source sent them"),
    sa.Column("tail", JSONB, nullable=False, comment="last keys as the source sent them"),
    at_column("finished_at"),
    comment="what the slices of the sweep under way have seen",
)

installation = sa.Table(
    "installation",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("place", sa.Text, nullable=False, comment="server, time line and database"),
    sa.Column("written_by", sa.BigInteger, nullable=False, comment="xmin of this very row"),
    at_column("noted_at", now=True),
    sa.CheckConstraint("id = 1", name="one"),
    comment="tells this database from a copy of it that was restored",
)

reconciliations = sa.Table(
    "reconciliations",
    metadata,
    sa.Column("uid", sa.Uuid, primary_key=True),
    entity_column(nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    at_column("started_at"),
    at_column("finished_at"),
    sa.Column("dagster_run_id", sa.Text),
    sa.Column("compared", sa.BigInteger, nullable=False),
    sa.Column("counts", JSONB, nullable=False, comment="differences by side and kind"),
    sa.Column("accuracy", sa.Double, nullable=False),
    sa.Column("bound", sa.Double, nullable=False, comment="lower, at 95 % confidence"),
    sa.Column("samples", JSONB, nullable=False),
    sa.Column("repaired", sa.Boolean, nullable=False, server_default=sa.text("false")),
    one_of("kind", ("whole", "sample")),
    sa.Index("ix_reconciliations_history", "entity", sa.text("started_at DESC")),
    comment="how records compared with hub and source",
)

leases = sa.Table(
    "leases",
    metadata,
    entity_column(primary_key=True),
    sa.Column("holder", sa.Text, nullable=False, comment="host, process and run, for people"),
    sa.Column("backend_pid", sa.Integer, comment="of the session that holds the advisory lock"),
    batch_column("batch"),
    sa.Column("dagster_run_id", sa.Text),
    sa.Column("fence", sa.BigInteger, nullable=False),
    at_column("acquired_at"),
    at_column("heartbeat_at"),
    at_column("released_at", nullable=True),
    comment="who syncs an entity; the advisory lock decides, this row informs and fences",
)

target_limits = sa.Table(
    "target_limits",
    metadata,
    sa.Column("system", sa.Text, primary_key=True),
    sa.Column("state", JSONB, nullable=False),
    at_column("updated_at", now=True),
    comment="limiter and breaker, shared by all runs",
)

suspects = sa.Table(
    "suspects",
    metadata,
    entity_column(primary_key=True),
    sa.Column("key_hash", sa.LargeBinary, primary_key=True),
    sa.Column("deaths", sa.Integer, nullable=False, comment="workers that died while sending it"),
    comment="records that were on their way when a worker died, and did not arrive",
)

scan_proofs = sa.Table(
    "scan_proofs",
    metadata,
    batch_column("batch", nullable=False, primary_key=True),
    sa.Column("slice", sa.Integer, primary_key=True, autoincrement=False, comment="0: no slices"),
    sa.Column("declared_total", sa.BigInteger),
    sa.Column("counted", sa.BigInteger, nullable=False),
    sa.Column("final_total", sa.BigInteger),
    sa.Column("pages", sa.Integer, nullable=False),
    sa.Column("digest", sa.LargeBinary),
    sa.Column("complete", sa.Boolean, nullable=False),
    sa.Column("note", sa.Text),
    comment="whether a scan saw everything, and why not",
)

start_requests = sa.Table(
    "start_requests",
    metadata,
    sa.Column("idempotency_key", sa.Text, primary_key=True),
    sa.Column("body_digest", sa.LargeBinary, nullable=False),
    batch_column("batch"),
    at_column("created_at", now=True),
    sa.Column("answer", JSONB(none_as_null=True), comment="what the first one was told"),
    comment="starts asked for with an Idempotency-Key",
)

alerts = sa.Table(
    "alerts",
    metadata,
    sa.Column("uid", sa.Uuid, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False, comment="an entity or a system"),
    sa.Column("message", sa.Text, nullable=False),
    at_column("since"),
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
    sa.Index(
        "uq_alerts_open",
        "kind",
        "subject",
        unique=True,
        postgresql_where=sa.text("ended_at IS NULL"),
    ),
    comment="what is wrong now, and what was and has not been told to be over",
)

metric_totals = sa.Table(
    "metric_totals",
    metadata,
    entity_column(primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("labels", ARRAY(sa.Text), primary_key=True),
    sa.Column("numbers", ARRAY(sa.Double), nullable=False),
    comment="accounts of all batches that ever ended, those too that are forgotten",
)
