"""Delete: children before parents, and what still has children waits.

Belongs here: deleting known records, pass by pass.
Does not belong here: which records are gone (``delta``), when waiting ones go (``release``).

Source: product.md 4 and 6; contract.md, "ScheduleHub".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from uuid import UUID

import polars as pl
import sqlalchemy as sa

from syncflow_core.bridge import failed, pending, records
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
from syncflow_core.digests import DIGESTS
from syncflow_core.outcomes import NOT_SENT, OK, SERVER_ERROR
from syncflow_core.parents import refs_without
from syncflow_core.stages.sender import Sender, groups
from syncflow_core.stages.verdicts import (
    BODY,
    CONFLICT,
    GONE,
    NOT_FOUND,
    ask,
    refused_frame,
)
from syncflow_core.stages.writer import CALL_ROWS, GROUP_ROWS, ROUNDS, Writer


@dataclass
class Deleter(Writer):
    """Deletes records of one batch.

    Args:
        deferred: The entity's references that can be NULL in a cycle (``parents.lineage``): a record
            that cannot go because another one that goes too refers to it is freed through these.
    """

    deferred: tuple[str, ...] = ()

    def delete(self, gone: pl.DataFrame) -> None:
        """Delete records; those with live children wait until these are gone.

        Passes go on as long as one deletes anything: a parent of the same entity may be free once its
        children have gone in the pass before. What is left then lets go of its own deferred
        references, so that records which refer to each other, here or in another entity, can go.

        Args:
            gone: At least ``#key_hash`` and ``#hub_uid``.

        Raises:
            UnavailableError: The target stopped answering.
        """
        rest = gone.select(KEY_HASH, HUB_UID)
        freed = not self.deferred
        while rest.height:
            blocked = pl.concat(
                [rest.clear(), *(self._pass(group) for group in rest.iter_slices(GROUP_ROWS))]
            )
            if blocked.height == rest.height:
                if not freed and self._freed(rest):
                    freed = True
                    continue
                with self.connections.database.begin() as connection:
                    self.lease.check(connection)
                    pending.wait_delete(connection, self.entity.name, rest, self.batch, self.now())
                self.count("waiting_deletes", rest.height)
                return
            rest = blocked

    def _freed(self, rest: pl.DataFrame) -> int:
        """Null the deferred references of records that are about to go; how many had any."""
        with self.connections.database.begin() as connection:
            known = records.load_known_of(connection, self.entity.name, rest[KEY_HASH])
        names = pl.lit(list(self.deferred), dtype=pl.List(pl.String))
        left = refs_without(pl.col(PARENT_REFS), names, self.entity.parents)
        holding = (
            known.with_columns(left.alias("#left"))
            .filter(pl.col("#left") != pl.col(PARENT_REFS))
            .select(
                KEY_HASH,
                DATA_HASH,
                ROWVERSION,
                pl.col("#left").alias(PARENT_REFS),
                pl.lit(None, dtype=pl.String).alias(REFERENCE),
                pl.lit(None, dtype=pl.String).alias(KEY_SOURCE),
                pl.lit("update", dtype=OPS).alias(OP),
                HUB_UID,
                pl.lit("{}").alias(BODY),
                pl.lit(None, dtype=pl.Binary).alias(DIGESTS),
            )
        )
        sender = Sender(self.connections, self.entity, self.batch, self.lease, self.now)
        for group in groups(holding):
            sender.send(group)
        sender.finish()
        return holding.height

    def _pass(self, group: pl.DataFrame) -> pl.DataFrame:
        """One pass over a group; the rows that have live children."""
        todo, blocked = group, [group.clear()]
        code = pl.col("code")
        for _ in range(ROUNDS):
            if todo.is_empty():
                return pl.concat(blocked)
            with self.connections.whole():
                chunks = list(todo.iter_slices(CALL_ROWS))
                intents = self.open_intents([("delete", chunk[KEY_HASH]) for chunk in chunks])
                answers = self.at_once([partial(self._call, chunk) for chunk in chunks])
                answered = pl.concat([todo, pl.concat(answers)], how="horizontal")
                unknown = answered.filter((code < OK) | (code >= SERVER_ERROR))
                still = self._still_there(unknown.filter(code != NOT_SENT))
                settled = unknown.filter(code != NOT_SENT).join(
                    still.select(KEY_HASH), on=KEY_HASH, how="anti"
                )
                done = pl.concat([answered.filter(code.is_in([OK, NOT_FOUND, GONE])), settled])
                refused = answered.filter(
                    code.is_between(400, SERVER_ERROR - 1)
                    & ~code.is_in([NOT_FOUND, CONFLICT, GONE])
                )
                self._save(done, refused, intents)
            unsent = unknown.filter(code == NOT_SENT)
            if unsent.height:
                raise self.away(unsent["error"][0])
            blocked.append(answered.filter(code == CONFLICT).select(group.columns))
            todo = still.select(group.columns)
        raise self.away(
            f"schedulehub gave no certain answer for {todo.height} deletes of {self.entity.name}"
        )

    def _call(self, chunk: pl.DataFrame) -> pl.DataFrame:
        target, collection = self.connections.target, self.entity.collection

        def call(rows: pl.DataFrame) -> pl.DataFrame:
            return target.delete(collection, rows[HUB_UID], before=self.lease.confirm)

        return self.halved(chunk, call)

    def _still_there(self, unknown: pl.DataFrame) -> pl.DataFrame:
        """Those that the target holds alive: their delete did not happen."""
        if unknown.is_empty():
            return unknown
        held = ask(self.connections.target, self.entity, unknown[KEY_HASH])
        live = held.filter(~pl.col("#held_deleted"))
        return unknown.join(live.select(KEY_HASH), on=KEY_HASH, how="semi")

    def _save(self, done: pl.DataFrame, refused: pl.DataFrame, intents: Sequence[UUID]) -> None:
        now, name = self.now(), self.entity.name

        def save(connection: sa.Connection) -> None:
            self.lease.check(connection)
            if done.height:
                keys = done[KEY_HASH]
                records.mark_deleted(connection, name, keys, self.batch)
                pending.cancel_deletes(connection, name, keys)
                failed.resolve_failed(connection, name, keys, "deleted", now)
                self.tell(connection, done, pl.lit("deleted"), now)
            if refused.height:
                letters = refused_frame(refused, self.privacy)
                failed.file_failed(connection, name, letters, self.batch, now)
                self.tell(connection, refused, pl.lit("failed"), now)
            self.close_intents(connection, intents, now)

        self.connections.database.transact(save)
        self.count("deleted", done.height)
        self.count("failed_deletes", refused.height)
