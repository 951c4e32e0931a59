"""What lies on the disk is its owner's alone, whatever umask a shell or a service manager has set."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from syncflow_core.digest_key import digest_key
from syncflow_core.frames import FrameStore
from syncflow_core.settings import read_settings
from syncflow_dagster.api.security import secret_of
from syncflow_dagster.frame_io import FrameIOManager
from syncflow_dagster.home import prepare
from syncflow_dagster.instance_storage import dagster_folder
from syncflow_dagster.registry import _keep


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, Path]]:
    """A home, and frames elsewhere, neither of which is there; new files are open to everybody."""
    home, frames = tmp_path / "a" / "home", tmp_path / "b" / "frames"
    monkeypatch.setenv("SYNCFLOW_HOME", str(home))
    monkeypatch.setenv("SYNCFLOW_FRAMES_URI", str(frames))
    monkeypatch.setenv("DAGSTER_HOME", str(home / "dagster"))
    monkeypatch.chdir(tmp_path)
    before = os.umask(0)
    yield home, frames
    os.umask(before)


def test_folders_and_files_are_closed_to_others(places: tuple[Path, Path]) -> None:
    home, frames = places
    settings = read_settings()

    dagster_folder("history")
    prepare(settings)
    digest_key(settings)
    secret_of(settings, loopback=True)
    _keep(home / "entities.last.yaml", [])
    FrameIOManager().handle_output(dg.build_output_context(step_key="s", name="o", run_id="r"), {})
    FrameStore(str(frames)).write("batch", "rows", [pl.DataFrame({"a": [1]})])

    found = {
        path.relative_to(home.parents[1]): stat.S_IMODE(path.stat().st_mode)
        for root in (home.parent, frames.parent)
        for path in (root, *root.rglob("*"))
    }
    files = {path for path in found if (home.parents[1] / path).is_file()}
    assert {path.name for path in files} == {
        *("dagster.yaml", "pii-secret", "api-secret", "entities.last.yaml"),
        *("part-00000.arrow", "s-o.json"),
    }
    assert {
        path: mode for path, mode in found.items() if mode != (0o600 if path in files else 0o700)
    } == {}
