"""Identity: key hash, data hash, reference and parents' key hashes for every accepted row; one row a key.

Belongs here: running identity over staged frames, and finding equal keys across their parts.
Does not belong here: the hashes (``syncflow_core.identity``), the references (``parents``).

Source: product.md 3 and 6.
"""

import dataclasses
from collections.abc import Iterator

import polars as pl

from syncflow_core.columns import DATA_HASH, KEY_HASH, KEY_SOURCE, REFERENCE, ROW, ROWVERSION
from syncflow_core.frames import FrameRef
from syncflow_core.identity import add_identity, split_duplicates, text_hash_expr
from syncflow_core.parents import add_parent_refs
from syncflow_core.stages.normalize import FILED
from syncflow_core.stages.work import Connections, Staged, hold, timed


def identify(connections: Connections, staged: Staged) -> Staged:
    """Give every accepted row its identity; keep one row a key.

    Returns:
        ``distinct``: rows with ``#key_hash`` (unique), ``#data_hash``, ``#reference``, a
        ``#parent:`` column for each reference and ``#parent_refs``. ``losers``: ``FILED``, rows whose
        key another row has too. ``counts``: ``rejected`` grown by the losers, ``unchanged`` by rows
        that are another's equal.
    """
    seconds: dict[str, float] = {}
    with timed(connections, seconds, "identity"):
        hold(connections, staged.order)
        frames, shape = connections.frames, staged.shape

        accepted = staged.frames["accepted"]

        def added() -> Iterator[pl.DataFrame]:
            done = 0
            for part in frames.parts(accepted):
                done += part.height
                connections.progress(staged.name, "identity", done, accepted.rows)
                identified = add_parent_refs(add_identity(part, shape), shape.entity.parents)
                yield identified.drop(part.columns)

        every = frames.write(str(staged.batch), "identified", added(), beside=accepted)
        # telling equal keys apart needs these columns alone: the others stay in their parts
        volatile = tuple(item for item in shape.fields if not item.hashed)
        keys = frames.read(
            every,
            columns=[ROW, KEY_HASH, DATA_HASH, ROWVERSION, REFERENCE, *(i.name for i in volatile)],
        )
        distinct = split_duplicates(keys, dataclasses.replace(shape, fields=volatile))
        losers = frames.write(
            str(staged.batch), "losers", [_filed(connections, staged, every, distinct.losers)]
        )
        if distinct.kept.height < keys.height:
            kept = distinct.kept[ROW].implode()
            every = frames.write(
                str(staged.batch),
                "distinct",
                [part.filter(pl.col(ROW).is_in(kept)) for part in frames.parts(every)],
            )
    return staged.having(
        frames={"distinct": every, "losers": losers},
        counts={
            "rejected": staged.counts["rejected"] + losers.rows,
            "unchanged": keys.height - distinct.kept.height - losers.rows,
        },
        seconds=seconds,
    )


def _filed(
    connections: Connections, staged: Staged, every: FrameRef, losers: pl.DataFrame
) -> pl.DataFrame:
    """The losers as they are filed, each with its key and its fields as they were normalized."""
    if losers.is_empty():
        return FILED.to_frame()
    shape = staged.shape
    privacy = connections.privacy_of(shape.entity)
    names = [item.name for item in shape.fields]
    rows = pl.concat(
        part.filter(pl.col(ROW).is_in(losers[ROW].implode())).select(
            ROW, KEY_HASH, REFERENCE, KEY_SOURCE, *names
        )
        for part in connections.frames.parts(every)
    )
    digest = text_hash_expr(pl.struct(names).struct.json_encode())
    rows = privacy.frame(rows.with_columns(digest.alias("raw_digest")), privacy.fields)
    shown = [name for name in names if name in rows.columns]
    # of a loser the value is the reference
    hidden = [
        privacy.references(pl.col(name), pl.col(KEY_HASH), shape.key_fields).alias(name)
        for name in (REFERENCE, "value")
    ]
    return (
        losers.join(
            rows.with_columns(pl.struct(shown).struct.json_encode().alias("raw")),
            on=ROW,
            how="left",
        )
        .with_columns(hidden)
        .select(FILED.names())
    )
