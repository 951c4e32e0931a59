"""How an error of the core becomes Dagster's, and one of Dagster's storage the core's.

Belongs here: the two translations.
Does not belong here: catching (``ops``).

Source: style.md 5, "Errors".
"""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
import psycopg2
import sqlalchemy as sa

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


@contextmanager
def history_there() -> Iterator[None]:
    """Turn what Dagster's storage raises, which Dagster lets through as it is, into SyncFlow's error.

    Raises:
        UnavailableError: Dagster's history is away, or has no room.
    """
    try:
        yield
    # SQLAlchemy lets the driver's own error through where it sets a session up
    except (sa.exc.DBAPIError, psycopg2.Error) as error:
        reason = (
            str(getattr(error, "orig", error)).strip().splitlines() or [type(error).__name__]
        )[0]
        raise UnavailableError(
            f"Dagster's history cannot be written: {reason}", system="dagster"
        ) from error
