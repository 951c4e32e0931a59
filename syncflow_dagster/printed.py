"""What a run prints: kept in files for the UI, and shown where its process prints otherwise.

Dagster does the same with four processes (``tail`` and who watches it, for each stream), one of which
stays behind where a command is killed.
Here one thread reads the files and shows what comes: it ends with its process.

Belongs here: the two streams of a process.
Does not belong here: where the files are (``instance_storage``), log lines (``logs``).

Source: dagster 1.13, ``_core/execution/compute_logs.py``.
"""

import io
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, TextIO

from syncflow_core.private import make_folder

POLL_S: Final = 0.05
END_S: Final = 5.0
"""How long the end waits for who reads what is shown."""
PIECE_BYTES: Final = 1 << 16
TERMINAL: Final = "this run's output went to the terminal of its command\n"

_left_alone: list[bool] = []


def open_closed() -> None:
    """This process has both streams: what goes into one that whoever started it has closed is nowhere."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115  # to the end


def close_output() -> None:
    """From here on standard output goes nowhere: what could not be written is not tried again as Python ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


@contextmanager
def left_alone() -> Iterator[None]:
    """Within the block this process's streams stay what they are: a person looks at them."""
    _left_alone.append(True)
    try:
        yield
    finally:
        _left_alone.pop()


@contextmanager
def kept(streams: Sequence[tuple[TextIO, Path]]) -> Iterator[None]:
    """Within the block, what is written to the streams' file descriptors is appended to the files, and shown.

    A stream that an object without a file descriptor stands for is left to that object.

    Args:
        streams: Standard output and standard error, each with its file.
    """
    for _, path in streams:
        make_folder(path.parent)
        with path.open("a", encoding="utf-8") as file:
            if _left_alone:
                file.write(TERMINAL)
    if _left_alone:
        yield
        return
    with ExitStack() as undo:
        shown = []
        for stream, path in streams:
            number = _descriptor(stream)
            if number is not None:
                shown.append(undo.enter_context(_redirected(stream, number, path)))
        ended = threading.Event()
        thread = threading.Thread(target=_show, args=(shown, ended), name="printed", daemon=True)
        thread.start()
        try:
            yield
        finally:
            undo.close()
            ended.set()
            thread.join(END_S)


@contextmanager
def _redirected(stream: TextIO, number: int, path: Path) -> Iterator[tuple[io.FileIO, io.FileIO]]:
    """The file, to be read from where it ends now, and where the stream has gone until now."""
    reader, before = io.FileIO(path), io.FileIO(os.dup(number), "w")
    reader.seek(0, os.SEEK_END)
    stream.flush()
    with path.open("ab", buffering=0) as file:
        os.dup2(file.fileno(), number)
    try:
        yield reader, before
    finally:
        try:
            stream.flush()
        finally:  # also where the disk has no room for it
            os.dup2(before.fileno(), number)


def _show(shown: Sequence[tuple[io.FileIO, io.FileIO]], ended: threading.Event) -> None:
    """Copy what comes into each file to where it went before, to the end; both are closed then."""
    with ExitStack() as undo:
        for pair in shown:
            for end in pair:
                undo.enter_context(end)
        listened_to = list(shown)
        last = False
        while not last:
            last = ended.wait(POLL_S)
            for pair in list(listened_to):
                reader, before = pair
                while piece := reader.read(PIECE_BYTES):
                    if not _written(before, piece):
                        listened_to.remove(pair)
                        break


def _written(before: io.FileIO, piece: bytes) -> bool:
    """Whether all of it could be written: not where the reader of a pipe has gone."""
    rest = memoryview(piece)
    try:
        while rest:
            rest = rest[before.write(rest) :]
    except OSError:
        return False
    return True


def _descriptor(stream: TextIO) -> int | None:
    try:
        return stream.fileno()
    except (AttributeError, io.UnsupportedOperation):
        return None
