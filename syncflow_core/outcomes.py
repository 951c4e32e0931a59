"""What became of each row that was written to the hub, read from its answers.

Belongs here: the shapes of the hub's records and batch answers, and their translation row by row.
Does not belong here: sending anything (``schedulehub``), what is done about an outcome (``stages``).

Source: contract.md, "ScheduleHub: holds the plan".
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypeVar

import msgspec
import polars as pl

from syncflow_core.answers import Answer, problem_detail
from syncflow_core.entity import HUB_FIELDS
from syncflow_core.errors import ContractError

SYSTEM: Final = "schedulehub"

Status = Literal["inserted", "updated", "deleted", "failed", "doubt"]
T = TypeVar("T")


@dataclass(frozen=True)
class Outcome:
    """What became of one row of a write.

    ``doubt``: it may have been applied; ask with ``Target.query`` before writing it again.
    """

    index: int
    """The row's place in the call, from 0."""
    status: Status
    code: int | None = None
    """The HTTP status that the single call had, or would have had; None where none is known."""
    uid: str | None = None
    """The record's; at 409 on insert, that of the record that is there."""
    error: str | None = None
    """The hub's words, or why there is doubt."""
    missing_parents: tuple[str, ...] = ()
    """The references without a parent in the hub, at 424."""


OK: Final = 0
DOUBT: Final = -1
NOT_SENT: Final = -2
SERVER_ERROR: Final = 500

OUTCOME: Final = pl.Schema(
    {
        "code": pl.Int32(),
        "uid": pl.String(),
        "error": pl.String(),
        "missing": pl.List(pl.String()),
    }
)
"""One line per row sent, in their order: ``code`` is ``OK``, the contract's code, ``DOUBT`` or ``NOT_SENT``;
``missing`` the references without a parent in the hub."""


@dataclass(frozen=True)
class HubRecord:
    """A record as the hub holds it."""

    uid: str
    key_hash: bytes
    data_hash: bytes | None
    rowversion: str | None
    reference: str | None
    parent_refs: dict[str, str | None]
    """A reference's name to the parent's key hash in hex."""
    is_deleted: bool
    fields: dict[str, str] = field(default_factory=dict)
    """All other fields as JSON text, numbers as the hub wrote them."""


class WireRecord(msgspec.Struct):
    """The hub's own fields of a record on the wire."""

    uid: str
    erp_key_hash: str
    erp_data_hash: str | None = None
    erp_rowversion: str | int | None = None
    erp_ref_str: str | None = None
    parent_refs: dict[str, str | None] | None = None
    is_deleted: bool = False


class _Result(msgspec.Struct):
    index: int
    status: Literal["inserted", "updated", "deleted", "failed"]
    uid: str | None = None
    code: int | None = None
    error: str | None = None
    missing_parents: list[str] = []


class _BatchAnswer(msgspec.Struct):
    results: list[_Result]


class _Refusal(msgspec.Struct):
    uid: str | None = None
    missing_parents: list[str] = []


class _Uid(msgspec.Struct):
    uid: str


def decode(body: bytes | msgspec.Raw, kind: type[T], where: str) -> T:
    """*body* as *kind*.

    Raises:
        ContractError: It is broken, or of another shape.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ContractError(f"schedulehub, {where}: {error}", system=SYSTEM) from error


def read_records(body: bytes, where: str) -> list[HubRecord]:
    """The records of an answer that is a list of them.

    Raises:
        ContractError: The answer is malformed, or a hash is no hexadecimal text of its length.
    """
    return [_record(raw, where) for raw in decode(body, list[msgspec.Raw], where)]


def _record(raw: msgspec.Raw, where: str) -> HubRecord:
    wire = decode(raw, WireRecord, where)
    fields = decode(raw, dict[str, msgspec.Raw], where)
    return HubRecord(
        uid=wire.uid,
        key_hash=_hash(wire.erp_key_hash, 16, where),
        data_hash=None if wire.erp_data_hash is None else _hash(wire.erp_data_hash, 32, where),
        rowversion=None if wire.erp_rowversion is None else str(wire.erp_rowversion),
        reference=wire.erp_ref_str,
        parent_refs=wire.parent_refs or {},
        is_deleted=wire.is_deleted,
        fields={
            name: bytes(value).strip().decode()
            for name, value in fields.items()
            if name not in HUB_FIELDS
        },
    )


def token_text(raw: msgspec.Raw) -> str | None:
    """A JSON value as text: strings unquoted, null as None, anything else as it was written."""
    token = bytes(raw).strip()
    if token == b"null":
        return None
    if token.startswith(b'"'):
        text: str = msgspec.json.decode(token, type=str)
        return text
    return token.decode()


def _hash(text: str, length: int, where: str) -> bytes:
    try:
        digest = bytes.fromhex(text)
    except ValueError:
        digest = b""
    if len(digest) != length:
        raise ContractError(
            f"schedulehub, {where}: {text[:80]!r} is no hash of {length} bytes in hex",
            system=SYSTEM,
        )
    return digest


def outcome_frame(outcomes: Sequence[Outcome]) -> pl.DataFrame:
    """Outcomes as columns, in the order of the rows sent."""
    return pl.DataFrame(
        {
            "code": [_code(outcome) for outcome in outcomes],
            "uid": [outcome.uid for outcome in outcomes],
            "error": [outcome.error for outcome in outcomes],
            "missing": [list(outcome.missing_parents) or None for outcome in outcomes],
        },
        schema=OUTCOME,
    )


def not_sent(rows: int, reason: str) -> pl.DataFrame:
    """The outcome of a call that never went out."""
    return _all(rows, NOT_SENT, reason)


def in_doubt(rows: int, reason: str) -> pl.DataFrame:
    """The outcome of a call without an answer."""
    return _all(rows, DOUBT, reason)


def _all(rows: int, code: int, reason: str) -> pl.DataFrame:
    return pl.select(
        pl.repeat(code, rows, dtype=pl.Int32).alias("code"),
        pl.lit(None, dtype=pl.String).alias("uid"),
        pl.lit(reason).alias("error"),
        pl.lit(None, dtype=OUTCOME["missing"]).alias("missing"),
    )


def _code(outcome: Outcome) -> int:
    if outcome.status == "doubt":
        return DOUBT
    return (outcome.code or SERVER_ERROR) if outcome.status == "failed" else OK


def batch_outcomes(body: bytes, rows: int, done: Status) -> pl.DataFrame:
    """The outcome of each of *rows* rows, in their order, in the shape ``OUTCOME``."""
    clean = _clean_outcomes(body, rows, done)
    return outcome_frame(_each_outcome(body, rows, done)) if clean is None else clean


_RESULTS: Final = pl.Struct(
    {
        "results": pl.List(
            pl.Struct({"index": pl.Int64(), "status": pl.String(), "uid": pl.String()})
        )
    }
)


def _clean_outcomes(body: bytes, rows: int, done: Status) -> pl.DataFrame | None:
    """The outcomes where every row was done and the answer says so in order, which is nearly always.

    Column-wise: one object for each row costs more than all else that a push does for it.
    """
    try:
        answer = pl.Series([body.decode()]).str.json_decode(_RESULTS)
        results = answer.struct.field("results").explode().struct.unnest()
    except (pl.exceptions.PolarsError, UnicodeError):
        return None  # to be read result by result
    if results.height != rows:
        return None
    in_order = results["index"].eq_missing(pl.int_range(rows, eager=True)).all()
    all_done = results["status"].eq_missing(done).all()
    named = done != "inserted" or not results["uid"].null_count()
    if not (in_order and all_done and named):
        return None
    return pl.DataFrame(
        [
            pl.repeat(OK, rows, dtype=pl.Int32, eager=True).alias("code"),
            results["uid"],
            pl.Series("error", [None], dtype=pl.String).new_from_index(0, rows),
            pl.Series("missing", [None], dtype=OUTCOME["missing"]).new_from_index(0, rows),
        ]
    )


def _each_outcome(body: bytes, rows: int, done: Status) -> list[Outcome]:
    """The outcome of each of *rows* rows, by ``index``; doubt for rows that the answer leaves out.

    A result with an index that was not sent, with two different results for one index, or with a
    status other than *done* and ``failed`` proves nothing: its row is in doubt.
    """
    try:
        results = msgspec.json.decode(body, type=_BatchAnswer).results
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        reason = f"the answer cannot be read: {error}"
        return [Outcome(index, "doubt", error=reason) for index in range(rows)]
    found: dict[int, Outcome] = {}
    for result in results:
        outcome = _outcome(result, done)
        if found.get(result.index, outcome) != outcome:
            outcome = Outcome(
                result.index, "doubt", error="the answer has two results for this row"
            )
        found[result.index] = outcome
    missing = "the answer has no result for this row"
    return [found.get(index) or Outcome(index, "doubt", error=missing) for index in range(rows)]


def _outcome(result: _Result, done: Status) -> Outcome:
    status: Status = result.status
    error = result.error
    if status not in {done, "failed"}:
        status, error = "doubt", f"the answer says {result.status}, {done} was asked"
    elif status == "failed" and result.code is None:
        status, error = "doubt", f"failed without a code: {error}"
    elif status == "inserted" and result.uid is None:
        status, error = "doubt", "inserted, but without a uid"
    return Outcome(
        index=result.index,
        status=status,
        code=result.code,
        uid=result.uid,
        error=error,
        missing_parents=tuple(result.missing_parents),
    )


def single_outcome(index: int, answer: Answer, done: Status, uid: str | None) -> Outcome:
    """The outcome of a single call; *uid* is the record's where the call named it."""
    if answer.status < 300:  # noqa: PLR2004  # HTTP's classes
        if uid is None:
            try:
                uid = msgspec.json.decode(answer.body, type=_Uid).uid
            except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
                return Outcome(index, "doubt", error=f"the answer cannot be read: {error}")
        return Outcome(index, done, code=answer.status, uid=uid)
    try:
        refusal = msgspec.json.decode(answer.body, type=_Refusal)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        refusal = _Refusal()
    return Outcome(
        index,
        "failed",
        code=answer.status,
        uid=refusal.uid or uid,
        error=problem_detail(answer.body).removeprefix(": ") or f"status {answer.status}",
        missing_parents=tuple(refusal.missing_parents),
    )
