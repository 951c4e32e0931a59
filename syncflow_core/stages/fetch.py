"""Fetch: read the rows of one batch from the source, page by page, into staged frames.

Belongs here: which rows a batch reads, whether the source is as agreed, whether the scan proves complete.
Does not belong here: HTTP (``apismith``), paging (``scan``), going through the reaches (``reading``),
what the rows mean (``normalize``).

Source: product.md 4, 7 and 12; contract.md, "APISmith".
"""

import dataclasses
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

import polars as pl

from syncflow_core.apismith import Filter
from syncflow_core.bridge import batches, state, sweeps
from syncflow_core.bridge.entities import (
    Registered,
    load_entities,
    load_registered,
    save_contract,
)
from syncflow_core.bridge.state import ScanProof
from syncflow_core.bridge.sweeps import Slice
from syncflow_core.catalog import Api
from syncflow_core.contract import agree, contract_of
from syncflow_core.entity import Entity
from syncflow_core.fields import Shape, shape_of
from syncflow_core.normalize.version import canonical
from syncflow_core.parents import refuse_never_null, refuse_other_keys
from syncflow_core.stages.conceal import conceal
from syncflow_core.stages.reading import Reach, Reading, slice_reach
from syncflow_core.stages.undelivered import undelivered
from syncflow_core.stages.work import Connections, Kind, Order, Staged, hold, timed

OVERLAP_S: Final = 300
"""How far an incremental fetch looks back, in seconds, where the entity does not say."""

TRIES: Final = 2
"""A scan whose total moved while it was read is read once more."""


def fetch(connections: Connections, order: Order, *, now: Callable[[], datetime]) -> Staged:
    """Read the batch's rows; the batch is open and the entity held afterwards.

    Returns:
        ``raw``: ``(n, k)`` text columns of the source with ``#row``. ``unreadable``: rows that are
        no rows, already rejected. ``counts`` has ``fetched``.

    Raises:
        ConfigError: The entity is not declared, or does not fit what the source says of it.
        UnavailableError, ContractError, RejectedError: The source's side; nothing was changed.
    """
    seconds: dict[str, float] = {}
    with timed(connections, seconds, "fetch"):
        lease = hold(connections, order)
        with connections.database.read() as connection:
            registered = load_registered(connection, [order.entity], enabled=None)[0]
        entity, version = registered.entity, registered.version
        notes: list[str] = []
        if order.declared is not None:
            entity = Entity.model_validate_json(order.declared)
            registered = dataclasses.replace(registered, entity=entity)
            notes.append(
                "planned under a declaration that is not applied: it only shows what would change"
            )
        with connections.database.read() as connection:
            before = state.load_state(connection, entity.name, entity.api)
        watermark = before.watermark if before.speaks_of(entity.collection) else None
        api = connections.source.describe(entity.api)
        drift = _agreed(connections, registered, api, now())
        if drift:
            notes.append(f"the source's columns changed: {drift}")
        shape = shape_of(entity, api)
        _parents_fit(connections, entity)
        refuse_never_null(entity, order.deferred, shape.key_fields)
        kind = kind_of(order, shape, watermark)
        if kind == "incremental" and order.kind is None and order.by_person:
            with connections.database.read() as connection:
                changed = not batches.was_read_whole(connection, entity.name, version)
            if changed:
                kind = "full"
                notes.append(
                    "the declaration or the source's columns have changed: everything is read once"
                )
        with connections.database.begin() as connection:
            lease.check(connection)
            if before.entity_version != version and not order.dry_run:
                conceal(connection, shape, connections.privacy_of(entity))
            batches.open_batch(
                connection,
                uid=order.batch,
                entity=entity.name,
                entity_version=version,
                kind="plan" if order.dry_run else kind,
                now=now(),
                dagster_run_id=order.run_id,
                partition=order.partition,
                watermark_before=watermark,
                fence=lease.fence,
            )
        staged = Staged(
            order=order,
            kind=kind,
            entity=entity.model_dump_json(exclude_defaults=True),
            # what is not applied yet would be the next version: hashes are made anew under it
            version=version + (order.declared is not None),
            api=api.model_dump_json(),
            drift=drift,
            watermark_before=watermark,
        )
        staged = _read(connections, staged, shape, before.rows, now())
    asked = order.kind == "incremental" and kind == "full"
    if asked and not order.dry_run:
        why = (
            "its strategy is full" if shape.delta == "full" else "there is no watermark to begin at"
        )
        notes.append(f"incremental was asked for, everything was read: {why}")
    return staged.having(seconds=seconds, notes=tuple(notes))


def kind_of(order: Order, shape: Shape, watermark: str | None) -> Kind:
    """What this batch is: as asked, else as the strategy says; strategy ``full`` always reads everything.

    A retry reads what was not delivered before and nothing else, whatever the strategy.
    """
    if order.kind == "retry":
        return "retry"
    if order.slices and len(order.slices) < order.of:
        return "slice"
    if shape.rowversion_column is None or shape.delta == "full":
        return "full"
    wanted = order.kind or ("incremental" if shape.delta == "rowversion" else "full")
    return "incremental" if wanted == "incremental" and watermark is not None else "full"


def _parents_fit(connections: Connections, entity: Entity) -> None:
    """Return where each reference is made of the whole key of its parent, and of nothing else.

    Raises:
        ConfigError: One is not: no child would ever find its parent.
    """
    names = sorted({item.entity for item in entity.parents.values()})
    if not names:
        return
    with connections.database.begin() as connection:
        parents = load_entities(connection, names, enabled=None)
    refuse_other_keys(
        entity,
        {
            item.name: shape_of(item, connections.source.describe(item.api)).key_fields
            for item in parents
        },
    )


def _agreed(connections: Connections, registered: Registered, api: Api, now: datetime) -> str:
    """Hold the source's columns against the contract; accept what may change, and say what did: "" for nothing.

    Raises:
        ContractError: A column that is read is gone or of another type. Nothing was written.
    """
    entity, accepted = registered.entity, registered.contract
    if accepted is None:
        found = ""
    else:
        found = agree(accepted, api, entity).text
        if not found:
            return ""
    with connections.database.begin() as connection:
        save_contract(connection, entity.name, contract_of(api), found or "first seen", now)
    return found


def _read(
    connections: Connections, staged: Staged, shape: Shape, rows: int, now: datetime
) -> Staged:
    """Scan, once more if the total moved; stage the rows. There were *rows* the last time."""
    reaches, neighbours = _reaches(connections, staged, shape, rows)
    besides, notes = undelivered(connections, staged, now)
    for attempt in range(TRIES):
        reading = Reading(connections, staged, shape, neighbours)
        raw = connections.frames.write(str(staged.batch), "raw", reading.parts(reaches, besides))
        proofs = reading.proofs()
        complete = all(proof.complete for proof in proofs.values())
        # an incremental fetch may well grow while it is read: rows that come in push none aside
        holds = all(
            proof.counted >= proof.declared_total <= proof.final_total for proof in proofs.values()
        )
        steady = holds if staged.kind in {"incremental", "retry"} else complete
        if steady or attempt == TRIES - 1:
            break
        connections.frames.drop(raw)
    notes += [proof.note for proof in proofs.values() if proof.note]
    if reading.besides:
        notes.append(f"{reading.besides} rows that were not delivered before were read once more")
    if staged.kind == "incremental" and not holds:
        notes.append("rows may have been passed over: the watermark stays where it is")
    unreadable = connections.frames.write(str(staged.batch), "unreadable", [reading.unreadable()])
    with connections.database.begin() as connection:
        for number, proof in proofs.items():
            state.save_proof(
                connection,
                staged.batch,
                ScanProof(
                    slice=number,
                    declared_total=proof.declared_total,
                    counted=proof.counted,
                    final_total=proof.final_total,
                    pages=proof.pages,
                    complete=proof.complete,
                    digest=proof.digest,
                    note=proof.note or None,
                ),
            )
    fetched = raw.rows + unreadable.rows
    connections.progress(staged.name, "fetch", fetched, fetched)
    return staged.having(
        frames={"raw": raw, "unreadable": unreadable},
        counts={"fetched": fetched},
        complete=staged.kind == "full" and complete,
        holds=holds or staged.kind != "incremental",
        slices=reading.seen() if staged.kind == "slice" else (),
        notes=tuple(notes),
    )


def _reaches(
    connections: Connections, staged: Staged, shape: Shape, rows: int
) -> tuple[list[Reach], dict[int, Slice]]:
    """What to scan, and the slices of this sweep that were seen before."""
    order = staged.order
    if staged.kind == "retry" or order.purge:
        return [], {}
    if staged.kind == "incremental":
        # kind_of says incremental only where there are both
        since = overlapped(staged.watermark_before or "", shape)
        return [Reach(filters=(Filter(shape.rowversion_column or "", ">=", since),))], {}
    if staged.kind == "slice":
        total = connections.source.total(shape.api)
        with connections.database.begin() as connection:
            seen = sweeps.load_slices(connection, staged.name)
        whole_pages = connections.source.pagination == "page"
        reaches = [
            slice_reach(number, order.of, total, whole_pages=whole_pages)
            for number in sorted(order.slices)
        ]
        return reaches, {item.slice: item for item in seen if item.slices == order.of}
    return [Reach(expected=rows)], {}


def overlapped(watermark: str, shape: Shape) -> str:
    """The watermark to ask the source for: back by the overlap; a text, which cannot be moved, as it is.

    Rows that were committed late carry an earlier rowversion than rows already seen. A timestamp
    goes back by seconds and keeps the source's own shape (``T`` or a space between date and time); in
    another shape than ISO 8601 it cannot be moved without guessing. A counter goes back by as many
    counts, a hex one keeps its width.

    Source: product.md 4, "tie-safe and late-commit-safe".
    """
    overlap = OVERLAP_S if shape.entity.rowversion is None else shape.entity.rowversion.overlap_s
    kind = shape.rowversion_kind
    if kind == "integer" and (number := canonical(pl.Series([watermark]), kind).text[0]):
        return str(int(number) - overlap)
    if kind == "hex" and (digits := canonical(pl.Series([watermark]), kind).text[0]):
        moved_hex = f"{max(0, int(digits, 16) - overlap):0{len(digits)}x}"
        return moved_hex.upper() if watermark.isupper() else moved_hex
    if kind != "timestamp" or not overlap:
        return watermark
    read = canonical(pl.Series([watermark]), "timestamp").text[0]
    if read is None or read[:10] != watermark[:10]:
        return watermark
    moved = datetime.fromisoformat(read[:19]) - timedelta(seconds=overlap)
    separator = watermark[10:11] or "T"
    return moved.isoformat(separator, "seconds") + ("Z" if read.endswith("Z") else "")
