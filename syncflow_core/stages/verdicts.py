"""What the outcome of a write means for a record.

Belongs here: records on their way, outcomes as columns, and the table from code to verdict.
Does not belong here: making the calls (``sender``, ``deleter``), saving (the same).

Source: contract.md, "ScheduleHub"; product.md 5 and 6.
"""

from typing import Final

import polars as pl

from syncflow_core.body import json_objects
from syncflow_core.bridge import pending
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
from syncflow_core.digests import DIGESTS, field_digests
from syncflow_core.entity import Entity
from syncflow_core.fields import Shape
from syncflow_core.outcomes import DOUBT, NOT_SENT, OK, SERVER_ERROR, HubRecord
from syncflow_core.parents import parent_in_refs, refs_text
from syncflow_core.privacy import Privacy
from syncflow_core.schedulehub import BATCH_LIMIT, Target

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
        DIGESTS: pl.Binary(),
    }
)
"""Records on their way to the target; ``#digests`` null where only the body is known."""

EXTRA: Final = (KEY_HASH, DATA_HASH, ROWVERSION, REFERENCE)
"""What travels in a body besides the fields; the references are put in when it is sent."""

DONE, CHECK, AGAIN, PARKED, FAILED, AWAY = "done", "check", "again", "parked", "failed", "away"
"""Acknowledged; ask the target first; send again; wait for a parent; dead letter; not sent at all."""

NOT_FOUND: Final = 404
CONFLICT: Final = 409
GONE: Final = 410
PARENT_MISSING: Final = 424


def judged(answered: pl.DataFrame, *, last: bool) -> pl.DataFrame:
    """Add ``verdict`` and ``effect`` to inserts and updates with their outcomes.

    An update of a record that is not there becomes an insert. On the ``last`` try what can still not
    be settled fails, save what is in doubt.
    """
    code, op = pl.col("code"), pl.col(OP)
    lost = (op == "update") & code.is_in([NOT_FOUND, GONE])
    there = (op == "insert") & (code == CONFLICT)
    stubborn = there | (code >= SERVER_ERROR)
    return answered.with_columns(
        pl.when(code == OK)
        .then(pl.lit(DONE))
        .when(code == NOT_SENT)
        .then(pl.lit(AWAY))
        .when(code == PARENT_MISSING)
        .then(pl.lit(PARKED))
        .when(lost)
        .then(pl.lit(AGAIN))
        .when(stubborn)
        .then(pl.lit(FAILED if last else CHECK))
        .when(code == DOUBT)
        .then(pl.lit(CHECK))
        .otherwise(pl.lit(FAILED))
        .alias("verdict"),
        op.cast(pl.String).alias("effect"),
        pl.when(lost).then(pl.lit("insert", dtype=OPS)).otherwise(op).alias(OP),
    )


def settled(asked: pl.DataFrame, held: pl.DataFrame) -> pl.DataFrame:
    """The records asked about, judged by what the target holds: done, or to be sent as what they are.

    Args:
        asked: Lines of ``judged``.
        held: What ``ask`` answered for them.

    Returns:
        The same lines and columns. What was in doubt and is there was our own write; what was there
        before (409) and is equal counts as unchanged.
    """
    compared = asked.drop("verdict", "uid", "effect").join(held, on=KEY_HASH, how="left")
    equal = pl.col("#held_data_hash").eq_missing(pl.col(DATA_HASH)) & pl.col(
        "#held_parent_refs"
    ).eq_missing(pl.col(PARENT_REFS))
    live = pl.col("uid").is_not_null() & ~pl.col("#held_deleted")
    return compared.with_columns(
        pl.when(live & equal).then(pl.lit(DONE)).otherwise(pl.lit(AGAIN)).alias("verdict"),
        pl.when(pl.col("code") == CONFLICT)
        .then(pl.lit("unchanged"))
        .otherwise(pl.col(OP).cast(pl.String))
        .alias("effect"),
        pl.when(live).then(pl.lit("update")).otherwise(pl.lit("insert")).cast(OPS).alias(OP),
        pl.when(live).then(pl.col("uid")).alias(HUB_UID),
    ).select(asked.columns)


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
    """A line for each reference that the target did not find, as ``pending.park`` takes it.

    Where the target does not say which reference it is, every one that the record has waits.
    """
    named = pl.col("missing").list.len().fill_null(0) > 0
    lines = [
        parked.filter(~named | pl.col("missing").list.contains(name))
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
    return pl.concat([pending.PARKED.to_frame(), *lines])


def refused_frame(refused: pl.DataFrame, privacy: Privacy) -> pl.DataFrame:
    """Records that the target refused, as ``failed.file_failed`` takes them, personal data hidden."""
    words = pl.coalesce("error", pl.lit("schedulehub refused the record without a word"))
    letters = refused.select(
        pl.lit("push").alias("stage"),
        pl.lit(None, dtype=pl.UInt8).alias("layer"),
        pl.concat_str(pl.lit("hub_"), pl.col("code")).alias("rule"),
        pl.lit(None, dtype=pl.String).alias("column"),
        pl.lit(None, dtype=pl.String).alias("value"),
        words.alias("message"),
        (pl.col(BODY) if BODY in refused.columns else pl.lit(None, dtype=pl.String)).alias("raw"),
        KEY_HASH,
        (
            pl.col(REFERENCE)
            if REFERENCE in refused.columns
            else pl.lit(None, dtype=pl.String).alias(REFERENCE)
        ),
        (
            pl.col(KEY_SOURCE)
            if KEY_SOURCE in refused.columns
            else pl.lit(None, dtype=pl.String).alias(KEY_SOURCE)
        ),
    )
    if not privacy:
        return letters
    said = letters.select("message", "raw").rows()
    return letters.with_columns(
        pl.Series("message", [privacy.words(*item) for item in said], dtype=pl.String),
        hidden_bodies(letters["raw"], privacy),
    )


def hidden_bodies(bodies: pl.Series, privacy: Privacy) -> pl.Series:
    """Records' bodies as they may be kept beside their way."""
    if not privacy:
        return bodies
    return pl.Series(bodies.name, [privacy.json(text) for text in bodies], dtype=pl.String)


def outgoing(frame: pl.DataFrame, shape: Shape, privacy: Privacy) -> pl.DataFrame:
    """Rows as they are sent: each with its body as JSON, built column-wise.

    The body is whole; the reference beside it, which is kept and shown, hides personal data.

    Args:
        frame: ``(n, k)`` identified rows with ``#op`` and ``#hub_uid``.
        shape: The entity's fields.
        privacy: What of them is hidden.

    Returns:
        ``(n, 10)``: ``OUTGOING``.
    """
    return frame.with_columns(
        json_objects(frame, shape.fields, EXTRA).alias(BODY),
        field_digests(frame, shape),
        privacy.references(pl.col(REFERENCE), pl.col(KEY_HASH), shape.key_fields),
    ).select(OUTGOING.names())
