"""The embedded server: started by the first, shared by all, gone with the last."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from machine import until

from syncflow_core.bridge import embedded
from syncflow_core.bridge.database import Database
from syncflow_core.bridge.embedded import EmbeddedServer
from syncflow_core.errors import ConfigError
from syncflow_core.settings import Settings

USER = """
import sys
from pathlib import Path
from syncflow_core.bridge.embedded import EmbeddedServer
server = EmbeddedServer.acquire(Path(sys.argv[1]), linger_s=0)
print(server.url(), flush=True)
sys.stdin.read()
"""
UID = 1000


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A home whose server has ended after the test."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    yield closed / "home"
    if (closed / "home" / "postgres").exists():
        until(lambda: not is_watched(closed / "home"))


def is_watched(home: Path) -> bool:
    return embedded._is_watched(home / "postgres")


def state(home: Path) -> dict[str, int]:
    found: dict[str, int] = json.loads((home / "postgres" / "server.json").read_text())
    return found


def is_answering(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def started_at(url: str) -> object:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT pg_postmaster_start_time()").fetchone()
    assert row is not None
    return row[0]


def user_of(home: Path, *before: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*before, sys.executable, "-c", USER, str(home)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )


def url_from(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def end(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.communicate()


def test_two_processes_share_one_server(home: Path) -> None:
    with EmbeddedServer.acquire(home, linger_s=0) as server:
        other = user_of(home)
        other_url = url_from(other)
        end(other)

        assert other_url == server.url()


def test_four_processes_that_start_at_once_get_one_server(home: Path) -> None:
    users = [user_of(home) for _ in range(4)]
    urls = {url_from(user) for user in users}
    starts = {started_at(url) for url in urls}
    for user in users:
        end(user)

    assert (len(urls), len(starts)) == (1, 1)


def test_the_server_ends_by_itself_when_its_only_user_is_killed(home: Path) -> None:
    user = user_of(home)
    url = url_from(user)
    assert is_answering(url)

    end(user)

    until(lambda: not is_answering(url) and not is_watched(home))


def test_release_does_not_wait_and_a_new_user_gets_a_new_server_with_the_old_data(
    home: Path,
) -> None:
    with EmbeddedServer.acquire(home, linger_s=0) as server:
        with psycopg.connect(server.url()) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        before = started_at(server.url())
    until(lambda: not is_watched(home))

    with (
        EmbeddedServer.acquire(home, linger_s=0) as server,
        psycopg.connect(server.url()) as connection,
    ):
        row = connection.execute("SELECT answer, pg_postmaster_start_time() FROM kept").fetchone()

    assert row is not None
    assert row[0] == 42
    assert row[1] > before


def test_the_server_lingers_for_the_next_command(home: Path) -> None:
    with EmbeddedServer.acquire(home, linger_s=2) as server:
        before = started_at(server.url())
    with EmbeddedServer.acquire(home, linger_s=2) as server:
        assert started_at(server.url()) == before


def test_a_killed_server_is_started_again_at_the_same_address(home: Path) -> None:
    with EmbeddedServer.acquire(home, linger_s=0) as server:
        with psycopg.connect(server.url()) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        os.kill(state(home)["postmaster"], signal.SIGKILL)
        until(lambda: is_answering(server.url()))
        with (
            EmbeddedServer.acquire(home) as again,
            psycopg.connect(again.url()) as connection,
        ):
            row = connection.execute("SELECT answer FROM kept").fetchone()

        assert again.url() == server.url()
        assert row == (42,)


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_the_server_ends_with_a_killed_watcher_and_the_next_user_starts_anew(home: Path) -> None:
    with EmbeddedServer.acquire(home, linger_s=0) as server:
        before = started_at(server.url())
        os.kill(state(home)["watcher"], signal.SIGKILL)
        until(lambda: not is_answering(server.url()))
        with EmbeddedServer.acquire(home, linger_s=0) as again:
            assert started_at(again.url()) != before


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_an_open_database_finds_its_server_again_when_the_watcher_was_killed(home: Path) -> None:
    with Database.open(Settings(home=home, database_url=None)) as database:
        before = database.health()
        server = int((home / "postgres" / "data" / "postmaster.pid").read_text().split()[0])
        os.kill(state(home)["watcher"], signal.SIGKILL)
        until(lambda: not Path(f"/proc/{server}").exists())

        assert database.health().embedded
        assert database.frame("SELECT 1 AS one")["one"].to_list() == [1]
        assert database.place == before.place


def test_a_pid_that_went_to_another_process_does_not_stop_the_start(home: Path) -> None:
    with EmbeddedServer.acquire(home, linger_s=0):
        left = (home / "postgres" / "data" / "postmaster.pid").read_text()
    until(lambda: not is_watched(home))
    ours = "\n".join([str(os.getpid()), *left.splitlines()[1:]])
    (home / "postgres" / "data" / "postmaster.pid").write_text(ours + "\n")

    with EmbeddedServer.acquire(home, linger_s=0) as server:
        assert is_answering(server.url())


def test_no_folder_is_opened_wider_than_it_was(home: Path) -> None:
    with EmbeddedServer.acquire(home, linger_s=0):
        modes = {
            path.name: oct(path.stat().st_mode & 0o777)
            for path in (
                home.parent,
                home,
                home / "postgres",
                home / "postgres" / "data",
                home / "postgres" / "password",
            )
        }

    closed = dict.fromkeys(("closed", "home", "postgres", "data"), "0o700")
    assert modes == {**closed, "password": "0o600"}


def test_the_password_is_asked_for(home: Path) -> None:
    with EmbeddedServer.acquire(home, linger_s=0) as server:
        wrong = f"postgresql://syncflow:wrong@127.0.0.1:{server.port}/syncflow"
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(wrong)


def test_binaries_of_another_version_are_named(home: Path) -> None:
    data = home / "postgres" / "data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("9\n")

    with pytest.raises(ConfigError, match=r"made by PostgreSQL 9.*SYNCFLOW_DATABASE_URL"):
        EmbeddedServer.acquire(home)


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="only root can become another user"
)
def test_a_user_who_is_not_root_runs_the_server_as_himself() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chown(folder, UID, UID)
        home = Path(folder) / "home"
        # The capability lets this user read an interpreter that lies under root's closed home.
        user = user_of(
            home,
            "setpriv",
            f"--reuid={UID}",
            f"--regid={UID}",
            "--clear-groups",
            "--inh-caps=+dac_read_search",
            "--ambient-caps=+dac_read_search",
        )
        url = url_from(user)
        owner = (home / "postgres" / "data").stat().st_uid
        answering = is_answering(url)
        end(user)
        until(lambda: not is_watched(home))

    assert (owner, answering) == (UID, True)


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None,
    reason="only root can give up capabilities",
)
def test_root_in_docker_uses_the_capability_that_docker_grants(home: Path) -> None:
    user = user_of(home, "setpriv", "--bounding-set=-dac_read_search")
    answering = is_answering(url_from(user))
    end(user)

    assert answering


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None,
    reason="only root can give up capabilities",
)
def test_root_that_may_hand_on_nothing_is_told_the_way_out(home: Path) -> None:
    bare = subprocess.run(
        [
            "setpriv",
            "--bounding-set=-dac_read_search,-dac_override",
            sys.executable,
            "-c",
            USER,
            str(home),
        ],
        check=False,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )

    assert "ConfigError" in bare.stderr
    assert "set SYNCFLOW_DATABASE_URL" in bare.stderr


@pytest.mark.parametrize(
    ("memory_gb", "cache_mb"), [(0.5, 128), (4, 512), (64, 1024)], ids=["little", "some", "much"]
)
def test_the_cache_is_an_eighth_of_the_machines_memory_within_bounds(
    memory_gb: float, cache_mb: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = {"SC_PHYS_PAGES": int(memory_gb * 2**30) // 4096, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(os, "sysconf", pages.__getitem__)

    assert embedded._buffers_mb() == cache_mb


@pytest.mark.skipif("SYNCFLOW_TEST_DATABASE_URL" in os.environ, reason="another server's settings")
def test_the_server_has_this_cache_and_its_own_password_takes_one_iteration(
    server_url: str,
) -> None:
    with psycopg.connect(server_url) as session:
        (cache,) = session.execute(
            "SELECT pg_size_bytes(current_setting('shared_buffers')) >> 20"
        ).fetchone() or (None,)
        (password,) = session.execute(
            "SELECT rolpassword FROM pg_authid WHERE rolname = current_user"
        ).fetchone() or (None,)

    assert cache == embedded._buffers_mb()
    assert str(password).startswith("SCRAM-SHA-256$1:")
