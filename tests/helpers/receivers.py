"""Who alerts are sent to: a real HTTP server and a real SMTP server on this machine, in threads."""

import base64
import email
import json
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast


@dataclass
class Hook:
    """What a webhook got, and what it answers from now on."""

    url: str = ""
    status: int = 204
    headers: dict[str, str] = field(default_factory=dict)
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.got]

    @property
    def told(self) -> list[tuple[str, str, str]]:
        return [(body["state"], body["kind"], body["subject"]) for body in self.bodies]


@contextmanager
def webhook() -> Iterator[Hook]:
    hook = Hook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            hook.got.append(({**headers, ":path": self.path}, body))
            self.send_response(hook.status)
            for name, value in {"Content-Length": "0", **hook.headers}.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server, _served(server):
        hook.url = f"http://127.0.0.1:{server.server_address[1]}/hook"
        yield hook


@dataclass
class Mailbox:
    """What an SMTP server took, what was said to it, and what it answers to a letter from now on."""

    port: int = 0
    answer: str = "250 taken"
    said: list[str] = field(default_factory=list)
    letters: list[EmailMessage] = field(default_factory=list)
    senders: list[str] = field(default_factory=list)
    receivers: list[str] = field(default_factory=list)
    logins: list[tuple[str, str, bool]] = field(default_factory=list)
    """User, password, and whether that came over TLS."""


class _Session(socketserver.StreamRequestHandler):
    """One connection to a mailbox."""

    server: "_SmtpServer"
    secure = False

    def handle(self) -> None:
        tls, box = self.server.tls, self.server.box
        if tls is not None and self.server.from_the_start:
            self._secure(tls)
        self._say("220 mailbox")
        while line := self.rfile.readline().decode("ascii").rstrip("\r\n"):
            verb = line.split()[0].upper()
            box.said.append(verb)
            if verb == "EHLO":
                self._offer()
            elif verb == "STARTTLS" and tls is not None:
                self._say("220 go on")
                self._secure(tls)
            elif verb == "AUTH":
                self._log_in(line)
            elif verb == "DATA":
                self._say("354 go on")
                self._letter()
            elif verb in {"MAIL", "RCPT", "RSET", "QUIT"}:
                address = line.partition("<")[2].partition(">")[0]
                {"MAIL": box.senders, "RCPT": box.receivers}.get(verb, []).append(address)
                self._say("221 bye" if verb == "QUIT" else "250 fine")

    def _offer(self) -> None:
        offers = ["mailbox", "AUTH PLAIN", "8BITMIME"]
        if self.server.tls is not None and not self.secure:
            offers.append("STARTTLS")
        for offer in offers[:-1]:
            self._say(f"250-{offer}")
        self._say(f"250 {offers[-1]}")

    def _log_in(self, line: str) -> None:
        _, user, password = base64.b64decode(line.split()[2]).decode().split("\0")
        self.server.box.logins.append((user, password, self.secure))
        self._say("235 welcome" if password == "tiger" else f"535 {password} is wrong")

    def _letter(self) -> None:
        box, lines = self.server.box, []
        while (line := self.rfile.readline()) not in {b".\r\n", b""}:
            lines.append(line.removeprefix(b"."))
        if box.answer.startswith("250"):
            letter = email.message_from_bytes(b"".join(lines), policy=policy.default)
            box.letters.append(cast("EmailMessage", letter))
        self._say(box.answer)

    def _say(self, line: str) -> None:
        self.wfile.write(f"{line}\r\n".encode())

    def _secure(self, context: ssl.SSLContext) -> None:
        self.connection = context.wrap_socket(self.connection, server_side=True)
        self.rfile = self.connection.makefile("rb")
        self.wfile = self.connection.makefile("wb", buffering=0)
        self.secure = True

    def finish(self) -> None:
        super().finish()
        self.connection.close()


class _SmtpServer(socketserver.ThreadingTCPServer):
    allow_reuse_address = True

    def __init__(self, box: Mailbox, tls: ssl.SSLContext | None, *, from_the_start: bool) -> None:
        super().__init__(("127.0.0.1", 0), _Session)
        self.box, self.tls, self.from_the_start = box, tls, from_the_start

    def handle_error(self, *_: object) -> None:
        """A client that refuses the certificate is what some tests are about."""


@contextmanager
def mailbox(
    tls: ssl.SSLContext | None = None, *, from_the_start: bool = False
) -> Iterator[Mailbox]:
    """An SMTP server; with *tls* it offers STARTTLS, or speaks nothing else."""
    box = Mailbox()
    with _SmtpServer(box, tls, from_the_start=from_the_start) as server, _served(server):
        box.port = server.server_address[1]
        yield box


@contextmanager
def _served(server: socketserver.BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
