"""``syncflow trace``: one record's story, on the terminal.

Belongs here: printing.
Does not belong here: gathering (``syncflow_core.trace``).
"""

import dataclasses
import sys
from collections.abc import Mapping

import msgspec
from rich.markup import escape
from rich.table import Table

from syncflow_core.apismith import Source
from syncflow_core.bridge.database import Database
from syncflow_core.settings import read_settings
from syncflow_core.trace import Story, trace
from syncflow_dagster.cli.show import console, printable


def run(entity: str, key: str, *, as_json: bool) -> None:
    """Print the story of the record that the key names."""
    settings = read_settings()
    with Database.open(settings) as database, Source.open(settings) as source:
        database.check_schema()
        story = trace(database, source, entity, key)
    if as_json:
        sys.stdout.write(msgspec.json.encode(_plain(story), enc_hook=_encoded).decode() + "\n")
        return
    _show(story)


def _show(story: Story) -> None:
    screen = console()
    name = printable(story.reference or story.key_hash.hex())
    screen.print(
        f"[bold]{escape(story.entity)} {escape(name)}[/bold]  key hash {story.key_hash.hex()}"
    )
    known = story.known
    if known is None:
        screen.print("never acknowledged by the hub")
    else:
        state = "deleted" if known["deleted"] else "in the hub"
        screen.print(f"{state} as {known['#hub_uid']}, rowversion {known['#rowversion']}")
    for event in story.events:
        screen.print(
            f"{event.at:%Y-%m-%d %H:%M:%S}  {event.event}  batch {event.batch}", markup=False
        )
    if story.failed is not None:
        letter = story.failed
        words = f"open failure: {letter['stage']} {letter['rule']}: column {letter['column']}, value {letter['value']!r}: {letter['message']}"
        screen.print(printable(words), markup=False, style="red")
    for line in story.pending:
        parent = f"{line['parent_entity']} {_hex(line['parent_key_hash'])}"
        screen.print(
            f"waits ({line['state']}) for {line['reference_name']}: {parent}", markup=False
        )
    if story.row is None:
        screen.print("not in the source now")
        return
    title = "what the layers make of "
    title += "the row that was refused" if story.kept else "its row now"
    table = Table(title=title, title_justify="left", box=None)
    for heading in ("layer", "field", "before", "after", "rule"):
        table.add_column(heading, overflow="fold")
    for step in story.steps:
        if step.before != step.after or step.message:
            table.add_row(
                f"{step.layer} {step.name}",
                escape(step.field),
                escape(printable(repr(step.before))),
                escape(printable(repr(step.after))),
                escape(printable(" ".join(filter(None, (step.rule, step.message))))),
            )
    screen.print(table)


def _hex(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def _plain(story: Story) -> Mapping[str, object]:
    return dataclasses.asdict(story)


def _encoded(value: object) -> object:
    return _hex(value)
