"""One request and its answer, within its time and its size.

Belongs here: reading an answer's body, and turning httpx's exceptions into SyncFlow's.
Does not belong here: tokens, repeats, what a status means (``http``).

Source: product.md 5: time limits on everything, whole answers besides single reads; size limits.
"""

import contextlib
import socket
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import httpx

from syncflow_core.answers import Answer, unconnected
from syncflow_core.errors import ContractError, DoubtError, UnavailableError


class Exchange:
    """How one system is asked.

    Args:
        system: Named in errors.
        url: Its address, named in errors.
        body_bytes: Most bytes of one answer, decompressed.
        clock: Monotonic seconds.
    """

    def __init__(self, system: str, url: str, body_bytes: int, clock: Callable[[], float]) -> None:
        self._system = system
        self._url = url
        self._body_bytes = body_bytes
        self._clock = clock
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()

    def cut(self) -> None:
        """Cut every connection: whoever waits for an answer on one gets an error at once."""
        for connection in list(self._sockets):
            with contextlib.suppress(OSError):  # it has ended by itself
                connection.shutdown(socket.SHUT_RDWR)

    def _note(self, event: str, info: Mapping[str, Any]) -> None:
        """Remember the sockets of new connections; of TLS, the one that it wraps the other in."""
        if event in {"connection.connect_tcp.complete", "connection.start_tls.complete"}:
            connection = info["return_value"].get_extra_info("socket")
            if connection is not None:
                self._sockets.add(connection)

    def __call__(
        self, client: httpx.Client, request: httpx.Request, end: float, *, safe: bool
    ) -> Answer:
        """Send the request; its whole answer, by *end* on the clock.

        Raises:
            UnavailableError: No connection; or no whole answer to a request that is *safe*.
            DoubtError: No whole answer to another one: it may have been processed.
            ContractError: The answer is too large.
            ConfigError: The other side's certificate is not trusted.
        """
        asked = shown(request)
        request.extensions["trace"] = self._note
        doubt = UnavailableError if safe else DoubtError
        try:
            response = client.send(request, stream=True)
            try:
                body = self._body(response, end, asked, doubt)
            finally:
                response.close()
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise unconnected(error, self._system, self._url) from error
        except (httpx.TransportError, httpx.DecodingError) as error:
            reason = str(error) or type(error).__name__
            raise doubt(
                f"{self._system} did not answer {asked} to the end: {reason}", system=self._system
            ) from error
        headers = {name.lower(): value for name, value in response.headers.items()}
        return Answer(response.status_code, headers, body)

    def _body(
        self, response: httpx.Response, end: float, asked: str, doubt: type[UnavailableError]
    ) -> bytes:
        parts: list[bytes] = []
        size = 0
        for part in response.iter_bytes():
            parts.append(part)
            size += len(part)
            if size > self._body_bytes:
                raise ContractError(
                    f"{self._system} answered {asked} with more than "
                    f"{self._body_bytes:,} bytes, the limit of one answer",
                    system=self._system,
                )
            if self._clock() > end:
                raise doubt(
                    f"{self._system} did not end its answer to {asked} in time",
                    system=self._system,
                )
        return b"".join(parts)


def shown(request: httpx.Request) -> str:
    """A request in an error's words: no query, no header, no body."""
    return f"{request.method} {request.url.path}"
