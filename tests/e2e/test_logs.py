"""Log lines of real syncs: their form, what they say, and that nothing from the ERP gets out of them."""

import contextlib
import io
import json
import logging
import re
from collections.abc import Iterator

import dagster._loggers as dagster_loggers
import pytest
from place import Place
from tables import table

from syncflow_core.bridge.entities import load_entities
from syncflow_core.entity import Entity
from syncflow_core.sandbox.store import Row
from syncflow_core.settings import Settings, read_settings
from syncflow_dagster.definitions import build
from syncflow_dagster.logs import StandardError, log_to_stderr

HOSTILE = [
    "<script>alert(1)</script>",
    '=HYPERLINK("http://x.example","y")',
    "'; DROP TABLE bridge.synced_records; --",
    "\x1b[31mred\x1b[2J\x1b]0;title\x07",
    "one\ntwo syncflow: forged\r\nthree",
    "\u202egpj.exe\u2066\u200f",
    "[bold]not bold[/bold] %s {0}",
    "\x9b31mC1\x7f\x08",
]
INERT = re.compile(
    "[\\x00-\\x09\\x0b-\\x1f\\x7f-\\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]"
)
"""What acts on a terminal; a line feed ends lines, and which lines there are is counted."""


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What logging and Dagster were set to is set again after each test."""
    monkeypatch.setattr(
        dagster_loggers, "colored_console_logger", dagster_loggers.colored_console_logger
    )
    root, make = logging.getLogger(), logging.getLogRecordFactory()
    handlers, level = list(root.handlers), root.level
    yield
    logging.setLogRecordFactory(make)
    root.handlers[:] = handlers
    root.setLevel(level)


def test_lines_of_a_sync_are_json_that_says_batch_entity_run_and_stage(place: Place) -> None:
    place.apply([Entity(name="itm")])
    table(place, "itm", {"ID": "NUMBER(9)"}, [{"ID": str(n)} for n in range(30)])

    ended = place.command(
        "sync", "itm", "--json", SYNCFLOW_LOG_FORMAT="json", SYNCFLOW_LOG_LEVEL="DEBUG"
    )

    assert ended.returncode == 0, ended.stderr
    batch = json.loads(ended.stdout)["batch"]
    told = [json.loads(line) for line in ended.stderr.splitlines()]
    own = [line for line in told if line["logger"].startswith("syncflow_core")]
    assert {line["stage"] for line in own} >= {"normalize", "track"}
    assert {(line["batch"], line["entity"]) for line in own} == {(batch, "itm")}
    assert len({line["run"] for line in own} - {None}) == 1
    requests = {line["stage"] for line in told if line["logger"] == "httpx"}
    assert requests >= {"fetch", "push"}  # threads, too
    for name, value in place.environment.items():
        if name.startswith("SYNCFLOW_") and "PASSWORD" in name:
            assert value not in ended.stderr


def test_commands_print_progress_and_warnings_as_text_where_nothing_is_said(place: Place) -> None:
    place.apply([Entity(name="itm")])
    table(place, "itm", {"ID": "NUMBER(9)"}, [{"ID": "1"}])

    ended = place.command("sync", "itm")

    assert ended.stderr.splitlines()[:2] == ["itm: fetch 1", "itm: normalize 1"]
    assert "{" not in ended.stderr


def test_a_run_in_a_worker_tells_json_alone(place: Place) -> None:
    """SyncFlow's own lines once each, and Dagster's of what fails."""
    place.apply([Entity(name="itm"), Entity(name="odd", api="no_such_api")])
    table(place, "itm", {"ID": "NUMBER(9)"}, [{"ID": "1"}])
    with place.database.begin() as connection:
        entities = load_entities(connection)
    told = io.StringIO()
    slices = {
        "dagster/asset_partition_range_start": "slice-1",
        "dagster/asset_partition_range_end": "slice-7",
    }

    with contextlib.redirect_stderr(told):
        log_to_stderr(read_settings(), server=True)
        job = build(entities, 7, own_checks_only=True).resolve_job_def("sync_all")
        done = job.execute_in_process(instance=place.instance, tags=slices, raise_on_error=False)

    lines = [json.loads(line) for line in told.getvalue().splitlines()]
    assert {line["run"] for line in lines} == {done.run_id}
    accepted = [line for line in lines if "rows accepted" in line["message"]]
    assert [(line["entity"], line["stage"]) for line in accepted] == [("itm", "normalize")]
    failed = [line for line in lines if "STEP_FAILURE" in line["message"]]
    assert [(line["entity"], line["stage"]) for line in failed] == [("odd", "fetch")]
    assert "no_such_api" in failed[0]["message"]


def test_what_comes_through_the_erp_acts_neither_on_a_terminal_nor_in_a_log(place: Place) -> None:
    """Hostile keys, hostile values that are refused, and a hub that answers with them."""
    rows: list[Row] = [{"ID": f"{n}{text}", "QTY": text} for n, text in enumerate(HOSTILE)]
    table(place, "bad", {"ID": "VARCHAR2(90)", "QTY": "VARCHAR2(90)"}, rows)
    table(place, "fine", {"ID": "VARCHAR2(90)", "QTY": "VARCHAR2(90)"}, rows)
    place.apply(
        [
            Entity(name="bad", fields=[{"source": "QTY", "target": "qty", "type": "integer"}]),
            Entity(name="fine"),
        ]
    )
    keys = [("bad", f"id={n}{text}") for n, text in enumerate(HOSTILE)]
    form = {"SYNCFLOW_LOG_FORMAT": "text", "SYNCFLOW_LOG_LEVEL": "DEBUG"}
    told = [place.command(*arguments, **form) for arguments in (
        ("plan", "--all"), ("sync", "--all"), ("status",), ("status", "--json"), ("plan", "--all", "--json"),
    )]  # fmt: skip
    told += [place.command("trace", *key) for key in keys[3:]]
    told += [place.command("trace", "fine", keys[4][1], "--json")]

    assert "Traceback" not in told[1].stderr
    for ended in told:
        for text in (ended.stdout, ended.stderr):
            assert not INERT.search(text), repr(text)
            assert not [line for line in text.splitlines() if line.startswith("two syncflow")]
    assert any("<script>" in ended.stdout for ended in told)


def test_standard_error_is_the_one_that_is_there_when_a_line_comes() -> None:
    log_to_stderr(Settings())
    told = io.StringIO()
    with contextlib.redirect_stderr(told):
        logging.getLogger("syncflow_core.x").warning("now %s", "\x1b[0m")

    assert told.getvalue() == "syncflow_core.x: now \\x1b[0m\n"
    assert sum(isinstance(item, StandardError) for item in logging.getLogger().handlers) == 1
