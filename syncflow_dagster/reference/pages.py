"""Every page of the reference, by its file's name.

Belongs here: the pages that are one table or a few, and writing all of them.
Does not belong here: the larger ones (``calls``, ``commands``).
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Final, get_args

import sqlalchemy as sa

from syncflow_core import errors
from syncflow_core.bridge.batches import Counts
from syncflow_core.bridge.tables import metadata
from syncflow_core.bridge.tables.words import BatchKind, BatchStatus
from syncflow_core.entity import Entity
from syncflow_core.settings import Settings
from syncflow_dagster.api.families import FAMILIES
from syncflow_dagster.api.problems import TITLES
from syncflow_dagster.cli.app import EPILOG, INTERRUPTED
from syncflow_dagster.reference.calls import api_page
from syncflow_dagster.reference.commands import command_line_page
from syncflow_dagster.reference.markdown import first, page, sentence, table, words
from syncflow_dagster.reference.schemas import Schema, default_of, keys, kind_of


def entities_page() -> str:
    """Every key of an entities file."""
    schema = Entity.model_json_schema()
    models: Mapping[str, Schema] = schema["$defs"]
    order = [
        *("Field", "Transform", "Pad", "Substring", "Concat", "Replace"),
        *("Rowversion", "ParentRef", "Brake", "Schedule", "Background"),
    ]
    parts = [("Entity", schema), *((name, models[name]) for name in order)]
    return page(
        "The entities file",
        "syncflow_core/entity.py and transforms.py",
        'A file has `version: 1` and a list `entities`. Keys that nobody knows are faults, and so is `"5"` '
        "for 5; all faults of a file are told at once, with line and key. The command "
        "[`syncflow entities apply`](command-line.md#syncflow-entities-apply) takes it.",
        *(f"## {name}\n\n{sentence(part['description'])}\n\n" + keys(part) for name, part in parts),
    )


def environment_page() -> str:
    """Every variable."""
    schema = Settings.model_json_schema()
    rows = [
        (f"`SYNCFLOW_{name.upper()}`", kind_of(part), default_of(part), part["description"])
        for name, part in schema["properties"].items()
    ]
    return page(
        "The environment",
        "syncflow_core/settings.py",
        "A file `.env` in the current folder is read, too; the environment wins. A process keeps what it began "
        "with: start it again after a change. A variable that cannot be read is named, and nothing is done.",
        table(("variable", "holds", "default", "says"), rows),
        "`DAGSTER_HOME` is Dagster's own: where it is not set, Dagster's folder is `dagster` in the home, "
        "with the `dagster.yaml` of this version.",
    )


def metrics_page() -> str:
    """Every metric."""
    rows = [
        (
            f"`{item.name}{'_total' if item.kind == 'counter' else ''}`",
            item.kind,
            " ".join(f"`{label}`" for label in item.labels),
            item.words,
        )
        for item in FAMILIES
    ]
    return page(
        "Metrics",
        "syncflow_dagster/api/families.py",
        "`GET /api/v1/metrics` tells them; [how they count, and who asks](../operations/metrics.md).",
        table(("metric", "type", "labels", "says"), rows),
    )


def tables_page() -> str:
    """Every table of the bridge database."""
    return page(
        "Tables",
        "syncflow_core/bridge/tables",
        "The bridge database's schema is `bridge`. `migrations/` makes these tables, `syncflow migrate` runs "
        "them. Read what you like; what writes, beside SyncFlow, breaks its promises.",
        *(_table_part(table) for table in sorted(metadata.tables.values(), key=lambda t: t.name)),
    )


def statuses_page() -> str:
    """How things end: batches, commands, calls."""
    leaves = [
        item
        for _, item in inspect.getmembers(errors, inspect.isclass)
        if issubclass(item, errors.SyncFlowError)
    ]
    return page(
        "Statuses, exits, errors",
        "syncflow_core/errors.py, bridge/batches.py and the API",
        "## Errors",
        "What keeps a batch, or a whole command, from going on. The class says what must happen next. A record "
        "that cannot be used is none of them: it is [a dead letter](../normalization.md).",
        table(
            ("error", "exit status", "says"),
            [
                (f"`{item.__name__}`", str(item.exit_status), first(item))
                for item in sorted(leaves, key=lambda i: i.__name__)
            ],
        ),
        f"Of commands that sync: {EPILOG[0].lower()}{EPILOG[1:]} Ctrl-C ends a command with {INTERRUPTED}; other "
        "commands say how they end on [their page](command-line.md).",
        "## Batches",
        f"A batch's kind is one of {words(get_args(BatchKind))}; its status one of {words(get_args(BatchStatus))}. Its counts are "
        f"{words(item.name for item in fields(Counts))}.",
        "## Calls of the API",
        table(("status", "title"), [(str(number), title) for number, title in TITLES.items()]),
        "A `ConfigError` is answered with 422, an `UnavailableError` with 503 and `Retry-After`, any other of the "
        "errors above with 409.",
    )


DIALECT: Final = sa.make_url("postgresql+psycopg://").get_dialect()()
PAGES: Final[Mapping[str, Callable[[], str]]] = {
    "entities-file.md": entities_page,
    "environment.md": environment_page,
    "command-line.md": command_line_page,
    "rest-api.md": api_page,
    "metrics.md": metrics_page,
    "tables.md": tables_page,
    "statuses.md": statuses_page,
}
"""File name to what makes it."""


def write(folder: Path) -> None:
    """Make every page anew."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in PAGES.items():
        (folder / name).write_text(make(), encoding="utf-8")


def _table_part(told: sa.Table) -> str:
    rows = [
        (f"`{column.name}`", _type(column), " ".join(_marks(column)), column.comment or "")
        for column in told.columns
    ]
    heads = ("column", "type", "is", "holds")
    return f"## {told.name}\n\n{_capital(told.comment or '')}\n\n{table(heads, rows)}"


def _type(column: sa.Column[Any]) -> str:
    return column.type.compile(dialect=DIALECT).lower()


def _marks(column: sa.Column[Any]) -> Iterator[str]:
    if column.primary_key:
        yield "key"
    elif not column.nullable:
        yield "never null"
    for name in sorted({key.target_fullname.split(".")[-2] for key in column.foreign_keys}):
        yield f"[{name}](#{name})"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")
