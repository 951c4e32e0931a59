"""Decide, for every record, what the target needs: insert, update, delete or nothing.

Belongs here: comparing hashes and references, and the rule for when absence means deletion.
Does not belong here: computing hashes (``identity``), choosing what to fetch (``stages``),
withholding too many changes (``brake``).

Source: product.md 4.
"""

import polars as pl

from syncflow_core.columns import (
    DATA_HASH,
    KEY_HASH,
    OP,
    OPS,
    PARENT_REFS,
    ROW,
    ROWVERSION,
)
from syncflow_core.entity import RowversionKind
from syncflow_core.errors import ContractError
from syncflow_core.rowversion import is_newer

KNOWN_DATA_HASH = "#known_data_hash"
KNOWN_PARENT_REFS = "#known_parent_refs"
OLDER = "#older"
ADVANCED = "#advanced"


def classify(
    incoming: pl.DataFrame,
    known: pl.DataFrame,
    *,
    kind: RowversionKind,
    guarded: bool,
) -> pl.DataFrame:
    """Label every record with the operation that brings the target up to date.

    Hashes and references decide. Rows that may have been read before what is known was sent are
    ``guarded``: there an older rowversion never overwrites a newer one. Rows read after it are the
    source as it is now, and a rowversion that went backwards in it is a source that was restored.

    Args:
        incoming: ``(n, k)``, one row per record, with ``#row``, ``#key_hash`` (unique),
            ``#data_hash``, ``#rowversion`` and ``#parent_refs``.
        known: ``columns.KNOWN``: what the target last acknowledged.
        kind: How two rowversions compare.
        guarded: Whether an older row is left alone.

    Returns:
        ``(n, 7)``: ``#row``, ``#key_hash``, ``#op``, ``#known_data_hash`` and ``#known_parent_refs``
        (these two null for a record that is not known),
        ``#older``: whether the row's rowversion went backwards, and ``#advanced``: whether it is newer
        than the known one.

    Raises:
        ContractError: Two incoming rows share a key. Keeping either one would make the result
            depend on page order.
    """
    if incoming[KEY_HASH].n_unique() < incoming.height:
        raise ContractError("two incoming rows share a business key")
    before = known.select(
        KEY_HASH,
        pl.col(DATA_HASH).alias(KNOWN_DATA_HASH),
        pl.col(PARENT_REFS).alias(KNOWN_PARENT_REFS),
        pl.col(ROWVERSION).alias("#known_rowversion"),
        pl.lit(value=True).alias("#known"),
    )
    joined = incoming.select(ROW, KEY_HASH, DATA_HASH, ROWVERSION, PARENT_REFS).join(
        before, on=KEY_HASH, how="left", maintain_order="left"
    )
    same = pl.col(DATA_HASH).eq_missing(pl.col(KNOWN_DATA_HASH)) & pl.col(PARENT_REFS).eq_missing(
        pl.col(KNOWN_PARENT_REFS)
    )
    older = is_newer(pl.col("#known_rowversion"), pl.col(ROWVERSION), kind).fill_null(value=False)
    newer = is_newer(pl.col(ROWVERSION), pl.col("#known_rowversion"), kind)
    unmarked = pl.col("#known") & pl.col("#known_rowversion").is_null()
    advanced = newer.fill_null(value=False) | (unmarked & pl.col(ROWVERSION).is_not_null())
    op = (
        pl.when(pl.col("#known").is_null())
        .then(pl.lit("insert"))
        .when(same | (older & guarded))
        .then(pl.lit("unchanged"))
        .otherwise(pl.lit("update"))
    )
    # most rows are what is known to the last digit: comparing rowversions, which is dear, is for the others
    equal = joined.select(
        (same & pl.col(ROWVERSION).eq(pl.col("#known_rowversion"))).fill_null(value=False)
    ).to_series()
    no = pl.lit(value=False)

    def labelled(label: pl.Expr, backwards: pl.Expr, forwards: pl.Expr) -> list[pl.Expr]:
        known = [pl.col(KNOWN_DATA_HASH), pl.col(KNOWN_PARENT_REFS)]
        marks = [backwards.alias(OLDER), forwards.fill_null(value=False).alias(ADVANCED)]
        return [pl.col(ROW), pl.col(KEY_HASH), label.cast(OPS).alias(OP), *known, *marks]

    return pl.concat(
        [
            joined.select(labelled(pl.lit("unchanged"), no, no)).filter(equal),
            joined.filter(~equal).select(labelled(op, older, advanced)),
        ]
    )


def gone(known: pl.DataFrame, seen: pl.Series) -> pl.DataFrame:
    """The known records that a complete scan did not see.

    Args:
        known: ``columns.KNOWN``.
        seen: Binary(16): every key hash the scan saw, rejected rows' keys included: a row that could
            not be read is not a row that is gone.

    Returns:
        Rows of *known*.
    """
    return known.join(seen.to_frame(KEY_HASH), on=KEY_HASH, how="anti")
