"""What differs between what was acknowledged, what the hub holds and what the source has.

Belongs here: telling which records are missing, extra or different.
Does not belong here: reading the three sides, what comes of it (``stages.reconcile``, ``stages.spot_check``).

Source: product.md 13.
"""

from dataclasses import dataclass

import polars as pl

from syncflow_core.columns import DATA_HASH, KEY_HASH, PARENT_REFS, REFERENCE


@dataclass(frozen=True)
class HubDifferences:
    """Records of the hub that are not as they were acknowledged."""

    missing: pl.DataFrame
    """Acknowledged, and not there."""
    extra: pl.DataFrame
    """There, and not acknowledged."""
    different: pl.DataFrame
    """There, with another data hash or other references."""


def hub_differences(expected: pl.DataFrame, held: pl.DataFrame) -> HubDifferences:
    """Compare the hub's records with what was acknowledged.

    Args:
        expected: ``#key_hash`` (unique), ``#data_hash`` and ``#parent_refs`` as they were acknowledged.
        held: The same of the hub's records that are alive.

    Returns:
        ``missing`` with the columns of *expected*, the others with those of *held*.
    """
    both = held.join(
        expected.select(
            KEY_HASH,
            pl.col(DATA_HASH).alias("#expected_hash"),
            pl.col(PARENT_REFS).alias("#expected_refs"),
        ),
        on=KEY_HASH,
    )
    changed = pl.col(DATA_HASH).ne_missing(pl.col("#expected_hash")) | pl.col(
        PARENT_REFS
    ).ne_missing(pl.col("#expected_refs"))
    return HubDifferences(
        missing=expected.join(held, on=KEY_HASH, how="anti"),
        extra=held.join(expected, on=KEY_HASH, how="anti"),
        different=both.filter(changed).select(held.columns),
    )


def sample_verdicts(
    sample: pl.DataFrame, source: pl.DataFrame, hub: pl.DataFrame, *, deletes_ignored: bool
) -> pl.DataFrame:
    """Compare single records by what source and hub hold of them now.

    A record that neither has is in order: it was deleted since.

    Args:
        sample: ``#key_hash`` (unique), ``#reference`` and ``#parent_refs`` as they were acknowledged.
        source: ``#key_hash`` and ``#data_hash`` of the source's rows.
        hub: ``#key_hash``, ``#data_hash`` by content and ``#hub_refs`` of the hub's records.
        deletes_ignored: Whether records stay in the hub that the source has no more.

    Returns:
        The sample's records with ``#source`` and ``#hub``, the data hashes of both sides, ``#hub_refs``,
        and ``#wrong``: ``hub_missing``, ``source_extra``, ``source_different``, ``hub_different``, or null.
    """
    nobody = pl.col("#hub").is_null() & pl.col("#source").is_null()
    extra = pl.lit(None, pl.String) if deletes_ignored else pl.lit("source_extra")
    return (
        sample.select(KEY_HASH, REFERENCE, pl.col(PARENT_REFS).alias("#refs"))
        .join(source.rename({DATA_HASH: "#source"}), on=KEY_HASH, how="left")
        .join(hub.rename({DATA_HASH: "#hub"}), on=KEY_HASH, how="left")
        .with_columns(
            pl.when(nobody)
            .then(None)
            .when(pl.col("#hub").is_null())
            .then(pl.lit("hub_missing"))
            .when(pl.col("#source").is_null())
            .then(extra)
            .when(pl.col("#hub") != pl.col("#source"))
            .then(pl.lit("source_different"))
            .when(pl.col("#refs").ne_missing(pl.col("#hub_refs")))
            .then(pl.lit("hub_different"))
            .alias("#wrong")
        )
    )
