"""``syncflow sandbox``: the sandbox's servers until Ctrl-C.

Belongs here: the command, and what to set to use the servers.
Does not belong here: the servers (``syncflow_core.sandbox``).
"""

import signal
from types import FrameType

from syncflow_core.bridge.database import Database
from syncflow_core.errors import UnavailableError
from syncflow_core.sandbox import Sandbox, SandboxError
from syncflow_core.sandbox.process import PASSWORD, USERNAME
from syncflow_core.settings import Settings, read_settings
from syncflow_dagster.cli.show import console
from syncflow_dagster.home import prepare


def start(
    database: Database, *, rows: int | None, seed: int, apismith_port: int, schedulehub_port: int
) -> Sandbox:
    """The sandbox, running on this database.

    Raises:
        UnavailableError: A server did not come up.
    """
    try:
        return Sandbox.start(database.url, apismith_port, schedulehub_port, rows=rows, seed=seed)
    except (SandboxError, OSError) as error:
        raise UnavailableError(f"sandbox: {error}", system="sandbox") from error


def environment(sandbox: Sandbox) -> dict[str, str]:
    """The variables that make SyncFlow use this sandbox."""
    return {
        "SYNCFLOW_APISMITH_URL": sandbox.apismith_url,
        "SYNCFLOW_APISMITH_USERNAME": sandbox.username,
        "SYNCFLOW_APISMITH_PASSWORD": sandbox.password,
        "SYNCFLOW_SCHEDULEHUB_URL": sandbox.schedulehub_url,
        "SYNCFLOW_SCHEDULEHUB_USERNAME": sandbox.username,
        "SYNCFLOW_SCHEDULEHUB_PASSWORD": sandbox.password,
    }


def run(*, rows: int, seed: int, apismith_port: int, schedulehub_port: int) -> None:
    """Start both servers, say how to use them, wait for Ctrl-C or SIGTERM."""
    settings: Settings = read_settings()
    prepare(settings)
    screen = console()
    with Database.open(settings) as database:
        screen.print(f"seeding an ERP of {rows:,} rows (seed {seed}) unless it is there already")
        signal.signal(signal.SIGTERM, _interrupt)
        with start(
            database,
            rows=rows,
            seed=seed,
            apismith_port=apismith_port,
            schedulehub_port=schedulehub_port,
        ) as sandbox:
            screen.print(f"APISmith     {sandbox.apismith_url}  (/docs)")
            screen.print(f"ScheduleHub  {sandbox.schedulehub_url}  (/docs)")
            screen.print("In another terminal:")
            for name, value in environment(sandbox).items():
                screen.print(f"  export {name}={value}")
            screen.print(f"User {USERNAME}, password {PASSWORD}. Ctrl-C ends both.")
            try:
                sandbox.wait()
            except KeyboardInterrupt:
                screen.print("ending")


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
