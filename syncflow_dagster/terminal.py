"""The terminal that commands and benchmarks print to.

Belongs here: how wide it is, and what it takes where it is none.
Does not belong here: what is printed (``cli``, ``bench``), log lines (``logs``).
"""

from typing import Final

from rich.console import Console

PLAIN_WIDTH: Final = 160
"""Columns of a table where there is no terminal to ask."""


def console(*, stderr: bool = False) -> Console:
    """The terminal; plain text where it is none."""
    screen = Console(stderr=stderr, highlight=False)
    if not screen.is_terminal:
        screen.width = PLAIN_WIDTH
        screen.soft_wrap = True  # a command in a message stays in one line; tables keep the width
    return screen
