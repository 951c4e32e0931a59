"""Ask APISmith: what can be read, and page by page what there is.

Belongs here: the calls of the source's half of the contract and the checks on each answer.
Does not belong here: reading a page's rows (``pages``), going through all pages (``scan``), repeats and
tokens (``http``).

Source: contract.md, "APISmith: reads the ERP".
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NoReturn, Self, TypeVar
from urllib.parse import quote

import httpx
import msgspec
import polars as pl
from pydantic import ValidationError

from syncflow_core.answers import Answer, is_it
from syncflow_core.breaker import Breaker
from syncflow_core.calls import Tally
from syncflow_core.catalog import Api
from syncflow_core.errors import ConfigError, ContractError, RejectedError, UnavailableError
from syncflow_core.http import Transport
from syncflow_core.limiter import Limiter, Limits, limits_of
from syncflow_core.pages import ARROW, JSON, NDJSON, Page, parse_page
from syncflow_core.settings import Settings
from syncflow_core.tokens import Login

SYSTEM: Final = "apismith"
PAGE_LIMIT: Final = 10_000  # rows; more is 422 (contract.md)
_LISTING = 100  # APIs asked for at once, the contract's example
LOOK_UP: Final = 200  # keys in one filter: Oracle takes at most 1,000 values in a list
_NOT_FOUND = 404

Pagination = Literal["offset", "page"]
Form = Literal["json", "ndjson", "arrow"]
_ACCEPT: Mapping[Form, str] = {
    "json": JSON,
    "ndjson": f"{NDJSON}, {JSON};q=0.5",
    "arrow": f"{ARROW}, {JSON};q=0.5",
}

_NUMERIC = frozenset({"integer", "decimal", "float"})
_JSON_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_ENCODER = msgspec.json.Encoder(decimal_format="number")
T = TypeVar("T")


@dataclass(frozen=True)
class Filter:
    """A condition on rows; several of them must all hold.

    A text *value* of a numeric column is sent as the number it spells, so a rowversion kept as text
    compares as a number.
    """

    field: str
    operator: Literal["=", "!=", ">", ">=", "<", "<=", "in"]
    value: object


@dataclass(frozen=True)
class Sort:
    """One column of the order in which rows come."""

    field: str
    direction: Literal["asc", "desc"] = "asc"


@dataclass(frozen=True)
class LookedUp:
    """Rows that were asked for by their keys."""

    frame: pl.DataFrame
    """All declared columns, as in ``Page.frame``."""
    unreadable: int
    """Rows that cannot be represented: each may have any of the keys."""


class _Listing(msgspec.Struct):
    items: list[msgspec.Raw]
    total: int
    page: int
    page_size: int
    total_pages: int


class Source:
    """APISmith, for all threads of this process.

    Args:
        transport: The connection; closed with this.
        pagination: ``page`` for installations that count pages instead of rows.
        form: The form of pages to ask for; a server that does not know it answers JSON.
    """

    def __init__(
        self, transport: Transport, *, pagination: Pagination = "offset", form: Form = "json"
    ) -> None:
        self._transport = transport
        self.pagination = pagination
        self._accept = _ACCEPT[form]

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
    ) -> Self:
        """The source that the environment names; nothing is sent yet.

        Raises:
            ConfigError: ``SYNCFLOW_APISMITH_URL`` is not set, or no address.
        """
        if settings.apismith_url is None:
            raise ConfigError("SYNCFLOW_APISMITH_URL is not set: where is APISmith?", system=SYSTEM)
        login = Login(settings.apismith_username, settings.apismith_password.get_secret_value())
        connection = Transport(
            SYSTEM,
            settings.apismith_url,
            login,
            limits=limits or limits_of(settings),
            limiter=limiter,
            breaker=breaker,
            tally=tally,
            transport=transport,
        )
        return cls(
            connection,
            pagination=settings.apismith_pagination,
            form=settings.apismith_pages,
        )

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
        """What APISmith answers when it is asked whether it is there; no token is needed.

        Raises:
            UnavailableError: It does not.
        """
        return self._transport.health()

    def log_in(self) -> None:
        """Return if APISmith accepts the account.

        Raises:
            RejectedError: It does not.
        """
        self._transport.log_in()

    def apis(self) -> list[Api]:
        """Every API, from all pages of the listing.

        Raises:
            ContractError: The listing, or an API in it, is malformed.
        """
        items: list[msgspec.Raw] = []
        number, pages = 1, 1
        while number <= pages:
            asked = {"page": str(number), "page_size": str(_LISTING)}
            listing = self._get("/apis", _Listing, asked)
            items += listing.items
            pages = listing.total_pages if listing.items else 0
            number += 1
        return [_api(raw, "GET /apis") for raw in items]

    def describe(self, slug: str) -> Api:
        """One API: its columns, key and rowversion.

        Raises:
            ConfigError: There is none of this slug (the message names similar ones), or it is not active.
            ContractError: The description is malformed.
        """
        path = f"/apis/slug/{quote(slug, safe='')}"
        answer = self._transport.request("GET", path, expect=frozenset({_NOT_FOUND}))
        if answer.status == _NOT_FOUND:
            raise ConfigError(f"apismith has no API {slug!r}{self._near(slug)}", system=SYSTEM)
        api = _api(answer.body, f"GET {path}")
        if not api.is_active:
            raise ConfigError(
                f"apismith's API {slug!r} is not active: activate it there", system=SYSTEM
            )
        return api

    def execute(
        self,
        api: Api,
        *,
        offset: int = 0,
        limit: int = PAGE_LIMIT,
        filters: Sequence[Filter] = (),
        sort: Sequence[Sort] = (),
    ) -> Page:
        """One page of rows; a broken body is asked for again like a lost one.

        Args:
            api: What ``describe`` gave.
            offset: Rows before the page; with ``pagination: page`` a multiple of *limit*.
            limit: At most ``PAGE_LIMIT``.
            filters: All must hold.
            sort: The order; without one, pages need not fit together.

        Raises:
            ContractError: The answer breaks the contract; slug and offset are named.
            RejectedError: The source refused, with a status or with ``success: false``.
            UnavailableError: No whole answer came.
        """
        path = f"/runtime/{quote(api.slug, safe='')}/execute"
        where = f"apismith's API {api.slug!r}, page at offset {offset:,}"

        def read(answer: Answer) -> Page:
            try:
                page = parse_page(
                    answer.body,
                    answer.content_type,
                    api.columns,
                    total_header=answer.headers.get("x-total-rows"),
                )
            except (ContractError, RejectedError, UnavailableError) as error:
                _raise_at(where, error)
            if page.rows > limit:
                raise ContractError(f"{where}: {page.rows:,} rows, {limit:,} asked", system=SYSTEM)
            if self.pagination == "offset" and page.offset not in {None, offset}:
                raise ContractError(
                    f"{where}: the answer is for offset {page.offset}", system=SYSTEM
                )
            return page

        body: dict[str, object] = (
            {"offset": offset, "limit": limit}
            if self.pagination == "offset"
            else {"page": offset // limit + 1, "page_size": limit}
        )
        if filters:
            body["filters"] = [_filter(api, item) for item in filters]
        if sort:
            body["sort"] = [{"field": item.field, "direction": item.direction} for item in sort]
        return self._transport.call(
            read, "POST", path, content=_ENCODER.encode(body), headers={"Accept": self._accept}
        )

    def total(self, api: Api, filters: Sequence[Filter] = ()) -> int:
        """How many rows there are now, as the source says."""
        return self.execute(api, limit=1, filters=filters).total_rows

    def look_up(self, api: Api, keys: Sequence[Mapping[str, object]]) -> LookedUp:
        """Rows that may have one of *keys*: none that has is missing, others may be among them.

        The same key can be spelled in many ways, so telling which rows are meant is left to whoever
        can compare keys (``keys``). Rows that cannot be represented are only counted.

        Args:
            api: What ``describe`` gave.
            keys: Each maps the same key columns to values as the source sent them, none of them null.

        Returns:
            All declared columns, as in ``Page.frame``.
        """
        found = [self._look_up(api, keys[at : at + LOOK_UP]) for at in range(0, len(keys), LOOK_UP)]
        empty = pl.DataFrame(schema={column.name: pl.String for column in api.columns})
        return LookedUp(
            pl.concat([empty, *(part.frame for part in found)]),
            sum(part.unreadable for part in found),
        )

    def _look_up(self, api: Api, keys: Sequence[Mapping[str, object]]) -> LookedUp:
        names = list(keys[0])
        filters = [
            Filter(name, "in", list(dict.fromkeys(key[name] for key in keys))) for name in names
        ]
        sort = [Sort(name) for name in names]
        page = self.execute(api, filters=filters, sort=sort)
        if page.rows < page.total_rows and len(keys) > 1:
            # The columns' values cross to more rows than a page holds: halve until they do not.
            half = len(keys) // 2
            parts = [self._look_up(api, keys[:half]), self._look_up(api, keys[half:])]
            return LookedUp(
                pl.concat(part.frame for part in parts), sum(part.unreadable for part in parts)
            )
        frames = [page.frame]
        seen, unreadable = page.rows, page.rejected.height
        while page.rows and seen < page.total_rows:
            page = self.execute(api, offset=seen, filters=filters, sort=sort)
            frames.append(page.frame)
            seen += page.rows
            unreadable += page.rejected.height
        if seen < page.total_rows:
            raise ContractError(
                f"apismith's API {api.slug!r}: {seen:,} rows came of {page.total_rows:,} looked up",
                system=SYSTEM,
            )
        return LookedUp(pl.concat(frames), unreadable)

    def _get(self, path: str, kind: type[T], params: Mapping[str, str] | None = None) -> T:
        answer = self._transport.request("GET", path, params=params)
        try:
            return msgspec.json.decode(answer.body, type=kind)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise ContractError(
                f"apismith, GET {path}: {error}; {is_it(SYSTEM)}", system=SYSTEM
            ) from error

    def _near(self, slug: str) -> str:
        """Which slugs look like *slug*, or some that there are, for the end of a message."""
        slugs = [api.slug for api in self.apis() if api.slug != slug]
        near = difflib.get_close_matches(slug, slugs, n=3) or slugs[:5]
        return f"; did you mean {', '.join(map(repr, near))}?" if near else ": it has none at all"


def _api(raw: bytes | msgspec.Raw, where: str) -> Api:
    try:
        api = Api.model_validate_json(bytes(raw))
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()
        )
        raise ContractError(f"apismith, {where}: {faults}", system=SYSTEM) from error
    names = [column.name for column in api.columns]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ContractError(
            f"apismith, {where}: {api.slug} has two columns {', '.join(twice)}", system=SYSTEM
        )
    return api


def _filter(api: Api, item: Filter) -> dict[str, object]:
    column = api.column(item.field)
    numeric = column is not None and column.oracle.field_type in _NUMERIC
    value = item.value
    if numeric and isinstance(value, list | tuple):
        value = [_number(part) for part in value]
    elif numeric:
        value = _number(value)
    return {"field": item.field, "operator": item.operator, "value": value}


def _number(value: object) -> object:
    """The number that a text spells in JSON's way; anything else as it is."""
    if isinstance(value, str) and _JSON_NUMBER.fullmatch(value):
        return msgspec.Raw(value)
    return value


def _raise_at(where: str, error: ContractError | RejectedError | UnavailableError) -> NoReturn:
    """Raise *error* anew with the place in its message."""
    message = f"{where}: {error}"
    if isinstance(error, RejectedError):
        raise RejectedError(message, status=error.status, system=SYSTEM) from error
    raise type(error)(message, system=SYSTEM) from error
