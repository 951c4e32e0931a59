from pathlib import Path

import polars as pl
import pytest
from buckets import S3
from polars.testing import assert_frame_equal

from syncflow_core.errors import SyncFlowError
from syncflow_core.frames import HANDOVER, FrameStore
from syncflow_core.places import place_of

LONG_AGO, IN_THE_FUTURE = 1_000_000_000.0, 10_000_000_000.0


def parts() -> list[pl.DataFrame]:
    return [pl.DataFrame({"a": ["x", None]}), pl.DataFrame({"a": ["y"]})]


@pytest.fixture(params=["folder", "bucket"])
def address(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where frames lie; every test is about both."""
    if request.param == "folder":
        return str(tmp_path)
    s3: S3 = request.getfixturevalue("s3")
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    return s3.bucket()


def test_what_was_written_is_read_in_order_also_by_another_process(address: str) -> None:
    ref = FrameStore(address).write("batch", "raw", parts())

    other = FrameStore(address)

    assert ref.rows == 3
    assert_frame_equal(other.read(ref), pl.DataFrame({"a": ["x", None, "y"]}))
    assert [part.height for part in other.parts(ref)] == [2, 1]


def test_an_empty_frame_set_keeps_its_columns(address: str) -> None:
    store = FrameStore(address)

    ref = store.write("batch", "raw", [parts()[0].clear(), parts()[0].clear()])

    assert (ref.rows, len(ref.parts)) == (0, 1)
    assert FrameStore(address).read(ref).columns == ["a"]


def test_columns_can_be_read_alone(address: str) -> None:
    ref = FrameStore(address).write("b", "n", [pl.DataFrame({"a": ["1"], "b": ["2"]})])

    assert FrameStore(address).read(ref, columns=["b"]).columns == ["b"]


def test_a_second_frame_set_of_the_same_name_does_not_disturb_the_first(address: str) -> None:
    store = FrameStore(address)
    first = store.write("b", "n", parts())

    store.write("b", "n", [pl.DataFrame({"a": ["z"]})])

    assert FrameStore(address).read(first).height == 3


def test_a_forgotten_scope_is_gone_and_says_so_and_the_others_stay(address: str) -> None:
    store = FrameStore(address)
    ref, other = store.write("batch", "raw", parts()), store.write("batch2", "raw", parts())

    store.forget("batch")
    store.close()

    with pytest.raises(SyncFlowError, match="start the sync again"):
        store.read(ref)
    assert FrameStore(address).read(other).height == 3


def test_what_dead_runs_left_is_forgotten_once_it_is_old(address: str) -> None:
    store, place = FrameStore(address), place_of(address)
    dead, running = store.write("dead", "raw", parts()), store.write("running", "raw", parts())
    for run in ("one", "two"):
        place.put(f"{HANDOVER}/{run}/step.json", b"{}")

    assert store.forget_older(LONG_AGO, keep=[]) == 0
    assert store.forget_older(IN_THE_FUTURE, keep=["running"]) == 3

    assert FrameStore(address).read(running).height == 3
    with pytest.raises(SyncFlowError, match="start the sync again"):
        FrameStore(address).read(dead)
    with pytest.raises(FileNotFoundError):
        place.get(f"{HANDOVER}/one/step.json")


def test_handed_over_is_what_was_put_last(address: str) -> None:
    place = place_of(address)
    place.put("handover/run/step.json", b"{}")

    place.put("handover/run/step.json", b"[1]")

    assert place.get("handover/run/step.json") == b"[1]"


def test_what_is_written_leaves_its_parts_and_nothing_else(tmp_path: Path) -> None:
    FrameStore(str(tmp_path)).write("batch", "raw", parts())

    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == [
        "part-00000.arrow",
        "part-00001.arrow",
    ]
