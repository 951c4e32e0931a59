"""What the documents name exists."""

import ast
import json
import re
from pathlib import Path

import pytest
from typer.main import get_command

from syncflow_dagster.cli.app import app

ROOT = Path(__file__).parents[2]


def commands() -> set[str]:
    root = get_command(app)
    found = set()
    for name, command in root.commands.items():  # type: ignore[attr-defined]  # a group has them
        inner = getattr(command, "commands", {})
        found |= {f"{name} {sub}" for sub in inner} or {name}
    return found


@pytest.mark.parametrize(
    "document", sorted(ROOT.glob("README.md")) + sorted(ROOT.glob("docs/*.md"))
)
def test_every_command_in_a_document_exists(document: Path) -> None:
    named = set(re.findall(r"(?<!\.)\bsyncflow ([a-z]+)", document.read_text(encoding="utf-8")))

    assert named - {command.split()[0] for command in commands()} == set()


def test_the_readme_names_every_command() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    missing = [c for c in commands() if c.split()[0] not in text or c.split()[-1] not in text]

    assert missing == []


def test_every_rule_that_rejects_a_golden_case_is_documented() -> None:
    documented = set(
        re.findall(r"`([a-z_]+)`", (ROOT / "docs/normalization.md").read_text("utf-8"))
    )
    rules = set()
    for file in (ROOT / "tests/golden").glob("*.json"):
        content = json.loads(file.read_text(encoding="utf-8"))
        cases = (
            content
            if isinstance(content, list)
            else [c for v in content.values() if isinstance(v, list) for c in v]
        )
        rules |= {
            case["rejected"] for case in cases if isinstance(case, dict) and "rejected" in case
        }

    assert len(rules) > 10
    assert rules - documented == set()


def test_every_test_that_a_guarantee_names_exists() -> None:
    text = (ROOT / "docs/guarantees.md").read_text(encoding="utf-8")
    cells = re.findall(r"`([a-z0-9]+/test_\w+)?(?:::(test_\w+))?`", text)
    missing, file, named = [], "", 0
    for path, test in cells:
        if not (path or test):
            continue
        file = path or file
        named += 1
        module = ROOT / "tests" / f"{file}.py"
        if not module.exists() or (test and f"def {test}(" not in module.read_text("utf-8")):
            missing.append((file, test))

    assert named > 10
    assert missing == []


AREAS = {"F": 28, "N": 8, "D": 11, "W": 16, "C": 5, "P": 19, "H": 8, "T": 6}
MATRIX = {f"X{area}{row:02}" for area, rows in AREAS.items() for row in range(1, rows + 1)}


def test_every_row_of_the_fault_matrix_is_a_test_that_carries_its_id() -> None:
    carried = set()
    for file in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            named: list[object] = []
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                named = [node.name]
            elif isinstance(node, ast.Dict):  # the ids of a parametrized test
                named = [key.value for key in node.keys if isinstance(key, ast.Constant)]
            for name in named:
                carried |= set(re.findall(r"X[FNDWCPHT]\d\d", str(name)))
    documented = re.findall(
        r"^\| (X[FNDWCPHT]\d\d) \|", (ROOT / "docs/guarantees.md").read_text("utf-8"), re.MULTILINE
    )

    assert len(MATRIX) == 101
    assert carried == MATRIX
    assert sorted(documented) == sorted(MATRIX)
