"""The tables of schema ``bridge``, as SQLAlchemy sees them; ``migrations/`` makes them.

Belongs here: columns, keys, constraints, indexes, and what each column means (as its comment).
Does not belong here: statements (one module per table group), the order of changes (``migrations``).

Source: product.md 1; decision 0005.
"""

from syncflow_core.bridge.tables.beside import (
    alerts,
    installation,
    leases,
    metric_totals,
    plan_records,
    plans,
    reconciliations,
    scan_proofs,
    start_requests,
    suspects,
    sweep_slices,
    target_limits,
)
from syncflow_core.bridge.tables.main import (
    COUNTS,
    background_sync_schedule,
    entities,
    entity_contracts,
    entity_versions,
    erp_sync_state,
    failed_records,
    field_mappings,
    pending_children,
    pending_deletes,
    push_journal,
    record_events,
    sync_batches,
    synced_records,
)
from syncflow_core.bridge.tables.shapes import SCHEMA, metadata

__all__ = [
    "COUNTS",
    "SCHEMA",
    "alerts",
    "background_sync_schedule",
    "entities",
    "entity_contracts",
    "entity_versions",
    "erp_sync_state",
    "failed_records",
    "field_mappings",
    "installation",
    "leases",
    "metadata",
    "metric_totals",
    "pending_children",
    "pending_deletes",
    "plan_records",
    "plans",
    "push_journal",
    "reconciliations",
    "record_events",
    "scan_proofs",
    "start_requests",
    "suspects",
    "sweep_slices",
    "sync_batches",
    "synced_records",
    "target_limits",
]
