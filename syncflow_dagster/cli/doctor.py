"""``syncflow doctor``: what is there, what is not, and how to mend it, on the terminal.

Belongs here: printing, and the exit status.
Does not belong here: looking (``syncflow_core.doctor``, ``syncflow_dagster.daemon``).
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Final

import msgspec
from rich.markup import escape
from rich.table import Table

from syncflow_core.doctor import examine
from syncflow_core.doctor.checks import Finding, Status, exit_status
from syncflow_core.errors import ConfigError
from syncflow_core.printable import printable
from syncflow_core.settings import read_settings
from syncflow_dagster.clock import utc_now
from syncflow_dagster.daemon import dagster_checks
from syncflow_dagster.logs import quiet_dagster
from syncflow_dagster.terminal import console

STYLES: Final[dict[Status, str]] = {
    "ok": "green",
    "warn": "yellow",
    "fail": "bold red",
    "skipped": "dim",
}


def run(names: Sequence[str], *, as_json: bool) -> int:
    """Look at everything and print what was found; the exit status."""
    with suppress(ConfigError):  # what is wrong with the environment is the first finding
        quiet_dagster()
    findings = examine(read_settings, names, now=utc_now, more=dagster_checks)
    if as_json:
        return _status(_written(findings, _json_line))
    if not console().is_terminal:
        return _status(_written(findings, _plain_line))
    return _status(_table(findings))


def _status(findings: Sequence[Finding]) -> int:
    unknown = any(
        finding.name == "entities" and isinstance(finding.error, ConfigError)
        for finding in findings
    )
    return max(exit_status(findings), ConfigError.exit_status if unknown else 0)


def _written(findings: Iterable[Finding], line: Callable[[Finding], str]) -> list[Finding]:
    """All findings, each written as it was found."""
    done = []
    for finding in findings:
        sys.stdout.write(f"{line(finding)}\n")
        sys.stdout.flush()
        done.append(finding)
    return done


def _json_line(finding: Finding) -> str:
    told = {
        name: getattr(finding, name) for name in ("name", "status", "latency_ms", "seen", "mend")
    }
    return msgspec.json.encode(told).decode()


def _plain_line(finding: Finding) -> str:
    took = "-" if finding.latency_ms is None else f"{finding.latency_ms:.0f} ms"
    words = f"{finding.status:<7} {finding.name:<36} {took:>9}  {finding.seen}"
    return printable(f"{words}; mend: {finding.mend}" if finding.mend else words)


def _table(findings: Iterable[Finding]) -> list[Finding]:
    screen = console()
    with console(stderr=True).status("looking"):
        done = list(findings)
    table = Table(box=None, pad_edge=False)
    for heading in ("check", "status"):
        table.add_column(heading, no_wrap=True)
    table.add_column("ms", justify="right")
    table.add_column("seen, and how to mend it", overflow="fold")
    for finding in done:
        mend = f"\n[bold]{escape(printable(finding.mend))}[/bold]" if finding.mend else ""
        table.add_row(
            escape(finding.name),
            f"[{STYLES[finding.status]}]{finding.status}[/]",
            "" if finding.latency_ms is None else f"{finding.latency_ms:,.0f}",
            escape(printable(finding.seen)) + mend,
        )
    screen.print(table)
    counts = Counter(finding.status for finding in done)
    screen.print(", ".join(f"{counts[status]} {status}" for status in STYLES if counts[status]))
    return done
