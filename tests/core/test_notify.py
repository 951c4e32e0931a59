"""A change told to real receivers: who takes it, who does not, and what nobody gets to see."""

import hashlib
import hmac
import logging
import socket
import ssl
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
from certificates import DAY, certificate
from receivers import mailbox, webhook

from syncflow_core import notify
from syncflow_core.alerts import Alert, Change
from syncflow_core.errors import (
    ConfigError,
    ContractError,
    RejectedError,
    SyncFlowError,
    UnavailableError,
)
from syncflow_core.notify import Mail, Webhook, notifiers_of
from syncflow_core.settings import read_settings

AT = datetime(2026, 3, 27, 12, 0, tzinfo=UTC)
BATCH = UUID(int=3)
FAR = "0.0.0.0"  # noqa: S104  # reaches this machine, and is no loopback address


def change(subject: str = "orders", message: str = "it failed") -> Change:
    alert = Alert(UUID(int=7), "failed", subject, message, AT, batch=BATCH, run_id="run-1")
    return Change(alert, "firing", "north")


def no_wait(_: float) -> None:
    """Do not wait."""


def test_a_webhook_gets_the_change_as_json_signed_with_the_secret() -> None:
    with webhook() as hook:
        Webhook(hook.url, "tiger").tell(change())
        Webhook(hook.url).tell(change())

    (headers, body), (unsigned, _) = hook.got
    expected = "sha256=" + hmac.digest(b"tiger", body, hashlib.sha256).hex()
    assert headers["x-syncflow-signature"] == expected
    assert headers["content-type"] == "application/json"
    assert "x-syncflow-signature" not in unsigned
    assert hook.bodies[0] == {
        "id": f"{UUID(int=7)}-firing",
        "kind": "failed",
        "subject": "orders",
        "state": "firing",
        "message": "it failed",
        "since": "2026-03-27T12:00:00+00:00",
        "ended_at": None,
        "installation": "north",
        "batch": str(BATCH),
        "run_id": "run-1",
        "text": "[north] firing: failed orders: it failed",
    }


@pytest.mark.parametrize(
    ("status", "error", "times"),
    [
        (503, UnavailableError, 2),
        (429, UnavailableError, 2),
        (404, RejectedError, 1),
        (302, ContractError, 1),
    ],
)
def test_a_webhook_that_does_not_take_it_is_asked_no_more_than_twice_and_never_elsewhere(
    status: int, error: type[SyncFlowError], times: int
) -> None:
    with webhook() as elsewhere, webhook() as hook:
        hook.status, hook.headers = status, {"Location": elsewhere.url}

        with pytest.raises(error, match=str(status)):
            Webhook(hook.url, sleep=no_wait).tell(change())

    assert (len(hook.got), len(elsewhere.got)) == (times, 0)
    assert len({body for _, body in hook.got}) == 1


def test_neither_the_address_nor_a_secret_is_in_errors_and_logs(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    errors = []
    with webhook() as hook, mailbox() as box:
        for status in (204, 404, 500):
            hook.status = status
            try:
                Webhook(f"{hook.url}/T0/token-tiger", "key-tiger", sleep=no_wait).tell(change())
            except SyncFlowError as error:
                errors.append(error)
        with pytest.raises(RejectedError) as refused:
            Mail(
                f"smtp://ops:wrong-tiger@127.0.0.1:{box.port}",
                sender="a@b.example",
                to="c@b.example",
            ).tell(change())
    nobody = f"127.0.0.1:{hook.url.split(':')[2].split('/')[0]}"
    with pytest.raises(UnavailableError) as away:
        Webhook(f"http://{nobody}/T0/token-tiger", sleep=no_wait).tell(change())

    assert hook.got[0][0][":path"] == "/hook/T0/token-tiger"
    assert box.logins == [("ops", "wrong-tiger", False)]
    said = [*map(repr, errors), repr(refused.value), repr(away.value), caplog.text]
    assert len(said) == 5
    assert [text for text in said if "tiger" in text] == []


def test_a_receiver_that_says_nothing_is_waited_for_no_longer_than_it_may(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        brief = replace(notify.LIMITS, connect_s=0.1, read_s=0.1, deadline_s=0.2, total_s=0.2)
        monkeypatch.setattr(notify, "LIMITS", brief)

        for notifier in (
            Webhook(f"http://127.0.0.1:{port}/", sleep=no_wait),
            Mail(f"smtp://127.0.0.1:{port}", sender="a@b.example", to="c@b.example", sleep=no_wait),
        ):
            with pytest.raises(UnavailableError):
                notifier.tell(change())


def test_a_mail_tells_the_change_and_is_the_same_letter_again() -> None:
    with mailbox() as box:
        mail = Mail(
            f"smtp://127.0.0.1:{box.port}",
            sender="sync@b.example",
            to="ops@b.example,night@b.example",
        )
        mail.tell(change())
        mail.tell(change())

    first, second = box.letters
    assert first["Subject"] == "[north] firing: failed orders"
    assert (first["From"], first["To"]) == ("sync@b.example", "ops@b.example, night@b.example")
    assert first["Message-ID"] == second["Message-ID"] == f"<{UUID(int=7)}-firing@b.example>"
    assert first.get_content_type() == "text/plain"
    assert "what: failed: it failed\n" in first.get_content().replace("\r\n", "\n")
    assert box.receivers[:2] == ["ops@b.example", "night@b.example"]


@pytest.mark.parametrize(
    "poison",
    [
        "x\r\nBcc: thief@b.example",
        "x\n\nhello",
        "x\r\n.\r\nMAIL FROM:<thief@b.example>\r\n",
        "x\u2028y",
    ],
)
def test_nothing_in_a_name_begins_a_header_a_body_or_a_command(poison: str) -> None:
    with mailbox() as box:
        Mail(f"smtp://127.0.0.1:{box.port}", sender="a@b.example", to="c@b.example").tell(
            Change(Alert(UUID(int=1), poison, poison, poison, AT), "firing", poison)
        )

    (letter,) = box.letters
    assert {name.lower() for name in letter} == {
        *("subject", "from", "to", "date", "message-id", "auto-submitted"),
        *("content-type", "content-transfer-encoding", "mime-version"),
    }
    assert len(letter) == 9
    assert len(letter.get_content().splitlines()) == 6
    assert (len(box.senders), box.receivers) == (1, ["c@b.example"])


@pytest.mark.parametrize(
    ("answer", "error", "times"),
    [("451 later", UnavailableError, 2), ("554 no", RejectedError, 1)],
)
def test_a_mail_server_that_does_not_take_it_says_whether_to_try_again(
    answer: str, error: type[SyncFlowError], times: int
) -> None:
    with mailbox() as box:
        box.answer = answer
        mail = Mail(
            f"smtp://127.0.0.1:{box.port}", sender="a@b.example", to="c@b.example", sleep=no_wait
        )

        with pytest.raises(error, match=answer[:3]):
            mail.tell(change())

    assert box.said.count("DATA") == times


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
def test_a_password_goes_over_tls_to_a_server_that_is_trusted_alone(
    scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trusted = certificate(tmp_path, FAR, datetime.now(tz=UTC) + DAY)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(trusted)
    with mailbox(tls, from_the_start=scheme == "smtps") as box:
        mail = Mail(
            f"{scheme}://ops:tiger@{FAR}:{box.port}", sender="a@b.example", to="c@b.example"
        )
        with pytest.raises(ConfigError, match="not trusted"):
            mail.tell(change())
        before = list(box.logins)
        monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
        mail.tell(change())

    assert (before, box.logins) == ([], [("ops", "tiger", True)])
    assert len(box.letters) == 1


def test_a_password_is_not_sent_to_a_server_without_tls() -> None:
    with mailbox() as box:
        mail = Mail(f"smtp://ops:tiger@{FAR}:{box.port}", sender="a@b.example", to="c@b.example")

        with pytest.raises(ConfigError, match="no STARTTLS"):
            mail.tell(change())

    assert (box.logins, box.letters) == ([], [])


def test_mail_that_is_set_up_in_part_says_so_and_leaves_the_webhook(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SYNCFLOW_ALERT_WEBHOOK_URL", "https://chat.example/T0/tiger")
    monkeypatch.setenv("SYNCFLOW_ALERT_MAIL_TO", "ops@b.example")

    hook, mail = notifiers_of(read_settings())

    assert isinstance(hook, Webhook)
    with pytest.raises(ConfigError, match="SYNCFLOW_SMTP_URL"):
        mail.tell(change())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ALERT_WEBHOOK_URL", "chat.example/tiger"),
        ("ALERT_WEBHOOK_URL", "https://chat.example/tiger\r\nX: y"),
        ("SMTP_URL", "smtp://ops:tiger@"),
        ("SMTP_URL", "http://ops:tiger@host"),
        ("SMTP_URL", "smtp://ops:tiger@host:587000"),
        ("ALERT_MAIL_TO", "tiger@b.example\r\nBcc: c@d.example"),
        ("ALERT_MAIL_FROM", "tiger@b.example,c@d.example"),
        ("INSTALLATION", "tiger\nBcc: c@d.example"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named_and_its_value_is_not(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(f"SYNCFLOW_{name}", value)

    with pytest.raises(ConfigError, match=f"SYNCFLOW_{name}: ") as refused:
        read_settings()

    assert "tiger" not in str(refused.value)
