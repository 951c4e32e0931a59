"""Ends with 1 where the tests cover less than 95 % of a pure module; .importlinter says which are pure."""

import configparser
import sys
from pathlib import Path

from coverage import Coverage

LEAST = 95.0

contracts = configparser.ConfigParser()
contracts.read(".importlinter")
measured = Coverage()
measured.load()

below = 0
for module in contracts["importlinter:contract:pure"]["source_modules"].split():
    folder = Path(*module.split("."))
    for path in sorted(folder.glob("*.py")) or [folder.with_suffix(".py")]:
        with Path("/dev/null").open("w", encoding="utf-8") as nowhere:
            share = measured.report(include=[str(path)], file=nowhere)
        sys.stdout.write(f"{share:6.1f} %  {path}\n")
        below += share < LEAST
sys.exit(f"{below} pure modules are covered by less than {LEAST:.0f} %" if below else 0)
