"""``syncflow api`` and ``syncflow token``: the REST API on its own, and tokens for it.

Belongs here: the commands.
Does not belong here: the API (``syncflow_dagster.api``).
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp

from syncflow_core.bridge.database import Database
from syncflow_core.errors import ConfigError
from syncflow_core.loopback import is_loopback
from syncflow_core.settings import Settings, read_settings
from syncflow_dagster.api.app import PREFIX, create_app
from syncflow_dagster.api.gateway import DagsterGateway
from syncflow_dagster.api.security import ROLES, issue, secret_of, verifier_of
from syncflow_dagster.clock import utc_now
from syncflow_dagster.home import open_instance, prepare, shipped
from syncflow_dagster.logs import log_to_stderr
from syncflow_dagster.ports import check_ports
from syncflow_dagster.watching import Watch, watching

logger = logging.getLogger(__name__)


def run(*, host: str, port: int, dagster_url: str, ui: bool) -> None:
    """Serve the API until Ctrl-C or SIGTERM; have Dagster load entities that come, change or go.

    Args:
        host: The address to listen on.
        port: The port.
        dagster_url: Dagster's webserver.
        ui: Whether this process is that webserver, too, on the same port.
    """
    if ui and not is_loopback(host):
        raise ConfigError("Dagster's UI has no login: with --ui the host is this machine's alone")
    settings = read_settings()
    check_ports(host, [port], "--port chooses another")
    prepare(settings)
    log_to_stderr(settings, server=True)
    verifier = verifier_of(settings, loopback=is_loopback(host))
    with Database.open(settings) as database:
        database.check_schema()
        gateway = DagsterGateway(f"http://127.0.0.1:{port}" if ui else dagster_url)
        api = create_app(settings, database, gateway, verifier)
        watched = watching(Watch(database, gateway.reload))
        with _beside(api, settings) if ui else nullcontext(api) as app, watched:
            at = f"[{host}]" if ":" in host else host
            logger.info("the REST API is served on http://%s:%d%s", at, port, PREFIX)
            uvicorn.run(app, host=host, port=port, log_config=None, server_header=False)


@contextmanager
def _beside(api: FastAPI, settings: Settings) -> Iterator[ASGIApp]:
    # imported here: the webserver brings a second of modules that the API alone does not need
    from syncflow_dagster.api.beside import with_ui

    with (
        open_instance(settings) as instance,
        with_ui(api, instance, shipped("workspace.yaml")) as both,
    ):
        yield both


def token(*, name: str, role: str, days: float) -> None:
    """Print a token."""
    if not name.strip():
        raise ConfigError("who is the token for? Its name stands with what it does")
    allowed = next((item for item in ROLES if item == role), None)
    if allowed is None:
        raise ConfigError(f"{role!r} is no role: {', '.join(ROLES)}")
    settings = read_settings()
    secret = secret_of(settings, loopback=True)
    life = timedelta(days=days)
    sys.stdout.write(
        issue(settings, secret, name=name, role=allowed, life=life, now=utc_now()) + "\n"
    )
