"""A log line: what it says, that none can be forged, and that none tells a secret."""

import json
import logging
import sys
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncflow_core.logs import (
    JsonLines,
    Recording,
    Redactor,
    TextLines,
    Threads,
    about,
    begun,
    in_context,
)

HOSTILE = "x\n2026-01-01T00:00:00.000Z ERROR forged: y\x1b[2J\u202etxt.exe\u2028\x7f\x9b31m"


def record(message: str, *values: object, name: str = "syncflow_core.x") -> logging.LogRecord:
    make = Recording(logging.LogRecord, Redactor())
    return make(name, logging.WARNING, __file__, 1, message, values, None)


def broken(message: str) -> logging.LogRecord:
    made = record("it broke")
    try:
        _break(message)
    except ValueError:
        made.exc_info = sys.exc_info()
    return made


def _break(message: str) -> None:
    raise ValueError(message)


def line(made: logging.LogRecord, **of: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(JsonLines(Redactor(), **of).format(made))
    return found


def test_a_line_says_what_it_is_about() -> None:
    with about(entity="sites", batch="b", run="r"), about(stage="fetch"):
        said = line(record("%d rows", 3))
    silent = line(record("%d rows", 3))

    assert said.pop("timestamp").endswith("Z")
    assert said == {
        "level": "WARNING",
        "logger": "syncflow_core.x",
        "message": "3 rows",
        "batch": "b",
        "entity": "sites",
        "run": "r",
        "stage": "fetch",
    }
    assert {silent[name] for name in ("batch", "entity", "run", "stage")} == {None}


def test_threads_say_what_the_thread_says_that_gives_them_work() -> None:
    def stage(_: int) -> object:
        return line(record("x"))["stage"]

    with Threads(2) as pool:
        with about(stage="push"):
            pushed = [*pool.map(stage, range(4))]
            later = in_context(stage)
        with about(stage="delta"):
            assert pool.submit(stage, 0).result() == "delta"

    assert pushed == ["push"] * 4
    assert later(0) == "push"
    assert stage(0) is None


@given(st.text())
def test_no_value_makes_a_line_of_its_own_or_moves_a_terminal(text: str) -> None:
    for name in ("syncflow_core.x", "another"):
        with about(entity=text):
            made = JsonLines(Redactor()).format(record("%s", text, name=name))
            plain = TextLines(Redactor()).format(record("%s", text, name=name))

        assert made.isascii()
        assert made.isprintable()
        assert json.loads(made)["entity"] == text
        assert all(part.isprintable() for part in plain.split("\n"))
        assert all(part.startswith("    ") for part in plain.split("\n")[1:])


def test_an_exceptions_words_are_below_its_line_and_indented() -> None:
    told = TextLines(Redactor(), stamped=False).format(broken(HOSTILE)).split("\n")

    assert told[0] == "syncflow_core.x: it broke"
    assert all(text.startswith("    ") and text.isprintable() for text in told[1:])
    assert "ValueError: x" in line(broken(HOSTILE))["exception"]


@pytest.mark.parametrize(
    "said",
    [
        "GET /x with Authorization: Bearer abc.def-123",
        "postgresql://user:hunter2@host:5432/db refused",
        "postgresql://user:hun@ter2@host/db",
        '{"access_token": "hunter2", "n": 1}',
        "password=hunter2;",
        "token eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln",
        "the word is hunter2",
        "a-very-long-secret in xa-very-long-secretx",
    ],
)
def test_no_line_tells_a_secret(said: str) -> None:
    redact = Redactor(["hunter2", "a-very-long-secret"])
    made = Recording(logging.LogRecord, redact)("a", 20, "f", 1, "%s", (said,), None)
    exception = broken(said)

    for text in (
        made.getMessage(),
        JsonLines(redact).format(exception),
        TextLines(redact).format(exception),
    ):
        for secret in ("hunter2", "ter2", "abc.def", "eyJ", "a-very-long-secret"):
            assert secret not in text


def test_what_is_no_secret_stays() -> None:
    said = "apismith at http://127.0.0.1:8007/x?y=a@b: 3 tokens, batch 7 of hunter22"

    assert Redactor(["hunter2", "x"])(said) == said


def test_arguments_that_do_not_fit_are_told_by_logging_itself() -> None:
    made = Recording(logging.LogRecord, Redactor())("a", 20, "f", 1, "%d", ("x",), None)

    assert (made.msg, made.args) == ("%d", ("x",))


def test_a_thread_that_a_signal_met_at_its_start_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt) as kept:
        begun("met by a signal", int)

    (thread,) = [item for item in threading.enumerate() if "met by a signal" in item.name]
    thread.join(10)
    assert not thread.is_alive()
    assert kept.value, "who keeps the error keeps the pool"
