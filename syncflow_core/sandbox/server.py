"""One server of the sandbox, or both, as a process of its own.

Belongs here: binding a port, saying which one, serving, ending with the parent.
Does not belong here: starting these processes (``process``).

The process says ``{"port": N}`` on standard output, for each server in turn, once the ports are bound. It reads its standard input
and ends when that closes: a parent that is killed leaves nothing behind.
"""

import argparse
import asyncio
import gc
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from typing import cast

import uvicorn
import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from syncflow_core.sandbox.apismith import make_apismith
from syncflow_core.sandbox.faults import TRANSPORT
from syncflow_core.sandbox.schedulehub import make_schedulehub
from syncflow_core.sandbox.web import Tokens


class Protocol(HttpToolsProtocol):
    """uvicorn's protocol, which also shows the connection's transport to the faults."""

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        cast("dict[str, object]", self.scope)[TRANSPORT] = self.transport


def main() -> None:
    """Serve what is asked for until the parent goes or SIGTERM comes."""
    parser = argparse.ArgumentParser(prog="syncflow_core.sandbox.server")
    parser.add_argument("servers", nargs="+", choices=["apismith", "schedulehub"])
    parser.add_argument(
        "--port", type=int, default=0, help="of the first; the others take free ones"
    )
    parser.add_argument("--host", default="127.0.0.1")
    options = parser.parse_args()
    secrets = json.loads(sys.stdin.readline())  # a command line can be read by everyone
    names = "-".join(options.servers)
    os.environ["PGAPPNAME"] = f"sandbox-{names}"  # libpq's: names us in pg_stat_activity
    served = []
    for port, name in zip(
        (options.port, *[0] * len(options.servers)), options.servers, strict=False
    ):
        listener = socket.create_server((options.host, port), backlog=512)
        served.append((_server(name, secrets), listener))
        sys.stdout.write(json.dumps({"port": listener.getsockname()[1]}) + "\n")
    sys.stdout.flush()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    gc.freeze()  # what is there now stays: it need not be looked through at each collection
    uvloop.run(_serve(served))


def _server(name: str, secrets: dict[str, str]) -> uvicorn.Server:
    tokens = Tokens(secrets["username"], secrets["password"])
    if name == "apismith":
        app = make_apismith(secrets["database_url"], tokens)
    else:
        app = make_schedulehub(secrets["database_url"], tokens)
    config = uvicorn.Config(
        app,
        http=Protocol,
        ws="none",
        log_level="warning",
        access_log=False,
        timeout_keep_alive=120,
        timeout_graceful_shutdown=2,
    )
    return uvicorn.Server(config)


async def _serve(served: Sequence[tuple[uvicorn.Server, socket.socket]]) -> None:
    """All servers in one loop; the end of one is the end of all."""
    running = [
        asyncio.ensure_future(server.serve(sockets=[listener])) for server, listener in served
    ]
    await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    for server, _ in served:
        server.should_exit = True
    await asyncio.gather(*running)


def _end_with_parent() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
