"""Turn one answer of the source into a frame of text; no digit, no row and no fault is lost on the way.

Belongs here: the envelope, NDJSON and Arrow; what an answer must hold to be a page.
Does not belong here: reading the rows themselves (``rows``), asking for pages (``apismith``), going
through all of them (``scan``), what a value means (``normalize``).

The law of this module: ``frame.height + rejected.height`` is the number of rows that the body held.

Source: contract.md, "APISmith: reads the ERP"; product.md 2 and 5; decision 0006.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import polars as pl
import xxhash

from syncflow_core.catalog import Column
from syncflow_core.errors import ContractError, RejectedError, UnavailableError
from syncflow_core.rows import REFUSED, Rows, parse_rows

JSON: Final = "application/json"
NDJSON: Final = "application/x-ndjson"
ARROW: Final = "application/vnd.apache.arrow.stream"

_SYSTEM = "apismith"
_ARROW_END = b"\xff\xff\xff\xff\x00\x00\x00\x00"  # Arrow columnar format, "IPC Streaming Format"


@dataclass(frozen=True)
class Page:
    """One answer of the source in columns.

    ``frame`` holds every declared column under its source name, as String, in declared order; null
    stands for JSON null and for a missing key. Rows keep their order; rejected rows are not in it.
    """

    frame: pl.DataFrame
    rejected: pl.DataFrame
    """Schema ``rows.REFUSED``."""
    total_rows: int
    """Rows that the source says there are, over all pages."""
    offset: int | None
    limit: int | None
    digest: bytes
    """XXH3-128 of the bytes of all rows: equal pages have equal digests."""
    unknown_columns: tuple[str, ...] = ()
    """Keys seen in rows that are not declared, sorted."""

    @property
    def rows(self) -> int:
        """Rows in the body, rejected ones included."""
        return self.frame.height + self.rejected.height


class _Failure(msgspec.Struct):
    code: str | int | None = None
    message: str | None = None


class _Metadata(msgspec.Struct):
    total_rows: int
    offset: int | None = None
    limit: int | None = None


class _Envelope(msgspec.Struct):
    success: bool
    data: list[msgspec.Raw] | None = None
    metadata: _Metadata | None = None
    error: _Failure | None = None


# One escape at a time, so that an escaped backslash never begins another: a pair, a lone surrogate, any other.
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)

# A type that polars has no code for is a panic there, which is no Exception of Python's.
_POLARS = (pl.exceptions.PolarsError, pl.exceptions.PanicException)

_DATA = re.compile(rb'"data"\s*:\s*\[')
_MARK = re.compile(rb'"(?:[^"\\]|\\.)*"|[][{},]', re.DOTALL)

_ENVELOPE = msgspec.json.Decoder(_Envelope)


def parse_page(
    body: bytes, content_type: str, columns: Sequence[Column], *, total_header: str | None = None
) -> Page:
    """Read one answer to ``execute``, in whichever of the contract's three forms it came.

    One bad row never costs the page: it becomes a line of ``rejected``.

    Args:
        body: The whole body, decompressed.
        content_type: The answer's ``Content-Type``.
        columns: The columns as the catalogue declares them.
        total_header: ``X-Total-Rows``, which NDJSON and Arrow need.

    Raises:
        ContractError: The body is of another kind or shape than the contract has.
        RejectedError: ``success`` is false; the status is 200.
        UnavailableError: The body is broken or cut, as after a transport error: ask again.

    Source: contract.md, "APISmith: reads the ERP"; product.md 5 (a 200 with a broken body).
    """
    kind = content_type.partition(";")[0].strip().lower()
    try:
        if kind == JSON:
            return _from_envelope(body, columns)
        if kind == NDJSON:
            return _from_lines(body, columns, total_header)
        if kind == ARROW:
            return _from_arrow(body, columns, total_header)
    except (ValueError, msgspec.DecodeError, *_POLARS) as error:
        reason = " ".join(str(error).split())[:200]
        raise UnavailableError(f"the body is broken: {reason}", system=_SYSTEM) from error
    raise ContractError(
        f"the answer is {kind or 'of no declared type'}, not {JSON}, {NDJSON} or {ARROW}",
        system=_SYSTEM,
    )


def _from_envelope(body: bytes, columns: Sequence[Column]) -> Page:
    try:
        envelope = _decoded(body)
    except msgspec.ValidationError as error:
        raise ContractError(f"the answer breaks the contract: {error}", system=_SYSTEM) from error
    except RecursionError:
        envelope = _deep(body)
    if not envelope.success:
        failure = envelope.error or _Failure()
        raise RejectedError(
            f"the source reports a failure: {failure.code}: {failure.message}",
            status=200,
            system=_SYSTEM,
        )
    if envelope.data is None:
        raise ContractError("the answer has no data", system=_SYSTEM)
    if envelope.metadata is None:
        raise ContractError("the answer has no metadata", system=_SYSTEM)
    metadata = envelope.metadata
    return _page(
        parse_rows(envelope.data, columns),
        _total(metadata.total_rows),
        offset=metadata.offset,
        limit=metadata.limit,
    )


def _deep(body: bytes) -> _Envelope:
    """The envelope of a body with a row nested too deep to be decoded: the rows are cut out first.

    Raises:
        ContractError: What is so deep is no row.
    """
    start = _DATA.search(body)
    if start is None:
        raise ContractError("the answer is nested too deep to be read", system=_SYSTEM)
    rows: list[msgspec.Raw] = []
    depth, at = 0, start.end()
    for mark in _MARK.finditer(body, start.end()):
        token = mark[0]
        if token in b"[{":
            depth += 1
        elif token in b"]}" and depth:
            depth -= 1
        elif depth == 0 and token in b",]":
            if body[at : mark.start()].strip():
                rows.append(msgspec.Raw(body[at : mark.start()]))
            at = mark.end()
            if token == b"]":
                break
    try:
        rest = _decoded(body[: start.end()] + b"]" + body[at:])
    except RecursionError as error:
        raise ContractError("the answer is nested too deep to be read", system=_SYSTEM) from error
    return msgspec.structs.replace(rest, data=rows)


def _decoded(body: bytes) -> _Envelope:
    """The envelope; lone surrogates in it as U+FFFD, since msgspec refuses a body that holds one."""
    try:
        return _ENVELOPE.decode(body)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        repaired = _ESCAPE.sub(lambda found: rb"\ufffd" if found[1] else found[0], body)
        if repaired == body:
            raise
        return _ENVELOPE.decode(repaired)


def _from_lines(body: bytes, columns: Sequence[Column], total: str | None) -> Page:
    lines = [line for line in body.split(b"\n") if line.strip()]
    return _page(parse_rows(lines, columns), _header_total(total))


def _from_arrow(body: bytes, columns: Sequence[Column], total: str | None) -> Page:
    if not body.endswith(_ARROW_END):  # polars reads a cut stream as a shorter one
        raise ValueError("the Arrow stream has no end")
    arrived = pl.read_ipc_stream(body)
    documents = {column.name for column in columns if column.oracle.base == "JSON"}
    nested = pl.any_horizontal(
        pl.lit(value=False),
        *(
            pl.col(column.name).is_not_null()
            for column in columns
            if column.name in arrived.columns
            and arrived.schema[column.name].is_nested()
            and column.name not in documents
        ),
    )
    marked = arrived.with_row_index("#position").with_columns(nested.alias("#nested"))
    bad = marked.filter("#nested")
    frame = marked.filter(~pl.col("#nested")).select(
        _as_text(column.name, arrived.schema.get(column.name), column.texts) for column in columns
    )
    texts = [_as_text(name, kind) for name, kind in arrived.schema.items()]
    refused = bad.with_columns(pl.struct(texts).struct.json_encode().alias("#raw")).select(
        pl.col("#position").alias("position"),
        pl.lit("nested_value").alias("rule"),
        pl.lit(None, pl.String).alias("column"),
        pl.lit(None, pl.String).alias("value"),
        pl.lit("a nested value in a column of scalars").alias("message"),
        pl.col("#raw").alias("raw"),
    )
    names = {column.name for column in columns}
    unknown = tuple(sorted(name for name in arrived.columns if name not in names))
    typed = refused.select(pl.col(name).cast(kind) for name, kind in REFUSED.items())
    rows = Rows(frame, typed, unknown, xxhash.xxh3_128_digest(body))
    return _page(rows, _header_total(total))


def _as_text(name: str, kind: pl.DataType | None, texts: str = "plain") -> pl.Expr:
    """A column of an Arrow page as text of the same value, in the form that its texts are read in."""
    column = pl.col(name)
    if kind is None:
        text = pl.lit(None, pl.String)
    elif isinstance(kind, pl.Struct):
        text = pl.when(column.is_not_null()).then(column.struct.json_encode())
    elif isinstance(kind, pl.List | pl.Array):
        wrapped = pl.struct(column.alias("v")).struct.json_encode()
        text = pl.when(column.is_not_null()).then(wrapped.str.slice(5).str.head(-1))
    elif kind.is_temporal():
        text = column.dt.to_string("iso:strict")
    elif kind == pl.Binary:
        text = column.bin.encode("base64" if texts == "base64" else "hex")
    elif kind.is_numeric() and texts == "comma":
        text = column.cast(pl.String).str.replace(".", ",", literal=True)
    else:
        text = column.cast(pl.String)
    return text.alias(name)


def _header_total(value: str | None) -> int:
    if value is None or not (value.isascii() and value.isdigit()):
        shown = "no X-Total-Rows" if value is None else f"X-Total-Rows {value[:50]!r}"
        raise ContractError(f"the answer has {shown}, which must count all rows", system=_SYSTEM)
    return int(value)


def _total(value: int) -> int:
    if value < 0:
        raise ContractError(f"metadata.total_rows is {value}", system=_SYSTEM)
    return value


def _page(rows: Rows, total: int, *, offset: int | None = None, limit: int | None = None) -> Page:
    return Page(
        frame=rows.frame,
        rejected=rows.refused,
        total_rows=total,
        offset=offset,
        limit=limit,
        digest=rows.digest,
        unknown_columns=rows.unknown,
    )
