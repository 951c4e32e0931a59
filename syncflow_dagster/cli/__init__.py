"""The command line: ``syncflow``.

Belongs here: commands, what they print, how they end.
Does not belong here: what a command does (``launch``, ``syncflow_core``).

Modules are imported when their command runs: ``syncflow --help`` must not wait for Dagster.

Source: product.md 10; design.md, "Command line".
"""

from syncflow_dagster.cli.app import main

__all__ = ["main"]
