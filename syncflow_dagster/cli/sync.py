"""``syncflow sync``: run assets in this process, show how far they are, end with the right status.

Belongs here: choosing what runs, printing what came of it.
Does not belong here: the run (``launch``).

Source: design.md, "Command line"; product.md, "Accounts, statuses, exits".
"""

import dataclasses
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields

import msgspec

from syncflow_core.bridge.batches import Batch, Counts
from syncflow_core.errors import ConfigError, SyncFlowError
from syncflow_core.parents import lineage
from syncflow_core.printable import printable, printable_json
from syncflow_core.settings import read_settings
from syncflow_core.stages.work import STAGES
from syncflow_dagster.choices import Mode
from syncflow_dagster.cli.session import session
from syncflow_dagster.cli.show import batch_table, progress_bars
from syncflow_dagster.launch import Run, run_sync
from syncflow_dagster.logs import log_to_stderr

COUNTS = tuple(item.name for item in fields(Counts) if item.name != "normalized")
"""The count keys of ``--json``, always all of them."""
TIMES = (*STAGES, "total")


@dataclass(frozen=True)
class Choice:
    """What the arguments say."""

    names: tuple[str, ...] = ()
    every: bool = False
    full: bool = False
    incremental: bool = False
    slice_: int | None = None
    wait_s: float = 60.0
    as_json: bool = False

    @property
    def mode(self) -> Mode:
        """How to read."""
        return "full" if self.full else "incremental" if self.incremental else "auto"

    def check(self, verb: str) -> None:
        """Refuse arguments that contradict each other.

        Raises:
            ConfigError: They do.
        """
        if self.every == bool(self.names):
            raise ConfigError(f"name the entities to {verb}, or give --all")
        if sum([self.full, self.incremental, self.slice_ is not None]) > 1:
            raise ConfigError("--full, --incremental and --slice exclude each other")


def run(choice: Choice) -> int:
    """Sync what was chosen; the exit status.

    With ``--json`` each entity that was named has its line, also where nothing could begin.
    """
    try:
        return _run(choice)
    except SyncFlowError:
        if choice.as_json:
            for name in dict.fromkeys(choice.names):
                sys.stdout.write(_line(name, None, "failed", Counts(), {}) + "\n")
        raise


def _run(choice: Choice) -> int:
    choice.check("sync")
    quiet_dagster()
    with session() as opened:
        names = (
            lineage(opened.entities).order if choice.every else tuple(dict.fromkeys(choice.names))
        )
        stop = Signals()
        with stop, progress_bars(show=not choice.as_json):
            result = run_sync(
                opened.instance,
                opened.database,
                opened.entities,
                names,
                mode=choice.mode,
                slice_=choice.slice_,
                slices=opened.settings.slices,
                wait_s=choice.wait_s,
            )
    if choice.as_json:
        for batch in with_released(result, len(names)):
            sys.stdout.write(json_line(batch) + "\n")
        sys.stdout.flush()
        tell_on_stderr(result.batches)
    else:
        batch_table(result.batches)
    if result.stopped:
        return 128 + stop.last()
    return exit_status(result.batches)


def tell_on_stderr(batches: Sequence[Batch]) -> None:
    """What a person should know of the batches, where standard output is a program's."""
    for batch in batches:
        for words in (batch.error, *(batch.proof or {}).get("notes", ())):
            if words:
                sys.stderr.write(printable(f"syncflow: {batch.entity}: {words}") + "\n")


def with_released(result: Run, entities: int) -> list[Batch]:
    """The entities' own batches, each with what the run retried and deleted for it besides."""
    lines = []
    for batch in result.batches[:entities]:
        beside = [
            other.counts for other in result.batches[entities:] if other.entity == batch.entity
        ]
        counts = dataclasses.replace(
            batch.counts,
            retried=batch.counts.retried + sum(item.retried for item in beside),
            deleted=batch.counts.deleted + sum(item.deleted for item in beside),
        )
        lines.append(dataclasses.replace(batch, counts=counts))
    return lines


def json_line(batch: Batch) -> str:
    """One entity's outcome as ``--json`` prints it: every key always there."""
    return _line(batch.entity, str(batch.uid), batch.status, batch.counts, batch.seconds)


def _line(
    entity: str, batch: str | None, status: str, counts: Counts, seconds: Mapping[str, float]
) -> str:
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
    if batch.status == "failed" and (batch.proof or {}).get("unavailable"):
        return 4
    return {"completed": 0, "withheld": 3}.get(batch.status, 1)


def quiet_dagster() -> None:
    """Keep Dagster's events out of the terminal; they are in the UI. Warnings of SyncFlow stay."""
    log_to_stderr(read_settings())
    logging.getLogger("dagster").setLevel(logging.CRITICAL)
    # a connection that broke is told by the statement that met it, not by the pool's stack too
    logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)


class Signals:
    """Remembers which signal came last, whoever handles it: Dagster takes the handlers over.

    Both end the run: the call in flight is finished, the rest is left for the next sync.
    """

    def __enter__(self) -> None:
        self._read, write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(write, False)
        self._write = write
        self._before = signal.set_wakeup_fd(write)
        self._last = signal.SIGTERM
        # Dagster turns both into its own interruption while ops run; before and after, this does
        self._handler = signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._before)
        signal.signal(signal.SIGTERM, self._handler)
        try:
            numbers = os.read(self._read, 4096)
        except BlockingIOError:
            numbers = b""  # none came
        known = [number for number in numbers if number in {signal.SIGTERM, signal.SIGINT}]
        self._last = signal.Signals(known[-1]) if known else signal.SIGTERM
        os.close(self._read)
        os.close(self._write)

    def last(self) -> int:
        """The number of the signal that came last; SIGTERM's where the run was stopped elsewhere."""
        return int(self._last)
