"""Park: let rows wait for their parents.

Belongs here: filing what waits, and forgetting what waits no longer.
Does not belong here: who waits (``parents``), the attempts (``attempts``), releasing (``release``).

Source: product.md 6.
"""

from collections.abc import Callable, Mapping
from functools import partial

import polars as pl
import sqlalchemy as sa

from syncflow_core.bridge import events, pending
from syncflow_core.bridge.entities import load_entities
from syncflow_core.columns import KEY_HASH, ROW
from syncflow_core.entity import Entity
from syncflow_core.identity import escaped
from syncflow_core.stages.attempts import PARENT_NAME, count_attempt
from syncflow_core.stages.sender import Sender, groups
from syncflow_core.stages.verdicts import BODY, outgoing
from syncflow_core.stages.work import Connections, Staged

Expression = Callable[[pl.Expr], pl.Expr]


def park_waiting(connections: Connections, staged: Staged, sender: Sender) -> None:
    """File the rows that wait for a parent, and the references that wait for the second phase."""
    if "missing" not in staged.frames or not staged.frames["missing"].rows:
        return
    entity, now = staged.shape.entity, sender.now()
    missing = connections.frames.read(staged.frames["missing"])
    parked = connections.frames.read(staged.frames["parked"])
    deferred = connections.frames.read(staged.frames["deferred"])
    with connections.database.begin() as connection:
        sender.lease.check(connection)
        hidden = _hidden_parts(connection, connections, entity)
        before = pending.open_pending(connection, entity.name)
        for rows, kind in ((parked, "parked"), (deferred, "deferred")):
            for part in groups(rows):
                lines = (
                    outgoing(part, staged.shape, sender.privacy)
                    .with_columns(part[ROW])
                    .join(missing, on=ROW, how="inner")
                    .join(_parent_names(part, entity, hidden), on=[ROW, "reference"], how="left")
                    .with_columns(
                        pl.col("reference").alias("reference_name"),
                        pl.col("reference")
                        .replace_strict({n: p.entity for n, p in entity.parents.items()})
                        .alias("parent_entity"),
                        pl.col("parent").alias("parent_key_hash"),
                        pl.lit(kind).alias("kind"),
                        pl.lit(None, dtype=pl.Datetime("us", "UTC")).alias("due_at"),
                        pl.col(BODY).alias("payload"),
                    )
                )
                pending.park(
                    connection, entity.name, lines.select(pending.PARKED.names()), sender.batch, now
                )
                count_attempt(connection, sender, lines, before, now)
        fresh = parked.filter(~pl.col(KEY_HASH).is_in(before[KEY_HASH].implode()))
        events.record(
            connection,
            entity.name,
            fresh.select(KEY_HASH, pl.lit("parked").alias("event")),
            sender.batch,
            now,
        )
    sender.count("pending", parked.height)


def forget_overtaken(connections: Connections, staged: Staged, sender: Sender) -> None:
    """Cancel what records that this batch met wait with from earlier batches; to be called after parking.

    What still waits of them was parked anew. Any other line is of an older version, or of a
    reference that the newer one has no more: it must not follow what was sent, withheld or refused.
    """
    name = sender.entity.name
    with connections.database.read() as connection:
        waiting = pending.open_keys(connection, name)
    if waiting.is_empty():
        return
    met = connections.frames.read(staged.frames["distinct"], columns=[KEY_HASH])[KEY_HASH]
    with connections.database.begin() as connection:
        sender.lease.check(connection)
        pending.cancel_older(
            connection,
            name,
            waiting.filter(waiting.is_in(met.implode())),
            sender.batch,
            sender.now(),
        )


def _hidden_parts(
    connection: sa.Connection, connections: Connections, entity: Entity
) -> dict[tuple[str, str], Expression]:
    """What stands for the parts of parents' references that are personal data here or there."""
    names = sorted({parent.entity for parent in entity.parents.values()})
    own = connections.privacy_of(entity)
    theirs = {
        item.name: connections.privacy_of(item)
        for item in load_entities(connection, names, enabled=None)
    }
    found: dict[tuple[str, str], Expression] = {}
    for reference, parent in entity.parents.items():
        for field, mine in parent.key.items():
            kind = theirs[parent.entity].fields.get(field) or own.fields.get(mine)
            if kind is not None:
                found[reference, field] = partial(own.expr, kind)
    return found


def _parent_names(
    rows: pl.DataFrame, entity: Entity, hidden: Mapping[tuple[str, str], Expression]
) -> pl.DataFrame:
    """``#row``, ``reference`` and ``#parent_name``: each reference as the parent's own entity writes it."""
    shown: Expression = escaped
    frames = [
        rows.select(
            ROW,
            pl.lit(reference).alias("reference"),
            pl.concat_str(
                [
                    pl.concat_str(
                        pl.lit(f"{field}="), hidden.get((reference, field), shown)(pl.col(own))
                    )
                    for field, own in parent.key.items()
                ],
                separator="|",
                ignore_nulls=True,  # a part that is not shown at all
            ).alias(PARENT_NAME),
        )
        for reference, parent in entity.parents.items()
    ]
    return pl.concat(frames)
