"""Track: file what was rejected, resolve what went through, move the watermark, close the batch.

Belongs here: the accounts and the end of a batch, in one transaction.
Does not belong here: saving single records' outcomes (``sender``).

Source: product.md 1 and "Accounts, statuses, exits".
"""

import dataclasses
import logging
from collections.abc import Callable
from datetime import datetime

import msgspec
import polars as pl
import sqlalchemy as sa

from syncflow_core.bridge import (
    batches,
    events,
    failed,
    pending,
    plans,
    schedules,
    state,
    sweeps,
)
from syncflow_core.bridge.batches import Counts, Status
from syncflow_core.bridge.entities import disable_entity
from syncflow_core.columns import KEY_HASH, ROWVERSION
from syncflow_core.errors import SyncFlowError, UnavailableError
from syncflow_core.identity import ENCODING_VERSION
from syncflow_core.logs import about
from syncflow_core.normalize.version import ROWVERSION_SOURCE, canonical_of
from syncflow_core.rowversion import (
    moment_of,
    newest,
    sortable,
)
from syncflow_core.stages.work import (
    STAGES,
    Connections,
    NightOverError,
    Order,
    Staged,
    hold,
    let_go,
)

logger = logging.getLogger(__name__)


class Report(msgspec.Struct, frozen=True):
    """How one batch ended: what the command line prints and the asset's metadata show."""

    entity: str
    batch: str | None
    status: str
    counts: Counts
    seconds: dict[str, float]
    notes: tuple[str, ...] = ()


@about(stage="track")
def track(connections: Connections, staged: Staged, *, now: Callable[[], datetime]) -> Report:
    """Close the batch; afterwards its row tells the whole story and the entity is free.

    Raises:
        SyncFlowError: The accounts do not close. That is SyncFlow's own fault; the batch ends failed.
    """
    started = connections.clock()
    lease = hold(connections, staged.order)
    frames = connections.frames
    filed = pl.concat(
        [frames.read(staged.frames[name]) for name in ("rejected", "losers", "collided")]
    )
    refused = frames.read(staged.frames["refused"])[KEY_HASH]
    seen = frames.read(staged.frames["distinct"], columns=[KEY_HASH, ROWVERSION, ROWVERSION_SOURCE])
    troubled = pl.concat([filed[KEY_HASH].drop_nulls(), refused])
    counts = Counts(**{k: v for k, v in staged.counts.items() if k != "failed_deletes"})
    status = status_of(counts, staged.counts.get("failed_deletes", 0))
    if counts.unaccounted:
        raise SyncFlowError(
            f"entity {staged.name}: {counts.unaccounted} of {counts.fetched} rows are not accounted for",
            entity=staged.name,
        )
    watermark = _watermark(staged, seen, refused)
    with connections.database.begin() as connection:
        lease.check(connection)
        if filed.height:
            _file(connection, staged, _named(filed), now())
        _resolve(connection, staged, seen[KEY_HASH], troubled, now())
        _advance(connection, staged, counts, watermark, now())
        if staged.ends_sweep:
            sweeps.end_sweep(connection, staged.name, now())
        for done in staged.slices:
            if done.complete:
                schedules.note_slice(
                    connection,
                    staged.name,
                    done.number,
                    night=staged.order.night or now().date(),
                    ends=staged.ends_sweep,
                    now=now(),
                )
        if staged.order.plan is not None and status != "withheld":
            plans.close_plan(connection, staged.order.plan, staged.batch)
        if staged.order.purge and status == "completed":
            disable_entity(connection, staged.name)
        total = {**staged.seconds, "track": connections.clock() - started}
        total["total"] = sum(total.get(name, 0.0) for name in STAGES)
        batches.close_batch(
            connection,
            staged.batch,
            status,
            counts,
            now=now(),
            seconds=total,
            watermark_after=watermark,
            proof={
                "complete": staged.complete,
                "notes": list(staged.notes),
                "layers": list(staged.layers),
            },
            calls=connections.tally.take(staged.batch),
        )
    logger.info(
        "%s batch %s ended %s in %.2f s: %s",
        staged.name,
        staged.batch,
        status,
        total["total"],
        " ".join(f"{name}={count}" for name, count in dataclasses.asdict(counts).items() if count),
    )
    let_go(connections, staged.batch)
    frames.forget(str(staged.batch))
    return Report(staged.name, str(staged.batch), status, counts, total, staged.notes)


def status_of(counts: Counts, failed_deletes: int) -> Status:
    """The status that a finished batch's accounts give it."""
    if counts.withheld or counts.withheld_deletes:
        return "withheld"
    return "partial" if counts.rejected or counts.failed or failed_deletes else "completed"


def fail(
    connections: Connections,
    order: Order,
    error: BaseException,
    *,
    now: Callable[[], datetime],
    stopped: bool = False,
) -> None:
    """Close the batch after an error: failed, or stopped where a person ended it; the entity is free.

    A batch that was never opened, and one that the database cannot be told about now, stays as it
    is: the next sync closes it.
    """
    night_over = isinstance(error, NightOverError)
    message = str(error) or type(error).__name__
    if stopped and not night_over:
        message = batches.STOPPED
    if done := " ".join(f"{name}={n}" for name, n in connections.done[order.batch].items() if n):
        message += f" (sent before that: {done})"
    try:
        with connections.database.begin() as connection:
            batches.close_batch(
                connection,
                order.batch,
                "stopped" if stopped else "failed",
                Counts(),
                now=now(),
                proof={
                    "unavailable": isinstance(error, UnavailableError),
                    "asked_to_stop": stopped and not night_over,
                    **_refused(error),
                },
                error=message,
                calls=connections.tally.take(order.batch),
            )
    except UnavailableError as away:  # the error that ended the batch says more than this one
        logger.warning("batch %s stays open until the next sync: %s", order.batch, away)
    finally:
        let_go(connections, order.batch)


def _refused(error: BaseException) -> dict[str, object]:
    """What is kept of a batch that another run turned away, and of no other."""
    if not isinstance(error, SyncFlowError) or not error.refused:
        return {}
    return {"refused": True, "exit_status": error.exit_status}


def _watermark(staged: Staged, seen: pl.DataFrame, refused: pl.Series) -> str | None:
    """The newest rowversion below which everything is acknowledged, parked or filed as rejected.

    A slice moves nothing: it says nothing of the rows outside it. Withheld updates hold it where it is.
    """
    before, kind = staged.watermark_before, staged.shape.rowversion_kind
    if staged.shape.rowversion_column is None or staged.kind not in {"full", "incremental"}:
        return before
    held = staged.counts.get("withheld", 0)
    if held or not staged.holds or (staged.kind == "full" and not staged.complete):
        return before
    order = sortable(pl.col(ROWVERSION), kind)
    blocked = seen.filter(pl.col(KEY_HASH).is_in(refused.implode()))
    if blocked.height:
        limit = blocked.select(order.min()).to_series()
        seen = seen.filter(order < limit)
    found = newest(seen[ROWVERSION], kind)
    if found is None:
        return before
    if before is not None and not (staged.kind == "full" and staged.complete):
        # only a whole scan knows better: the column changed, or the source was restored
        held = canonical_of(pl.Series([before]), staged.shape).text[0]
        if newest(pl.Series(ROWVERSION, [held, found]), kind) == held:
            return before
    return str(seen.filter(pl.col(ROWVERSION) == found)[ROWVERSION_SOURCE][0])


def _file(connection: sa.Connection, staged: Staged, filed: pl.DataFrame, now: datetime) -> None:
    """File what was rejected; a record that was not before has a line of history from here on."""
    letters = failed.open_keys(connection, staged.name)
    failed.file_failed(connection, staged.name, filed, staged.batch, now)
    fresh = filed.filter(
        pl.col(KEY_HASH).is_not_null() & ~pl.col(KEY_HASH).is_in(letters.implode())
    ).unique(KEY_HASH, keep="first", maintain_order=True)
    detail = pl.struct("stage", "rule", "column").struct.json_encode()
    events.record(
        connection,
        staged.name,
        fresh.select(KEY_HASH, pl.lit("rejected").alias("event"), detail.alias("detail")),
        staged.batch,
        now,
    )


def _named(filed: pl.DataFrame) -> pl.DataFrame:
    """The rows by what tells them apart: a key hash that two keys share names neither of them."""
    shared = pl.col("rule") == "key_collision"
    return filed.with_columns(pl.when(~shared).then(pl.col(KEY_HASH)).alias(KEY_HASH))


def _resolve(
    connection: sa.Connection,
    staged: Staged,
    seen: pl.Series,
    troubled: pl.Series,
    now: datetime,
) -> None:
    """Close what was open of records that went through now, and of those that are gone.

    Who is gone is known after a complete scan, and after a sweep.
    """
    letters = failed.open_keys(connection, staged.name)
    waiting = pending.open_keys(connection, staged.name)
    held = pl.concat([troubled, waiting]).implode()
    if letters.len() and not staged.counts.get("withheld"):  # what is withheld has not gone through
        through = letters.is_in(seen.implode()) & ~letters.is_in(held)
        failed.resolve_failed(connection, staged.name, letters.filter(through), "went through", now)
    # a scan that is not trusted to delete says nothing of who is gone
    if staged.swept:
        met = [found.batch for found in sweeps.load_slices(connection, staged.name)]
    elif staged.complete and not staged.counts.get("withheld_deletes"):
        met = [staged.batch]
    else:
        return
    failed.resolve_unseen(connection, staged.name, met, "gone from the source", now)
    if letters.is_empty():
        return
    here = letters.is_in(pl.concat([seen, troubled, waiting]).implode())
    if staged.swept:
        here |= sweeps.load_seen(connection, staged.name).has(letters)
    failed.resolve_failed(
        connection, staged.name, letters.filter(~here), "gone from the source", now
    )


def _advance(
    connection: sa.Connection,
    staged: Staged,
    counts: Counts,
    watermark: str | None,
    now: datetime,
) -> None:
    """Save how far the entity has come."""
    source = staged.shape.entity.api
    before = state.load_state(connection, staged.name, source)
    undelivered = any(staged.counts.get(name) for name in ("withheld", "failed"))
    after = dataclasses.replace(
        before,
        watermark=watermark,
        watermark_at=None if watermark is None else moment_of(watermark, staged.shape),
        collection=staged.shape.entity.collection,
        last_full_scan_at=now if staged.complete else before.last_full_scan_at,
        last_batch=staged.batch,
        counts={
            **dataclasses.asdict(counts),
            "rows": counts.fetched if staged.complete else before.rows,
        },
        encoding_version=ENCODING_VERSION,
        # until every record was acknowledged under it, a batch looks at records of the version before
        entity_version=staged.version
        if (staged.kind == "full" or staged.ends_sweep) and not undelivered
        else before.entity_version,
    )
    state.save_state(connection, staged.name, source, after, now)
