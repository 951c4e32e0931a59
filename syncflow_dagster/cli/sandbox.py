"""``syncflow sandbox``: the sandbox's servers until Ctrl-C.

Belongs here: the command.
Does not belong here: the servers (``syncflow_core.sandbox``), what SyncFlow is told of them (``sandbox``).
"""

import signal
from types import FrameType

from syncflow_core.bridge.database import Database
from syncflow_core.bridge.entities import apply_entities, load_entities
from syncflow_core.errors import ConfigError, UnavailableError
from syncflow_core.loopback import is_loopback
from syncflow_core.sandbox import Sandbox, SandboxError
from syncflow_core.sandbox.process import LOOPBACK, USERNAME
from syncflow_core.settings import SANDBOX_PASSWORD, read_settings
from syncflow_dagster.home import prepare
from syncflow_dagster.ports import check_ports
from syncflow_dagster.sandbox import demo_entities, environment
from syncflow_dagster.terminal import console


def start(  # each is an option of the command
    database: Database,
    *,
    rows: int | None,
    seed: int,
    apismith_port: int,
    schedulehub_port: int,
    host: str = LOOPBACK,
    password: str = SANDBOX_PASSWORD,
) -> Sandbox:
    """The sandbox, running on this database.

    Raises:
        UnavailableError: A server did not come up.
        ConfigError: Others reach it, and it has no password of its own.
    """
    if password == SANDBOX_PASSWORD and not is_loopback(host):
        raise ConfigError(
            f"on {host} others reach the sandbox: set SYNCFLOW_SANDBOX_PASSWORD, for everybody "
            "knows its usual one"
        )
    try:
        return Sandbox.start(
            database.url,
            apismith_port,
            schedulehub_port,
            rows=rows,
            seed=seed,
            host=host,
            password=password,
        )
    except (SandboxError, OSError) as error:
        raise UnavailableError(f"sandbox: {error}", system="sandbox") from error


def declare(database: Database) -> None:
    """Declare the sandbox's entities, where none is declared."""
    with database.begin() as connection:
        if not load_entities(connection, enabled=None):
            apply_entities(connection, demo_entities())


def run(  # each is an option of the command
    *, host: str, rows: int, seed: int, apismith_port: int, schedulehub_port: int, entities: bool
) -> None:
    """Start both servers, say how to use them, wait for Ctrl-C or SIGTERM.

    Raises:
        UnavailableError: A server did not come up, or ended.
    """
    settings = read_settings()
    ports = [apismith_port, schedulehub_port]
    check_ports(host, ports, "--apismith-port and --schedulehub-port choose others")
    prepare(settings)
    screen = console()
    signal.signal(signal.SIGTERM, _interrupt)
    password = settings.sandbox_password.get_secret_value() or SANDBOX_PASSWORD
    try:
        with Database.open(settings) as database:
            if entities:
                database.check_schema()
                declare(database)
            screen.print(
                f"seeding an ERP of {rows:,} rows (seed {seed}) unless it is there already"
            )
            with start(
                database,
                rows=rows,
                seed=seed,
                apismith_port=apismith_port,
                schedulehub_port=schedulehub_port,
                host=host,
                password=password,
            ) as sandbox:
                screen.print(f"APISmith     {sandbox.apismith_url}  (/docs)")
                screen.print(f"ScheduleHub  {sandbox.schedulehub_url}  (/docs)")
                if password == SANDBOX_PASSWORD:
                    screen.print("In another terminal:")
                    for name, value in environment(sandbox).items():
                        screen.print(f"  export {name}={value}")
                screen.print(
                    f"User {USERNAME}, password "
                    + (
                        SANDBOX_PASSWORD
                        if password == SANDBOX_PASSWORD
                        else "that of SYNCFLOW_SANDBOX_PASSWORD"
                    )
                    + ". Ctrl-C ends both."
                )
                status = sandbox.wait()
                raise UnavailableError(
                    f"sandbox: a server ended with status {status}", system="sandbox"
                )
    except KeyboardInterrupt:
        screen.print("ending")


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
