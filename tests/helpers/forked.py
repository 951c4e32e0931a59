"""Processes of a test's own, forked from one that has imported everything: a new one costs milliseconds, not seconds.

What is ended by SIGKILL, stopped by SIGSTOP or told apart by its memory must be a real process; what it
runs is the same code as ``python -m``. :func:`strike` puts a failpoint into such a process.
"""

import contextlib
import importlib
import io
import multiprocessing as mp
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

from syncflow_dagster.forks import IMPORTED

STARVING_BYTES = 4 << 20
FULL_BYTES = 1 << 10
FORKS = mp.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        *IMPORTED,
        "syncflow_core.sandbox.server",
        "syncflow_dagster.cli.app",
        "syncflow_dagster.cli.plan",
        # what a command or a server imports only when it works
        "anyio._backends._asyncio",
        "dagster._core.instance.factory",
        "dagster._core.instance.runs.run_domain",
        "pydantic.v1",
        "uvicorn.lifespan.on",
        # whose command is the main module of who forks
        "pytest",
    ]
)


@dataclass(frozen=True)
class Failpoint:
    """The n-th call of a function, by its dotted name where its caller looks it up."""

    name: str
    when: Literal["before", "after"] = "before"
    nth: int = 1
    signal: int = signal.SIGKILL
    """What the process then sends itself."""
    starve: bool = False
    """Whether it gets no more memory from there on instead."""
    full: bool = False
    """Whether it can make files no longer from there on instead, as on a full disk."""

    def reached(self) -> None:
        if self.starve:
            used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
            limit = used * resource.getpagesize() + STARVING_BYTES
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        elif self.full:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (FULL_BYTES, FULL_BYTES))
        elif self.signal == signal.SIGSTOP:
            # to this thread, which stops with it: sent to the process it waits for the main thread's turn
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
        else:
            os.kill(os.getpid(), self.signal)


class Forked:
    """A process with the parts of ``subprocess.Popen`` that tests use."""

    def __init__(
        self,
        main: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        folder: Path,
        failpoint: Failpoint | None = None,
        *,
        errors: bool = True,
        silent: bool = False,
        constants: Mapping[str, object] | None = None,
    ) -> None:
        """Start it.

        Args:
            main: ``module:function``, called without arguments.
            arguments: ``sys.argv`` behind its first.
            environment: The whole of it.
            folder: Where it runs.
            failpoint: Where it ends, or stops.
            errors: Whether its standard error is told; else it goes where the tests' own goes.
            silent: Whether nothing of what it says is kept.
            constants: Other values of modules' constants, by dotted name.
        """
        ends = [FORKS.Pipe(duplex=False) for _ in range(3 if errors else 2)]
        theirs = tuple(end[at] for end, at in zip(ends, (0, 1, 1), strict=False))
        self._process = FORKS.Process(
            target=_child,
            args=(
                main,
                list(arguments),
                dict(environment),
                str(folder),
                theirs,
                failpoint,
                dict(constants or {}),
                silent,
            ),
        )
        self._process.start()
        for end in theirs:
            end.close()
        ours = [end[at] for end, at in zip(ends, (1, 0, 0), strict=False)]
        files = [os.dup(end.fileno()) for end in ours]
        for end in ours:
            end.close()
        self.stdin = os.fdopen(files[0], "wb")
        self.stdout = os.fdopen(files[1], "rb")
        self.stderr = os.fdopen(files[2], "rb") if errors else io.BytesIO()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("a forked process", timeout or 0)
        return self._process.exitcode

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def send_signal(self, number: int) -> None:
        """A process that has ended gets none; its status is told a moment after it is gone."""
        with contextlib.suppress(ProcessLookupError):
            if self.poll() is None:
                os.kill(self.pid, number)

    def close(self) -> None:
        """Close the pipes to it."""
        for pipe in (self.stdin, self.stdout, self.stderr):
            pipe.close()

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it says to its end."""
        self.stdin.close()
        with ThreadPoolExecutor(2) as pool:
            told, warned = (pool.submit(pipe.read) for pipe in (self.stdout, self.stderr))
            try:
                self.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()
                raise
            if self.returncode == -signal.SIGKILL:
                # Dagster's reader of a log may outlive who started it, and holds its output open
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.pid, signal.SIGKILL)
            out, error = told.result().decode(), warned.result().decode()
        self.close()
        return out, error


def _child(
    main: str,
    arguments: list[str],
    environment: dict[str, str],
    folder: str,
    ends: tuple[Connection, ...],
    failpoint: Failpoint | None,
    constants: dict[str, object],
    silent: bool,  # noqa: FBT001  # all of them come by their place
) -> None:
    os.setsid()
    for number, end in enumerate(ends):
        os.dup2(end.fileno(), number)
        end.close()
    if silent:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
    sys.stdin = io.TextIOWrapper(os.fdopen(0, "rb", closefd=False))
    sys.stdout = io.TextIOWrapper(os.fdopen(1, "wb", closefd=False), line_buffering=True)
    sys.stderr = io.TextIOWrapper(os.fdopen(2, "wb", closefd=False), line_buffering=True)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = [main, *arguments]
    for dotted, value in constants.items():
        setattr(*_found(dotted), value)
    if failpoint is not None:
        strike(failpoint)
    owner, _, name = main.rpartition(":")
    getattr(importlib.import_module(owner), name)()


def strike(point: Failpoint) -> None:
    """Make this process end, or stop, at the failpoint."""
    owner, name = _found(point.name)
    real: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def wrapped(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls != point.nth:
            return real(*arguments, **named)
        if point.when == "before":
            point.reached()
            return real(*arguments, **named)
        result = real(*arguments, **named)
        point.reached()
        return result

    setattr(owner, name, wrapped)


def _found(dotted: str) -> tuple[Any, str]:
    """The module or class that the name's last part is looked up in."""
    path, _, name = dotted.rpartition(".")
    try:
        return importlib.import_module(path), name
    except ModuleNotFoundError:
        module, _, owner = path.rpartition(".")
        return getattr(importlib.import_module(module), owner), name
