import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncflow_core.columns import (
    DATA_HASH,
    KEY_HASH,
    KNOWN,
    OP,
    PARENT_REFS,
    ROW,
    ROWVERSION,
)
from syncflow_core.delta import (
    ADVANCED,
    KNOWN_DATA_HASH,
    KNOWN_PARENT_REFS,
    OLDER,
    classify,
    gone,
)
from syncflow_core.errors import ContractError

Line = tuple[str, str, str | None, str]


def incoming(*lines: Line) -> pl.DataFrame:
    return pl.DataFrame(
        {
            ROW: pl.Series(range(len(lines)), dtype=pl.UInt32),
            KEY_HASH: pl.Series([key.encode() for key, *_ in lines], dtype=pl.Binary),
            DATA_HASH: pl.Series([line[1].encode() for line in lines], dtype=pl.Binary),
            ROWVERSION: pl.Series([line[2] for line in lines], dtype=pl.String),
            PARENT_REFS: pl.Series([line[3] for line in lines], dtype=pl.String),
        }
    )


def known(*lines: Line) -> pl.DataFrame:
    return pl.DataFrame(
        {
            KEY_HASH: [key.encode() for key, *_ in lines],
            DATA_HASH: [line[1].encode() for line in lines],
            ROWVERSION: [line[2] for line in lines],
            PARENT_REFS: [line[3] for line in lines],
        },
        schema=KNOWN,
    )


def ops(frame: pl.DataFrame) -> list[str]:
    return frame.sort(ROW)[OP].to_list()


def test_new_changed_and_unchanged_records_are_told_apart() -> None:
    found = classify(
        incoming(("a", "1", None, "{}"), ("b", "2", None, "{}"), ("c", "3", None, "{}")),
        known(("b", "9", None, "{}"), ("c", "3", None, "{}")),
        kind="integer",
        guarded=True,
    )

    assert ops(found) == ["insert", "update", "unchanged"]
    assert found[KNOWN_DATA_HASH].to_list() == [None, b"9", b"3"]


def test_another_parent_is_a_change_though_the_data_is_the_same() -> None:
    found = classify(
        incoming(("a", "1", None, '{"p":"02"}')),
        known(("a", "1", None, '{"p":"01"}')),
        kind="integer",
        guarded=True,
    )

    assert ops(found) == ["update"]
    assert found[KNOWN_PARENT_REFS].to_list() == ['{"p":"01"}']


def test_an_older_row_never_overwrites_a_newer_one() -> None:
    found = classify(
        incoming(("a", "1", "9", "{}"), ("b", "1", "10", "{}"), ("c", "1", "11", "{}")),
        known(("a", "2", "10", "{}"), ("b", "2", "10", "{}"), ("c", "2", "10", "{}")),
        kind="integer",
        guarded=True,
    )

    assert ops(found) == ["unchanged", "update", "update"]
    assert found[OLDER].to_list() == [True, False, False]


def test_a_source_that_was_restored_is_taken_at_its_word() -> None:
    found = classify(
        incoming(("a", "1", "9", "{}")),
        known(("a", "2", "10", "{}")),
        kind="integer",
        guarded=False,
    )

    assert ops(found) == ["update"]
    assert found[OLDER].to_list() == [True]


def test_a_rowversion_has_advanced_where_it_is_newer_or_the_known_one_is_none() -> None:
    found = classify(
        incoming(
            ("newer", "1", "10", "{}"),
            ("same", "1", "9", "{}"),
            ("older", "1", "8", "{}"),
            ("first", "1", "9", "{}"),
            ("never", "1", None, "{}"),
            ("lost", "1", None, "{}"),
            ("new record", "1", "9", "{}"),
        ),
        known(
            ("newer", "1", "9", "{}"),
            ("same", "1", "9", "{}"),
            ("older", "1", "9", "{}"),
            ("first", "1", None, "{}"),
            ("never", "1", None, "{}"),
            ("lost", "1", "9", "{}"),
        ),
        kind="integer",
        guarded=True,
    ).sort(ROW)

    assert found[ADVANCED].to_list() == [True, False, False, True, False, False, False]
    assert ops(found) == ["unchanged"] * 6 + ["insert"]


def test_two_rows_of_one_key_are_refused() -> None:
    with pytest.raises(ContractError, match=r"^two incoming rows share a business key$"):
        classify(
            incoming(("a", "1", None, "{}"), ("a", "2", None, "{}")),
            known(),
            kind="integer",
            guarded=True,
        )


def test_records_that_were_not_seen_are_gone() -> None:
    before = known(("a", "1", None, "{}"), ("b", "1", None, "{}"))

    assert gone(before, pl.Series([b"a"]))[KEY_HASH].to_list() == [b"b"]


@given(
    st.dictionaries(st.text("abcdef", min_size=1, max_size=2), st.sampled_from("123")),
    st.dictionaries(st.text("abcdef", min_size=1, max_size=2), st.sampled_from("123")),
)
def test_applying_the_verdicts_makes_the_target_equal(
    source: dict[str, str], target: dict[str, str]
) -> None:
    before = known(*((key, value, None, "{}") for key, value in target.items()))
    rows = incoming(*((key, value, None, "{}") for key, value in source.items()))

    verdicts = classify(rows, before, kind="integer", guarded=True).join(
        rows.select(ROW, DATA_HASH), on=ROW
    )
    after = dict(target)
    for key, op, value in verdicts.select(KEY_HASH, OP, DATA_HASH).iter_rows():
        assert (op == "insert") == (key.decode() not in target)
        if op != "unchanged":
            after[key.decode()] = value.decode()
    for key in gone(before, rows[KEY_HASH])[KEY_HASH]:
        del after[key.decode()]

    assert after == source
