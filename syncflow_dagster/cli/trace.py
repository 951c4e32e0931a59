"""``syncflow trace``: one record's story, on the terminal.

Belongs here: printing.
Does not belong here: gathering (``syncflow_core.trace``).
"""

import dataclasses
import sys
from collections.abc import Mapping
from functools import partial

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from syncflow_core.apismith import Source
from syncflow_core.bridge.database import Database
from syncflow_core.digest_key import digest_key
from syncflow_core.printable import printable, printable_json
from syncflow_core.settings import read_settings
from syncflow_core.trace import Story, trace
from syncflow_dagster.logs import log_to_stderr
from syncflow_dagster.terminal import console

CHANGES = frozenset({"inserted", "updated", "deleted", "adopted"})
"""Events after which the hub's record was another one, or known anew."""


def run(entity: str, key: str, *, as_json: bool) -> None:
    """Print the story of the record that the key names."""
    settings = read_settings()
    log_to_stderr(settings)
    with Database.open(settings) as database, Source.open(settings) as source:
        database.check_schema()
        story = trace(database, source, entity, key, digest_key=partial(digest_key, settings))
    if as_json:
        sys.stdout.write(printable_json(msgspec.json.encode(_plain(story), enc_hook=str)) + "\n")
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
        version = known["#rowversion"]
        words = f"{state} as {known['#hub_uid']}"
        screen.print(words if version is None else f"{words}, rowversion {version}")
    _show_history(screen, story)
    if story.away is not None:
        screen.print(printable(f"the source was not asked: {story.away}"), markup=False)
    elif story.row is None:
        screen.print("not in the source now")
    if story.steps:
        _show_layers(screen, story)


def _show_history(screen: Console, story: Story) -> None:
    """What happened to it, and what keeps it where it is."""
    for event in story.events:
        words = f"{event.at:%Y-%m-%d %H:%M:%S}  {event.event}{_detail(event.detail)}"
        screen.print(printable(f"{words}  batch {event.batch}"), markup=False)
    screen.print(_since(story), markup=False)
    if story.failed is not None:
        letter = story.failed
        words = f"open failure: {letter['stage']} {letter['rule']}: column {letter['column']}, value {letter['value']!r}: {letter['message']}"
        screen.print(printable(words), markup=False, style="red")
    for line in story.pending:
        named = _hex(line["parent_key_hash"]) if line["parent"] is None else line["parent"]
        parent = f"{line['parent_entity']} {named}"
        screen.print(
            printable(f"waits ({line['state']}) for {line['reference_name']}: {parent}"),
            markup=False,
        )
    if story.children is not None:
        who = ", ".join(f"{number:,} of {name}" for name, number in story.children.items())
        words = f"it is to be deleted, and waits for its children to go: {who or 'none is left'}"
        screen.print(words, markup=False, style="red")
    for plan in story.withheld:
        words = f"withheld: {plan.reason}; plan {plan.uid} (syncflow apply {plan.uid})"
        screen.print(printable(words), markup=False, style="red")


def _show_layers(screen: Console, story: Story) -> None:
    """What each layer makes of its row."""
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
    if table.row_count:
        screen.print(table)
    elif not story.kept:
        screen.print("its row now is taken as it is: no layer changes a field")


def _detail(detail: Mapping[str, object]) -> str:
    """What an event says besides its name: the fields that changed, the rule that refused."""
    changed = detail.get("changed")
    if isinstance(changed, list):
        return f" {', '.join(map(str, changed))}"
    return f" {' '.join(str(value) for value in detail.values() if value)}" if detail else ""


def _since(story: Story) -> str:
    """How long nothing has happened, and when that was last looked at."""
    if story.is_strange:
        return "SyncFlow has never met such a record"
    read = story.last_read
    looked = (
        "the entity was never read to its end"
        if read is None or read.finished_at is None
        else f"last read {read.finished_at:%Y-%m-%d %H:%M:%S} by {read.kind} batch {read.uid}"
    )
    changes = [event for event in story.events if event.event in CHANGES]
    stuck = story.withheld or story.failed or story.pending or story.children is not None
    if not changes or stuck:
        return looked  # what is on its way, or stuck, is not unchanged
    word = "gone" if changes[-1].event == "deleted" else "unchanged"
    return f"{word} since {changes[-1].at:%Y-%m-%d %H:%M:%S}; {looked}"


def _hex(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def _plain(value: object) -> object:
    """The same with every hash as hex, as the rest of the command line shows it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain(dataclasses.asdict(value))
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.hex() if isinstance(value, bytes) else value
