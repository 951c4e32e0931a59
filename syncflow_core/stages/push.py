"""Push: send the waves, then the deletes; park what waits for a parent.

Belongs here: the order of a batch's writes.
Does not belong here: what one write's outcome means (``sender``), who waits (``park``), closing the
batch (``track``).

Source: product.md 5 and 6.
"""

from collections.abc import Callable
from datetime import datetime

import polars as pl

from syncflow_core.bridge import records
from syncflow_core.columns import (
    DATA_HASH,
    KEY_HASH,
    OP,
    PARENT_REFS,
)
from syncflow_core.logs import Threads
from syncflow_core.stages.deleter import Deleter
from syncflow_core.stages.park import forget_overtaken, park_waiting
from syncflow_core.stages.plan import check_plan
from syncflow_core.stages.release import release_children, release_deletes
from syncflow_core.stages.sender import COUNTED, SAVES_AT_ONCE, Sender, prepared
from syncflow_core.stages.settle import settle_open
from syncflow_core.stages.work import (
    Connections,
    Staged,
    hold,
    timed,
    wave_names,
    within_night,
)


def push(connections: Connections, staged: Staged, *, now: Callable[[], datetime]) -> Staged:
    """Send everything that is staged; each record is then acknowledged, parked or filed as failed.

    Returns:
        ``counts``: ``inserted updated deleted pending failed``, ``unchanged`` grown by records that
        the target turned out to hold already. ``refused``: the key hashes that failed.

    Raises:
        SyncFlowError: An approved plan does not fit any more; nothing was sent.
        NightOverError: The night that asked for it is over; what was sent is saved.
        UnavailableError: The target is away; what it acknowledged is saved, the batch can be taken
            up again from this stage.
    """
    seconds: dict[str, float] = {}
    with timed(connections, seconds, "push"):
        lease = hold(connections, staged.order)
        check_plan(connections, staged)
        shape, frames = staged.shape, connections.frames
        notes = settle_open(connections, staged, lease, now()) if staged.order.continued else []
        # at its end the last save is done, also when something has failed
        with Threads(SAVES_AT_ONCE, thread_name_prefix="save") as beside:
            sender = Sender(
                connections,
                shape.entity,
                staged.batch,
                lease,
                now,
                shape=shape,
                insist=staged.order.kind == "retry" and staged.order.by_person,
                beside=beside,
            )
            _send(connections, staged, sender)
        park_waiting(connections, staged, sender)
        forget_overtaken(connections, staged, sender)
        deleter = Deleter(
            connections,
            shape.entity,
            staged.batch,
            lease,
            now,
            deferred=staged.order.deferred,
        )
        deleter.delete(frames.read(staged.frames["gone"]))
        written = sender.counts + deleter.counts
        if waiting := deleter.counts["waiting_deletes"]:
            notes.append(f"{waiting} deletes wait until the records' children are gone")
        landed = pl.concat([pl.Series(KEY_HASH, [], dtype=pl.Binary), *sender.landed])
        refused = pl.concat([pl.Series(KEY_HASH, [], dtype=pl.Binary), *sender.refused])
        refused_ref = frames.write(str(staged.batch), "refused", [refused.to_frame(KEY_HASH)])
    with timed(connections, seconds, "release"):
        parked = pl.concat([landed.clear(), *sender.parked])
        notes += release_children(connections, staged, landed, parked, now=now)
        if written["deleted"] or written["updated"]:  # an update may leave its parent too
            notes += release_deletes(connections, staged, now=now)
    counts = {
        name: staged.counts.get(name, 0) + written[name]
        for name in (
            "inserted",
            "updated",
            "deleted",
            "unchanged",
            "pending",
            "failed",
            "failed_deletes",
        )
    }
    return staged.having(
        frames={"refused": refused_ref},
        counts=counts,
        seconds=seconds,
        notes=tuple(notes),
        samples=tuple(sender.samples),
    )


def _send(connections: Connections, staged: Staged, sender: Sender) -> None:
    """Send the waves in their order; every record is saved, parked or filed then."""
    waves = [staged.frames[name] for name in wave_names(staged)]
    total = sum(wave.rows for wave in waves)
    done = 0
    for wave in waves:
        for part in connections.frames.parts(wave, last=True):
            for ready in prepared(part, staged.shape, privacy=sender.privacy):
                within_night(staged.order, sender.now())
                todo = ready
                if staged.order.continued:
                    todo = _not_yet_sent(connections, sender, ready)
                sender.send(todo)
                done += ready.height
                connections.progress(staged.name, "push", done, total)
    sender.finish()


def _not_yet_sent(connections: Connections, sender: Sender, todo: pl.DataFrame) -> pl.DataFrame:
    """Leave out what the batch that this one continues has sent already, and count it as sent."""
    with connections.database.begin() as connection:
        known = records.load_known_of(connection, sender.entity.name, todo[KEY_HASH])
    same = known.filter(~pl.col("deleted")).select(KEY_HASH, DATA_HASH, PARENT_REFS)
    sent = todo.join(same, on=[KEY_HASH, DATA_HASH, PARENT_REFS], how="semi", nulls_equal=True)
    for op, number in sent[OP].value_counts().iter_rows():
        sender.count(COUNTED[op], number)
    sender.landed.append(sent[KEY_HASH])
    return todo.join(sent.select(KEY_HASH), on=KEY_HASH, how="anti")
