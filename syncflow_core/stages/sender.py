"""Insert and update: each intent in the journal first, each outcome settled and saved after.

Belongs here: the order journal -> call -> settle -> save.
Does not belong here: which records are sent (``push``, ``release``), what an outcome means
(``verdicts``), HTTP (``schedulehub``).

A write call is never repeated blindly. A record whose outcome is unknown is asked about first; only
what the target does not hold is sent again. What is saved is what the target acknowledged.

Source: product.md 5 and 6; contract.md, "ScheduleHub".
"""

import json
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from functools import partial
from typing import Final
from uuid import UUID

import polars as pl
import sqlalchemy as sa

from syncflow_core.bridge import failed, pending, records, suspects
from syncflow_core.bridge.journal import WriteOp
from syncflow_core.columns import HUB_UID, KEY_HASH, OP, PARENT_REFS, REFERENCE
from syncflow_core.digests import DIGESTS, changed_fields
from syncflow_core.fields import Shape
from syncflow_core.logs import Threads
from syncflow_core.privacy import Privacy, privacy_of
from syncflow_core.stages.attempts import PARENT_NAME, count_attempt
from syncflow_core.stages.verdicts import (
    AGAIN,
    AWAY,
    BODY,
    CHECK,
    DONE,
    FAILED,
    PARKED,
    ask,
    hidden_bodies,
    judged,
    missing_frame,
    outgoing,
    refused_frame,
    settled,
)
from syncflow_core.stages.writer import CALL_ROWS, GROUP_ROWS, ROUNDS, Writer

WRITES: Final[tuple[WriteOp, ...]] = ("insert", "update")
COUNTED: Final = {"insert": "inserted", "update": "updated", "unchanged": "unchanged"}
SAVES_AT_ONCE: Final = 2
"""Groups that are saved while another one is sent."""
MANY_NEW: Final = 1_000
"""Inserted records of a group that are worth a savepoint."""
SAMPLES: Final = 10
FEW_ROWS: Final = 100
"""Rows of a call whose records were near one worker's death."""
ALONE_AFTER: Final = 2
GIVEN_UP_AFTER: Final = 3
"""Deaths near which a record is sent alone, and is sent no more."""
EVENTS: Final = {"insert": "inserted", "update": "updated", "unchanged": "adopted"}


def groups(frame: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """The frame in groups of ``GROUP_ROWS``, by key hash.

    Neighbours in an index are written together, here and mostly in the target, and lie together in the table
    when a later batch asks for them.
    """
    yield from frame.sort(KEY_HASH).iter_slices(GROUP_ROWS)


def prepared(
    frame: pl.DataFrame,
    shape: Shape,
    *,
    privacy: Privacy | None = None,
) -> Iterator[pl.DataFrame]:
    """The rows as they are sent, ``OUTGOING``, in ``groups``; the next is made while one is sent.

    Args:
        frame: ``(n, k)`` identified rows with ``#op`` and ``#hub_uid``.
        shape: The entity's fields.
        privacy: What of them is hidden; as they are declared where None.
    """
    hidden = privacy_of(shape.entity) if privacy is None else privacy
    with Threads(1, thread_name_prefix="prepare") as beside:
        ahead: Future[pl.DataFrame] | None = None
        for group in groups(frame):
            ready, ahead = ahead, beside.submit(outgoing, group, shape, hidden)
            if ready is not None:
                yield ready.result()
        if ahead is not None:
            yield ahead.result()


@dataclass
class Sender(Writer):
    """Inserts and updates the records of one batch.

    Args:
        shape: The entity's fields, where the history is to say which of them changed.

    Records that were on their way when a worker died go last and in small company, then alone: one that
    kills whoever sends it is found, and filed, while all others go on.
    """

    shape: Shape | None = None
    insist: bool = False
    """Whether a person asks for a retry: a record that was given up is tried once more, alone."""
    landed: list[pl.Series] = field(default_factory=list)
    """Key hashes that the target acknowledged as inserted or updated."""
    refused: list[pl.Series] = field(default_factory=list)
    """Key hashes that failed."""
    parked: list[pl.Series] = field(default_factory=list)
    """Key hashes that the target refused for a parent which it does not hold."""
    samples: list[dict[str, str]] = field(default_factory=list)
    """The first ``SAMPLES`` writes: what was done, to which record, which fields changed. No values."""
    beside: Executor | None = None
    """Saves what one group's records became while the next is sent. Its owner waits for it."""
    _saving: deque[Future[None]] = field(default_factory=deque)
    _suspects: pl.DataFrame | None = None
    _put_off: list[pl.DataFrame] = field(default_factory=list)
    _all_new: bool = True
    """Whether no record that was inserted had a line, of a deleted one."""

    def send(self, outgoing: pl.DataFrame) -> None:
        """Insert and update up to ``GROUP_ROWS`` records; afterwards each is saved, parked or filed.

        What a worker died of, perhaps, waits for ``finish``.

        Args:
            outgoing: Shape ``verdicts.OUTGOING``.

        Raises:
            UnavailableError: The target stopped answering. What it acknowledged is saved, what is in
                doubt stays open in the journal.
        """
        if self._suspects is None:
            with self.connections.database.begin() as connection:
                self._suspects = suspects.load_suspects(connection, self.entity.name)
        if self._suspects.height:
            self._put_off.append(outgoing.join(self._suspects, on=KEY_HASH, how="inner"))
            outgoing = outgoing.join(self._suspects, on=KEY_HASH, how="anti")
        self._send(outgoing)

    def finish(self) -> None:
        """Send what was put off: by few, by one, or no more. Everything is saved then.

        Raises:
            UnavailableError: The target stopped answering.
        """
        self._wait()
        for doubtful in self._put_off:
            few, alone = pl.col("deaths") < ALONE_AFTER, pl.col("deaths") < GIVEN_UP_AFTER
            guilty = doubtful.filter(~alone)
            if guilty.height and not self.insist:
                guilty = self._given_up(guilty)
            single = pl.concat([doubtful.filter(~few & alone), guilty])
            for rows, size in ((doubtful.filter(few), FEW_ROWS), (single, 1)):
                for part in rows.drop("deaths").iter_slices(size):
                    self._send(part)
        self._put_off.clear()
        self._wait()

    def _given_up(self, guilty: pl.DataFrame) -> pl.DataFrame:
        """File what killed too many workers; those that have changed since they were filed are tried."""
        with self.connections.database.begin() as connection:
            filed = failed.load_raw(connection, self.entity.name, guilty[KEY_HASH])
        before = guilty.join(filed, on=KEY_HASH, how="left")
        sent = hidden_bodies(before[BODY], self.privacy)  # as it would be filed
        changed = before.filter(pl.col("raw").ne(sent).fill_null(value=False))
        refused = guilty.join(changed, on=KEY_HASH, how="anti")
        words = pl.concat_str(
            pl.col("deaths"),
            pl.lit(" workers died while they sent this record: it is sent no more"),
        )
        letters = refused_frame(
            refused.with_columns(words.alias("error"), pl.lit(0).alias("code")), self.privacy
        ).with_columns(pl.lit("worker_died").alias("rule"))
        now = self.now()
        with self.connections.database.begin() as connection:
            self.lease.check(connection)
            failed.file_failed(connection, self.entity.name, letters, self.batch, now)
            self.tell(connection, refused, pl.lit("failed"), now)
        self.count("failed", refused.height)
        self.refused.append(refused[KEY_HASH])
        return guilty.join(changed, on=KEY_HASH, how="semi")

    def _send(self, outgoing: pl.DataFrame) -> None:
        todo = outgoing
        for number in range(ROUNDS):
            if todo.is_empty():
                return
            with self.connections.whole():
                intents, answered = self._call(todo)
                verdicts = judged(answered, last=number == ROUNDS - 1)
                if CHECK in verdicts["verdict"]:
                    asked = verdicts.filter(pl.col("verdict") == CHECK)
                    held = ask(self.connections.target, self.entity, asked[KEY_HASH])
                    rest = verdicts.filter(pl.col("verdict") != CHECK)
                    verdicts = pl.concat([rest, settled(asked, held)])
                self._keep(verdicts, intents)
            if AWAY in verdicts["verdict"]:
                self._wait()
                raise self.away(verdicts.filter(pl.col("verdict") == AWAY)["error"][0])
            todo = verdicts.filter(pl.col("verdict") == AGAIN).select(outgoing.columns)
        if todo.height:
            raise self.away(
                f"schedulehub gave no certain answer for {todo.height} {self.entity.name} after {ROUNDS} tries"
            )

    def _keep(self, verdicts: pl.DataFrame, intents: Sequence[UUID]) -> None:
        """Save, here or beside the next calls; a few saves at once, so that little is held."""
        if self.beside is None:
            self._save(verdicts, intents)
            return
        while len(self._saving) >= SAVES_AT_ONCE:
            self._saving.popleft().result()
        self._saving.append(self.beside.submit(self._save, verdicts, intents))

    def _wait(self) -> None:
        """Return when nothing is being saved any more; what a save raises is raised here."""
        while self._saving:
            self._saving.popleft().result()

    def _call(self, todo: pl.DataFrame) -> tuple[list[UUID], pl.DataFrame]:
        """Open the intents, make the calls; the rows with their outcomes."""
        calls = [
            (op, chunk)
            for op in WRITES
            for chunk in todo.filter(pl.col(OP) == op).iter_slices(CALL_ROWS)
        ]
        intents = self.open_intents([(op, chunk[KEY_HASH]) for op, chunk in calls])
        answers = self.at_once([partial(self._write, op, chunk) for op, chunk in calls])
        rows = pl.concat([chunk for _, chunk in calls])
        return intents, pl.concat([rows, pl.concat(answers)], how="horizontal")

    def _write(self, op: WriteOp, chunk: pl.DataFrame) -> pl.DataFrame:
        target, collection = self.connections.target, self.entity.collection

        def call(rows: pl.DataFrame) -> pl.DataFrame:
            bodies = rows.select(
                pl.concat_str(
                    pl.col(BODY).str.strip_suffix("}"),
                    pl.when(pl.col(BODY) == "{}").then(pl.lit("")).otherwise(pl.lit(",")),
                    pl.lit('"parent_refs":'),
                    pl.col(PARENT_REFS),
                    pl.lit("}"),
                )
            ).to_series()
            if op == "insert":
                return target.insert(collection, bodies, before=self.lease.confirm)
            return target.update(collection, rows[HUB_UID], bodies, before=self.lease.confirm)

        return self.halved(chunk, call)

    def _save(self, verdicts: pl.DataFrame, intents: Sequence[UUID]) -> None:
        """In one transaction: what was acknowledged, parked or refused, and the intents closed."""
        done = verdicts.filter(pl.col("verdict") == DONE).with_columns(
            pl.coalesce("uid", HUB_UID).alias(HUB_UID)
        )
        parked = refused = verdicts.clear()
        lines = pending.PARKED.to_frame()
        if done.height < verdicts.height:
            parked = verdicts.filter(pl.col("verdict") == PARKED)
            lines = missing_frame(parked, self.entity)
            # a parent that the target misses and the record does not name is nothing to wait for
            nameless = parked.join(lines, on=KEY_HASH, how="anti")
            parked = parked.join(lines, on=KEY_HASH, how="semi")
            refused = pl.concat([verdicts.filter(pl.col("verdict") == FAILED), nameless])
        now, name = self.now(), self.entity.name
        remembered: list[pl.DataFrame] = []

        def save(connection: sa.Connection) -> None:
            self.lease.check(connection)
            if done.height:
                keys = done[KEY_HASH]
                changed = self._with_changes(connection, done)
                self._acknowledge(connection, changed)
                failed.resolve_failed(connection, name, keys, "pushed", now)
                # what it waited with is older than what was sent; what it still lacks is parked anew
                pending.close_pending(connection, name, keys, "released", now)
                effect = pl.col("effect").replace_strict(EVENTS)
                self.tell(connection, changed, effect, now, pl.col("#changes"))
                remembered.append(changed)
            if parked.height:
                before = pending.open_pending(connection, name)
                pending.park(connection, name, lines, self.batch, now)
                unnamed = pl.col("parent_key_hash").bin.encode("hex").alias(PARENT_NAME)
                count_attempt(connection, self, lines.with_columns(unnamed), before, now)
                self.tell(connection, parked, pl.lit("parked"), now)
            if refused.height:
                letters = refused_frame(refused, self.privacy)
                failed.file_failed(connection, name, letters, self.batch, now)
                self.tell(connection, refused, pl.lit("failed"), now)
            if self._suspects is not None and self._suspects.height:
                answered = pl.concat([done[KEY_HASH], parked[KEY_HASH], refused[KEY_HASH]])
                suspects.acquit(connection, name, answered)
            self.close_intents(connection, intents, now)

        self.connections.database.transact(save)
        if remembered and len(self.samples) < SAMPLES:
            self._remember(remembered[-1])
        for effect, number in done["effect"].value_counts().iter_rows():
            self.count(COUNTED[effect], number)
        self.count("pending", parked.height)
        self.count("failed", refused.height)
        self.landed.append(done[KEY_HASH])
        self.refused.append(refused[KEY_HASH])
        self.parked.append(parked[KEY_HASH])

    def _acknowledge(self, connection: sa.Connection, done: pl.DataFrame) -> None:
        """Write what is known of the records; many that are new by COPY."""
        new = pl.col("effect") == "insert"
        inserted = done.filter(new)
        if self._all_new and inserted.height >= MANY_NEW:
            self._all_new = records.insert_acknowledged(
                connection, self.entity.name, inserted, self.batch
            )
            done = done.filter(~new) if self._all_new else done
        if done.height:
            records.save_acknowledged(connection, self.entity.name, done, self.batch)

    def _remember(self, done: pl.DataFrame) -> None:
        """Keep the first few writes to show."""
        named = done.filter(pl.col("effect") != "unchanged").sort(REFERENCE)
        left = SAMPLES - len(self.samples)
        for row in named.head(left).select("effect", REFERENCE, "#changes").iter_rows():
            names = json.loads(row[2])["changed"] if row[2] else []
            self.samples.append(
                {
                    "done": EVENTS[row[0]],
                    "record": row[1] or "",
                    "changed": ", ".join(names),
                }
            )

    def _with_changes(self, connection: sa.Connection, done: pl.DataFrame) -> pl.DataFrame:
        """Add ``#changes``: of updates, the names of the fields that changed, as JSON; else null."""
        updates = done.filter(pl.col("effect") == "update")
        if self.shape is None or updates.is_empty():
            return done.with_columns(pl.lit(None, dtype=pl.String).alias("#changes"))
        known = records.load_before(connection, self.entity.name, updates[KEY_HASH])
        before = known.select(
            KEY_HASH,
            pl.col(DIGESTS).alias("#digests_before"),
            pl.col(PARENT_REFS).alias("#refs_before"),
        )
        changed = changed_fields(pl.col("#digests_before"), pl.col(DIGESTS), self.shape)
        moved = pl.col("#refs_before").ne_missing(pl.col(PARENT_REFS))
        names = pl.concat_list(
            changed.fill_null([]), pl.when(moved).then(pl.lit("parent_refs"))
        ).list.drop_nulls()
        known_names = pl.col("#digests_before").is_not_null() & changed.is_not_null()
        text = pl.struct(names.alias("changed")).struct.json_encode()
        return (
            done.join(before, on=KEY_HASH, how="left", maintain_order="left")
            .with_columns(
                pl.when((pl.col("effect") == "update") & known_names).then(text).alias("#changes")
            )
            .drop("#digests_before", "#refs_before")
        )
