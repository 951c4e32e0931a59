"""The way into the bridge database: where it is, a bounded pool, transactions, bulk reads.

Belongs here: opening and closing, time limits, the health check.
Does not belong here: statements (one module per table group), the server itself (``embedded``).

Source: product.md 1 ("pooling, a health check, and a clear error when the database is away").
"""

import json
import secrets
import select
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import polars as pl
import psycopg
import sqlalchemy as sa

from syncflow_core.bridge import schema
from syncflow_core.bridge.address import driver_url, place, plain_url, translated
from syncflow_core.bridge.embedded import EmbeddedServer
from syncflow_core.errors import UnavailableError
from syncflow_core.settings import Settings

T = TypeVar("T")
Session = psycopg.Connection[tuple[Any, ...]]

POOL = 10  # connections kept by one process; the embedded server allows 100 in all
POOL_OVERFLOW = 10
POOL_WAIT_S = 30
CONNECT_TIMEOUT_S = 10
TRIES = 4
MET_ANOTHER = frozenset({"40001", "40P01"})  # SQLSTATEs: serialization failure, deadlock
LOCK_TIMEOUT_S = 30  # a backup or an ALTER TABLE beside a sync ends in an error, not in a hang
IDLE_S = 5  # a connection unused for so long is asked whether it still works
_USED_AT = "used at"
PAGE_COST = (
    1.1  # of a page out of order: tables are mostly in memory, or on disks without a moving head.
)
# With PostgreSQL's own 4.0 ten thousand keys are sought by reading a million records: 170 ms, not 28.


def driver_of(pooled: sa.PoolProxiedConnection) -> Session:
    """The driver's own connection beneath SQLAlchemy's."""
    driver = pooled.driver_connection
    if not isinstance(driver, psycopg.Connection):
        raise TypeError("the bridge database is reached through psycopg 3")
    return driver


@dataclass(frozen=True)
class Health:
    """What the health check saw."""

    place: str
    """``host:port/database``."""
    server: str
    """PostgreSQL's version."""
    embedded: bool


class Database:
    """One process's access to the bridge database; the embedded server runs at least until close."""

    def __init__(self, url: str, *, server: EmbeddedServer | None = None) -> None:
        self.url = plain_url(url)
        self.place = place(url)
        self._server = server
        self._reading: set[Callable[[], None]] = set()
        """What ends each read that goes on."""
        self._reads = threading.Lock()
        self.engine = sa.create_engine(
            driver_url(url),
            pool_size=POOL,
            max_overflow=POOL_OVERFLOW,
            pool_timeout=POOL_WAIT_S,
            hide_parameters=True,  # an error's words, and a log's, would say records
            json_serializer=lambda value: json.dumps(value, ensure_ascii=False),
            connect_args={
                "connect_timeout": CONNECT_TIMEOUT_S,
                # One name for all of this object's sessions: a lease's takeover ends them together.
                "application_name": f"syncflow {secrets.token_hex(8)}",
                "options": _options(),
                "keepalives_idle": 30,
                "keepalives_interval": 10,
                "keepalives_count": 3,
            },
        )
        self._reader = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        sa.event.listen(self.engine, "connect", _note_use)
        sa.event.listen(self.engine, "checkin", _note_use)
        sa.event.listen(self.engine, "checkout", self._ping_doubtful)
        if server is not None:
            sa.event.listen(self.engine, "do_connect", self._embedded_runs)

    @classmethod
    def open(cls, settings: Settings) -> "Database":
        """The database of SYNCFLOW_DATABASE_URL, else the embedded one, started where it does not run.

        With an address nothing is connected yet: the first use says whether it is away.

        Raises:
            ConfigError: The embedded server cannot run on this machine.
            UnavailableError: The embedded server did not start.
        """
        if settings.database_url is not None:
            return cls(settings.database_url.get_secret_value())
        server = EmbeddedServer.acquire(settings.home_path)
        return cls(server.url(), server=server)

    def is_of(self, settings: Settings) -> bool:
        """Whether it is the one that ``open`` would give."""
        if settings.database_url is None:
            return self._server is not None
        return self.url == plain_url(settings.database_url.get_secret_value())

    @contextmanager
    def begin(self, *, reads: bool = False) -> Iterator[sa.Connection]:
        """A transaction: committed at the end of the block, rolled back when it raises.

        Args:
            reads: Whether ``stop_reading`` ends it.

        Raises:
            UnavailableError: The database is away, or a lock was not to be had in time.
            ConfigError: It refuses the user, the password or the database.
        """
        with translated(self.url), self.engine.begin() as connection:
            if not reads:
                yield connection
                return
            with self._told_of(_cancel_of(connection)):
                yield connection

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """For statements that only read: each is a transaction of its own, at a third of the round trips of ``begin``.

        As in ``begin``, whose transactions are READ COMMITTED, each sees what was committed before it.
        ``stop_reading`` ends it.

        Raises:
            UnavailableError, ConfigError: As ``begin``.
        """
        with (
            translated(self.url),
            self._reader.connect() as connection,
            self._told_of(_cancel_of(connection)),
        ):
            yield connection

    def transact(self, work: Callable[[sa.Connection], T]) -> T:
        """What *work* returns, done in a transaction of its own, whole once more where it met another one.

        Args:
            work: Does nothing but statements of the transaction it is given: it may be called again.

        Raises:
            UnavailableError: As ``begin``; or the transaction met others ``TRIES`` times.
        """
        for left in range(TRIES, 0, -1):
            try:
                with self.begin() as connection:
                    return work(connection)
            except UnavailableError as error:
                cause = getattr(error.__cause__, "orig", None)
                if left == 1 or getattr(cause, "sqlstate", None) not in MET_ANOTHER:
                    raise
        raise AssertionError("unreachable")

    def own_session(self) -> Session:
        """A session of the driver's, committing each statement; the caller's own, until it is closed.

        It never returns to the pool and does not count against it. Quicker for one short statement
        than a transaction of ``begin``.

        Raises:
            UnavailableError, ConfigError: As ``begin``.
        """
        with translated(self.url):
            pooled = self.engine.raw_connection()
            session = driver_of(pooled)
            pooled.detach()
            session.autocommit = True
        return session

    def frame(
        self, query: str, parameters: Sequence[object] = (), *, sought: pl.Series | None = None
    ) -> pl.DataFrame:
        """The rows of *query* (parameters as ``$1``) as a frame, through Arrow, in its own transaction.

        ``bytea`` is Binary and ``text`` String; cast other types in the query (``uid::text``).

        Args:
            query: One SELECT.
            parameters: Its parameters.
            sought: Binary, distinct: the query finds them in the temporary table ``sought (key_hash)``.
        """
        from syncflow_core.bridge import arrow  # noqa: PLC0415  # late, as it says itself

        self._embedded_runs()
        return arrow.read(self._arrow_url(), query, parameters, sought, self._told_of)

    @contextmanager
    def _told_of(self, cancel: Callable[[], None]) -> Iterator[None]:
        with self._reads:
            self._reading.add(cancel)
        try:
            yield
        finally:
            with self._reads:  # none is cancelled when its session may already do something else
                self._reading.remove(cancel)

    def stop_reading(self) -> None:
        """End what reads wait for, in whatever threads: they would be waited for when the process ends."""
        with self._reads:
            for cancel in self._reading:
                cancel()

    def health(self) -> Health:
        """One round trip on a pooled connection; raises as :meth:`begin` does."""
        with self.begin() as connection:
            version = connection.scalar(sa.text("SHOW server_version"))
        return Health(place=self.place, server=str(version), embedded=self._server is not None)

    def check_schema(self) -> None:
        """Raise ConfigError unless the database has exactly this code's schema."""
        with self.begin() as connection:
            schema.check_schema(connection)

    def close(self) -> None:
        """Close the pool and end the use of the embedded server."""
        self.engine.dispose()
        if self._server is not None:
            self._server.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ping_doubtful(
        self,
        session: Session,
        record: sa.pool.ConnectionPoolEntry,
        _: sa.PoolProxiedConnection,
    ) -> None:
        """Ask whether a connection still works if that is in doubt: what a server ended has something to read.

        SQLAlchemy's own ``pool_pre_ping`` asks each time, a quarter of all round trips of a sync.
        """
        if time.monotonic() - record.info[_USED_AT] < IDLE_S and not _has_something_to_read(
            session
        ):
            return
        try:
            self.engine.dialect.do_ping(session)  # type: ignore[arg-type]  # SQLAlchemy's name for any driver's
        except psycopg.Error as error:
            raise sa.exc.InvalidatePoolError(str(error)) from error

    def _embedded_runs(self, *connecting: Any) -> None:  # noqa: ANN401  # SQLAlchemy's "do_connect"
        """Before each new connection: a server whose watcher was killed is there again."""
        if self._server is None:
            return
        self._server.ensure()
        self.url, self.place = self._server.url(), place(self._server.url())
        if connecting:
            connecting[3]["port"] = self._server.port

    def _arrow_url(self) -> str:
        return (
            sa.make_url(self.url)
            .update_query_dict(
                {
                    "connect_timeout": str(CONNECT_TIMEOUT_S),
                    "application_name": "syncflow",
                    "options": _options(),
                }
            )
            .render_as_string(hide_password=False)
            .replace("+-c", "%20-c")
            .replace("-c+", "-c%20")
        )


def _cancel_of(connection: sa.Connection) -> Callable[[], None]:
    """What ends the statement that the connection is about."""
    session = driver_of(connection.connection)

    def cancel() -> None:
        with suppress(psycopg.Error):  # what is over needs no end
            session.cancel()

    return cancel


def _note_use(_: Session, record: sa.pool.ConnectionPoolEntry) -> None:
    record.info[_USED_AT] = time.monotonic()


def _has_something_to_read(session: Session) -> bool:
    """Whether the server has sent what nobody asked for: as a rule, that the session is over."""
    if session.closed:
        return True
    arrived = select.poll()
    arrived.register(session.fileno(), select.POLLIN)
    return bool(arrived.poll(0))


def _options() -> str:
    """What every session of SyncFlow's sets."""
    return f"-c lock_timeout={LOCK_TIMEOUT_S}s -c timezone=UTC -c random_page_cost={PAGE_COST}"
