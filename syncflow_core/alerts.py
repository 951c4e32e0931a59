"""What a person is told of: what has become wrong, what is over, and in which words.

Belongs here: comparing what is wrong now with what was told, the rule for counts that deviate, the message.
Does not belong here: finding out what is wrong (``bridge.alerts``), sending it (``notify``).

A law: no value of a record is in a message. Names of entities and rules, and counts, say where to look.

Source: product.md 14.
"""

import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal
from uuid import UUID

Kind = Literal[
    "failed",  # an entity's last sync failed
    "stopped",  # an entity's last sync was ended by something else than a person or a signal
    "partial",  # an entity's last sync ended partial, or records of earlier ones are undelivered
    "withheld",  # updates or deletes are withheld until a person approves them
    "system_away",  # a system stopped answering while a run asked it
    "in_doubt",  # writes have no outcome, and nobody is at work who would ask for it
    "given_up",  # records have waited for their parent through all their attempts
    "dead_letters",  # dead letters are more than the check failed_within_limits allows
    "count_deviation",  # a scan read far more or fewer rows than the scans before it
    "empty_source",  # a whole scan read no row, and records are known
    "missed_night",  # a night has closed without a run, or with slices left
    "test",  # somebody tries the notifiers
]
"""What is told of, and when."""

DEVIATION: Final = 0.5
"""Of the median of earlier scans, how much a scan's rows may differ."""
SCANS: Final = 7
"""Earlier scans that are looked at: after four on another level, that level is the usual one."""
SCANS_LEAST: Final = 3
"""With fewer there is nothing usual yet."""
ROWS_LEAST: Final = 100
"""Smaller tables double and halve every day."""

State = Literal["firing", "recovered"]
STATES: Final[tuple[State, ...]] = ("firing", "recovered")
_WORD: Final = re.compile(r"[a-z][a-z0-9_]{0,49}")


@dataclass(frozen=True)
class Condition:
    """Something that is wrong now."""

    kind: Kind
    subject: str
    """An entity or a system."""
    message: str
    since: datetime | None = None
    """None: since it is looked at."""
    batch: UUID | None = None
    run_id: str | None = None


@dataclass(frozen=True)
class Alert:
    """Something that was found wrong, and may be over."""

    uid: UUID
    kind: Kind
    subject: str
    message: str
    since: datetime
    ended_at: datetime | None = None
    batch: UUID | None = None
    run_id: str | None = None
    told: frozenset[str] = frozenset()
    """``webhook firing``: which notifier took which change."""

    def untold(self, notifier: str) -> tuple[State, ...]:
        """The changes that a notifier has not taken, in order."""
        reached = STATES if self.ended_at is not None else STATES[:1]
        return tuple(state for state in reached if mark(notifier, state) not in self.told)


def mark(notifier: str, state: State) -> str:
    """How it is noted that a notifier took a change.

    >>> mark("webhook", "firing")
    'webhook firing'
    """
    return f"{notifier} {state}"


@dataclass(frozen=True)
class Changes:
    """What is to be done to the standing alerts so that they are what is wrong now."""

    fired: tuple[Condition, ...]
    """New."""
    stays: tuple[tuple[UUID, Condition], ...]
    """As before, perhaps in other words."""
    over: tuple[UUID, ...]


def compare(seen: Iterable[Condition], standing: Iterable[Alert]) -> Changes:
    """Tell what is new, what stays and what is over.

    Kind and subject alone tell conditions apart: other words are no change that anybody is told of.

    Args:
        seen: What is wrong now; of two that are alike the first counts.
        standing: The alerts that are not over, no two of them alike.
    """
    now: dict[tuple[Kind, str], Condition] = {}
    for condition in seen:
        now.setdefault((condition.kind, condition.subject), condition)
    before = {(alert.kind, alert.subject): alert.uid for alert in standing}
    return Changes(
        fired=tuple(now[key] for key in sorted(now.keys() - before.keys())),
        stays=tuple((before[key], now[key]) for key in sorted(now.keys() & before.keys())),
        over=tuple(before[key] for key in sorted(before.keys() - now.keys())),
    )


def usual_rows(rows: int, earlier: Sequence[int]) -> int | None:
    """How many rows were usual, where *rows* is far from it; None where it is not, or nothing is usual.

    >>> usual_rows(400, [1000, 980, 1020]), usual_rows(600, [1000, 980, 1020])
    (1000, None)
    >>> usual_rows(0, [1000, 1000]), usual_rows(9, [20, 20, 20])
    (None, None)

    Args:
        rows: Of the last scan.
        earlier: Of the scans before it, the newest first.
    """
    if len(earlier) < SCANS_LEAST:
        return None
    usual = statistics.median(earlier[:SCANS])
    if max(usual, rows) < ROWS_LEAST or abs(rows - usual) <= DEVIATION * usual:
        return None
    return round(usual)


def rule_name(text: str) -> str:
    """A rule's name; what the hub calls its refusal is told only where it is a plain word.

    >>> rule_name("hub_validation"), rule_name("hub_Name Smith is taken")
    ('hub_validation', 'other')
    """
    return text if _WORD.fullmatch(text) else "other"


def one_line(text: str) -> str:
    r"""The text without what could begin another line, or a header.

    >>> one_line("a\r\nBcc: b")
    'a  Bcc: b'
    """
    return "".join(c if c.isprintable() else " " for c in text)


@dataclass(frozen=True)
class Change:
    """What one notifier is told: an alert that has come up or is over."""

    alert: Alert
    state: State
    installation: str

    @property
    def id(self) -> str:
        """The same whenever this change is told again."""
        return f"{self.alert.uid}-{self.state}"

    @property
    def title(self) -> str:
        """One line of printable text, whatever the names are made of."""
        words = f"[{self.installation}] {self.state}: {self.alert.kind} {self.alert.subject}"
        return one_line(words)

    @property
    def text(self) -> str:
        """The title and the message, one line."""
        return f"{self.title}: {one_line(self.alert.message)}"

    @property
    def payload(self) -> dict[str, str | None]:
        """What programs are told; ``text`` is what chat programs show."""
        alert = self.alert
        ended_at = alert.ended_at if self.state == "recovered" else None
        return {
            "id": self.id,
            "kind": alert.kind,
            "subject": alert.subject,
            "state": self.state,
            "message": alert.message,
            "since": alert.since.isoformat(),
            "ended_at": None if ended_at is None else ended_at.isoformat(),
            "installation": self.installation,
            "batch": None if alert.batch is None else str(alert.batch),
            "run_id": alert.run_id,
            "text": self.text,
        }
