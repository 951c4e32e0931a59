"""Real servers that implement contract.md over PostgreSQL, with a seeded ERP, days and faults.

Belongs here: everything that stands in for APISmith and ScheduleHub in demo, tests and benchmarks.
Does not belong here: anything of SyncFlow's own; this package imports nothing of it, so that what it
says about SyncFlow's work owes nothing to SyncFlow's code.

Source: product.md 11.
"""

from syncflow_core.sandbox.process import Sandbox, SandboxError

__all__ = ["Sandbox", "SandboxError"]
