"""The jobs of one op each, as whoever starts one names them: a job, its op, a configuration.

Belongs here: names. It knows nothing of Dagster, whose import takes seconds.
Does not belong here: what the jobs do (``planning``, ``reconciling``, ``retrying``).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class OpJob:
    """A job of one op."""

    name: str
    op: str

    def configured(self, config: Mapping[str, object]) -> dict[str, object]:
        """The run's configuration that gives its op this one."""
        return {"ops": {self.op: {"config": dict(config)}}}


PLAN: Final = OpJob("plan", "make_plan")
APPLY: Final = OpJob("apply_plan", "apply")
RETRY: Final = OpJob("retry_failed", "retry")
RECONCILE: Final = OpJob("reconcile", "compare")
