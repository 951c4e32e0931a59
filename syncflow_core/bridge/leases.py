"""Who syncs an entity: a PostgreSQL advisory lock, and a lease that fences off a holder who lost it.

The lock belongs to a session of its own and dies with its process, so a free lock means that the
holder has ended or is dead. The lease's fencing number rises with every holder; each transaction
that writes for an entity calls :meth:`Lease.check` first, which also keeps a new holder from
taking over until that transaction has ended.

Belongs here: taking, keeping, checking and giving back a lease; ending a frozen holder's sessions.
Does not belong here: settling what a dead holder left in doubt (``stages``), Dagster's runs.

Source: design.md, "The way of a record" 7.
"""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from datetime import datetime
from types import TracebackType
from typing import Final, Self
from uuid import UUID

import sqlalchemy as sa

from syncflow_core.bridge.address import translated
from syncflow_core.bridge.batches import Batch, close_dead_batches
from syncflow_core.bridge.database import Database
from syncflow_core.errors import SyncFlowError, UnavailableError
from syncflow_core.logs import in_context

HEARTBEAT_S: Final = 5.0
FROZEN_S: Final = 30.0  # six heartbeats missed
FRESH_S: Final = 15.0
"""A heartbeat of so long ago vouches for the lease: half of what a new holder waits."""
POLL_S: Final = 0.25
WAIT_S: Final = 60.0

log = logging.getLogger(__name__)

_KEY = "hashtextextended('syncflow lease ' || :entity, 0)"
_TRY = sa.text(f"SELECT pg_try_advisory_lock({_KEY})")
# The session that holds the lock and when it last did anything: its heartbeats are statements.
_HOLDER = sa.text(
    f"""
    SELECT a.pid, a.application_name, l.holder, l.acquired_at,
        extract(epoch FROM clock_timestamp() - a.state_change)::float8 AS silent_s
    FROM pg_locks AS k JOIN pg_stat_activity AS a ON a.pid = k.pid
    LEFT JOIN bridge.leases AS l ON l.entity = :entity AND l.backend_pid = a.pid
    WHERE k.locktype = 'advisory' AND k.granted AND k.objsubid = 1
        AND k.database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND (k.classid::bigint << 32 | k.objid::bigint) = {_KEY}
    """  # noqa: S608  # a constant
)
# All sessions of the frozen process: one of its transactions may hold the lease's row.
_TERMINATE = sa.text(
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE pid = :pid OR (application_name = :name AND usename = current_user)"
)
_LOCK_ROW = sa.text(
    "SELECT released_at, holder FROM bridge.leases WHERE entity = :entity FOR UPDATE"
)
_TAKE = sa.text(
    """
    INSERT INTO bridge.leases AS l (entity, holder, backend_pid, batch, dagster_run_id, fence,
        acquired_at, heartbeat_at, released_at)
    VALUES (:entity, :holder, pg_backend_pid(), :batch, :run_id, 1, now(), now(), NULL)
    ON CONFLICT (entity) DO UPDATE SET holder = excluded.holder, backend_pid = excluded.backend_pid,
        batch = excluded.batch, dagster_run_id = excluded.dagster_run_id, fence = l.fence + 1,
        acquired_at = now(), heartbeat_at = now(), released_at = NULL
    RETURNING fence, acquired_at
    """
)
# Whether a session holds the lock of the entity in a column.
_LOCKED = """
    SELECT FROM pg_locks AS k WHERE k.locktype = 'advisory' AND k.granted AND k.objsubid = 1
    AND k.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND (k.classid::bigint << 32 | k.objid::bigint)
        = hashtextextended('syncflow lease ' || {entity}, 0)
"""
_BEAT = sa.text(
    "UPDATE bridge.leases SET heartbeat_at = now() WHERE entity = :entity AND fence = :fence"
)
_RELEASE = sa.text(
    "UPDATE bridge.leases SET released_at = now() WHERE entity = :entity AND fence = :fence"
)
# KEY SHARE lets heartbeats through and makes a new holder's FOR UPDATE wait.
_CHECK = sa.text("SELECT fence FROM bridge.leases WHERE entity = :entity FOR KEY SHARE")


def held_entities(connection: sa.Connection) -> set[str]:
    """Names of entities that somebody syncs: who has been silent for long may be dead, and is followed."""
    query = sa.text(
        "SELECT entity FROM bridge.leases WHERE released_at IS NULL "
        "AND heartbeat_at > now() - :silent_s * interval '1 second'"
    )
    return set(connection.scalars(query, {"silent_s": FROZEN_S}))


def runs_of_the_dead(connection: sa.Connection) -> set[str]:
    """Dagster's runs that had an entity and whose process has died, for its lock is free.

    Not those that were there a moment ago: a server that was started anew ended their sessions, which they
    find out with their next heartbeat.
    """
    query = sa.text(
        f"""
        SELECT l.dagster_run_id FROM bridge.leases AS l
        WHERE l.released_at IS NULL AND l.dagster_run_id IS NOT NULL
            AND l.heartbeat_at < now() - :silent_s * interval '1 second'
            AND NOT EXISTS ({_LOCKED.format(entity="l.entity")})
        """  # noqa: S608  # constants
    )
    return set(connection.scalars(query, {"silent_s": FRESH_S}))


def is_abandoned(connection: sa.Connection, entity: str, batch: UUID) -> bool:
    """Whether the batch's process has died with the entity: its lease was never given back, and its lock is free."""
    query = sa.text(
        f"""
        SELECT EXISTS (SELECT FROM bridge.leases AS l WHERE l.entity = :entity AND l.batch = :batch
            AND l.released_at IS NULL AND NOT EXISTS ({_LOCKED.format(entity="l.entity")}))
        """  # noqa: S608  # constants
    )
    return bool(connection.scalar(query, {"entity": entity, "batch": batch}))


def free_entities(connection: sa.Connection) -> set[str]:
    """Names of entities that no living process holds, whatever their lease says."""
    query = sa.text(
        f"SELECT name FROM bridge.entities WHERE NOT EXISTS ({_LOCKED.format(entity='name')})"  # noqa: S608  # constants
    )
    return set(connection.scalars(query))


def awake() -> float:
    """Seconds that go on while the process, or the whole machine, stands still."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class HeldError(SyncFlowError):
    """Another sync of the entity goes on."""

    refused = True


class Lease:
    """One process's right to sync one entity, until :meth:`release` or the process's end."""

    def __init__(
        self,
        database: Database,
        connection: sa.Connection,
        entity: str,
        fence: int,
        dead: list[Batch],
        *,
        heartbeat_s: float,
    ) -> None:
        self._database = database
        self.entity = entity
        self.fence = fence
        self.dead_batches = dead
        """What the previous holder had running when it died: closed as failed; their Dagster runs
        are the caller's to close."""
        self._connection = connection
        self._heartbeat_s = heartbeat_s
        self._beaten_at = awake()
        self._ended = threading.Event()
        self._lost = threading.Event()
        self._busy = threading.Lock()
        self._thread = threading.Thread(
            target=in_context(self._beat), name=f"lease of {entity}", daemon=True
        )
        self._thread.start()

    @classmethod
    def acquire(
        cls,
        database: Database,
        entity: str,
        *,
        batch: UUID | None = None,
        run_id: str | None = None,
        wait_s: float = WAIT_S,
        frozen_s: float = FROZEN_S,
        heartbeat_s: float = HEARTBEAT_S,
        sleep: Callable[[float], None] = time.sleep,  # noqa: TID251  # the seam itself
    ) -> "Lease":
        """Become the one who syncs *entity*, waiting at most *wait_s* seconds for who does.

        A dead holder is followed at once; one that has been silent for *frozen_s* seconds has its
        sessions ended first. What either had running is closed, *batch* (written before, pending)
        excepted.

        Raises:
            HeldError: Another sync of the entity goes on; the message says whose.
            UnavailableError: The database is away.
        """
        with translated(database.url):
            connection = database.engine.connect()
            # A session of its own: it must neither return to the pool nor count against it.
            connection.detach()
            try:
                _wait(connection, entity, wait_s, frozen_s, sleep)
                fence, dead = _take(connection, entity, batch, run_id)
            except BaseException:
                connection.close()
                raise
        return cls(database, connection, entity, fence, dead, heartbeat_s=heartbeat_s)

    @property
    def is_lost(self) -> bool:
        """Whether a heartbeat found that the session or the fence is gone: begin nothing more."""
        return self._lost.is_set()

    def check(self, connection: sa.Connection) -> None:
        """Make sure, for the rest of the connection's transaction, that the lease is still ours.

        Raises:
            SyncFlowError: Another holder has taken over; nothing may be written or pushed.
            UnavailableError: The lease's session has ended, as with a server that was started anew.
        """
        fence = connection.execute(_CHECK, {"entity": self.entity}).scalar_one()
        if fence == self.fence and self.is_lost:
            raise UnavailableError(
                f"entity {self.entity}: the database ended the session of this sync's lease; "
                "it writes nothing more",
                system="database",
                entity=self.entity,
            )
        if fence != self.fence:
            self._lost.set()
            raise SyncFlowError(
                f"entity {self.entity}: another sync has taken over (its fence is {fence}, "
                f"this one's {self.fence}); this one writes nothing more",
                entity=self.entity,
            )

    def confirm(self) -> None:
        """Make sure, right before a call to the target, that the lease is ours still.

        A fresh heartbeat is enough; a process that stood still for longer asks the database.

        Raises:
            SyncFlowError: Another holder has taken over, or may have: no call may begin.
            UnavailableError: The database is away.
        """
        if not self.is_lost and awake() - self._beaten_at > FRESH_S:
            with self._database.begin() as connection:
                self.check(connection)
        if self.is_lost:
            raise SyncFlowError(
                f"entity {self.entity}: the lease was lost; this sync calls nobody any more",
                entity=self.entity,
            )

    def release(self) -> None:
        """Give the lease back; repeating does nothing, and a lost lease is let go silently."""
        if self._ended.is_set():
            return
        self._ended.set()
        self._thread.join()
        try:
            if not self.is_lost:
                self._execute(_RELEASE)
        except sa.exc.DBAPIError:
            # what was done under it is committed, so there is nothing that a person should know
            log.info("entity %s: the lease's session was gone at its end", self.entity)
        finally:
            self._connection.close()  # detached from the pool: the session and its lock end

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def _beat(self) -> None:
        while not self._ended.wait(self._heartbeat_s):
            beaten_at = awake()
            try:
                ours = self._execute(_BEAT)
            except sa.exc.DBAPIError:
                ours = False
            if ours:
                self._beaten_at = beaten_at
            elif not self._ended.is_set():  # one that is given back needs no session any more
                log.error("entity %s: the lease (fence %s) is lost", self.entity, self.fence)
                self._lost.set()
                return

    def _execute(self, statement: sa.TextClause) -> bool:
        with self._busy:
            done = self._connection.execute(statement, {"entity": self.entity, "fence": self.fence})
            self._connection.commit()
        return done.rowcount == 1


def _wait(
    connection: sa.Connection,
    entity: str,
    wait_s: float,
    frozen_s: float,
    sleep: Callable[[float], None],
) -> None:
    """Return holding the entity's advisory lock."""
    deadline = time.monotonic() + wait_s
    while not connection.execute(_TRY, {"entity": entity}).scalar_one():
        holder = connection.execute(_HOLDER, {"entity": entity}).first()
        if holder is not None and holder.silent_s > frozen_s:
            log.warning(
                "entity %s: holder %s has been silent for %.0f s: its sessions are ended",
                entity,
                holder.holder,
                holder.silent_s,
            )
            connection.execute(_TERMINATE, {"pid": holder.pid, "name": holder.application_name})
        elif time.monotonic() >= deadline:
            raise _busy(entity, None if holder is None else holder.holder, wait_s)
        connection.commit()  # pg_stat_activity is a snapshot of the transaction
        sleep(min(POLL_S, max(deadline - time.monotonic(), 0.01)))


def _take(
    connection: sa.Connection, entity: str, batch: UUID | None, run_id: str | None
) -> tuple[int, list[Batch]]:
    """The new fence, and the dead batches of who held it before."""
    connection.commit()
    before = connection.execute(_LOCK_ROW, {"entity": entity}).first()
    row = connection.execute(
        _TAKE,
        {
            "entity": entity,
            "holder": f"{socket.gethostname()} process {os.getpid()}"
            + (f" run {run_id}" if run_id else ""),
            "batch": batch,
            "run_id": run_id,
        },
    ).one()
    acquired_at: datetime = row.acquired_at
    holder = "its holder" if before is None else before.holder
    dead = close_dead_batches(
        connection,
        entity,
        f"{holder} ended without closing this batch; a new sync took over",
        now=acquired_at,
        but=batch,
    )
    connection.commit()
    return int(row.fence), dead


def _busy(entity: str, holder: str | None, wait_s: float) -> HeldError:
    return HeldError(
        f"entity {entity} is being synced by {holder or 'another process'}; "
        f"waited {wait_s:.0f} s (--wait SECONDS)",
        entity=entity,
    )
