"""Log lines: what each says besides its message, and that none can be forged or tell a secret.

Belongs here: the context that lines carry, threads that keep it, the two forms of a line, redaction.
Does not belong here: where lines go and from which level on (``syncflow_dagster.logs``).

Personal data is not masked here: it is never logged (``privacy``). Secrets never are either; that they
are looked for nevertheless is a second line of defence.

Source: product.md 14; docs/operations/logging.md.
"""

import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from datetime import UTC, datetime
from typing import Any, Final, ParamSpec, TypeVar

from syncflow_core.printable import printable, printable_json

CONTEXT: Final = ("batch", "entity", "run", "stage")
"""What each line of JSON says, null where it is not known."""
OWN: Final = ("syncflow_core", "syncflow_dagster")
"""SyncFlow's loggers."""
SAID: Final = "syncflow_said"
"""Attribute of a record of SyncFlow's own: its message, whatever others make of the record's."""
REDACTED: Final = "***"

P = ParamSpec("P")
T = TypeVar("T")
Context = Callable[[logging.LogRecord], Mapping[str, str | None]]

_context: ContextVar[Mapping[str, str]] = ContextVar("syncflow_log_context")
_SHORT: Final = 12
"""Characters up to which a secret is looked for as a word: a shorter one may be a part of any."""
_LEAST: Final = 4
_PATTERNS: Final = (
    (re.compile(r"\b(bearer|basic)\s+[\w.~+/=-]+", re.IGNORECASE), rf"\1 {REDACTED}"),
    (re.compile(r"\beyJ[\w-]+\.[\w-]+(\.[\w-]*)?"), REDACTED),
    (re.compile(r"(://[^/\s:@]*:)[^/\s]*@"), rf"\1{REDACTED}@"),
    (
        re.compile(
            r"((?:password|passwd|secret|token|authorization)['\"]?\s*[=:]\s*['\"]?)[^\s'\",;&}]+",
            re.IGNORECASE,
        ),
        rf"\1{REDACTED}",
    ),
)


@contextmanager
def about(**context: str | None) -> Iterator[None]:
    """Have every line that is logged meanwhile say this, besides what it says already."""
    known = {name: value for name, value in context.items() if value is not None}
    before = _context.set({**_context.get({}), **known})
    try:
        yield
    finally:
        _context.reset(before)


def in_context(work: Callable[P, T]) -> Callable[P, T]:
    """The work as another thread does it, with the context of the one that asks for it."""
    context = copy_context()

    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        return context.run(work, *args, **kwargs)

    return run


class Threads(ThreadPoolExecutor):
    """A pool of threads whose lines say what those of the thread say that gives them work."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """As the pool's own."""
        try:
            return super().submit(in_context(fn), *args, **kwargs)
        except BaseException:
            # a signal came while a thread was started: the pool does not know it, and Python's end would wait for it
            self.shutdown(wait=False)
            raise


def begun(name: str, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
    """Begin *work* in a thread of its own; who no longer wants the answer need not wait for it."""
    thread = Threads(1, thread_name_prefix=name)
    answer = thread.submit(work, *args, **kwargs)
    thread.shutdown(wait=False)
    return answer


class Redactor:
    """Removes secrets from text: those that are known, and what looks like one.

    Args:
        secrets: Values that must never be told.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = sorted({text for text in secrets if len(text) >= _LEAST}, key=len, reverse=True)
        parts = [
            re.escape(text) if len(text) > _SHORT else rf"(?<!\w){re.escape(text)}(?!\w)"
            for text in known
        ]
        self._known = re.compile("|".join(parts)) if parts else None

    def __call__(self, text: str) -> str:
        """The text without them."""
        if self._known is not None:
            text = self._known.sub(REDACTED, text)
        for pattern, shown in _PATTERNS:
            text = pattern.sub(shown, text)
        return text


class Recording:
    """Makes log records whose message tells no secret; SyncFlow's own are inert, too, for any handler.

    Args:
        make: What made records before.
        redact: Removes secrets.
    """

    def __init__(self, make: Callable[..., logging.LogRecord], redact: Redactor) -> None:
        self._make = make
        self.redact = redact

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:  # noqa: ANN401  # logging's own
        """One record."""
        record = self._make(*args, **kwargs)
        try:
            plain = record.getMessage()
        except (TypeError, ValueError):
            return record  # its handlers tell that its arguments do not fit
        said = self.redact(plain)
        if (record.name or "").partition(".")[0] in OWN:  # Dagster makes one without a name
            said = printable(said)
            setattr(record, SAID, said)
        if said != plain:
            record.msg, record.args = said, ()
        return record


def nothing_more(_record: logging.LogRecord) -> dict[str, str | None]:
    """What a record says of its context where nobody but the context knows it."""
    return {}


class Lines(logging.Formatter):
    """What both forms of a line have in common.

    Args:
        redact: Removes secrets.
        more: What a record itself says of its context.
    """

    def __init__(self, redact: Redactor, more: Context = nothing_more) -> None:
        super().__init__()
        self._redact = redact
        self._more = more

    def said(self, record: logging.LogRecord) -> str:
        """The message."""
        said: str = getattr(record, SAID, None) or self._redact(record.getMessage())
        return said

    def context(self, record: logging.LogRecord) -> dict[str, str | None]:
        """What the line says besides."""
        own: dict[str, str | None] = dict.fromkeys(CONTEXT)
        return {**own, **_context.get({}), **self._more(record)}

    def stack(self, record: logging.LogRecord) -> str | None:
        """The exception with its stack; None where there is none."""
        texts = [self.formatException(record.exc_info)] if record.exc_info else []
        texts += [record.stack_info] if record.stack_info else []
        return self._redact("\n".join(texts)) if texts else None


class JsonLines(Lines):
    """One JSON object a line, in ASCII alone: no value can end the line or move a terminal's cursor."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, str | None] = {
            "timestamp": _moment(record),
            "level": record.levelname,
            "logger": record.name,
            "message": self.said(record),
            **self.context(record),
        }
        if (stack := self.stack(record)) is not None:
            line["exception"] = stack
        return printable_json(json.dumps(line))


class TextLines(Lines):
    """A line for people; further lines, as a stack's, are below it, indented, so that none looks like another one.

    Args:
        redact: Removes secrets.
        more: What a record itself says of its context.
        stamped: Whether it says when, how grave, and about what: a server's lines do, a command's are short.
    """

    def __init__(
        self, redact: Redactor, more: Context = nothing_more, *, stamped: bool = True
    ) -> None:
        super().__init__(redact, more)
        self._stamped = stamped

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        first, *below = self.said(record).split("\n")
        line = f"{record.name}: {printable(first)}"
        if self._stamped:
            known = [f"{name}={value}" for name, value in self.context(record).items() if value]
            line = f"{_moment(record)} {record.levelname:<7} {line}"
            line += f"  ({printable(' '.join(known))})" if known else ""
        if (stack := self.stack(record)) is not None:
            below += stack.split("\n")
        return "\n    ".join([line, *(printable(text) for text in below)])


def _moment(record: logging.LogRecord) -> str:
    at = datetime.fromtimestamp(record.created, tz=UTC)
    return at.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"
