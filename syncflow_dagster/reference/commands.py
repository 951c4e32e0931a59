"""The command line as a page.

Belongs here: a part for each command: how it is called, what its options are, how it ends.
Does not belong here: the commands (``cli``).
"""

from collections.abc import Iterator, Mapping
from typing import Any

from typer.main import get_command

from syncflow_dagster.cli.app import app
from syncflow_dagster.reference.markdown import page, sentence, table

Command = Any
Parameter = Any
"""Typer has its own copy of click, whose classes have no public names."""


def command_line_page() -> str:
    """Every command."""
    root = get_command(app)
    return page(
        "The command line",
        "syncflow_dagster/cli",
        "`syncflow --debug COMMAND` shows the stack of an error; `syncflow COMMAND --help` says what is here.",
        *_commands(root, "syncflow"),
    )


def _commands(command: Command, name: str) -> Iterator[str]:
    inner: Mapping[str, Command] = getattr(command, "commands", {})
    if not inner:
        yield _command(command, name)
    for word in sorted(inner):
        yield from _commands(inner[word], f"{name} {word}")


def _command(command: Command, name: str) -> str:
    shown = [item for item in command.params if not getattr(item, "hidden", False)]
    usage = " ".join([name, *(_usage(item) for item in shown)])
    rows = [(_usage(item), getattr(item, "help", None) or "", _given(item)) for item in shown]
    parts = [f"## {name}", _told(command.help or ""), f"```text\n{usage}\n```"]
    if rows:
        parts.append(
            table(
                ("argument", "says", "default"),
                [(f"`{use.strip('[]')}`", says, given) for use, says, given in rows],
            )
        )
    if command.epilog:
        parts.append(command.epilog)
    return "\n\n".join(parts)


def _told(text: str) -> str:
    """A command's help, its example as code."""
    words, _, example = sentence(text).partition(" Example: ")
    shown = ", then ".join(f"`{part}`" for part in example.split(", then "))
    return f"{words}\n\nExample: {shown}" if example else words


def _usage(item: Parameter) -> str:
    many = "..." if item.nargs == -1 else ""
    if item.param_type_name == "argument":
        text = (item.metavar or item.name or "").upper() + many
    else:
        text = item.opts[0] + (
            "" if getattr(item, "is_flag", False) else f" {(item.name or '').upper().strip('_')}"
        )
    return text if item.required else f"[{text}]"


def _given(item: Parameter) -> str:
    if item.default is None or callable(item.default) or getattr(item, "is_flag", False):
        return ""
    return f"`{item.default}`"
