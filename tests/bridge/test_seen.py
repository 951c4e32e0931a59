"""What a sweep's slices saw: ranges of it, and who is in it."""

import os

import polars as pl
import pytest

from syncflow_core.bridge.sweeps import Seen


@pytest.fixture
def keys() -> list[bytes]:
    return [bytes([first]) + os.urandom(15) for first in range(256)]


@pytest.mark.parametrize("bounds", [(0, 256), (0, 1), (255, 256), (100, 101), (17, 200)])
def test_a_range_of_first_bytes_is_taken_out_of_all_slices(
    keys: list[bytes], bounds: tuple[int, int]
) -> None:
    seen = Seen([b"".join(keys[::2]), b"".join(keys[1::2]), b""])

    assert sorted(seen.between(*bounds).to_list()) == keys[slice(*bounds)]


def test_who_was_seen_by_any_slice_was_seen(keys: list[bytes]) -> None:
    seen = Seen([b"".join(keys[:100]), b"".join(keys[100:200])])

    assert seen.has(pl.Series([keys[0], keys[150], keys[200]])).to_list() == [True, True, False]
    assert seen.has(pl.Series([], dtype=pl.Binary)).is_empty()
