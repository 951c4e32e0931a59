from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from syncflow_core.errors import SyncFlowError
from syncflow_core.frames import FrameStore


def parts() -> list[pl.DataFrame]:
    return [pl.DataFrame({"a": ["x", None]}), pl.DataFrame({"a": ["y"]})]


def test_what_was_written_is_read_in_order_also_by_another_process(tmp_path: Path) -> None:
    ref = FrameStore(str(tmp_path)).write("batch", "raw", parts())

    other = FrameStore(str(tmp_path))

    assert ref.rows == 3
    assert_frame_equal(other.read(ref), pl.DataFrame({"a": ["x", None, "y"]}))
    assert [part.height for part in other.parts(ref)] == [2, 1]


def test_an_empty_frame_set_keeps_its_columns(tmp_path: Path) -> None:
    store = FrameStore(str(tmp_path))

    ref = store.write("batch", "raw", [parts()[0].clear(), parts()[0].clear()])

    assert (ref.rows, len(ref.parts)) == (0, 1)
    assert FrameStore(str(tmp_path)).read(ref).columns == ["a"]


def test_columns_can_be_read_alone(tmp_path: Path) -> None:
    ref = FrameStore(str(tmp_path)).write("b", "n", [pl.DataFrame({"a": ["1"], "b": ["2"]})])

    assert FrameStore(str(tmp_path)).read(ref, columns=["b"]).columns == ["b"]


def test_a_second_frame_set_of_the_same_name_does_not_disturb_the_first(tmp_path: Path) -> None:
    store = FrameStore(str(tmp_path))
    first = store.write("b", "n", parts())

    store.write("b", "n", [pl.DataFrame({"a": ["z"]})])

    assert store.read(first).height == 3


def test_a_forgotten_scope_is_gone_and_says_so(tmp_path: Path) -> None:
    store = FrameStore(str(tmp_path))
    ref = store.write("batch", "raw", parts())

    store.forget("batch")

    assert list(tmp_path.rglob("*.arrow")) == []
    with pytest.raises(SyncFlowError, match="start the sync again"):
        store.read(ref)


def test_what_is_written_leaves_its_parts_and_nothing_else(tmp_path: Path) -> None:
    FrameStore(str(tmp_path)).write("batch", "raw", parts())

    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == [
        "part-00000.arrow",
        "part-00001.arrow",
    ]
