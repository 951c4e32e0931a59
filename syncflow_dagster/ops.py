"""The ops of one entity's asset: each calls one stage.

Belongs here: what Dagster needs around a stage: configuration, hand-over, errors, metadata.
Does not belong here: the stages (``syncflow_core.stages``), their composition (``assets``).

Source: product.md 8; dagster.md 1.
"""

import datetime as dt
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

import dagster as dg
import msgspec
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.storage.tags import SCHEDULE_NAME_TAG, SENSOR_NAME_TAG

from syncflow_core.bridge import batches, schedules
from syncflow_core.bridge.entities import load_registered
from syncflow_core.bridge.identifiers import new_uid
from syncflow_core.bridge.leases import Lease
from syncflow_core.digest_key import digest_key
from syncflow_core.errors import DriftError, SyncFlowError
from syncflow_core.logs import about
from syncflow_core.privacy import UNKNOWN, Privacy
from syncflow_core.settings import read_settings
from syncflow_core.stages.delta import find_changes
from syncflow_core.stages.fetch import fetch
from syncflow_core.stages.identity import identify
from syncflow_core.stages.normalize import normalize_rows
from syncflow_core.stages.push import push
from syncflow_core.stages.resolve import resolve_parents
from syncflow_core.stages.track import Report, fail, track
from syncflow_core.stages.work import (
    Connections,
    Kind,
    NightOverError,
    Order,
    Staged,
    keep_calls,
    within_night,
)
from syncflow_dagster import checks
from syncflow_dagster.choices import Mode
from syncflow_dagster.clock import utc_now
from syncflow_dagster.failures import told_to_dagster
from syncflow_dagster.interrupts import doing_first, end_where_told, put_off
from syncflow_dagster.metadata import metadata_of, stands_now
from syncflow_dagster.partitions import slice_key, slice_number
from syncflow_dagster.progress import tell
from syncflow_dagster.tags import NIGHT_TAG, UNTIL_TAG

T = TypeVar("T")
RESOURCES = {"source", "target", "bridge", "frames"}


class SyncConfig(dg.Config):
    """How an entity is synced, for the launchpad."""

    mode: Mode = "auto"
    """auto: incremental where the entity's strategy is rowversion and a watermark exists, else full."""
    wait_s: float = 60.0
    """How long to wait, in seconds, while another sync holds the entity."""
    batch: str | None = None
    """The uid of the batch, where whoever starts the run has opened it already."""


@dataclass(frozen=True)
class EntityOps:
    """The six ops of one entity."""

    fetch: dg.OpDefinition
    normalize: dg.OpDefinition
    identity: dg.OpDefinition
    delta: dg.OpDefinition
    resolve: dg.OpDefinition
    push: dg.OpDefinition


def build_ops(
    name: str, *, after: tuple[str, ...], slices: int, deferred: tuple[str, ...]
) -> EntityOps:
    """The ops of one entity.

    Args:
        name: The entity.
        after: An input of ``fetch`` for each asset that goes before it. One for all of them does not
            go with checks that block.
        slices: How many slices there are.
        deferred: Its references that are sent in a second phase.
    """
    pool = f"sync_{name}"
    frame_out = dg.Out(io_manager_key="frame_io")

    @dg.op(
        name=f"{name}__fetch",
        description="Read the rows from APISmith, page by page.",
        pool=pool,
        ins={item: dg.In(dg.Nothing) for item in after},
        out=frame_out,
        required_resource_keys=RESOURCES,
    )
    @told_to_dagster()
    def fetch_op(context: dg.OpExecutionContext, config: SyncConfig) -> Any:  # noqa: ANN401  # the io manager's
        connections = connections_of(context)
        order = _order_of(context, config, name, slices, deferred)
        with connections.database.begin() as connection:
            batches.open_batch(
                connection,
                uid=order.batch,
                entity=name,
                entity_version=load_registered(connection, [name], enabled=None)[0].version,
                kind=_asked(order),
                now=utc_now(),
                status="pending",
                dagster_run_id=order.run_id,
                partition=order.partition,
            )
        with closing_on_error(connections, order):
            within_night(order, utc_now())
            try:
                staged = fetch(connections, order, now=utc_now)
            except DriftError as error:
                broken = checks.changed_contract(name, str(error), broken=True)
                context.instance.report_runless_asset_event(broken)
                raise
            _fail_dead_runs(context, connections.leases[order.batch])
            return staged.having(notes=_by_day(connections, staged))

    def stage_op(
        stage: str, description: str, run: Callable[[Connections, Staged], Staged]
    ) -> dg.OpDefinition:
        @dg.op(
            name=f"{name}__{stage}",
            description=description,
            pool=pool,
            out=frame_out,
            required_resource_keys=RESOURCES,
        )
        @told_to_dagster()
        def op(context: dg.OpExecutionContext, staged: Any) -> Any:  # noqa: ANN401  # the io manager's
            connections = connections_of(context)
            continued = continue_batch(context, connections, staged)
            with closing_on_error(connections, continued.order):
                within_night(continued.order, utc_now())
                return run(connections, continued)

        return op

    @dg.op(
        name=f"{name}__push",
        description="Send inserts, updates and deletes to ScheduleHub; close the batch.",
        pool=pool,
        out={"result": dg.Out(dg.Nothing), **{c.name: dg.Out(dg.Nothing) for c in checks.CHECKS}},
        required_resource_keys=RESOURCES,
    )
    def push_op(context: dg.AssetExecutionContext, staged: Any) -> Iterator[Any]:  # noqa: ANN401  # the io manager's
        with told_to_dagster():
            connections = connections_of(context.op_execution_context)
            pushed, report = staged, ended_before(context.op_execution_context, connections, staged)
            if report is None:
                continued = continue_batch(context.op_execution_context, connections, staged)
                with closing_on_error(connections, continued.order):
                    pushed = push(connections, continued, now=utc_now)
                    report = track(connections, pushed, now=utc_now)
            stands = stands_now(connections, pushed)
        for done in pushed.slices:
            context.add_asset_metadata(
                {"rows_in_slice": done.counted},
                asset_key=dg.AssetKey([name]),
                partition_key=slice_key(done.number),
            )
        yield dg.MaterializeResult(
            asset_key=dg.AssetKey([name]),
            metadata=metadata_of(connections, report, pushed, stands),
        )
        yield from checks.results(report, pushed, stands)

    return EntityOps(
        fetch=fetch_op,
        normalize=stage_op(
            "normalize", "The five layers: every row accepted or rejected.", normalize_rows
        ),
        identity=stage_op(
            "identity", "Key hash and data hash of every row; one row a key.", identify
        ),
        delta=stage_op(
            "delta",
            "Compare with what ScheduleHub last acknowledged.",
            partial(find_changes, now=utc_now),
        ),
        resolve=stage_op("resolve", "Parents before children; park the orphans.", resolve_parents),
        push=push_op,
    )


def _order_of(
    context: dg.OpExecutionContext,
    config: SyncConfig,
    name: str,
    slices: int,
    deferred: tuple[str, ...],
) -> Order:
    """What the run's partitions, tags and configuration ask of the entity."""
    keys = (
        sorted(context.partition_keys)
        if context.has_partition_key_range
        else [context.partition_key]
    )
    return Order(
        entity=name,
        batch=UUID(config.batch) if config.batch else new_uid(),
        kind=None if config.mode == "auto" else config.mode,
        slices=tuple(sorted(slice_number(key) for key in keys)),
        of=slices,
        run_id=context.run_id,
        partition=",".join(keys),
        wait_s=config.wait_s,
        deferred=deferred,
        night=_tag(context, NIGHT_TAG, dt.date.fromisoformat),
        until=_tag(context, UNTIL_TAG, dt.datetime.fromisoformat),
        by_person=not {SCHEDULE_NAME_TAG, SENSOR_NAME_TAG} & context.run.tags.keys(),
    )


def _asked(order: Order) -> Kind:
    """The kind of a batch that has not looked yet whether it has to be another."""
    if len(order.slices) < order.of:
        return "slice"
    return "incremental" if order.kind == "incremental" else "full"


def _tag(context: dg.OpExecutionContext, name: str, read: Callable[[str], T]) -> T | None:
    """What a tag of the run says; None where it has none."""
    text = context.run.tags.get(name)
    return None if text is None else read(text)


def connections_of(context: dg.OpExecutionContext) -> Connections:
    """The run's connections."""
    resources = context.resources
    tally = resources.bridge.tally

    def abort() -> None:
        resources.source.abort()
        resources.target.abort()
        resources.bridge.database().stop_reading()

    return Connections(
        open_source=lambda: resources.source.client(*resources.bridge.shared("apismith"), tally),
        open_target=lambda: resources.target.client(*resources.bridge.shared("schedulehub"), tally),
        database=resources.bridge.database(),
        frames=resources.frames.store(),
        progress=tell,
        whole=put_off,
        abort=abort,
        digest_key=lambda: digest_key(read_settings()),
        leases=resources.bridge.leases,
        ahead=resources.bridge.ahead,
        tally=tally,
    )


def ended_before(
    context: dg.OpExecutionContext, connections: Connections, staged: Staged
) -> Report | None:
    """How the batch ended in an earlier run, which died before Dagster knew of it; None where there is more to do."""
    if staged.order.run_id == context.run_id:
        return None
    with connections.database.begin() as connection:
        batch = batches.load_batch(connection, staged.batch)
    if batch.status not in {"completed", "partial", "withheld"}:
        return None
    connections.frames.forget(str(staged.batch))  # where it died before it did so itself
    notes = (batch.proof or {}).get("notes", ())
    context.log.info(
        "%s batch %s had ended %s before: nothing is left to do",
        batch.entity,
        batch.uid,
        batch.status,
    )
    return Report(
        entity=batch.entity,
        batch=str(batch.uid),
        status=batch.status,
        counts=batch.counts,
        seconds=dict(batch.seconds),
        notes=tuple(notes),
    )


def continue_batch(
    context: dg.OpExecutionContext, connections: Connections, staged: Staged
) -> Staged:
    """The staged batch, as a new one of this run where an earlier run began it.

    What a run that died or failed has staged is taken up from the op that did not end; its own batch
    is closed and stays so.
    """
    if staged.order.run_id == context.run_id:
        return staged
    order = msgspec.structs.replace(
        staged.order, batch=new_uid(), run_id=context.run_id, continued=True
    )
    with connections.database.begin() as connection:
        batches.open_batch(
            connection,
            uid=order.batch,
            entity=order.entity,
            entity_version=staged.version,
            kind=staged.kind,
            now=utc_now(),
            dagster_run_id=order.run_id,
            partition=order.partition,
            watermark_before=staged.watermark_before,
        )
    return msgspec.structs.replace(staged, order=order)


def _by_day(connections: Connections, staged: Staged) -> tuple[str, ...]:
    """That a person has a slice read by day, which is the nights' to do."""
    if staged.kind != "slice" or staged.order.night is not None:
        return ()
    with connections.database.begin() as connection:
        (night,) = schedules.load_nights(connection, [staged.name])
    window = schedules.window_of(night, read_settings().time_zone)
    if not night.enabled or window.night(utc_now()) is not None:
        return ()
    hours = f"{night.window_start:%H:%M}-{night.window_end:%H:%M} {window.zone.key}"
    return (f"read outside the night window ({hours}), for it was asked for",)


def _fail_dead_runs(context: dg.OpExecutionContext, lease: Lease) -> None:
    """End in Dagster too the runs whose process died while it held the entity."""
    for batch in lease.dead_batches:
        run = context.instance.get_run_by_id(batch.dagster_run_id or "")
        if run is not None and not run.is_finished and run.run_id != context.run_id:
            context.instance.report_run_failed(
                run, f"its process died while it synced {batch.entity}; a new sync took over"
            )


@contextmanager
def closing_on_error(connections: Connections, order: Order) -> Iterator[None]:
    """Close the batch when the block ends with an error, which goes on as it may be told.

    Meanwhile every log line says which batch, entity and run it is about.
    """
    batch = about(batch=str(order.batch), entity=order.entity, run=order.run_id)
    with batch, doing_first(connections.abort) as now_told:
        try:
            end_where_told()
            with connections.tally.counting(order.batch):
                yield
            keep_calls(connections, order.batch)
        except (DagsterExecutionInterruptedError, KeyboardInterrupt) as interruption:
            fail(connections, order, interruption, now=utc_now, stopped=True)
            raise
        except Exception as error:
            # a connection that was cut off may speak last, in the signal's place
            if now_told.is_set():
                fail(connections, order, error, now=utc_now, stopped=True)
                raise DagsterExecutionInterruptedError from error
            privacy = _privacy_of(connections, order)
            shown = privacy.error(error, order.entity) if privacy else error
            fail(connections, order, shown, now=utc_now, stopped=isinstance(shown, NightOverError))
            if shown is error:
                raise
            raise shown from None


def _privacy_of(connections: Connections, order: Order) -> Privacy:
    """What of the entity is hidden in an error; where nobody can be asked what it declares, everything."""
    try:
        with connections.database.begin() as connection:
            found = load_registered(connection, [order.entity], enabled=None)
    except SyncFlowError:
        return UNKNOWN
    return connections.privacy_of(found[0].entity) if found else UNKNOWN
