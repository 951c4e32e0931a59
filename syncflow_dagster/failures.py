"""How an error of the core becomes Dagster's, and one of Dagster's storage the core's.

Belongs here: the translations, also back from what a run's log keeps.
Does not belong here: catching (``ops``).

Source: style.md 5, "Errors".
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

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
            "exit_status": error.exit_status,
            "system": error.system or "syncflow",
        },
        allow_retries=isinstance(error, UnavailableError),
    )


@contextmanager
def told_to_dagster() -> Iterator[None]:
    """Let an op fail in the words of the error that ended it.

    Raises:
        dagster.Failure: In the place of an error of SyncFlow's.
    """
    try:
        yield
    except SyncFlowError as error:
        raise as_failure(error) from error


@dataclass(frozen=True)
class Broken:
    """What ended an op."""

    message: str
    exit_status: int = SyncFlowError.exit_status
    """What a command ends with for it."""

    @property
    def unavailable(self) -> bool:
        """Whether trying again later may do."""
        return self.exit_status == UnavailableError.exit_status


def broken(instance: dg.DagsterInstance, run_id: str) -> dict[str, Broken]:
    """What first ended an op of each entity of a run, or of each op of a job, as the run's log has it.

    Only ops that failed in words of ours are among them.
    """
    found: dict[str, Broken] = {}
    for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_FAILURE):
        event = entry.dagster_event
        told = None if event is None else event.step_failure_data.user_failure_data
        if event is None or event.step_key is None or told is None or told.description is None:
            continue
        status = told.metadata.get("exit_status")
        number = status.value if isinstance(status, dg.IntMetadataValue) else None
        found.setdefault(
            event.step_key.partition(".")[0],
            Broken(told.description, number or SyncFlowError.exit_status),
        )
    return found


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
