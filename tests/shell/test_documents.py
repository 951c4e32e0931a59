"""What the documents name exists, what they show runs, what is made of the code is current."""

import ast
import doctest
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from syncflow_core.bridge.tables import metadata
from syncflow_core.entities_file import parse_entities
from syncflow_core.entity import Entity
from syncflow_core.settings import Settings
from syncflow_dagster.api.families import FAMILIES
from syncflow_dagster.cli.app import app
from syncflow_dagster.reference.pages import PAGES

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs/reference"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
every_document = pytest.mark.parametrize(
    "document", DOCUMENTS, ids=[str(path.relative_to(ROOT)) for path in DOCUMENTS]
)
SUFFIXES = {"py", "md", "yaml", "json", "dump"}
OUR_FILES = ("syncflow_core", "syncflow_dagster", "migrations", "tests", "docs")
MODULES = [path.as_posix() for folder in OUR_FILES for path in (ROOT / folder).rglob("*.py")]
BLOCK = re.compile(r"^( *)```(\w+)?\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)


def blocks(document: Path) -> Iterator[tuple[str, str]]:
    """Each code block's language and text, without the indentation that a list gives it."""
    for indent, language, text in BLOCK.findall(document.read_text("utf-8")):
        yield language, re.sub(rf"^{indent}", "", text, flags=re.MULTILINE)


def spans(document: Path) -> list[str]:
    """What stands in single backticks outside of code blocks."""
    prose = BLOCK.sub("", document.read_text("utf-8"))
    return [span.replace("\\|", "|") for span in re.findall(r"`([^`\n]+)`", prose)]


def command_of(words: list[str]) -> tuple[Any, str, list[str]]:
    """The command that the words begin with, its name, and the words behind it."""
    found, name = get_command(app), "syncflow"
    for number, word in enumerate(words):
        inner = getattr(found, "commands", {})
        if word not in inner:
            return found, name, words[number:]
        found, name = inner[word], f"{name} {word}"
    return found, name, []


def invocations(document: Path) -> Iterator[list[str]]:
    """The words after ``syncflow``, wherever a document shows how it is called."""
    shown = [span for span in spans(document) if span.startswith("syncflow ")]
    for language, text in blocks(document):
        if language in {"sh", "console"}:
            lines = text.replace("\\\n", " ").splitlines()
            calls = (re.search(r"(?:^\$ |^|\$\()(syncflow [^)>]*)", line) for line in lines)
            shown += [call[1] for call in calls if call]
    for line in shown:
        yield shlex.split(re.sub(r"\s#.*|[\[\]|]", " ", line))[1:]


@every_document
def test_every_command_and_option_in_a_document_exists(document: Path) -> None:
    wrong = []
    for words in invocations(document):
        command, name, rest = command_of([word for word in words if not word.startswith("-")])
        options = {option for item in command.params for option in item.opts} | {"--help"}
        before = {"--debug"} if words and words[0] == "--debug" else set()
        unknown = {word for word in words if word.startswith("-")} - options - before
        # a group's next word is one of its commands, unless it stands for any of them: COMMAND
        stray = hasattr(command, "commands") and rest and rest[0].islower()
        if unknown or stray:
            wrong.append((name, words))

    assert wrong == []


@every_document
def test_every_target_of_make_in_a_document_exists(document: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    shown = "\n".join([*spans(document), *(text for language, text in blocks(document))])

    assert set(re.findall(r"^make ([a-z]+)", shown, re.MULTILINE)) - targets == set()


def test_every_target_that_the_makefile_explains_is_in_the_table_of_targets() -> None:
    explained = set(
        re.findall(r"^([a-z]+):.*##", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    )
    table = re.findall(
        r"^\| `make .*$", (ROOT / "CONTRIBUTING.md").read_text("utf-8"), re.MULTILINE
    )

    assert len(explained) > 10
    assert explained - set(re.findall(r"`make ([a-z]+)`", "\n".join(table))) == set()


@every_document
def test_every_variable_in_a_document_exists(document: Path) -> None:
    known = {f"SYNCFLOW_{name.upper()}" for name in Settings.model_fields}
    elsewhere = [
        *(ROOT / name for name in ("Makefile", "docker-compose.yml")),
        *(ROOT / "tests").rglob("*.py"),
    ]
    known |= {
        name
        for file in elsewhere
        for name in re.findall(r"SYNCFLOW_[A-Z_]*[A-Z]", file.read_text("utf-8"))
    }
    named = set(re.findall(r"SYNCFLOW_[A-Z][A-Z_]*[A-Z]", document.read_text("utf-8")))

    assert named - known == set()


@every_document
def test_every_metric_in_a_document_exists(document: Path) -> None:
    known = {
        f"{family.name}{end}" for family in FAMILIES for end in ("", "_total", "_bucket", "_count")
    }
    roles = re.findall(r"'(syncflow_\w+)'", (ROOT / "docs/operations/roles.sql").read_text("utf-8"))
    named = set(re.findall(r"\bsyncflow_(?!core\b|dagster\b)\w+", document.read_text("utf-8")))

    assert named - known - set(roles) == set()


@every_document
def test_every_table_and_column_in_a_document_exists(document: Path) -> None:
    tables = {table.name: set(table.columns.keys()) for table in metadata.tables.values()}
    modules = {path.stem for path in (ROOT / "syncflow_core/bridge").glob("*.py")}
    text = document.read_text("utf-8")
    named = set(re.findall(r"\bbridge\.([a-z_]+)\b", text))
    columns = re.findall(r"`(?:bridge\.)?([a-z_]+)\.([a-z_]+)`", text)

    assert named - tables.keys() - modules - SUFFIXES == set()
    assert [
        (table, column)
        for table, column in columns
        if table in tables and column not in tables[table] | SUFFIXES
    ] == []


@every_document
def test_every_entities_file_in_a_document_is_taken(document: Path) -> None:
    texts = [text for language, text in blocks(document) if language == "yaml"]
    declared = [span for span in spans(document) if re.match(r"[a-z_]+: [\[{].*[\]}]$", span)]
    for text in texts:
        if text.startswith("version: 1"):
            assert parse_entities(text, str(document))
        elif text.startswith("fields:"):
            declared.append(text)
    for text in declared:
        if (content := yaml.safe_load(text)).keys() <= Entity.model_fields.keys():
            Entity.model_validate({"name": "shown", **content})


@every_document
def test_what_a_document_shows_in_python_and_json_runs(document: Path) -> None:
    for language, text in blocks(document):
        if language == "json":
            json.loads(text)
        elif language == "python" and ">>>" in text:
            test = doctest.DocTestParser().get_doctest(text, {}, document.name, None, None)
            assert doctest.DocTestRunner().run(test).failed == 0
        elif language == "python":
            exec(compile(text, document.name, "exec"), {})  # noqa: S102  # our own documents


def anchors(document: Path) -> set[str]:
    """The anchors of a page's headings, as the site and GitHub make them."""
    text = BLOCK.sub("", document.read_text("utf-8"))
    heads = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


@every_document
def test_every_link_and_path_in_a_document_leads_somewhere(document: Path) -> None:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", BLOCK.sub("", document.read_text("utf-8"))):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    for span in spans(document):
        if span.startswith(tuple(f"{folder}/" for folder in OUR_FILES)) and "*" not in span:
            broken += [] if (ROOT / span.partition("::")[0]).exists() else [span]
        elif re.fullmatch(r"[\w/]+\.py", span):
            broken += [] if any(path.endswith(f"/{span}") for path in MODULES) else [span]

    assert broken == []


@pytest.mark.parametrize("name", PAGES)
def test_every_page_of_the_reference_says_what_the_code_says(name: str) -> None:
    assert (REFERENCE / name).read_text("utf-8") == PAGES[name](), "make reference makes it anew"


def test_the_reference_has_no_page_that_nothing_makes() -> None:
    assert {path.name for path in REFERENCE.glob("*.md")} == set(PAGES)


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
