"""A signal that waits: what is in flight is finished before the run ends.

Belongs here: noting SIGINT and SIGTERM, putting them off for a while, doing something before they do.
Does not belong here: what they then do (Dagster), which work is not to be cut (``syncflow_core.stages``).

Source: product.md 7 ("at its end the batch in flight is finished"); faults.md XW11.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final, Self

from dagster._core.errors import DagsterExecutionInterruptedError

GRACE_S: Final = 20.0
"""A signal waits no longer: who deploys kills after 30 s."""
FIRST_S: Final = 1.0
"""What is done first is waited for no longer."""
_PUT_OFF: Final = (signal.SIGINT, signal.SIGTERM)
_noting: "list[Signals]" = []


class Signals:
    """Notes which signals come while a command runs something, whoever handles them: Dagster takes the handlers over.

    Outside ops the first one is noted alone, and the next op ends with it (:func:`told`): raised wherever Python
    is, it may be lost in what runs as memory is tidied up, or be taken for a failure. A second one ends whatever
    goes on.
    """

    def __enter__(self) -> Self:
        self._came: list[int] = []
        self._was_noted = False
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        self._wakeup = signal.set_wakeup_fd(self._write)
        # Dagster turns both into its own interruption while ops run; before and after, this does
        self._handlers = {number: signal.signal(number, self._note) for number in _PUT_OFF}
        _noting.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self.came()
        _noting.remove(self)
        os.close(self._read)
        os.close(self._write)

    def came(self) -> list[int]:
        """The numbers of those that came, in their order."""
        if self in _noting:
            try:
                numbers = os.read(self._read, 4096)
            except BlockingIOError:
                numbers = b""  # none since
            self._came += [number for number in numbers if number in _PUT_OFF]
        return self._came

    def last(self) -> int:
        """The number of the one that came last; SIGTERM's where what ran was stopped elsewhere."""
        came = self.came()
        return came[-1] if came else int(signal.SIGTERM)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        if self._was_noted:
            raise KeyboardInterrupt
        self._was_noted = True


def told() -> bool:
    """Whether the command that runs here has been told to end."""
    return any(signals.came() for signals in _noting)


def end_where_told() -> None:
    """Begin no op once the command has been told to end.

    Raises:
        DagsterExecutionInterruptedError: It has.
    """
    if told():
        raise DagsterExecutionInterruptedError


@contextmanager
def put_off() -> Iterator[None]:
    """Let signals wait until the block has ended, at most ``GRACE_S`` seconds, then do what they did before.

    Outside the main thread, where no signal arrives, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[tuple[int, FrameType | None]] = []

    def wait(number: int, frame: FrameType | None) -> None:
        if not came:
            signal.signal(signal.SIGALRM, over)
            signal.setitimer(signal.ITIMER_REAL, GRACE_S)
        came.append((number, frame))

    def over(_: int, frame: FrameType | None) -> None:
        _act(before[came[0][0]], came[0][0], frame)

    alarm = signal.getsignal(signal.SIGALRM)
    before: dict[int, object] = {number: signal.signal(number, wait) for number in _PUT_OFF}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal() itself gave
        if came:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, alarm)
            _act(before[came[0][0]], *came[0])


@contextmanager
def doing_first(first: Callable[[], object]) -> Iterator[threading.Event]:
    """Have a signal do something before what it does: threads that wait would be waited for, else.

    Yields:
        An event that is set once a signal has come: what the block says from then on may be of what was cut off.
    """
    told = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield told
        return

    def act(number: int, frame: FrameType | None) -> None:
        told.set()
        # beside: the signal may have come while this thread held a lock that it needs
        beside = threading.Thread(target=first, name="told to end", daemon=True)
        beside.start()
        beside.join(FIRST_S)
        _act(before[number], number, frame)

    before: dict[int, object] = {number: signal.signal(number, act) for number in _PUT_OFF}
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal() itself gave


def _act(handler: object, number: int, frame: FrameType | None) -> None:
    """Do what the signal does without the delay."""
    if callable(handler):
        handler(number, frame)
    elif handler == signal.SIG_DFL:
        signal.raise_signal(number)
