"""Go through all pages of an API, in order and some ahead, and say whether they were all of it.

Belongs here: which page is asked for next, how many are held, and the proof of completeness.
Does not belong here: one page (``apismith``, ``pages``), what completeness allows (``delta``).

Source: product.md 4, "Deletes need proof of completeness", and 5.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import xxhash

from syncflow_core.apismith import PAGE_LIMIT, SYSTEM, Filter, Sort, Source
from syncflow_core.catalog import Api
from syncflow_core.errors import ContractError
from syncflow_core.logs import Threads
from syncflow_core.pages import Page

_GROWTH = (
    20  # times that a table may grow at its end before the scan leaves the rest to the next one
)


@dataclass(frozen=True)
class Proof:
    """What a scan saw of the source; ``complete`` alone allows to take absence for deletion."""

    declared_total: int
    """Rows that the source declared with its first page."""
    final_total: int
    """Rows that it declared with its last answer."""
    counted: int
    """Rows that came, rejected ones included."""
    pages: int
    digest: bytes
    """XXH3-128 over the pages' digests in order."""
    complete: bool
    """The range asked for was counted to its end, and the total held."""
    note: str
    """Why it is not complete; empty where it is."""


def scan(  # noqa: PLR0913  # what to read, and how wide
    source: Source,
    api: Api,
    *,
    first: int = 0,
    last: int | None = None,
    expected: int = 0,
    filters: Sequence[Filter] = (),
    sort: Sequence[Sort] | None = None,
    page_size: int = PAGE_LIMIT,
    threads: int = 4,
    read_ahead: int | None = None,
) -> "Scan":
    """Prepare to read the rows from *first* up to, not including, *last*; None is the end.

    Args:
        source: Where from.
        api: What ``Source.describe`` gave.
        first: Row to begin with; with ``pagination: page`` a multiple of *page_size*.
        last: Row to stop before.
        expected: Rows that there probably are from *first* on: their pages are asked for before the first
            one has come, which says how many there are. 0: nobody knows.
        filters: All must hold.
        sort: None is by business key, ascending: an order in which pages fit together.
        page_size: Rows asked for at once.
        threads: Pages asked for and parsed at once.
        read_ahead: Pages held at most, those in the making included; None is one more than *threads*.

    Returns:
        An iterable of pages, to be gone through once; then its ``proof``.
    """
    order = [Sort(name) for name in api.business_key_columns] if sort is None else list(sort)
    return Scan(
        source=source,
        api=api,
        first=first,
        last=last,
        expected=expected,
        filters=tuple(filters),
        sort=tuple(order),
        page_size=page_size,
        threads=threads,
        read_ahead=read_ahead or threads + 1,
    )


@dataclass
class Scan:
    """One way through the pages; see ``scan``. Leaving the loop early ends all work."""

    source: Source
    api: Api
    first: int
    last: int | None
    expected: int
    filters: tuple[Filter, ...]
    sort: tuple[Sort, ...]
    page_size: int
    threads: int
    read_ahead: int
    _totals: list[int] = field(default_factory=list, init=False)
    _seen: dict[bytes, int] = field(default_factory=dict, init=False)
    _counted: int = field(default=0, init=False)
    _pages: int = field(default=0, init=False)
    _digest: xxhash.xxh3_128 = field(default_factory=xxhash.xxh3_128, init=False)
    _proof: Proof | None = field(default=None, init=False)

    @property
    def proof(self) -> Proof:
        """What the scan saw.

        Raises:
            RuntimeError: The pages have not been gone through to the end.
        """
        if self._proof is None:
            raise RuntimeError("the scan has not come to its end")
        return self._proof

    def __iter__(self) -> Iterator[Page]:
        """The pages in order; the first one comes even if it is empty.

        Raises:
            ContractError: A page came twice.
            UnavailableError: A page did not come; all that was begun has ended.
        """
        assert not self._totals, "a scan is gone through once"  # noqa: S101  # a mistake of the caller
        pool = Threads(self.threads, thread_name_prefix=f"scan-{self.api.slug}")
        try:
            yield from self._in_order(pool)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _in_order(self, pool: Threads) -> Iterator[Page]:
        begun: deque[tuple[int, Future[list[Page]]]] = deque()
        start = self.first
        left_over = 0
        for _ in range(_GROWTH):
            while begun or start < self._end():
                while start < self._end() and len(begun) < self.read_ahead:
                    begun.append((start, pool.submit(self._span, start, self._size(start))))
                    start += self.page_size
                at, pages = begun.popleft()
                if self._totals and at >= self._end():
                    pages.cancel()  # rows were expected there: an error of it says nothing
                    continue
                yield from self._checked(pages.result())
            if self.last is not None:
                break
            whole = self.first + self._counted == self._end()
            left_over = self._past_end()
            if not (left_over and whole) or self.source.pagination == "page":
                break
            start = self.first + self._counted
        self._proof = self._proven(left_over)

    def _size(self, start: int) -> int:
        return self.page_size if self.last is None else min(self.page_size, self.last - start)

    def _end(self) -> int:
        """The row to stop before, as far as is known: what is expected, until the source has said its total."""
        total = self._totals[-1] if self._totals else self.first + max(1, self.expected)
        return total if self.last is None else min(self.last, total)

    def _execute(self, offset: int, limit: int) -> Page:
        return self.source.execute(
            self.api, offset=offset, limit=limit, filters=self.filters, sort=self.sort
        )

    def _span(self, start: int, size: int) -> list[Page]:
        """The pages from *start* on that make up *size* rows: more than one if they come short."""
        pages: list[Page] = []
        got = 0
        while got < size:
            page = self._execute(start + got, size - got)
            pages.append(page)
            got += page.rows
            at_end = not page.rows or start + got >= page.total_rows
            if at_end or self.source.pagination == "page":
                break
        return pages

    def _checked(self, pages: list[Page]) -> Iterator[Page]:
        """The pages that hold rows, and the very first; each counted, none a repetition."""
        for page in pages:
            self._totals.append(page.total_rows)
            if not page.rows and self._pages:
                continue
            at = self.first + self._counted
            if (
                page.rows > 1 and page.digest in self._seen
            ):  # a single row may come again when rows shift
                raise ContractError(
                    f"apismith's API {self.api.slug!r}: the page at row {at:,} is the page at row "
                    f"{self._seen[page.digest]:,} once more",
                    system=SYSTEM,
                )
            self._seen[page.digest] = at
            self._digest.update(page.digest)
            self._counted += page.rows
            self._pages += 1
            yield page

    def _past_end(self) -> int:
        """Rows that the source has behind those counted, asked for once more after the last page."""
        if self.source.pagination == "page":
            number = -(-self._totals[-1] // self.page_size)
            page = self._execute(number * self.page_size, self.page_size)
        else:
            page = self._execute(self.first + self._counted, 1)
        self._totals.append(page.total_rows)
        return page.rows

    def _proven(self, left_over: int) -> Proof:
        declared, final = self._totals[0], self._totals[-1]
        wanted = max(0, self._end() - self.first)
        notes = []
        if len(set(self._totals)) > 1:
            spread = f"{min(self._totals):,} and {max(self._totals):,}"
            notes.append(f"the total changed between {spread} rows while they were read")
        if self._counted != wanted:
            notes.append(f"{self._counted:,} rows came, {wanted:,} were declared")
        if left_over:
            notes.append("there are rows behind the declared end")
        return Proof(
            declared_total=declared,
            final_total=final,
            counted=self._counted,
            pages=self._pages,
            digest=self._digest.digest(),
            complete=not notes,
            note="; ".join(notes),
        )
