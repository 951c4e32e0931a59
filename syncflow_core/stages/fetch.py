"""Fetch: read the rows of one batch from the source, page by page, into staged frames.

Belongs here: which rows a batch reads, and whether the scan proves complete.
Does not belong here: HTTP (``apismith``), paging (``scan``), what the rows mean (``normalize``).

Source: product.md 4 and 7; contract.md, "APISmith".
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import polars as pl

from syncflow_core.apismith import Filter, Sort
from syncflow_core.bridge import batches, state
from syncflow_core.bridge.entities import load_registered
from syncflow_core.bridge.state import ScanProof
from syncflow_core.columns import ROW
from syncflow_core.entity import Entity
from syncflow_core.fields import Shape, shape_of
from syncflow_core.frames import PART_ROWS
from syncflow_core.rowversion import canonical
from syncflow_core.scan import Proof, scan
from syncflow_core.stages.work import Connections, Kind, Order, Staged, hold, timed

OVERLAP_S: Final = 300
"""How far an incremental fetch looks back, in seconds, where the entity does not say."""

SLICE_OVERLAP: Final = 200
"""Rows that two neighbouring slices share: rows that shift while nights pass are seen by one of them."""

TRIES: Final = 2
"""A scan whose total moved while it was read is read once more."""


@dataclass(frozen=True)
class Reach:
    """The rows that one scan reads: by offset, by filter, or all."""

    first: int = 0
    last: int | None = None
    """One past the last row; None: to the end."""
    filters: tuple[Filter, ...] = ()
    slice: int = 0
    """0: no slice."""


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
        with connections.database.begin() as connection:
            registered = load_registered(connection, [order.entity], enabled=None)[0]
        entity, version = registered.entity, registered.version
        with connections.database.begin() as connection:
            watermark = state.load_state(connection, entity.name, entity.api).watermark
        api = connections.source.describe(entity.api)
        shape = shape_of(entity, api)
        kind = kind_of(order, shape, watermark)
        with connections.database.begin() as connection:
            lease.check(connection)
            batches.open_batch(
                connection,
                uid=order.batch,
                entity=entity.name,
                entity_version=version,
                kind=kind,
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
            version=version,
            api=api.model_dump_json(),
            watermark_before=watermark,
        )
        staged = _read(connections, staged, entity, shape)
    return staged.having(seconds=seconds)


def kind_of(order: Order, shape: Shape, watermark: str | None) -> Kind:
    """What this batch is: as asked, else as the strategy says."""
    if order.slices and len(order.slices) < order.of:
        return "slice"
    if shape.rowversion_column is None:
        return "full"
    wanted = order.kind or ("incremental" if shape.delta == "rowversion" else "full")
    return "incremental" if wanted == "incremental" and watermark is not None else "full"


def _read(connections: Connections, staged: Staged, entity: Entity, shape: Shape) -> Staged:
    """Scan, once more if the total moved; stage the rows."""
    reaches = _reaches(connections, staged, shape)
    for attempt in range(TRIES):
        reading = _Reading(connections, staged, shape)
        raw = connections.frames.write(str(staged.batch), "raw", reading.parts(reaches))
        complete = staged.kind == "full" and all(proof.complete for proof in reading.proofs)
        if complete or staged.kind != "full" or attempt == TRIES - 1:
            break
        connections.frames.drop(raw)
    notes = tuple(proof.note for proof in reading.proofs if proof.note)
    unreadable = connections.frames.write(str(staged.batch), "unreadable", [reading.unreadable()])
    with connections.database.begin() as connection:
        for number, proof in zip(reading.slices, reading.proofs, strict=True):
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
    connections.progress(entity.name, "fetch", fetched, fetched)
    return staged.having(
        frames={"raw": raw, "unreadable": unreadable},
        counts={"fetched": fetched},
        complete=complete,
        notes=notes,
    )


def _reaches(connections: Connections, staged: Staged, shape: Shape) -> list[Reach]:
    order = staged.order
    if staged.kind == "incremental":
        # kind_of says incremental only where there are both
        since = overlapped(staged.watermark_before or "", shape)
        return [Reach(filters=(Filter(shape.rowversion_column or "", ">=", since),))]
    if staged.kind == "slice":
        total = connections.source.total(shape.api)
        return [_slice(number, order.of, total) for number in sorted(order.slices)]
    return [Reach()]


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


def _slice(number: int, of: int, total: int) -> Reach:
    """The rows of one slice, a little of its neighbours included; the last one reads to the end."""
    first = (number - 1) * total // of
    last = None if number == of else number * total // of + SLICE_OVERLAP
    return Reach(first=max(0, first - SLICE_OVERLAP), last=last, slice=number)


class _Reading:
    """One reading of all reaches: rows are numbered through, pages gathered into parts."""

    def __init__(self, connections: Connections, staged: Staged, shape: Shape) -> None:
        self.connections, self.staged, self.shape = connections, staged, shape
        self.proofs: list[Proof] = []
        self.slices: list[int] = []
        self._rejected: list[pl.DataFrame] = []
        self._rows = 0

    def parts(self, reaches: list[Reach]) -> Iterator[pl.DataFrame]:
        """The rows, in parts of about ``PART_ROWS``; at least one, be it empty."""
        gathered: list[pl.DataFrame] = []
        height = 0
        for reach in reaches:
            pages = scan(
                self.connections.source,
                self.shape.api,
                first=reach.first,
                last=reach.last,
                filters=reach.filters,
                sort=[Sort(name) for name in self.shape.key_columns],
            )
            for page in pages:
                gathered.append(self._numbered(page.frame))
                if page.rejected.height:
                    self._rejected.append(self._numbered(page.rejected))
                height += page.frame.height
                self.connections.progress(self.staged.name, "fetch", self._rows, page.total_rows)
                if height >= PART_ROWS:
                    yield pl.concat(gathered, rechunk=True)
                    gathered, height = [], 0
            self.proofs.append(pages.proof)
            self.slices.append(reach.slice)
        if gathered:
            yield pl.concat(gathered, rechunk=True)
        else:
            columns = {column.name: pl.String for column in self.shape.api.columns}
            yield pl.DataFrame(schema={ROW: pl.UInt32, **columns})

    def _numbered(self, frame: pl.DataFrame) -> pl.DataFrame:
        numbered = frame.with_row_index(ROW, offset=self._rows)
        self._rows += frame.height
        return numbered

    def unreadable(self) -> pl.DataFrame:
        """The rows that are no rows, numbered like the others."""
        from_pages = pl.DataFrame(
            schema={
                ROW: pl.UInt32,
                "rule": pl.String,
                "column": pl.String,
                "value": pl.String,
                "message": pl.String,
                "raw": pl.String,
            }
        )
        return pl.concat(
            [from_pages, *(frame.select(from_pages.columns) for frame in self._rejected)]
        )
