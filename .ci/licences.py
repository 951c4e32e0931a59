"""Under which licences the packages are that SyncFlow brings: a list for people, and a refusal.

``python .ci/licences.py`` writes docs/operations/licences.md; ``--check`` looks whether a package is missing
there (other versions of Python bring fewer). Either ends with status 1 where a package has no licence that is known, or one that is refused.

Belongs here: what is installed of what pyproject.toml asks for, and what that asks for in turn.
Does not belong here: what only development needs.
"""

import re
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PAGE = Path(__file__).parents[1] / "docs/operations/licences.md"
HEAD = """# Licences

The packages that an installation brings, made by `make licences`; what only development needs is left out.
`make sbom` writes the same packages with their versions, as CycloneDX, to `dist/sbom.json`.
Refused are licences that reach over to what uses the package (GPL, AGPL, SSPL and their like), and packages that name none.

| package | licence |
| --- | --- |
"""
OWN = "syncflow"
TOLD_ELSEWHERE = {"polars-hash": "MIT"}
"""By the file LICENSE of the package's repository, where its metadata says nothing."""
CLASSIFIER = "License :: "
OPEN = re.compile(
    r"\b(MIT|BSD|0BSD|Apache|ISC|MPL|PSF|Python Software Foundation|Python-2|LGPL|"
    r"Lesser General Public|Unlicense|Zlib|CC0|Mozilla|PostgreSQL|Public Domain|DFSG)",
    re.IGNORECASE,
)
CLOSED = re.compile(
    r"(?<!L)\bA?GPL|SSPL|BUSL|Business Source|Affero|(?<!Lesser )General Public|Proprietary",
    re.IGNORECASE,
)


def brought() -> dict[str, Distribution]:
    """Every distribution that the project needs to run on this machine, by name."""
    found: dict[str, Distribution] = {}
    wanted = [(OWN, frozenset[str]())]
    seen = set()
    while wanted:
        name, extras = wanted.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            sys.exit(f"{name} is not installed")
        for line in found[name].requires or ():
            asked = Requirement(line)
            if asked.marker is None or any(
                asked.marker.evaluate({"extra": extra}) for extra in (extras or {""})
            ):
                wanted.append((canonicalize_name(asked.name), frozenset(asked.extras)))
    del found[OWN]
    return found


def licence(package: Distribution) -> str:
    """What the package says of itself, in the words of the newest way that it uses; empty for nothing."""
    told = package.metadata
    if name := TOLD_ELSEWHERE.get(canonicalize_name(package.name)):
        return name
    if expression := told.get("License-Expression"):
        return str(expression)
    classified = sorted(
        line.rpartition(" :: ")[2]
        for line in told.get_all("Classifier") or ()
        if line.startswith(CLASSIFIER) and line != "License :: OSI Approved"
    )
    if classified:
        return ", ".join(classified)
    # some put the whole text here
    return str(told.get("License") or "").strip().partition("\n")[0][:80]


def main() -> int:
    """0 where every licence is known and none is refused, and the page is as it should be."""
    told = {name: licence(package) for name, package in sorted(brought().items())}
    wrong = [
        f"{name}: {words or 'no licence'}"
        for name, words in told.items()
        if not OPEN.search(words) or CLOSED.search(words)
    ]
    page = HEAD + "".join(f"| {name} | {words} |\n" for name, words in told.items())
    if "--check" not in sys.argv:
        PAGE.write_text(page, encoding="utf-8")
    else:
        listed = PAGE.read_text(encoding="utf-8")
        wrong += [
            f"{name} is not in {PAGE.name}: make licences"
            for name in told
            if f"| {name} |" not in listed
        ]
    sys.stderr.write("".join(f"{line}\n" for line in wrong))
    return min(len(wrong), 1)


if __name__ == "__main__":
    sys.exit(main())
