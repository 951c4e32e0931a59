"""Markdown as the reference is written in: a page, a table, a sentence.

Belongs here: the form.
Does not belong here: what is told (``pages``).
"""

import inspect
from collections.abc import Iterable, Sequence
from typing import Final

MADE: Final = "<!-- Made by `make reference` of {source}; not edited by hand. -->"


def page(title: str, source: str, *parts: str) -> str:
    """A page, which says what it was made of."""
    return "\n\n".join([f"# {title}", MADE.format(source=source), *parts]) + "\n"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"|{'|'.join(map(_cell, line))}|" for line in lines)


def _cell(text: str) -> str:
    """Text in one line; a bar in it would end the cell."""
    words = sentence(text).replace("|", "\\|")
    return f" {words} " if words else " "


def sentence(text: str) -> str:
    """A docstring in one line."""
    return " ".join(text.replace("``", "`").split())


def first(item: object) -> str:
    """The first paragraph of its docstring."""
    return sentence((inspect.getdoc(item) or "").partition("\n\n")[0])


def words(names: Iterable[str]) -> str:
    """Names, one after the other."""
    return ", ".join(f"`{name}`" for name in names)
