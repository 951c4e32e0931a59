"""How a command that runs something ends: what it was told meanwhile, what it says, with which status.

Belongs here: the lines of ``--json``, the exit status.
Does not belong here: what is run (``launch``), tables and bars (``show``).

Source: design.md, "Command line"; product.md, "Accounts, statuses, exits".
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields

import msgspec

from syncflow_core.bridge.batches import STOPPED, Batch, Counts
from syncflow_core.errors import SyncFlowError
from syncflow_core.printable import printable, printable_json
from syncflow_core.stages.work import STAGES
from syncflow_dagster.cli.show import progress_bars
from syncflow_dagster.failures import Broken
from syncflow_dagster.interrupts import Signals
from syncflow_dagster.launch import Run, run_job
from syncflow_dagster.op_jobs import OpJob
from syncflow_dagster.session import Session

COUNTS = tuple(item.name for item in fields(Counts) if item.name != "normalized")
"""The count keys of ``--json``, always all of them."""
TIMES = (*STAGES, "total")


@dataclass(frozen=True)
class Ended:
    """A run, and the signal that ended it where one did."""

    run: Run
    signal: int

    def status(self, batches: Sequence[Batch]) -> int:
        """The exit status, where these are the run's batches that have one.

        Raises:
            RunFailedError: The run failed, and no batch says why.
        """
        if self.run.stopped:
            return 128 + self.signal
        status = exit_status(batches)
        if status == 0 and not self.run.succeeded:
            raise RunFailedError(self.run)
        return status


class StoppedError(SyncFlowError):
    """A signal came before there was a run.

    Args:
        number: The signal's.
    """

    def __init__(self, number: int) -> None:
        super().__init__(STOPPED)
        self.exit_status = 128 + number


class RunFailedError(SyncFlowError):
    """A run failed before any batch of it.

    Args:
        run: It.
    """

    def __init__(self, run: Run) -> None:
        why = run.broken or Broken(f"run {run.run_id} failed; the Dagster UI has its log")
        super().__init__(why.message)
        self.exit_status = why.exit_status


def run_to_end(work: Callable[[], Run], *, show: bool) -> Ended:
    """Run something, with bars on a terminal; a signal ends it in good order.

    Raises:
        StoppedError: It came before there was a run.
    """
    with Signals() as signals, progress_bars(show=show):
        try:
            run = work()
        except KeyboardInterrupt:
            raise StoppedError(signals.last()) from None
    return Ended(run, signals.last())


def run_job_to_end(
    opened: Session, job: OpJob, config: Mapping[str, object], *, show: bool
) -> Ended:
    """Run one of the jobs that are not an asset's."""
    return run_to_end(
        lambda: run_job(
            opened.instance,
            opened.database,
            opened.entities,
            job.name,
            config,
            slices=opened.settings.slices,
        ),
        show=show,
    )


def tell_on_stderr(batches: Sequence[Batch]) -> None:
    """What a person should know of the batches, where standard output is a program's."""
    for batch in batches:
        for words in (batch.error, *(batch.proof or {}).get("notes", ())):
            if words:
                sys.stderr.write(printable(f"syncflow: {batch.entity}: {words}") + "\n")


def json_line(batch: Batch) -> str:
    """One entity's outcome as ``--json`` prints it: every key always there."""
    return outcome_line(batch.entity, str(batch.uid), batch.status, batch.counts, batch.seconds)


def outcome_line(
    entity: str, batch: str | None, status: str, counts: Counts, seconds: Mapping[str, float]
) -> str:
    """The same of what need not have a batch."""
    counted = asdict(counts)
    text = msgspec.json.encode(
        {
            "entity": entity,
            "batch": batch,
            "status": status,
            "counts": {name: counted[name] for name in COUNTS},
            "seconds": {stage: round(seconds.get(stage, 0.0), 3) for stage in TIMES},
        }
    )
    return printable_json(text)


def exit_status(batches: Sequence[Batch]) -> int:
    """0, or the highest of 4 (unavailable), 3 (withheld), 1 (partial or failed)."""
    return max((_status(batch) for batch in batches), default=0)


def _status(batch: Batch) -> int:
    proof = batch.proof or {}
    if batch.status == "failed" and proof.get("unavailable"):
        return 4
    if proof.get("refused"):
        return int(proof.get("exit_status", 1))
    return {"completed": 0, "withheld": 3}.get(batch.status, 1)
