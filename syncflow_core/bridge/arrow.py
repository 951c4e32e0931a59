"""Bulk reads of the bridge database through Arrow's driver.

Belongs here: whatever needs the driver, which with all that it imports takes a tenth of the time in which SyncFlow is
imported, and which a sync of small tables never needs: ``database`` imports this module when it does.
Does not belong here: which reads are worth it (``records``), other statements.

Source: docs/decisions/0018-known-records.md.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from typing import TypeVar, cast

import adbc_driver_postgresql
import polars as pl
import pyarrow as pa
from adbc_driver_manager import AdbcConnection, AdbcDatabase
from adbc_driver_manager import dbapi as adbc

from syncflow_core.bridge.address import AUTHENTICATION, PASSING, translation

T = TypeVar("T")

MANY_KEYS = 100_000  # from here on two sessions seek them at once


def read(
    url: str,
    query: str,
    parameters: Sequence[object],
    sought: pl.Series | None,
    told_of: Callable[[Callable[[], None]], AbstractContextManager[None]],
) -> pl.DataFrame:
    """The rows of *query*, as ``Database.frame`` has them.

    Args:
        url: With everything that the session sets.
        query: One SELECT.
        parameters: Its parameters.
        sought: Binary, distinct: for the temporary table ``sought (key_hash)``.
        told_of: While its block lasts, others may call what it is given to end the read.

    Raises:
        UnavailableError, ConfigError: As ``address.translated``.
    """
    with _translated(url), ExitStack() as stack:
        asked = []
        for keys in _shares(sought):
            connection = stack.enter_context(_arrow_connection(url))
            cursor = stack.enter_context(connection.cursor())
            stack.enter_context(told_of(functools.partial(_cancel, cursor)))
            asked.append((cursor, functools.partial(_asked, cursor, query, parameters, keys)))
        frame = pl.from_arrow(pa.concat_tables(_beside(asked)))
    return frame if isinstance(frame, pl.DataFrame) else frame.to_frame()


@contextmanager
def _translated(url: str) -> Iterator[None]:
    try:
        yield
    except adbc.OperationalError as error:
        raise translation(error, url) from error
    except adbc.Error as error:
        if getattr(error, "sqlstate", None) in {*AUTHENTICATION, *PASSING}:
            raise translation(error, url) from error
        raise


def _cancel(cursor: adbc.Cursor) -> None:
    with suppress(adbc.Error):  # what is over needs no end
        cursor.adbc_cancel()


def _arrow_connection(url: str) -> adbc.Connection:
    """A new connection of Arrow's driver; it leaves what it knows of the server to the next one."""
    # of the database that it is given it does nothing but close it
    kept = cast("AdbcDatabase", _Kept())
    return adbc.Connection(kept, AdbcConnection(_arrow_database(url)))


@functools.lru_cache(maxsize=8)
def _arrow_database(url: str) -> AdbcDatabase:
    """What the driver knows of a server: its types, for which it asks longer than for most answers.

    It holds no connection, so that neither a server's end nor a fork is any of its business.
    """
    known: AdbcDatabase = adbc_driver_postgresql.connect(url)
    return known


class _Kept:
    """In the place of the database that a connection would close with itself."""

    def close(self) -> None:
        """Others use it too."""


def _shares(sought: pl.Series | None) -> list[pl.Series | None]:
    """What each session seeks, in order: many keys are sought by two at once, each in a range of its own."""
    if sought is None:
        return [None]
    ordered = sought.sort()
    share = len(ordered) if len(ordered) < MANY_KEYS else -(-len(ordered) // 2)
    return [ordered.slice(at, share) for at in range(0, len(ordered) or 1, share or 1)]


def _asked(
    cursor: adbc.Cursor, query: str, parameters: Sequence[object], sought: pl.Series | None
) -> pa.Table:
    """The rows of *query*, in the cursor's transaction."""
    if sought is not None:
        keys = pa.table({"key_hash": sought.to_arrow().cast(pa.binary())})
        cursor.adbc_ingest("sought", keys, mode="create", temporary=True)
    cursor.execute(query, list(parameters) or None)
    return cursor.fetch_arrow_table()


def _beside(asked: Sequence[tuple[adbc.Cursor, Callable[[], T]]]) -> list[T]:
    """What each work returns, done in a thread of its own: a signal ends the wait, and the works.

    In the main thread Arrow's driver would take SIGINT for itself and report a failed query.
    """
    with ThreadPoolExecutor(len(asked)) as threads:
        running = [(cursor, threads.submit(work)) for cursor, work in asked]
        try:
            return [answer.result() for _, answer in running]
        except BaseException:
            for cursor, answer in running:
                if not answer.done():
                    cursor.adbc_cancel()
            raise
