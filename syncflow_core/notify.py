"""Tell one change to one receiver: by webhook, by mail.

A receiver may get a change twice, with the same id (``id`` in the body, ``Message-ID`` of the mail):
when it was told, and nobody was left to note it.

Belongs here: sending, and what an answer means.
Does not belong here: what is told, and when (``alerts``, ``telling``).

Source: product.md 14.
"""

import asyncio
import contextlib
import hashlib
import hmac
import logging
import random
import smtplib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import formatdate
from typing import Final, Protocol
from urllib.parse import SplitResult, unquote, urlsplit

import httpx
import msgspec

from syncflow_core.alerts import Change, one_line
from syncflow_core.answers import is_caused_by, retry_after
from syncflow_core.breaker import Breaker
from syncflow_core.errors import ConfigError, ContractError, RejectedError, UnavailableError
from syncflow_core.limiter import Limits
from syncflow_core.loopback import is_loopback
from syncflow_core.repeats import Repeats
from syncflow_core.settings import Settings

SIGNATURE: Final = "X-SyncFlow-Signature"
LIMITS: Final = Limits(
    connect_s=4.0,
    read_s=6.0,
    deadline_s=8.0,
    attempts=2,
    total_s=8.0,
    backoff_s=0.5,
    retry_after_cap_s=2.0,
)
"""Of one change to one receiver: who does not take it now is told at the next look."""
_RETRIABLE: Final = frozenset({408, 425, 429})
_SUBMISSION: Final = {"smtp": 587, "smtps": 465}


class Notifier(Protocol):
    """One way to tell people or programs."""

    @property
    def name(self) -> str:
        """What its marks are made of; the same for good."""
        ...

    def tell(self, change: Change) -> None:
        """Return when the change was taken.

        Raises:
            UnavailableError: The receiver is away, or wants to be told later.
            RejectedError: It refused this.
            ContractError: It answered what no receiver answers.
            ConfigError: A person must change a setting.
        """
        ...


@dataclass(frozen=True)
class Incomplete:
    """A notifier that cannot be used as it is set up; the others can."""

    name: str
    missing: str

    def tell(self, change: Change) -> None:  # noqa: ARG002  # nothing can be told
        """Say what is missing."""
        raise ConfigError(self.missing, system=self.name)


def notifiers_of(settings: Settings) -> list[Notifier]:
    """The ways that the environment sets up; none where it says nothing."""
    found: list[Notifier] = []
    if settings.alert_webhook_url is not None:
        secret = settings.alert_webhook_secret.get_secret_value()
        found.append(Webhook(settings.alert_webhook_url.get_secret_value(), secret))
    url, sender, to = settings.smtp_url, settings.alert_mail_from, settings.alert_mail_to
    if url is not None and sender and to:
        found.append(Mail(url.get_secret_value(), sender=sender, to=to))
    elif to:
        words = "SYNCFLOW_ALERT_MAIL_TO needs SYNCFLOW_ALERT_MAIL_FROM and SYNCFLOW_SMTP_URL, too"
        found.append(Incomplete("mail", words))
    return found


def signature(body: bytes, secret: str) -> str:
    """What the header ``X-SyncFlow-Signature`` holds: HMAC-SHA256 of the body, keyed with the secret.

    >>> signature(b"what do ya want for nothing?", "Jefe")[:20]  # RFC 4231, 4.3
    'sha256=5bdcc146bf607'
    """
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def _repeats(sleep: Callable[[float], object]) -> Repeats:
    return Repeats(
        LIMITS,
        Breaker(),  # of its own, never open: there is a next look
        sleep=sleep,
        clock=time.monotonic,
        jitter=random.random,
    )


class Webhook:
    """A receiver of JSON by HTTP POST.

    Args:
        url: Where; it is in no message, for it may hold a secret.
        secret: Signs the body; empty: nobody does.
        sleep: Waits before the second try.
    """

    name = "webhook"

    def __init__(
        self,
        url: str,
        secret: str = "",
        *,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        self._url = httpx.URL(url)
        self._secret = secret
        self._repeats = _repeats(sleep or threading.Event().wait)
        self._place = f"the webhook at {self._url.host}"

    def __repr__(self) -> str:
        return f"Webhook({self._url.host})"

    def tell(self, change: Change) -> None:
        """Post the change; any 2xx takes it, and what else the answer says is not read."""
        body = msgspec.json.encode(change.payload)
        headers = {"Content-Type": "application/json", "User-Agent": "SyncFlow"}
        if self._secret:
            headers[SIGNATURE] = signature(body, self._secret)
        self._repeats.run(lambda: self._check(*self._posted(body, headers)))

    def _posted(self, body: bytes, headers: dict[str, str]) -> tuple[int, str | None]:
        """The answer's status, and when it wants to be asked again."""
        try:
            with _unlogged(self._url):
                return asyncio.run(self._post(body, headers))
        except (httpx.HTTPError, TimeoutError) as error:
            if is_caused_by(error, ssl.SSLCertVerificationError):
                raise ConfigError(
                    f"{self._place} shows a certificate that is not trusted; "
                    "check SYNCFLOW_ALERT_WEBHOOK_URL and SSL_CERT_FILE",
                    system=self.name,
                ) from None
            reason = type(error).__name__  # its words may hold the address
            raise UnavailableError(
                f"{self._place} did not answer ({reason})", system=self.name
            ) from None

    async def _post(self, body: bytes, headers: dict[str, str]) -> tuple[int, str | None]:
        client = httpx.AsyncClient(
            timeout=httpx.Timeout(LIMITS.read_s, connect=LIMITS.connect_s),
            follow_redirects=False,
            trust_env=not is_loopback(self._url.host),  # a proxy is for what lies outside
            verify=httpx.create_ssl_context(),
        )
        async with asyncio.timeout(LIMITS.deadline_s), client:
            request = client.build_request("POST", self._url, content=body, headers=headers)
            response = await client.send(request, stream=True)
            await response.aclose()
            return response.status_code, response.headers.get("retry-after")

    def _check(self, status: int, later: str | None) -> None:
        if 200 <= status < 300:  # noqa: PLR2004  # HTTP's classes
            return
        said = f"{self._place} answered {status}"
        if status < 400:  # noqa: PLR2004  # HTTP's classes
            raise ContractError(f"{said}: redirects are not followed", system=self.name)
        if status in _RETRIABLE or status >= 500:  # noqa: PLR2004  # HTTP's classes
            wait = retry_after(later, time.time)
            raise UnavailableError(said, retry_after_s=wait, system=self.name)
        raise RejectedError(said, status=status, system=self.name)


class _OthersOnly:
    """Lets through what httpx logs of other addresses: its lines show the whole of ours."""

    def __init__(self, url: httpx.URL) -> None:
        self._url = url

    def filter(self, record: logging.LogRecord) -> bool:
        arguments = record.args if isinstance(record.args, tuple) else ()
        return not any(argument == self._url for argument in arguments)


@contextmanager
def _unlogged(url: httpx.URL) -> Iterator[None]:
    filtered, logger = _OthersOnly(url), logging.getLogger("httpx")
    logger.addFilter(filtered)
    try:
        yield
    finally:
        logger.removeFilter(filtered)


class Mail:
    """A mailbox, or several, reached through one SMTP server.

    A password is sent over TLS alone, unless the server is this machine.

    Args:
        url: ``smtp://user:password@host:587`` (STARTTLS) or ``smtps://...:465`` (TLS from the start).
        sender: An address.
        to: Addresses, separated by commas.
        sleep: Waits before the second try.
    """

    name = "mail"

    def __init__(
        self, url: str, *, sender: str, to: str, sleep: Callable[[float], object] | None = None
    ) -> None:
        self._parts: SplitResult = urlsplit(url)
        self._host = self._parts.hostname or ""
        self._sender = sender
        self._to = to.split(",")
        self._repeats = _repeats(sleep or threading.Event().wait)
        self._place = f"the mail server at {self._host}"

    def __repr__(self) -> str:
        return f"Mail({self._host})"

    def tell(self, change: Change) -> None:
        """Hand the mail over; one receiver that the server takes is enough."""
        letter = self._letter(change)
        self._repeats.run(lambda: self._hand_over(letter))

    def _letter(self, change: Change) -> EmailMessage:
        alert = change.alert
        letter = EmailMessage()
        letter["Subject"] = change.title  # one printable line: nothing in it begins another header
        letter["From"] = self._sender
        letter["To"] = ", ".join(self._to)
        letter["Date"] = formatdate()
        letter["Message-ID"] = f"<{change.id}@{self._domain}>"
        letter["Auto-Submitted"] = "auto-generated"
        facts = {
            "what": f"{alert.kind}: {alert.message}",
            "where": alert.subject,
            "state": change.state,
            "since": alert.since.isoformat(),
            "installation": change.installation,
            "batch": alert.batch,
            "run": alert.run_id,
            "id": change.id,
        }
        letter.set_content(
            "".join(f"{name}: {one_line(str(fact))}\n" for name, fact in facts.items() if fact)
        )
        return letter

    @property
    def _domain(self) -> str:
        return self._sender.rpartition("@")[2]

    def _hand_over(self, letter: EmailMessage) -> None:
        try:
            with self._session() as session:
                session.send_message(letter, self._sender, self._to)
        except ssl.SSLCertVerificationError:
            raise ConfigError(
                f"{self._place} shows a certificate that is not trusted; "
                "check SYNCFLOW_SMTP_URL and SSL_CERT_FILE",
                system=self.name,
            ) from None
        except smtplib.SMTPNotSupportedError:
            raise ConfigError(
                f"{self._place} offers no STARTTLS, or no login: no password is sent without; "
                "check SYNCFLOW_SMTP_URL",
                system=self.name,
            ) from None
        except smtplib.SMTPRecipientsRefused as error:
            raise self._refusal(min(code for code, _ in error.recipients.values())) from None
        except smtplib.SMTPResponseException as error:
            raise self._refusal(error.smtp_code) from None  # its words are the server's
        except (OSError, smtplib.SMTPException) as error:
            raise UnavailableError(
                f"{self._place} did not take the mail ({type(error).__name__})", system=self.name
            ) from None

    def _refusal(self, code: int) -> UnavailableError | RejectedError:
        said = f"{self._place} answered {code}"
        if code >= 500:  # noqa: PLR2004  # SMTP's permanent refusals
            return RejectedError(said, status=code, system=self.name)
        return UnavailableError(said, system=self.name)

    @contextmanager
    def _session(self) -> Iterator[smtplib.SMTP]:
        """Connected, over TLS where there is any, logged in where there is a user; cut when time is up."""
        scheme, user = self._parts.scheme, unquote(self._parts.username or "")
        port = self._parts.port or _SUBMISSION[scheme]
        trust = ssl.create_default_context()
        # with a name of ours given, none is looked up
        if scheme == "smtps":
            session: smtplib.SMTP = smtplib.SMTP_SSL(
                self._host,
                port,
                local_hostname=self._domain,
                timeout=LIMITS.connect_s,
                context=trust,
            )
        else:
            session = smtplib.SMTP(
                self._host, port, local_hostname=self._domain, timeout=LIMITS.connect_s
            )
        watch = threading.Timer(LIMITS.deadline_s, _cut, [session])
        watch.start()
        try:
            session.ehlo()
            far = scheme == "smtp" and not is_loopback(self._host)
            if far and (user or session.has_extn("starttls")):
                session.starttls(context=trust)
            if user:
                session.login(user, unquote(self._parts.password or ""))
            yield session
            with contextlib.suppress(OSError, smtplib.SMTPException):
                session.quit()  # the mail was taken, however this ends
        finally:
            watch.cancel()
            session.close()


def _cut(session: smtplib.SMTP) -> None:
    """End what the session waits for."""
    if session.sock is not None:
        with contextlib.suppress(OSError):  # it has ended by itself
            session.sock.shutdown(socket.SHUT_RDWR)
