"""Read the rows of one batch: reach by reach, numbered through, the slices of a sweep without gaps.

Belongs here: going through the reaches, gathering pages into parts, joining a slice to its neighbours.
Does not belong here: paging within a reach (``scan``), what is read at all (``fetch``).

Slices are shares of the rows by offset, and rows come and go between the nights, so offsets shift. A
slice therefore overlaps its neighbours, and where it does not meet a neighbour that this sweep has
seen, it reads on towards it until it does: a sweep has no gap, whatever has moved.

Source: product.md 4 and 7.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import polars as pl
import xxhash

from syncflow_core.apismith import PAGE_LIMIT, Filter, Sort
from syncflow_core.bridge.sweeps import Slice
from syncflow_core.columns import ROW
from syncflow_core.fields import Shape
from syncflow_core.frames import PART_ROWS
from syncflow_core.identity import text_hash_expr
from syncflow_core.rows import REFUSED
from syncflow_core.scan import Proof, scan
from syncflow_core.stages.work import Connections, SliceSeen, Staged

SLICE_OVERLAP: Final = 200
"""Rows that two neighbouring slices share: rows that shift while nights pass are seen by one of them."""


@dataclass(frozen=True)
class Reach:
    """The rows that one scan reads: by offset, by filter, or all."""

    first: int = 0
    last: int | None = None
    """One past the last row; None: to the end."""
    filters: tuple[Filter, ...] = ()
    slice: int = 0
    """0: no slice."""
    expected: int = 0
    """Rows that there probably are; 0: nobody knows."""


def slice_reach(number: int, of: int, total: int, *, whole_pages: bool = False) -> Reach:
    """The rows of one slice, a little of its neighbours included; the last one reads to the end.

    Where the source counts pages (*whole_pages*), a slice is made of whole ones.

    >>> slice_reach(2, 7, 7_000)
    Reach(first=800, last=2200, filters=(), slice=2, expected=1400)
    """
    first = max(0, (number - 1) * total // of - SLICE_OVERLAP)
    last = None if number == of else number * total // of + SLICE_OVERLAP
    if whole_pages:
        first -= first % PAGE_LIMIT
        last = None if last is None else last + -last % PAGE_LIMIT
    expected = (total if last is None else last) - first
    return Reach(first=first, last=last, slice=number, expected=expected)


class Reading:
    """One reading of all reaches: rows are numbered through, pages gathered into parts.

    Args:
        connections: The source, and who is told of the progress.
        staged: The batch.
        shape: The entity.
        neighbours: The slices of this sweep that were seen before, by number.
    """

    def __init__(
        self,
        connections: Connections,
        staged: Staged,
        shape: Shape,
        neighbours: Mapping[int, Slice],
    ) -> None:
        self.connections, self.staged, self.shape = connections, staged, shape
        self._known = {number: (seen.head, seen.tail) for number, seen in neighbours.items()}
        self._hidden = connections.privacy_of(shape.entity).columns.keys()
        self._proofs: dict[int, list[Proof]] = {}
        self._edges: dict[int, _Edges] = {}
        self._rejected: list[pl.DataFrame] = []
        self._rows = 0
        self.besides = 0
        """Rows that no reach came by, but were given besides."""

    def parts(
        self, reaches: Sequence[Reach], besides: pl.DataFrame | None = None
    ) -> Iterator[pl.DataFrame]:
        """The rows, in parts of about ``PART_ROWS``; at least one, be it empty.

        Args:
            reaches: What to scan.
            besides: Rows that were read by key before; those that the reaches meet too come once.
        """
        gathered: list[pl.DataFrame] = []
        height = 0
        for page in self._and_besides(self._pages(reaches), besides):
            gathered.append(page)
            height += page.height
            if height >= PART_ROWS:
                yield pl.concat(gathered, rechunk=True)
                gathered, height = [], 0
        if gathered:
            yield pl.concat(gathered, rechunk=True)
        else:
            columns = {column.name: pl.String for column in self.shape.api.columns}
            yield pl.DataFrame(schema={ROW: pl.UInt32, **columns})

    def _and_besides(
        self, pages: Iterator[pl.DataFrame], besides: pl.DataFrame | None
    ) -> Iterator[pl.DataFrame]:
        """The pages, and after them what they did not meet of the rows given besides."""
        columns = self.shape.key_columns
        for page in pages:
            if besides is not None and besides.height:
                met = _keys(besides, columns).is_in(_keys(page, columns).implode())
                besides = besides.filter(~met)
            yield page
        if besides is not None and besides.height:
            self.besides = besides.height
            yield self._numbered(besides)

    def _pages(self, reaches: Sequence[Reach]) -> Iterator[pl.DataFrame]:
        for reach in reaches:
            nothing: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
            edges = _Edges(
                self._known.get(reach.slice - 1, nothing)[1],
                self._known.get(reach.slice + 1, nothing)[0],
            )
            self._edges[reach.slice] = edges
            yield from self._scanned(reach, edges)
            if not reach.slice:
                continue
            edges.close()
            self._known[reach.slice] = (edges.head, edges.tail)
            before = reach
            while not edges.meets_previous and before.first > 0:
                before = replace(reach, first=max(0, before.first - PAGE_LIMIT), last=before.first)
                yield from self._scanned(before, edges)
            after = reach
            while not edges.meets_next and after.last is not None:
                total = self._proofs[reach.slice][-1].final_total
                if after.last >= total:
                    break
                after = replace(reach, first=after.last, last=min(total, after.last + PAGE_LIMIT))
                yield from self._scanned(after, edges)

    def _scanned(self, reach: Reach, edges: "_Edges") -> Iterator[pl.DataFrame]:
        pages = scan(
            self.connections.source,
            self.shape.api,
            first=reach.first,
            last=reach.last,
            expected=reach.expected,
            filters=reach.filters,
            sort=[Sort(name) for name in self.shape.key_columns],
        )
        for page in pages:
            if reach.slice:
                edges.note(self._kept(_keys(page.frame, self.shape.key_columns)))
            if page.rejected.height:
                self._rejected.append(self._numbered(page.rejected))
            yield self._numbered(page.frame)
            self.connections.progress(self.staged.name, "fetch", self._rows, page.total_rows)
        self._proofs.setdefault(reach.slice, []).append(pages.proof)

    def _kept(self, keys: pl.Series) -> pl.Series:
        """Keys as a slice's edges are kept: hashes, as every record's is, where they are personal data."""
        if not self._hidden & set(self.shape.key_columns):
            return keys
        return keys.to_frame("key").select(text_hash_expr(pl.col("key")).bin.encode("hex"))["key"]

    def _numbered(self, frame: pl.DataFrame) -> pl.DataFrame:
        numbered = frame.with_row_index(ROW, offset=self._rows)
        self._rows += frame.height
        return numbered

    def proofs(self) -> dict[int, Proof]:
        """What was proven of each slice (0: of everything)."""
        return {number: _joined(proofs) for number, proofs in self._proofs.items()}

    def seen(self) -> tuple[SliceSeen, ...]:
        """The slices as they were read."""
        return tuple(
            SliceSeen(
                number=number,
                counted=proof.counted,
                complete=proof.complete,
                head=self._edges[number].head,
                tail=self._edges[number].tail,
            )
            for number, proof in self.proofs().items()
        )

    def unreadable(self) -> pl.DataFrame:
        """The rows that are no rows, numbered like the others."""
        names = [name for name in REFUSED if name != "position"]
        empty = pl.DataFrame(schema={ROW: pl.UInt32, **{name: REFUSED[name] for name in names}})
        return pl.concat([empty, *(frame.select(empty.columns) for frame in self._rejected)])


class _Edges:
    """Where a slice begins and ends, and whether it has met its neighbours.

    A neighbour that was not seen yet in this sweep, or held nothing, need not be met: it meets this one.
    """

    def __init__(self, previous_tail: Sequence[str], next_head: Sequence[str]) -> None:
        self._previous = pl.Series(list(previous_tail), dtype=pl.String)
        self._following = pl.Series(list(next_head), dtype=pl.String)
        self.meets_previous = self._previous.is_empty()
        self.meets_next = self._following.is_empty()
        self.head: tuple[str, ...] = ()
        self.tail: tuple[str, ...] = ()
        self._closed = False

    def close(self) -> None:
        """The slice's own rows are read; what follows only looks for its neighbours."""
        self._closed = True

    def note(self, keys: pl.Series) -> None:
        """A page's keys, in order."""
        if not self._closed:
            self.head = (*self.head, *keys.head(SLICE_OVERLAP - len(self.head)).to_list())
            self.tail = (*self.tail, *keys.tail(SLICE_OVERLAP).to_list())[-SLICE_OVERLAP:]
        self.meets_previous = self.meets_previous or bool(
            keys.is_in(self._previous.implode()).any()
        )
        self.meets_next = self.meets_next or bool(keys.is_in(self._following.implode()).any())


def _keys(frame: pl.DataFrame, columns: Sequence[str]) -> pl.Series:
    """The business keys as the source sent them, one text each."""
    parts = [pl.col(name).fill_null("\0") for name in columns]
    return frame.select(pl.concat_str(parts, separator="\x1f")).to_series()


def _joined(proofs: Sequence[Proof]) -> Proof:
    """The proof of a slice that was read in several pieces."""
    if len(proofs) == 1:
        return proofs[0]
    digest = xxhash.xxh3_128()
    for proof in proofs:
        digest.update(proof.digest)
    return Proof(
        declared_total=proofs[0].declared_total,
        final_total=proofs[-1].final_total,
        counted=sum(proof.counted for proof in proofs),
        pages=sum(proof.pages for proof in proofs),
        digest=digest.digest(),
        complete=all(proof.complete for proof in proofs),
        note="; ".join(dict.fromkeys(proof.note for proof in proofs if proof.note)),
    )
