"""An S3 server as a process of its own, and how a test reaches it."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from local import LOCAL

NOBODY_S_PORT = "http://127.0.0.1:9"


@dataclass(frozen=True)
class S3:
    """One that runs."""

    url: str

    @property
    def environment(self) -> dict[str, str]:
        """What a program needs to use it."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "somebody",
            "AWS_SECRET_ACCESS_KEY": "hidden-word",
        }

    def bucket(self) -> str:
        """The URI of a new one, with a prefix."""
        name = f"b{uuid4().hex}"
        LOCAL.put(f"{self.url}/{name}").raise_for_status()
        return f"s3://{name}/of this/one"

    @contextmanager
    def knowing_nobody(self) -> Iterator[None]:
        """Meanwhile it refuses every account."""
        self._accepts("0")
        try:
            yield
        finally:
            self._accepts("inf")

    def _accepts(self, unchecked: str) -> None:
        plain = {"Content-Type": "text/plain"}
        LOCAL.post(
            f"{self.url}/moto-api/reset-auth", content=unchecked, headers=plain
        ).raise_for_status()


@contextmanager
def started() -> Iterator[S3]:
    """One for as long as the block takes."""
    with subprocess.Popen(
        [sys.executable, str(Path(__file__))],
        env={**os.environ, "AWS_DEFAULT_REGION": "us-east-1"},
        stdin=subprocess.PIPE,  # it ends with it, however this process ends
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        yield S3(f"http://127.0.0.1:{int(process.stdout.readline())}")


if __name__ == "__main__":
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    server = make_server(
        "127.0.0.1", 0, DomainDispatcherApplication(create_backend_app), threaded=True
    )
    print(server.port, flush=True)  # noqa: T201  # for whom started it
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()
