"""How an error of the core becomes Dagster's.

Belongs here: the one translation.
Does not belong here: catching (``ops``).

Source: style.md 5, "Errors".
"""

import dagster as dg

from syncflow_core.errors import SyncFlowError, UnavailableError


def as_failure(error: SyncFlowError) -> dg.Failure:
    """The failure to raise for this error; a retry is pointless unless the other side was away."""
    return dg.Failure(
        description=str(error),
        metadata={
            "error": type(error).__name__,
            "system": error.system or "syncflow",
        },
        allow_retries=isinstance(error, UnavailableError),
    )
