"""One look at one thing: what was seen, whether it is in order, how to mend it, how long it took.

Belongs here: making checks in turn, within their time, each whatever the others found.
Does not belong here: what is looked at (the other modules of this package), printing (``cli.doctor``).

Source: product.md 10, ``doctor``.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final, Literal, TypeVar

from syncflow_core.errors import SyncFlowError, UnavailableError

LIMIT_S: Final = 10.0
"""How long one check may take: login and one call, each of a few seconds at most."""

Status = Literal["ok", "warn", "fail", "skipped"]
T = TypeVar("T")
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Seen:
    """What a look saw."""

    words: str
    status: Status = "ok"
    mend: str = ""
    """How to mend it, where the check's own advice does not fit."""


@dataclass(frozen=True)
class Check:
    """One thing to look at."""

    name: str
    """Dotted: ``apismith.login``, ``entity.orders.key``."""
    look: Callable[[], Seen]
    """Raises where it cannot see what it should."""
    mend: str
    """A command, or a variable, that mends it."""
    needs: tuple[str, ...] = ()
    """Checks without which this one cannot be made."""
    limit_s: float = LIMIT_S


@dataclass(frozen=True)
class Finding:
    """What a check found."""

    name: str
    status: Status
    seen: str
    mend: str = ""
    latency_ms: float | None = None
    """None for a check that was not made."""
    error: Exception | None = field(default=None, compare=False, repr=False)
    """What the look raised."""
    root: str = ""
    """Of a check that was skipped: the one that had failed."""

    @property
    def exit_status(self) -> int:
        """What a command ends with for it: 4 where something is away, 1 where it fails otherwise."""
        if self.status != "fail":
            return 0
        away = isinstance(self.error, UnavailableError)
        return UnavailableError.exit_status if away else SyncFlowError.exit_status


def made(
    checks: Sequence[Check],
    found: MutableMapping[str, Finding],
    *,
    until: float | None = None,
) -> Iterator[Finding]:
    """Make the checks in turn; one whose needs failed, or were skipped, is skipped and says so.

    Args:
        checks: What to look at.
        found: What was found before; each finding is added.
        until: When, in monotonic seconds, no further check is begun.
    """
    for check in checks:
        root = next(filter(None, (_root(found.get(need), need) for need in check.needs)), None)
        if root is not None:
            finding = skipped(check.name, f"not looked at: see {root}", root=root)
        elif until is not None and time.monotonic() >= until:
            finding = skipped(check.name, "not looked at: the time is over")
        else:
            finding = make(check)
        found[check.name] = finding
        yield finding


def make(check: Check) -> Finding:
    """Look; whatever the look raises is what was found."""
    begun = time.monotonic()
    error: Exception | None = None
    try:
        seen = _in_time(check.look, check.limit_s)
    except SyncFlowError as raised:
        error, seen = raised, Seen(_line(raised), "fail")
    except Exception as raised:  # the other checks are made all the same
        logger.debug("the check %s broke", check.name, exc_info=True)
        error, seen = raised, Seen(f"{type(raised).__name__}: {_line(raised)}", "fail")
    return Finding(
        check.name,
        seen.status,
        seen.words,
        mend=(seen.mend or check.mend) if seen.status in {"warn", "fail"} else "",
        latency_ms=round((time.monotonic() - begun) * 1000, 1),
        error=error,
    )


def skipped(name: str, why: str, *, root: str = "") -> Finding:
    """A check that was not made."""
    return Finding(name, "skipped", why, root=root)


def exit_status(findings: Sequence[Finding]) -> int:
    """The highest of what the findings ask for (product.md, "Accounts, statuses, exits")."""
    return max((finding.exit_status for finding in findings), default=0)


def _root(before: Finding | None, need: str) -> str | None:
    """The check that has to be mended first, None where nothing stands in the way."""
    if before is None or before.status in {"fail", "skipped"}:
        return need if before is None else before.root or need
    return None


def _in_time(look: Callable[[], T], limit_s: float) -> T:
    """What *look* returns; one that does not come to its end is left to itself.

    Raises:
        UnavailableError: It has not ended in time.
    """
    ended: Future[T] = Future()

    def run() -> None:
        try:
            ended.set_result(look())
        except BaseException as error:  # noqa: BLE001  # raised again where it is waited for
            ended.set_exception(error)

    # a daemon: a name that is looked up, or a disk, can hang beyond every limit of a socket
    threading.Thread(target=run, name="doctor", daemon=True).start()
    try:
        return ended.result(limit_s)
    except TimeoutError:
        if ended.done():  # the look's own
            raise
        raise UnavailableError(f"no answer within {limit_s:.0f} s") from None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
