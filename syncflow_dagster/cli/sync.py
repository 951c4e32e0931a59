"""``syncflow sync``: run assets in this process, show how far they are, end with the right status.

Belongs here: choosing what runs, printing what came of it.
Does not belong here: the run (``launch``).

Source: design.md, "Command line"; product.md, "Accounts, statuses, exits".
"""

import logging
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from types import FrameType

import msgspec

from syncflow_core.bridge.batches import Batch, Counts
from syncflow_core.bridge.database import Database
from syncflow_core.bridge.entities import load_entities
from syncflow_core.errors import ConfigError, SyncFlowError
from syncflow_core.parents import lineage
from syncflow_core.settings import read_settings
from syncflow_dagster.cli.app import STOPPED
from syncflow_dagster.cli.show import batch_table, progress_bars
from syncflow_dagster.home import open_instance, prepare
from syncflow_dagster.launch import Mode, Run, run_sync

COUNTS = (
    "fetched",
    "rejected",
    "inserted",
    "updated",
    "deleted",
    "unchanged",
    "pending",
    "failed",
    "withheld",
    "withheld_deletes",
    "retried",
)
"""The count keys of ``--json``, always all of them."""
STAGES = ("fetch", "normalize", "identity", "delta", "resolve", "push", "track", "total")


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


def run(choice: Choice) -> int:
    """Sync what was chosen; the exit status.

    With ``--json`` each entity that was named has its line, also where nothing could begin.
    """
    try:
        return _run(choice)
    except SyncFlowError:
        if choice.as_json:
            for name in choice.names:
                sys.stdout.write(_line(name, None, "failed", Counts(), {}) + "\n")
        raise


def _run(choice: Choice) -> int:
    _check(choice)
    settings = read_settings()
    # both ask at once, before anything is opened, for what every sync needs
    missing = [
        f"SYNCFLOW_{name.upper()}"
        for name in ("apismith_url", "schedulehub_url")
        if getattr(settings, name) is None
    ]
    if missing:
        raise ConfigError(
            f"{' and '.join(missing)} not set: where are they? (syncflow sandbox runs both on this machine)"
        )
    quiet_dagster()
    prepare(settings)
    with Database.open(settings) as database:
        database.check_schema()  # before Dagster, whose history may be in the same database
        instance = open_instance(settings)
        with database.begin() as connection:
            entities = load_entities(connection)
        names = choice.names if not choice.every else lineage(entities).order
        if not names:
            raise ConfigError("no entity is declared: syncflow entities apply FILE")
        stop = _Stop()
        with stop, progress_bars(show=not choice.as_json):
            result = run_sync(
                instance,
                database,
                entities,
                names,
                mode=choice.mode,
                slice_=choice.slice_,
                slices=settings.slices,
                wait_s=choice.wait_s,
            )
    if choice.as_json:
        for batch in _of_entities(result, names):
            sys.stdout.write(json_line(batch) + "\n")
            if batch.error:
                sys.stderr.write(f"syncflow: {batch.entity}: {batch.error}\n")
    else:
        batch_table(result.batches)
    if stop.asked or result.stopped:
        return STOPPED
    return exit_status(result.batches)


def _check(choice: Choice) -> None:
    if choice.every == bool(choice.names):
        raise ConfigError("name the entities to sync, or give --all")
    if sum([choice.full, choice.incremental, choice.slice_ is not None]) > 1:
        raise ConfigError("--full, --incremental and --slice exclude each other")


def _of_entities(result: Run, names: Sequence[str]) -> list[Batch]:
    return list(result.batches[: len(names)])


def json_line(batch: Batch) -> str:
    """One entity's outcome as ``--json`` prints it: every key always there."""
    return _line(batch.entity, str(batch.uid), batch.status, batch.counts, batch.seconds)


def _line(
    entity: str, batch: str | None, status: str, counts: Counts, seconds: Mapping[str, float]
) -> str:
    counted = asdict(counts)
    return msgspec.json.encode(
        {
            "entity": entity,
            "batch": batch,
            "status": status,
            "counts": {name: counted[name] for name in COUNTS},
            "seconds": {stage: round(seconds.get(stage, 0.0), 3) for stage in STAGES},
        }
    ).decode()


def exit_status(batches: Sequence[Batch]) -> int:
    """0, or the highest of 4 (unavailable), 3 (withheld), 1 (partial or failed)."""
    return max((_status(batch) for batch in batches), default=0)


def _status(batch: Batch) -> int:
    if batch.status == "failed" and (batch.proof or {}).get("unavailable"):
        return 4
    return {"completed": 0, "withheld": 3}.get(batch.status, 1)


def quiet_dagster() -> None:
    """Keep Dagster's events out of the terminal; they are in the UI. Warnings of SyncFlow stay."""
    logging.getLogger("dagster").setLevel(logging.CRITICAL)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(name)s: %(message)s")


class _Stop:
    """SIGTERM ends the run as Ctrl-C does: the call in flight is finished, the rest is left."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> None:
        self._before = signal.signal(signal.SIGTERM, self._ask)

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, self._before)

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        self.asked = True
        raise KeyboardInterrupt
