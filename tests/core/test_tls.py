"""TLS with a real server: a certificate that is not trusted, not this host's, or over is refused."""

import datetime as dt
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from certificates import DAY, certificate

from syncflow_core.errors import ConfigError
from syncflow_core.http import Transport
from syncflow_core.tokens import Login

NOW = dt.datetime.now(tz=dt.UTC)


class Healthy(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def serving(file: Path) -> Iterator[str]:
    """The address of a server that shows the certificate."""
    server = HTTPServer(("127.0.0.1", 0), Healthy)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a refused handshake
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("host", "ends", "trusted"),
    [
        ("127.0.0.1", NOW + DAY, False),
        ("127.0.0.9", NOW + DAY, True),
        ("127.0.0.1", NOW - DAY, True),
    ],
    ids=["nobody's", "another host's", "over"],
)
def test_XP19_a_certificate_that_does_not_hold_is_refused_before_anything_is_sent(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    host: str,
    ends: dt.datetime,
    trusted: bool,  # noqa: FBT001  # a parameter of the test
) -> None:
    file = certificate(tmp_path, host, ends)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
    with (
        serving(file) as url,
        Transport("schedulehub", url, Login("a", "secret")) as transport,
        pytest.raises(ConfigError, match="SYNCFLOW_SCHEDULEHUB_URL and SSL_CERT_FILE") as caught,
    ):
        transport.request("GET", "/x")

    assert "not trusted" in str(caught.value)


def test_a_certificate_that_is_trusted_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = certificate(tmp_path, "127.0.0.1", NOW + DAY)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    with serving(file) as url, Transport("schedulehub", url, Login("a", "b")) as transport:
        assert transport.health().status == 200
