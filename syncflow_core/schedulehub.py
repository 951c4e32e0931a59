"""Ask ScheduleHub what it holds, and write to it, an outcome for every row.

Belongs here: the calls of the target's half of the contract, and the fall-back from batch to single calls.
Does not belong here: reading outcomes (``outcomes``) and lists (``listing``), deciding what is written (``delta``), settling what
is in doubt (``stages``), repeats and tokens (``http``).

No write is ever sent twice unless it is certain that the first was not processed; see ``http``.

Source: contract.md, "ScheduleHub: holds the plan"; product.md 5.
"""

import threading
from collections.abc import Callable, Iterator, Sequence, Sized
from typing import Final, Self, TypeVar
from urllib.parse import quote

import httpx
import msgspec
import polars as pl

from syncflow_core.answers import Answer
from syncflow_core.body import quoted
from syncflow_core.breaker import Breaker
from syncflow_core.calls import Tally
from syncflow_core.errors import (
    ConfigError,
    ContractError,
    DoubtError,
    RejectedError,
    UnavailableError,
)
from syncflow_core.http import Transport
from syncflow_core.limiter import Limiter, Limits, limits_of
from syncflow_core.listing import page_frame, page_type
from syncflow_core.logs import Threads
from syncflow_core.outcomes import (
    OUTCOME,
    SYSTEM,
    HubRecord,
    Outcome,
    Status,
    batch_outcomes,
    decode,
    in_doubt,
    outcome_frame,
    read_records,
    single_outcome,
)
from syncflow_core.settings import Settings
from syncflow_core.tokens import Login

__all__ = ["BATCH_LIMIT", "LIST_LIMIT", "HubRecord", "Target"]

BATCH_LIMIT: Final = 1_000  # rows of one batch call; more is 413 (contract.md)
LIST_LIMIT: Final = 10_000  # records of one page of the list (contract.md)
_NO_BATCH = frozenset({404, 405, 501})
_ROW_STATUSES = frozenset({404, 409, 422, 424})  # a single call's, about its one row
T = TypeVar("T")
Before = Callable[[], None] | None


class Target:
    """ScheduleHub, for all threads of this process.

    Args:
        transport: The connection; closed with this.
        at_once: Single calls under way at once where the hub has no batch calls.
    """

    def __init__(self, transport: Transport, *, at_once: int = 8) -> None:
        self._transport = transport
        self._at_once = at_once
        self._lock = threading.Lock()
        self._without_batch: set[str] = set()

    @classmethod
    def open(
        cls,
        settings: Settings,
        *,
        transport: httpx.BaseTransport | None = None,
        limits: Limits | None = None,
        limiter: Limiter | None = None,
        breaker: Breaker | None = None,
        tally: Tally | None = None,
        at_once: int = 8,
    ) -> Self:
        """The target that the environment names; nothing is sent yet.

        Raises:
            ConfigError: ``SYNCFLOW_SCHEDULEHUB_URL`` is not set, or no address.
        """
        if settings.schedulehub_url is None:
            raise ConfigError(
                "SYNCFLOW_SCHEDULEHUB_URL is not set: where is ScheduleHub?", system=SYSTEM
            )
        login = Login(
            settings.schedulehub_username, settings.schedulehub_password.get_secret_value()
        )
        connection = Transport(
            SYSTEM,
            settings.schedulehub_url,
            login,
            limits=limits or limits_of(settings),
            limiter=limiter,
            breaker=breaker,
            tally=tally,
            transport=transport,
        )
        return cls(connection, at_once=at_once)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the connections back; idempotent."""
        self._transport.close()

    def abort(self) -> None:
        """End what all threads wait for, and ask nothing more."""
        self._transport.abort()

    @property
    def url(self) -> str:
        """Its address, without an account."""
        return self._transport.url

    def health(self) -> Answer:
        """What ScheduleHub answers when it is asked whether it is there; no token is needed.

        Raises:
            UnavailableError: It does not.
        """
        return self._transport.health()

    def log_in(self) -> None:
        """Return if ScheduleHub accepts the account.

        Raises:
            RejectedError: It does not.
        """
        self._transport.log_in()

    def find(self, collection: str, key_hash: bytes) -> HubRecord | None:
        """The record of this key, or None if the hub holds none.

        Raises:
            ContractError: There are two, or the answer is malformed.
        """
        path = _path(collection)
        records = self._transport.call(
            _reader(f"GET {path}", read_records), "GET", path, params={"filter": key_hash.hex()}
        )
        if len(records) > 1:
            raise ContractError(
                f"schedulehub holds {len(records)} records of one key in {collection}",
                system=SYSTEM,
            )
        return records[0] if records else None

    def pages(
        self, collection: str, fields: Sequence[str], *, limit: int = LIST_LIMIT
    ) -> Iterator[pl.DataFrame]:
        """Everything that the hub holds of *fields*, page by page of *limit*, ordered by uid.

        One column for each field, under the hub's name and in the order asked for: ``erp_key_hash``
        and ``erp_data_hash`` as Binary, ``is_deleted`` as Boolean, ``parent_refs`` as JSON text with
        sorted keys, all others as text. The first page comes even if it is empty.

        Raises:
            ContractError: A page is malformed, or the pages end before the total is reached.
        """
        path = _path(collection)
        shape = page_type(fields)
        offset, total = 0, 1
        while offset < total:
            params = {
                "offset": str(offset),
                "limit": str(limit),
                "fields": ",".join(fields),
            }
            page = self._transport.call(
                _reader(f"GET {path}", lambda body, where: decode(body, shape, where)),
                "GET",
                path,
                params=params,
            )
            total = page.total
            if not page.items and offset < total:
                raise ContractError(
                    f"schedulehub lists {offset:,} of {total:,} records in {collection} "
                    "and then no more",
                    system=SYSTEM,
                )
            yield page_frame(page.items, fields, f"GET {path}")
            offset += len(page.items)

    def query(self, collection: str, key_hashes: Sequence[bytes]) -> list[HubRecord]:
        """The records of these keys that the hub holds, soft-deleted ones too, in any order.

        Repeated like a read. Where the hub has no batch calls it is asked key by key; whether that
        shows soft-deleted records is the hub's choice.

        Args:
            collection: Where.
            key_hashes: At most ``BATCH_LIMIT``.
        """
        _bounded(key_hashes)
        if not key_hashes:
            return []
        path = _path(collection, "batch", "query")
        if path not in self._without_batch:
            content = msgspec.json.encode({"erp_key_hashes": [key.hex() for key in key_hashes]})
            answer = self._transport.call(
                lambda answer: (answer, _records_unless_missing(answer, f"POST {path}")),
                "POST",
                path,
                content=content,
                expect=_NO_BATCH,
            )
            if answer[1] is not None:
                return answer[1]
            self._remember(path)
        found = self._each(lambda key: self.find(collection, key), key_hashes)
        return [record for record in found if record is not None]

    def has_batch_calls(self, collection: str) -> bool:
        """Whether the hub takes many records at once, as far as ``query`` has found out."""
        return _path(collection, "batch", "query") not in self._without_batch

    def insert(self, collection: str, records: pl.Series, *, before: Before = None) -> pl.DataFrame:
        """The outcome of inserting each record, in the order given, in the shape ``OUTCOME``.

        Args:
            collection: Where.
            records: String: at most ``BATCH_LIMIT`` JSON objects.
            before: Called right before each request; what it raises ends the call.

        Raises:
            RejectedError: The hub refused the call as a whole; nothing was written.
            UnavailableError: Nothing was written: no connection, or put off until the limits ended.
        """
        return self._write(
            collection,
            ("insert", "records", "inserted"),
            records,
            lambda at: ("POST", _path(collection), records[at], None),
            before,
        )

    def update(
        self, collection: str, uids: pl.Series, data: pl.Series, *, before: Before = None
    ) -> pl.DataFrame:
        """The outcome of each update, in the order given, in the shape ``OUTCOME``.

        Args:
            collection: Where.
            uids: String: at most ``BATCH_LIMIT``.
            data: String: for each a JSON object of the fields to change.
            before: Called right before each request; what it raises ends the call.

        Raises:
            RejectedError: The hub refused the call as a whole; nothing was written.
            UnavailableError: Nothing was written.
        """
        rows = pl.select(
            pl.concat_str(
                pl.lit('{"uid":'), quoted(pl.lit(uids)), pl.lit(',"data":'), data, pl.lit("}")
            )
        ).to_series()
        return self._write(
            collection,
            ("update", "updates", "updated"),
            rows,
            lambda at: ("PATCH", _path(collection, uids[at]), data[at], uids[at]),
            before,
        )

    def delete(self, collection: str, uids: pl.Series, *, before: Before = None) -> pl.DataFrame:
        """The outcome of soft-deleting each record, in the order given, in the shape ``OUTCOME``.

        Args:
            collection: Where.
            uids: String: at most ``BATCH_LIMIT``.
            before: Called right before each request; what it raises ends the call.

        Raises:
            RejectedError: The hub refused the call as a whole; nothing was written.
            UnavailableError: Nothing was written.
        """
        return self._write(
            collection,
            ("delete", "uids", "deleted"),
            pl.select(quoted(pl.lit(uids))).to_series(),
            lambda at: ("DELETE", _path(collection, uids[at]), None, uids[at]),
            before,
        )

    def _write(
        self,
        collection: str,
        call: tuple[str, str, Status],
        rows: pl.Series,
        single: Callable[[int], tuple[str, str, str | None, str | None]],
        before: Before,
    ) -> pl.DataFrame:
        _bounded(rows)
        if rows.is_empty():
            return OUTCOME.to_frame()
        name, key, done = call
        path = _path(collection, "batch", name)
        if path not in self._without_batch:
            content = f'{{"{key}":[{rows.str.join(",").item()}]}}'.encode()
            try:
                answer = self._transport.request(
                    "POST", path, content=content, safe=False, expect=_NO_BATCH, before=before
                )
            except DoubtError as error:
                return in_doubt(len(rows), str(error))
            if answer.status not in _NO_BATCH:
                return batch_outcomes(answer.body, len(rows), done)
            self._remember(path)
        return outcome_frame(
            self._each(lambda at: self._single(at, single(at), done, before), range(len(rows)))
        )

    def _single(
        self,
        at: int,
        call: tuple[str, str, str | None, str | None],
        done: Status,
        before: Before,
    ) -> Outcome:
        """One row's call. Whatever stops it is this row's outcome: other rows are already written."""
        method, path, content, uid = call
        try:
            answer = self._transport.request(
                method,
                path,
                content=None if content is None else content.encode(),
                safe=False,
                expect=_ROW_STATUSES,
                before=before,
            )
        except (UnavailableError, ContractError) as error:
            return Outcome(at, "doubt", uid=uid, error=str(error))
        except RejectedError as error:
            return Outcome(at, "failed", code=error.status, uid=uid, error=str(error))
        return single_outcome(at, answer, done, uid)

    def _remember(self, path: str) -> None:
        with self._lock:
            self._without_batch.add(path)

    def _each(self, ask: Callable[[T], "R"], items: Sequence[T]) -> list["R"]:
        """What *ask* gives for each item, in order, some at once."""
        with Threads(self._at_once, thread_name_prefix="schedulehub") as pool:
            return list(pool.map(ask, items))


R = TypeVar("R")


def _path(collection: str, *parts: str) -> str:
    return "/" + "/".join(quote(part, safe="") for part in (collection, *parts))


def _bounded(rows: Sized) -> None:
    assert len(rows) <= BATCH_LIMIT, f"at most {BATCH_LIMIT} rows a call"  # noqa: S101  # the caller slices


def _reader(where: str, read: Callable[[bytes, str], T]) -> Callable[[Answer], T]:
    """*read* over an answer's body, a body that is no JSON counting as a lost answer."""

    def checked(answer: Answer) -> T:
        try:
            return read(answer.body, where)
        except ContractError as error:
            if _broken(error):
                raise UnavailableError(str(error), system=SYSTEM) from error
            raise

    return checked


def _broken(error: ContractError) -> bool:
    cause = error.__cause__
    broken = isinstance(cause, msgspec.DecodeError | UnicodeError)
    return broken and not isinstance(cause, msgspec.ValidationError)


def _records_unless_missing(answer: Answer, where: str) -> list[HubRecord] | None:
    if answer.status in _NO_BATCH:
        return None
    return _reader(where, read_records)(answer)
