"""The sender: write calls to the target, each intent in the journal first, each outcome saved after.

Belongs here: the order journal -> call -> settle -> save, and what an outcome means for a record.
Does not belong here: which records are sent (``push``, ``release``), HTTP (``schedulehub``).

A write call is never repeated blindly. A record whose outcome is unknown is asked about first; only
what the target does not hold is sent again. What is saved is what the target acknowledged.

Source: product.md 5 and 6; contract.md, "ScheduleHub".
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from uuid import UUID

import polars as pl
import sqlalchemy as sa

from syncflow_core.bridge import events, failed, journal, pending, records
from syncflow_core.bridge.journal import WriteOp
from syncflow_core.bridge.leases import Lease
from syncflow_core.columns import (
    DATA_HASH,
    HUB_UID,
    KEY_HASH,
    KEY_SOURCE,
    OP,
    OPS,
    PARENT_REFS,
    REFERENCE,
    ROWVERSION,
)
from syncflow_core.entity import Entity
from syncflow_core.errors import RejectedError, UnavailableError
from syncflow_core.parents import parent_in_refs, refs_text
from syncflow_core.outcomes import HubRecord, Outcome
from syncflow_core.schedulehub import BATCH_LIMIT, Target
from syncflow_core.stages.work import Connections

BODY: Final = "#body"
"""String: the record as a JSON object, ``parent_refs`` left out."""

OUTGOING = pl.Schema(
    {
        KEY_HASH: pl.Binary(),
        DATA_HASH: pl.Binary(),
        ROWVERSION: pl.String(),
        PARENT_REFS: pl.String(),
        REFERENCE: pl.String(),
        KEY_SOURCE: pl.String(),
        OP: OPS,
        HUB_UID: pl.String(),
        BODY: pl.String(),
    }
)
"""Records on their way to the target."""

CALL_ROWS: Final = 1_000
"""Most rows of one write call (contract.md)."""
GROUP_ROWS: Final = 10_000
"""Rows whose intents are opened, and whose outcomes are saved, in one transaction each."""
CALLS_AT_ONCE: Final = 4
ROUNDS: Final = 4
"""How often one record is tried within a batch: insert, found there, update, and once more."""

WRITES: Final[tuple[WriteOp, WriteOp]] = ("insert", "update")

DONE, CHECK, AGAIN, PARKED, FAILED = "done", "check", "again", "parked", "failed"


@dataclass
class Sender:
    """Sends the records of one batch.

    Args:
        connections: The target and the database.
        entity: Whose records.
        batch: The batch that the accounts go to.
        lease: Checked in the transaction of every write.
        now: The clock for what is kept.
        parks: Whether a record that the target refuses for a missing parent is parked.
    """

    connections: Connections
    entity: Entity
    batch: UUID
    lease: Lease
    now: Callable[[], datetime]
    counts: Counter[str] = field(default_factory=Counter)
    landed: list[pl.Series] = field(default_factory=list)
    """Key hashes that the target acknowledged as inserted or updated."""
    refused: list[pl.Series] = field(default_factory=list)
    """Key hashes that failed."""

    def send(self, outgoing: pl.DataFrame) -> None:
        """Insert and update up to ``GROUP_ROWS`` records; afterwards each is saved, parked or filed.

        Raises:
            UnavailableError: The target stopped answering. What it acknowledged is saved, what is in
                doubt stays open in the journal.
        """
        todo = outgoing
        for number in range(ROUNDS):
            if todo.is_empty():
                return
            intents, answered = self._call(todo)
            judged = _judged(answered, last=number == ROUNDS - 1)
            judged = self._checked(judged)
            self._save(judged, intents)
            todo = judged.filter(pl.col("verdict") == AGAIN).select(outgoing.columns)
        if todo.height:
            raise UnavailableError(
                f"schedulehub gave no certain answer for {todo.height} {self.entity.name} after {ROUNDS} tries",
                system="schedulehub",
                entity=self.entity.name,
            )

    def _call(self, todo: pl.DataFrame) -> tuple[list[UUID], pl.DataFrame]:
        """Open the intents, make the calls; the rows with their outcomes, in the order sent."""
        calls: list[tuple[WriteOp, pl.DataFrame]] = [
            (op, chunk)
            for op in WRITES
            for chunk in todo.filter(pl.col(OP) == op).iter_slices(CALL_ROWS)
        ]
        intents = self._open([(op, chunk[KEY_HASH]) for op, chunk in calls])
        answers = self._at_once([lambda op=op, c=chunk: self._write(op, c) for op, chunk in calls])  # type: ignore[misc]  # bound at once
        return intents, pl.concat(
            [
                pl.concat([chunk, answer], how="horizontal")
                for (_, chunk), answer in zip(calls, answers, strict=True)
            ]
        )

    def _open(self, calls: Sequence[tuple[WriteOp, pl.Series]]) -> list[UUID]:
        with self.connections.database.begin() as connection:
            self.lease.check(connection)
            return [
                journal.open_intent(
                    connection,
                    entity=self.entity.name,
                    batch=self.batch,
                    op=op,
                    key_hashes=keys,
                    fence=self.lease.fence,
                    now=self.now(),
                )
                for op, keys in calls
            ]

    def _at_once(self, calls: Sequence[Callable[[], pl.DataFrame]]) -> list[pl.DataFrame]:
        if len(calls) == 1:
            return [calls[0]()]
        with ThreadPoolExecutor(CALLS_AT_ONCE, thread_name_prefix="push") as pool:
            return list(pool.map(lambda call: call(), calls))

    def _write(self, op: str, chunk: pl.DataFrame) -> pl.DataFrame:
        """One write call; a call refused as a whole is halved until the bad row is alone."""
        bodies = chunk.select(
            pl.concat_str(
                pl.col(BODY).str.head(-1),
                pl.lit(',"parent_refs":'),
                pl.col(PARENT_REFS),
                pl.lit("}"),
            )
        ).to_series()
        collection = self.entity.collection
        target = self.connections.target
        try:
            if op == "insert":
                outcomes = target.insert(collection, bodies.to_list())
            else:
                updates = zip(chunk[HUB_UID].to_list(), bodies.to_list(), strict=True)
                outcomes = target.update(collection, list(updates))
        except RejectedError as error:
            if error.status in {401, 403}:
                raise
            if chunk.height == 1:
                return _outcome_frame(
                    [Outcome(index=0, status="failed", code=error.status, error=str(error))]
                )
            middle = chunk.height // 2
            return pl.concat([self._write(op, chunk[:middle]), self._write(op, chunk[middle:])])
        return _outcome_frame(outcomes)

    def _checked(self, judged: pl.DataFrame) -> pl.DataFrame:
        """Ask the target about every record whose outcome is unknown or contradicts what was known."""
        asked = judged.filter(pl.col("verdict") == CHECK)
        if asked.is_empty():
            return judged
        held = ask(self.connections.target, self.entity, asked[KEY_HASH])
        compared = asked.drop("verdict", "uid", "effect").join(held, on=KEY_HASH, how="left")
        equal = pl.col("#held_data_hash").eq_missing(pl.col(DATA_HASH)) & pl.col(
            "#held_parent_refs"
        ).eq_missing(pl.col(PARENT_REFS))
        live = pl.col("uid").is_not_null() & ~pl.col("#held_deleted")
        settled = compared.with_columns(
            pl.when(live & equal).then(pl.lit(DONE)).otherwise(pl.lit(AGAIN)).alias("verdict"),
            # what was in doubt and is there was our own write; a 409 means that it was there before
            pl.when(pl.col("code") == 409)
            .then(pl.lit("unchanged"))
            .otherwise(pl.col(OP).cast(pl.String))
            .alias("effect"),
            pl.when(live).then(pl.lit("update")).otherwise(pl.lit("insert")).cast(OPS).alias(OP),
            pl.when(live).then(pl.col("uid")).alias(HUB_UID),
        ).select(judged.columns)
        return pl.concat([judged.filter(pl.col("verdict") != CHECK), settled])

    def _save(self, judged: pl.DataFrame, intents: Sequence[UUID]) -> None:
        """In one transaction: what was acknowledged, parked or refused, and the intents closed."""
        done = judged.filter(pl.col("verdict") == DONE).with_columns(
            pl.coalesce("uid", HUB_UID).alias(HUB_UID)
        )
        parked = judged.filter(pl.col("verdict") == PARKED)
        refused = judged.filter(pl.col("verdict") == FAILED)
        now = self.now()
        name = self.entity.name
        with self.connections.database.begin() as connection:
            self.lease.check(connection)
            if done.height:
                records.save_acknowledged(connection, name, done, self.batch)
                failed.resolve_failed(connection, name, done[KEY_HASH], "pushed", now)
                pending.close_pending(
                    connection, name, done[KEY_HASH], "released", now, kind="parked"
                )
                self._tell(connection, done, pl.col("effect").replace_strict(EVENTS), now)
            if parked.height:
                pending.park(connection, name, missing_frame(parked, self.entity), self.batch, now)
                self._tell(connection, parked, pl.lit("parked"), now)
            if refused.height:
                failed.file_failed(connection, name, refused_frame(refused), self.batch, now)
                self._tell(connection, refused, pl.lit("failed"), now)
            for intent in intents:
                journal.close_intent(connection, intent, "done", now)
        for effect, number in done["effect"].value_counts().iter_rows():
            self.counts[COUNTED[effect]] += number
        self.counts["pending"] += parked.height
        self.counts["failed"] += refused.height
        if done.height:
            self.landed.append(done[KEY_HASH])
        if refused.height:
            self.refused.append(refused[KEY_HASH])

    def _tell(
        self, connection: sa.Connection, rows: pl.DataFrame, event: pl.Expr, now: datetime
    ) -> None:
        """One line of history for each row."""
        lines = rows.select(KEY_HASH, event.alias("event"))
        events.record(connection, self.entity.name, lines, self.batch, now)

    def delete(self, gone: pl.DataFrame) -> None:
        """Delete records; those with live children wait until these are gone.

        Args:
            gone: ``columns.KNOWN`` rows.
        """
        rest = gone
        while rest.height:
            blocked = pl.concat(
                [
                    rest.clear(),
                    *(self._delete_group(group) for group in rest.iter_slices(GROUP_ROWS)),
                ]
            )
            if blocked.height == rest.height:
                break
            rest = blocked  # a parent of the same entity: its children may have gone in this pass
        else:
            return
        with self.connections.database.begin() as connection:
            self.lease.check(connection)
            pending.wait_delete(connection, self.entity.name, rest, self.batch, self.now())

    def _delete_group(self, group: pl.DataFrame) -> pl.DataFrame:
        """One pass over a group; the rows that have live children."""
        todo, blocked = group, [group.clear()]
        for _ in range(ROUNDS):
            if todo.is_empty():
                return pl.concat(blocked)
            calls = list(todo.iter_slices(CALL_ROWS))
            intents = self._open([("delete", chunk[KEY_HASH]) for chunk in calls])
            answers = self._at_once([lambda c=chunk: self._delete_call(c) for chunk in calls])  # type: ignore[misc]  # bound at once
            answered = pl.concat([todo, pl.concat(answers)], how="horizontal")
            done = answered.filter(pl.col("code").is_in([0, 404, 410]))
            waits = answered.filter(pl.col("code") == 409)
            refused = answered.filter(
                pl.col("code").is_between(400, 499) & ~pl.col("code").is_in([404, 409, 410])
            )
            unknown = answered.filter((pl.col("code") < 0) | (pl.col("code") >= 500))
            still = self._still_there(unknown)
            done = pl.concat([done, unknown.join(still.select(KEY_HASH), on=KEY_HASH, how="anti")])
            self._save_deleted(done, refused, intents)
            blocked.append(waits.select(group.columns))
            todo = still.select(group.columns)
        raise UnavailableError(
            f"schedulehub gave no certain answer for {todo.height} deletes of {self.entity.name}",
            system="schedulehub",
            entity=self.entity.name,
        )

    def _delete_call(self, chunk: pl.DataFrame) -> pl.DataFrame:
        uids = chunk[HUB_UID].to_list()
        return _outcome_frame(self.connections.target.delete(self.entity.collection, uids))

    def _still_there(self, unknown: pl.DataFrame) -> pl.DataFrame:
        if unknown.is_empty():
            return unknown
        held = ask(self.connections.target, self.entity, unknown[KEY_HASH])
        held = held.filter(~pl.col("#held_deleted"))
        return unknown.join(held.select(KEY_HASH), on=KEY_HASH, how="semi")

    def _save_deleted(
        self, done: pl.DataFrame, refused: pl.DataFrame, intents: Sequence[UUID]
    ) -> None:
        now, name = self.now(), self.entity.name
        with self.connections.database.begin() as connection:
            self.lease.check(connection)
            if done.height:
                records.mark_deleted(connection, name, done[KEY_HASH], self.batch)
                pending.cancel_deletes(connection, name, done[KEY_HASH])
                failed.resolve_failed(connection, name, done[KEY_HASH], "deleted", now)
                self._tell(connection, done, pl.lit("deleted"), now)
            if refused.height:
                filed = refused.with_columns(
                    pl.lit(None, dtype=pl.String).alias(REFERENCE),
                    pl.lit(None, dtype=pl.String).alias(BODY),
                )
                failed.file_failed(connection, name, refused_frame(filed), self.batch, now)
            for intent in intents:
                journal.close_intent(connection, intent, "done", now)
        self.counts["deleted"] += done.height
        self.counts["failed_deletes"] += refused.height


EVENTS: Final = {"insert": "inserted", "update": "updated", "unchanged": "adopted"}
COUNTED: Final = {"insert": "inserted", "update": "updated", "unchanged": "unchanged"}


def groups(frame: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """The frame in groups of ``GROUP_ROWS``."""
    yield from frame.iter_slices(GROUP_ROWS)


def _outcome_frame(outcomes: Sequence[Outcome]) -> pl.DataFrame:
    """Outcomes as columns, in the order of the rows sent; code 0 is success, -1 no answer."""
    return pl.DataFrame(
        {
            "code": [
                0
                if o.status not in {"failed", "doubt"}
                else -1
                if o.status == "doubt"
                else o.code or 500
                for o in outcomes
            ],
            "uid": [o.uid for o in outcomes],
            "error": [o.error for o in outcomes],
            "missing": [list(o.missing_parents) for o in outcomes],
        },
        schema={
            "code": pl.Int32,
            "uid": pl.String,
            "error": pl.String,
            "missing": pl.List(pl.String),
        },
    )


def _judged(answered: pl.DataFrame, *, last: bool) -> pl.DataFrame:
    """What each outcome means: done, to be checked, to be sent again, parked, failed."""
    code, op = pl.col("code"), pl.col(OP)
    verdict = (
        pl.when(code == 0)
        .then(pl.lit(DONE))
        .when(code == 424)
        .then(pl.lit(PARKED))
        .when((op == "update") & code.is_in([404, 410]))
        .then(pl.lit(AGAIN))
        .when((op == "insert") & (code == 409))
        .then(pl.lit(CHECK))
        .when((code < 0) | (code >= 500))
        .then(pl.lit(CHECK))
        .otherwise(pl.lit(FAILED))
    )
    lost = (op == "update") & code.is_in([404, 410])
    judged = answered.with_columns(
        verdict.alias("verdict"),
        op.cast(pl.String).alias("effect"),
        pl.when(lost).then(pl.lit("insert", dtype=OPS)).otherwise(op).alias(OP),
    )
    if not last:
        return judged
    tired = (code >= 500) | ((op == "insert") & (code == 409))
    return judged.with_columns(
        pl.when(tired).then(pl.lit(FAILED)).otherwise(pl.col("verdict")).alias("verdict")
    )


def ask(target: Target, entity: Entity, keys: pl.Series) -> pl.DataFrame:
    """What the target holds of these keys: uid, data hash, references in our canonical text, deleted."""
    held: list[HubRecord] = []
    for start in range(0, len(keys), BATCH_LIMIT):
        held += target.query(entity.collection, keys[start : start + BATCH_LIMIT].to_list())
    return pl.DataFrame(
        {
            KEY_HASH: [record.key_hash for record in held],
            "uid": [record.uid for record in held],
            "#held_data_hash": [record.data_hash for record in held],
            "#held_parent_refs": [refs_text(record.parent_refs, entity.parents) for record in held],
            "#held_deleted": [record.is_deleted for record in held],
            "#held_rowversion": [record.rowversion for record in held],
            "#held_reference": [record.reference for record in held],
        },
        schema={
            KEY_HASH: pl.Binary,
            "uid": pl.String,
            "#held_data_hash": pl.Binary,
            "#held_parent_refs": pl.String,
            "#held_deleted": pl.Boolean,
            "#held_rowversion": pl.String,
            "#held_reference": pl.String,
        },
    )


def missing_frame(parked: pl.DataFrame, entity: Entity) -> pl.DataFrame:
    """A line for each reference that the target did not find, as ``pending.park`` takes it."""
    lines = [
        parked.filter(pl.col("missing").list.contains(name) | (pl.col("missing").list.len() == 0))
        .with_columns(
            pl.lit(name).alias("reference_name"),
            pl.lit(parent.entity).alias("parent_entity"),
            parent_in_refs(pl.col(PARENT_REFS), name).alias("parent_key_hash"),
            pl.lit("parked").alias("kind"),
            pl.lit(None, dtype=pl.Datetime("us", "UTC")).alias("due_at"),
            pl.col(BODY).alias("payload"),
        )
        .filter(pl.col("parent_key_hash").is_not_null())
        .select(pending.PARKED.names())
        for name, parent in entity.parents.items()
    ]
    return pl.concat(lines)


def refused_frame(refused: pl.DataFrame) -> pl.DataFrame:
    """Records that the target refused, as ``failed.file_failed`` takes them."""
    return refused.select(
        pl.lit("push").alias("stage"),
        pl.lit(None, dtype=pl.UInt8).alias("layer"),
        pl.concat_str(pl.lit("hub_"), pl.col("code")).alias("rule"),
        pl.lit(None, dtype=pl.String).alias("column"),
        pl.lit(None, dtype=pl.String).alias("value"),
        pl.coalesce("error", pl.lit("schedulehub refused the record without a word")).alias(
            "message"
        ),
        pl.col(BODY).alias("raw"),
        KEY_HASH,
        REFERENCE,
    )
