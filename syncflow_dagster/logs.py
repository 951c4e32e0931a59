"""Where log lines go: to standard error, as text or JSON, from a level on, in commands and servers alike.

Belongs here: choosing form and level, and Dagster's own lines of a run.
Does not belong here: the lines (``syncflow_core.logs``); what a command prints itself (``cli``).

Source: product.md 14; docs/operations/logging.md.
"""

import logging
import sys
from collections.abc import Mapping
from typing import Final, TextIO
from urllib.parse import unquote, urlsplit

import dagster as dg
import dagster._loggers as dagster_loggers
from pydantic import SecretStr

from syncflow_core.logs import (
    OWN,
    SAID,
    Context,
    JsonLines,
    Lines,
    Recording,
    Redactor,
    TextLines,
    nothing_more,
)
from syncflow_core.settings import Settings, misspelled, read_settings

logger = logging.getLogger(__name__)

_MISSPELLED: Final[set[str]] = set()
"""Variables that this process has told of already."""
QUIET: Final = ("sqlalchemy", "httpcore", "alembic")
"""Libraries whose lines of less than a warning say statements and headers."""


class StandardError(logging.StreamHandler[TextIO]):
    """Writes to standard error as it is when a line comes: who runs a command may have replaced it."""

    def __init__(self, lines: Lines, level: int) -> None:
        logging.Handler.__init__(self, level)
        self.setFormatter(lines)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]  # logging's own last resort does the same
        """Standard error."""
        return sys.stderr


def log_to_stderr(settings: Settings, *, server: bool = False) -> None:
    """Have this process's lines go to standard error; called again, it goes by the newest settings.

    Args:
        settings: Form, level, and the secrets that no line may tell.
        server: Whether this is a server or a worker: its lines are JSON where nobody looks, and begin
            at INFO. A command's are text, and begin at WARNING.
    """
    redact = Redactor(secrets_of(settings))
    make = logging.getLogRecordFactory()
    if isinstance(make, Recording):
        make.redact = redact
    else:
        logging.setLogRecordFactory(Recording(make, redact))
    level = level_of(settings, server=server)
    root = logging.getLogger()
    for handler in [item for item in root.handlers if isinstance(item, StandardError)]:
        root.removeHandler(handler)
    lines = _lines(settings, redact, nothing_more, server=server)
    told = StandardError(lines, level)
    told.addFilter(_not_told_already)
    root.addHandler(told)
    for name in OWN:  # what is less than a warning is in Dagster's log of the run
        logging.getLogger(name).setLevel(min(level, logging.INFO))
    root.setLevel(logging.INFO if level < logging.INFO else logging.WARNING)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    for name, meant in misspelled().items():
        if name not in _MISSPELLED:
            logger.warning("%s is no setting, and is ignored: is %s meant?", name, meant)
            _MISSPELLED.add(name)
    if server:
        _take_over_runs(settings, redact)


def quiet_dagster() -> None:
    """Keep Dagster's events out of the terminal; they are in the UI. Warnings of SyncFlow stay."""
    log_to_stderr(read_settings())
    logging.getLogger("dagster").setLevel(logging.CRITICAL)
    # a connection that broke is told by the statement that met it, not by the pool's stack too
    logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)


def _not_told_already(record: logging.LogRecord) -> bool:
    """Whether Dagster's servers do not tell the line themselves: theirs go to the root logger, too."""
    dagster = logging.getLogger("dagster")
    return record.name.partition(".")[0] != dagster.name or not dagster.handlers


def is_json(settings: Settings, *, server: bool, terminal: bool) -> bool:
    """Whether lines are JSON: as set, else those of a server that writes to no terminal."""
    if settings.log_format == "auto":
        return server and not terminal
    return settings.log_format == "json"


def level_of(settings: Settings, *, server: bool) -> int:
    """The least level that is told."""
    name = settings.log_level or ("INFO" if server else "WARNING")
    return logging.getLevelNamesMapping()[name]


def secrets_of(settings: Settings) -> list[str]:
    """The secrets of the settings; of the database's address its password, as it is and as it is written."""
    values = [getattr(settings, name) for name in type(settings).model_fields]
    texts = [value.get_secret_value() for value in values if isinstance(value, SecretStr)]
    passwords = [urlsplit(text).password for text in texts if "://" in text]
    return [
        *(text for text in texts if "://" not in text),
        *(spelled for text in passwords if text for spelled in (text, unquote(text))),
    ]


def _lines(settings: Settings, redact: Redactor, more: Context, *, server: bool) -> Lines:
    if is_json(settings, server=server, terminal=sys.stderr.isatty()):
        return JsonLines(redact, more)
    return TextLines(redact, more, stamped=server)


def _take_over_runs(settings: Settings, redact: Redactor) -> None:
    """Have Dagster tell what happens in a run, and in the code server, in these lines, too.

    Dagster has no setting for the logger of runs that configure none, and none for its form.
    """
    level = level_of(settings, server=True)

    @dg.logger(
        {
            "log_level": dg.Field(str, default_value="INFO"),
            "name": dg.Field(str, default_value="dagster"),
        },
        description="SyncFlow's log lines.",
    )
    def console(context: dg.InitLoggerContext) -> logging.Logger:
        wanted = logging.getLevelNamesMapping()[context.logger_config["log_level"].upper()]
        name = context.logger_config["name"]
        made = logging.Logger(name, max(wanted, level))  # noqa: LOG001  # one for each run, in no hierarchy, as Dagster's own
        handler = StandardError(_lines(settings, redact, of_run, server=True), level)
        # SyncFlow's own lines, which Dagster collects, go by the root logger
        handler.addFilter(lambda record: not hasattr(record, SAID))
        made.addHandler(handler)
        return made

    dagster_loggers.colored_console_logger = console
    for handler in logging.getLogger("dagster").handlers:  # the code server's own lines
        handler.setFormatter(_lines(settings, redact, of_run, server=True))


def of_run(record: logging.LogRecord) -> Mapping[str, str | None]:
    """What a line of Dagster's says of its context: the run, the step as stage, the step's entity."""
    known = getattr(record, "dagster_meta", None) or {}
    step = known.get("step_key")
    entity, _, stage = (step or "").rpartition(".")
    found = {"run": known.get("run_id"), "entity": entity or None, "stage": stage or None}
    return {name: value for name, value in found.items() if value}
