"""``syncflow api`` and ``syncflow token``: the REST API on its own, and tokens for it.

Belongs here: the commands.
Does not belong here: the API (``syncflow_dagster.api``).
"""

import ipaddress
import sys
from datetime import timedelta

import uvicorn

from syncflow_core.bridge.database import Database
from syncflow_core.errors import ConfigError
from syncflow_core.settings import read_settings
from syncflow_dagster.api.app import create_app
from syncflow_dagster.api.gateway import DagsterGateway
from syncflow_dagster.api.security import ROLES, issue, secret_of, utc_now, verifier_of
from syncflow_dagster.home import prepare
from syncflow_dagster.logs import log_to_stderr
from syncflow_dagster.watching import Watch, watching


def run(*, host: str, port: int, dagster_url: str) -> None:
    """Serve the API until Ctrl-C or SIGTERM; have Dagster load entities that come, change or go."""
    settings = read_settings()
    prepare(settings)
    log_to_stderr(settings, server=True)
    verifier = verifier_of(settings, loopback=_is_loopback(host))
    with Database.open(settings) as database:
        database.check_schema()
        gateway = DagsterGateway(dagster_url)
        app = create_app(settings, database, gateway, verifier)
        with watching(Watch(database, gateway.reload)):
            uvicorn.run(app, host=host, port=port, log_config=None, server_header=False)


def token(*, name: str, role: str, days: float) -> None:
    """Print a token."""
    allowed = next((item for item in ROLES if item == role), None)
    if allowed is None:
        raise ConfigError(f"{role!r} is no role: {', '.join(ROLES)}")
    settings = read_settings()
    secret = secret_of(settings, loopback=True)
    life = timedelta(days=days)
    sys.stdout.write(
        issue(settings, secret, name=name, role=allowed, life=life, now=utc_now()) + "\n"
    )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
