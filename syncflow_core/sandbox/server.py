"""One server of the sandbox as a process of its own.

Belongs here: binding a port, saying which one, serving, ending with the parent.
Does not belong here: starting these processes (``process``).

The process says ``{"port": N}`` on standard output once its port is bound. It reads its standard input
and ends when that closes: a parent that is killed leaves nothing behind.
"""

import argparse
import json
import os
import signal
import socket
import sys
import threading
from typing import cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from syncflow_core.sandbox.apismith import make_apismith
from syncflow_core.sandbox.faults import TRANSPORT
from syncflow_core.sandbox.schedulehub import make_schedulehub
from syncflow_core.sandbox.web import Tokens

HOST = "127.0.0.1"


class Protocol(HttpToolsProtocol):
    """uvicorn's protocol, which also shows the connection's transport to the faults."""

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        cast("dict[str, object]", self.scope)[TRANSPORT] = self.transport


def main() -> None:
    """Serve one of the two servers until the parent goes or SIGTERM comes."""
    parser = argparse.ArgumentParser(prog="syncflow_core.sandbox.server")
    parser.add_argument("server", choices=["apismith", "schedulehub"])
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--durable", action="store_true")
    options = parser.parse_args()
    secrets = json.loads(sys.stdin.readline())  # a command line can be read by everyone
    os.environ["PGAPPNAME"] = f"sandbox-{options.server}"  # libpq's: names us in pg_stat_activity
    tokens = Tokens(secrets["username"], secrets["password"])
    if options.server == "apismith":
        app = make_apismith(secrets["database_url"], tokens)
    else:
        app = make_schedulehub(secrets["database_url"], tokens, durable=options.durable)
    listener = socket.create_server((HOST, options.port), backlog=512)
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=Protocol,
        ws="none",
        log_level="warning",
        access_log=False,
        timeout_keep_alive=120,
        timeout_graceful_shutdown=2,
    )
    sys.stdout.write(json.dumps({"port": listener.getsockname()[1]}) + "\n")
    sys.stdout.flush()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    uvicorn.Server(config).run(sockets=[listener])


def _end_with_parent() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
