"""Delta: compare the rows of one batch with what the target last acknowledged.

Belongs here: gathering the known records, deciding, staging what changed and what is held back.
Does not belong here: the decision (``syncflow_core.delta``, ``brake``), settling (``settle``),
adopting (``adopt``), who is gone (``absent``).

Source: product.md 4.
"""

import functools
from collections.abc import Callable, Iterator
from datetime import datetime

import polars as pl

from syncflow_core.brake import Ceiling, judge
from syncflow_core.bridge import pending, plans, records
from syncflow_core.bridge.leases import Lease
from syncflow_core.bridge.state import load_state
from syncflow_core.columns import (
    DATA_HASH,
    HUB_UID,
    KEY_HASH,
    KEY_SOURCE,
    KNOWN_WHOLE,
    OP,
    PARENT_REFS,
    REFERENCE,
    ROW,
    ROWVERSION,
)
from syncflow_core.delta import ADVANCED, KNOWN_DATA_HASH, KNOWN_PARENT_REFS, OLDER, classify
from syncflow_core.entity import RowversionKind
from syncflow_core.errors import ConfigError, OvertakenError
from syncflow_core.identity import split_collided, text_hash_expr
from syncflow_core.keys import with_plain_references
from syncflow_core.stages.absent import Absence, find_absent, forget_waiting, prove_absent
from syncflow_core.stages.adopt import adopt
from syncflow_core.stages.confirm import confirm
from syncflow_core.stages.known import Known, known_records
from syncflow_core.stages.normalize import FILED
from syncflow_core.stages.settle import settle_open
from syncflow_core.stages.withhold import Held, withhold
from syncflow_core.stages.work import Connections, Staged, hold, timed

NARROW = (ROW, KEY_HASH, DATA_HASH, ROWVERSION, PARENT_REFS)


def find_changes(
    connections: Connections, staged: Staged, *, now: Callable[[], datetime]
) -> Staged:
    """Decide for every row what the target needs, and which known records are gone.

    Returns:
        ``changes``: the rows to insert or update, with ``#op``, ``#hub_uid`` and what is known of
        them. ``gone``: ``columns.KNOWN`` with ``#hub_uid``, the records to delete. ``collided``:
        ``FILED``, rows whose key hash is another key's. ``counts``: ``unchanged``, ``withheld``,
        ``withheld_deletes``.
    """
    seconds: dict[str, float] = {}
    with timed(connections, seconds, "delta"):
        lease = hold(connections, staged.order)
        notes = [
            *settle_open(connections, staged, lease, now()),
            *adopt(connections, staged, lease, now()),
        ]
        frames, shape = connections.frames, staged.shape
        incoming = frames.read(staged.frames["distinct"], columns=list(NARROW))
        known = known_records(connections, staged, written=bool(notes))
        guarded = staged.kind == "slice" or staged.order.continued
        remapped = _remapped(connections, staged)
        verdicts, equal = _verdicts(
            known, incoming, shape.rowversion_kind, guarded=guarded, remapped=remapped
        )
        met = equal + verdicts.filter(pl.col(OP) != "insert").height
        verdicts, confirmed = _confirmed(
            connections, staged, verdicts, incoming, lease, remapped=remapped
        )
        changed, collided = _collided(
            connections, staged, verdicts.filter(pl.col(OP) != "unchanged")
        )
        notes += [*confirmed, *_backwards(verdicts, guarded=guarded), *_unmarked(staged, incoming)]
        absence = find_absent(connections, staged, known.every, incoming[KEY_HASH], lease, now())
        held, deletes, reason, why = _braked(connections, staged, changed, absence, known, met)
        notes += why
        changed = changed.filter(~pl.col(ROW).is_in(held.updates[ROW].implode()))
        if not staged.order.dry_run:
            all_known = known.count if held.updates.height or held.deletes.height else 0
            notes += withhold(connections, staged, held, all_known, reason, lease, now())
            _keep_up(connections, staged, verdicts, incoming, lease, guarded=guarded)
            # a scan that is not trusted to delete says nothing of who is gone
            if held.deletes.is_empty():
                notes += forget_waiting(connections, staged, absence, lease, now())
        elif reason:
            notes.append(f"without an approval the brake would hold this back: {reason}")
        unproven, ends_sweep = absence.unproven, absence.ends_sweep
        swept = ends_sweep and absence.seen is not None and held.deletes.is_empty()
        del absence  # what all slices saw makes room for the changes
        if staged.order.dry_run and unproven is not None:
            unproven, _ = prove_absent(connections, staged, unproven)
            staged = staged.having(
                frames={"unproven": frames.write(str(staged.batch), "unproven", [unproven])}
            )
        staged = staged.having(
            frames={
                "changes": frames.write(
                    str(staged.batch), "changes", _changes(connections, staged, changed)
                ),
                "gone": frames.write(
                    str(staged.batch), "gone", [_with_uids(connections, staged, deletes)]
                ),
                "collided": frames.write(str(staged.batch), "collided", [collided]),
            },
            counts={
                "unchanged": staged.counts["unchanged"]
                + equal
                + verdicts.filter(pl.col(OP) == "unchanged").height,
                "withheld": held.updates.height,
                "withheld_deletes": held.deletes.height,
                "rejected": staged.counts["rejected"] + collided.height,
            },
            notes=tuple(notes),
            ends_sweep=ends_sweep,
            swept=swept,
        )
    return staged.having(seconds=seconds)


def _with_uids(connections: Connections, staged: Staged, rows: pl.DataFrame) -> pl.DataFrame:
    """Known records with the hub's uid of each."""
    if rows.is_empty():
        return rows.with_columns(pl.lit(None, dtype=KNOWN_WHOLE[HUB_UID]).alias(HUB_UID))
    with connections.database.begin() as connection:
        whole = records.load_known_of(connection, staged.name, rows[KEY_HASH])
    return rows.join(whole.select(KEY_HASH, HUB_UID), on=KEY_HASH, how="left")


def _braked(
    connections: Connections,
    staged: Staged,
    changed: pl.DataFrame,
    absence: Absence,
    known: Known,
    met: int,
) -> tuple[Held, pl.DataFrame, str | None, list[str]]:
    """What the brake holds back, the records to delete, why it holds, and what a person should know.

    A plan shows what the brake would hold, too, but for an empty source, which never deletes.
    *met* of the known records were among the rows: of so many at least all changes are a share.
    """
    updates, waiting = _not_withheld(connections, staged, changed.filter(pl.col(OP) == "update"))
    fresh, again = _not_waiting(connections, staged, absence)
    judged = functools.partial(
        judge,
        staged.shape.entity.brake,
        incoming=absence.rows,
        updates=updates.height,
        deletes=fresh.height,
        ceiling=_ceiling(connections, staged, updates[KEY_HASH], fresh[KEY_HASH]),
    )
    verdict = judged(known=met)
    if verdict.reason is not None:  # what is no great share of those is none of all
        verdict = judged(known=known.count)
    dry = staged.order.dry_run
    reason = verdict.reason
    if waiting.height:
        reason = "; ".join(
            filter(None, [reason, f"{waiting.height} updates wait for an approval already"])
        )
    too_many = pl.concat([waiting, updates]) if verdict.updates else waiting
    held = Held(
        too_many.clear() if dry else too_many,
        fresh if verdict.deletes and not (dry and absence.rows) else fresh.clear(),
    )
    going = again if held.deletes.height else absence.absent
    deletes, seen_again = prove_absent(connections, staged, going)
    return held, deletes, reason, [*absence.notes, *seen_again]


def _not_withheld(
    connections: Connections, staged: Staged, updates: pl.DataFrame
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The updates that nobody was asked about yet, and those that a plan withholds already.

    A batch that reads everything judges everything anew. One that meets a few of the plan's records
    must not let them through because they are few.
    """
    if staged.order.plan is not None or (staged.kind == "full" and staged.complete):
        return updates, updates.clear()
    with connections.database.begin() as connection:
        plan = plans.waiting_plan(connection, staged.name)
        if plan is None:
            return updates, updates.clear()
        named = plans.load_records(connection, plan.uid)
    listed = pl.col(KEY_HASH).is_in(named.filter(pl.col(OP) == "update")[KEY_HASH].implode())
    return updates.filter(~listed), updates.filter(listed)


def _not_waiting(
    connections: Connections, staged: Staged, absence: Absence
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The absent records that are new, and those whose delete went through the brake and waits for children.

    In an empty source all are new, so that none goes.
    """
    if not absence.rows or absence.absent.is_empty():
        return absence.absent, absence.absent.clear()
    with connections.database.begin() as connection:
        waiting = pending.waiting_deletes(connection, staged.name)[KEY_HASH].implode()
    let_through = pl.col(KEY_HASH).is_in(waiting)
    return absence.absent.filter(~let_through), absence.absent.filter(let_through)


def _ceiling(
    connections: Connections, staged: Staged, updates: pl.Series, deletes: pl.Series
) -> Ceiling | None:
    """What the approved plan allows that this batch applies; None where it applies none.

    Raises:
        OvertakenError: The plan was applied, or has expired.
        ConfigError: It is another entity's, or nobody has approved it.
    """
    if staged.order.plan is None:
        return None
    with connections.database.begin() as connection:
        plan = plans.load_plan(connection, staged.order.plan)
        named = plans.load_records(connection, plan.uid)
    if plan.entity != staged.name or plan.status != "approved" or plan.ceiling is None:
        over = {
            "applied": "was applied by another run meanwhile",
            "expired": "is out of date: another one was made meanwhile, or nothing is withheld any more",
        }
        why = over.get(plan.status, f"is {plan.status}, and of {plan.entity}")
        error = OvertakenError if plan.status in over else ConfigError
        raise error(f"plan {plan.uid} {why}; nothing was pushed", entity=staged.name)
    if plan.kind == "sync":  # what it did not name is refused whole, before the push
        return Ceiling(updates=updates.len(), deletes=deletes.len())
    to_delete = pl.col(OP) == "delete"
    listed = {
        "updates": named.filter(~to_delete)[KEY_HASH].implode(),
        "deletes": named.filter(to_delete)[KEY_HASH].implode(),
    }
    return Ceiling(
        updates=plan.ceiling["updates"],
        deletes=plan.ceiling["deletes"],
        other_updates=int((~updates.is_in(listed["updates"])).sum()),
        other_deletes=int((~deletes.is_in(listed["deletes"])).sum()),
    )


def _remapped(connections: Connections, staged: Staged) -> bool:
    """Whether known hashes may be of another declaration than this batch's."""
    with connections.database.read() as connection:
        before = load_state(connection, staged.name, staged.shape.entity.api)
    return before.entity_version not in {None, staged.version}


def _verdicts(
    known: Known, incoming: pl.DataFrame, kind: RowversionKind, *, guarded: bool, remapped: bool
) -> tuple[pl.DataFrame, int]:
    """The verdicts that something hangs on, as ``classify`` has them; and how many rows are left out.

    A row that is what is known to the last digit needs nothing more, unless the declaration changed.
    """
    telling = pl.lit(remapped) | (pl.col(OP) != "unchanged") | pl.col(OLDER) | pl.col(ADVANCED)
    found, equal = [], 0
    for rows, beside in known.beside(incoming):
        verdicts = classify(rows, beside, kind=kind, guarded=guarded)
        found.append(verdicts.filter(telling))
        # counted, not subtracted: the accounts would not tell of a row that got lost here
        equal += verdicts.height - found[-1].height
    return pl.concat(found), equal


def _confirmed(
    connections: Connections,
    staged: Staged,
    verdicts: pl.DataFrame,
    incoming: pl.DataFrame,
    lease: Lease,
    *,
    remapped: bool,
) -> tuple[pl.DataFrame, list[str]]:
    """The verdicts, by content for records whose known hash was made under another mapping.

    An update that says nothing new is unchanged. A hash does not cover the fields' types: after a
    change of the declaration a record with the same one may be an update nevertheless.
    """
    differs = pl.col(DATA_HASH).ne_missing(pl.col(KNOWN_DATA_HASH))
    supposed = verdicts.join(
        incoming.select(ROW, DATA_HASH, PARENT_REFS), on=ROW, how="left"
    ).filter((pl.col(OP) != "insert") & ~pl.col(OLDER) & (differs | pl.lit(remapped)))
    found = confirm(connections, staged, supposed, lease)
    if found.note is None:
        return verdicts, []
    refs_same = pl.col(PARENT_REFS).eq_missing(pl.col(KNOWN_PARENT_REFS))
    same = supposed.filter(pl.col(KEY_HASH).is_in(found.equal.implode()) & refs_same)[ROW]
    other = supposed.filter(pl.col(KEY_HASH).is_in(found.differing.implode()))[ROW]
    judged = (
        pl.when(pl.col(ROW).is_in(same.implode()))
        .then(pl.lit("unchanged"))
        .when(pl.col(ROW).is_in(other.implode()))
        .then(pl.lit("update"))
        .otherwise(pl.col(OP))
        .cast(verdicts.schema[OP])
    )
    return verdicts.with_columns(judged.alias(OP)), [found.note]


def _backwards(verdicts: pl.DataFrame, *, guarded: bool) -> list[str]:
    number = int(verdicts[OLDER].sum())
    if not number:
        return []
    taken = "none overwrites it" if guarded else "the source is taken at its word"
    return [f"{number} rows are older than what was acknowledged: {taken}"]


def _unmarked(staged: Staged, incoming: pl.DataFrame) -> list[str]:
    """That an incremental batch, which asks by rowversion, never meets a row without one."""
    number = incoming[ROWVERSION].null_count()
    if staged.kind != "full" or staged.shape.delta != "rowversion" or not number:
        return []
    seldom = "incremental syncs do not see what changes in them, whole ones and sweeps do"
    return [f"{number} rows have no rowversion: {seldom}"]


def _keep_up(
    connections: Connections,
    staged: Staged,
    verdicts: pl.DataFrame,
    incoming: pl.DataFrame,
    lease: Lease,
    *,
    guarded: bool,
) -> None:
    """Note other rowversions of the same data, and forget deletes of records that are there.

    A slow slice that read the record before must not take what it read for the newer version.
    A read that takes the source at its word takes a lower rowversion too: the source was restored.
    """
    other = pl.col(ADVANCED) if guarded else pl.col(ADVANCED) | pl.col(OLDER)
    newer = verdicts.filter(other & (pl.col(OP) == "unchanged")).select(ROW)
    with connections.database.begin() as connection:
        lease.check(connection)
        pending.cancel_deletes(connection, staged.name, incoming[KEY_HASH])
        if newer.height:
            records.save_rowversions(
                connection, staged.name, incoming.join(newer, on=ROW, how="semi")
            )


def _collided(
    connections: Connections, staged: Staged, changed: pl.DataFrame
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Part the changes from rows whose key hash is another key's, in the shape ``FILED``.

    An unchanged row needs no look: its data hash covers its key.
    """
    updates = changed.filter(pl.col(OP) == "update")[KEY_HASH]
    if updates.is_empty():
        return changed, FILED.to_frame()
    shape = staged.shape
    distinct = staged.frames["distinct"]
    named = connections.frames.read(distinct, columns=[ROW, KEY_HASH, REFERENCE])
    named = named.filter(pl.col(KEY_HASH).is_in(updates.implode()))
    with connections.database.begin() as connection:
        known = records.load_key_sources(connection, staged.name, updates)
    known = with_plain_references(known, shape)
    _, collided = split_collided(named, known)
    if collided.is_empty():
        return changed, FILED.to_frame()
    sent = connections.frames.read(distinct, columns=[ROW, KEY_SOURCE])
    privacy = connections.privacy_of(shape.entity)
    hidden = [
        privacy.references(pl.col(name), pl.col(KEY_HASH), shape.key_fields).alias(name)
        for name in (REFERENCE, "value")
    ]
    filed = (
        collided.join(named, on=ROW, how="left")
        .join(sent, on=ROW, how="left")
        .with_columns(
            pl.lit(None, pl.String).alias("raw"),
            text_hash_expr(pl.col(REFERENCE)).alias("raw_digest"),
        )
        .with_columns(hidden)
        .select(FILED.names())
    )
    return changed.filter(~pl.col(ROW).is_in(collided[ROW].implode())), filed


def _changes(
    connections: Connections, staged: Staged, changed: pl.DataFrame
) -> Iterator[pl.DataFrame]:
    """The whole rows of what changed, part by part."""
    named = _with_uids(
        connections, staged, changed.select(KEY_HASH).filter(changed[OP] != "insert")
    )
    labels = changed.join(named, on=KEY_HASH, how="left").select(
        ROW, OP, HUB_UID, KNOWN_DATA_HASH, KNOWN_PARENT_REFS
    )
    done = 0
    for part in connections.frames.parts(staged.frames["distinct"], last=True):
        done += part.height
        connections.progress(staged.name, "delta", done, staged.frames["distinct"].rows)
        yield part.join(labels, on=ROW, how="inner", maintain_order="left")
