"""Which records are missing, extra or different, told from frames alone."""

import polars as pl
import pytest

from syncflow_core.columns import DATA_HASH, KEY_HASH, PARENT_REFS, REFERENCE
from syncflow_core.differences import hub_differences, sample_verdicts


def records(*rows: tuple[bytes, bytes, str | None]) -> pl.DataFrame:
    schema = {KEY_HASH: pl.Binary, DATA_HASH: pl.Binary, PARENT_REFS: pl.String}
    return pl.DataFrame(rows, schema=schema, orient="row")


def test_what_the_hub_lacks_has_besides_and_holds_otherwise_is_told_apart() -> None:
    expected = records(
        (b"same", b"1", "{}"), (b"gone", b"1", "{}"), (b"data", b"1", "{}"), (b"refs", b"1", "{}")
    )
    held = records(
        (b"same", b"1", "{}"), (b"more", b"1", None), (b"data", b"2", "{}"), (b"refs", b"1", None)
    )

    found = hub_differences(expected, held)

    sides = (found.missing, found.extra, found.different)
    assert [side[KEY_HASH].to_list() for side in sides] == [
        [b"gone"],
        [b"more"],
        [b"data", b"refs"],
    ]
    assert found.different.rows() == held.tail(2).rows()


@pytest.mark.parametrize(
    ("source", "hub", "refs", "deletes", "wrong"),
    [
        (b"1", b"1", "{}", "apply", None),
        (None, None, "{}", "apply", None),
        (b"1", None, "{}", "apply", "hub_missing"),
        (b"1", None, "{}", "ignore", "hub_missing"),
        (None, b"1", "{}", "apply", "source_extra"),
        (None, b"1", "{}", "ignore", None),
        (b"1", b"2", "{}", "apply", "source_different"),
        (b"1", b"2", None, "apply", "source_different"),
        (b"1", b"1", None, "apply", "hub_different"),
    ],
)
def test_a_record_of_a_sample_is_judged_by_what_both_sides_hold_now(
    source: bytes | None, hub: bytes | None, refs: str | None, deletes: str, wrong: str | None
) -> None:
    sample = records((b"k", b"0", "{}")).with_columns(pl.lit("id=1").alias(REFERENCE))
    rows = records(*([(b"k", source, None)] if source else [])).drop(PARENT_REFS)
    held = records(*([(b"k", hub, refs)] if hub else [])).rename({PARENT_REFS: "#hub_refs"})

    (judged,) = sample_verdicts(sample, rows, held, deletes_ignored=deletes == "ignore").to_dicts()

    assert (judged["#wrong"], judged["#source"], judged["#hub"]) == (wrong, source, hub)
