"""The commands and their options; errors become one line and an exit status.

Belongs here: parsing arguments.
Does not belong here: the work (the module named in each command).
"""

import contextlib
import gc
import sys
from importlib import metadata
from typing import Annotated, Final

import typer

from syncflow_core.errors import SyncFlowError
from syncflow_core.printable import printable
from syncflow_dagster.cli.groups import Json, bench_app, entities_app
from syncflow_dagster.printed import close_output, open_closed

app = typer.Typer(
    name="syncflow",
    help="Keep a planning application (ScheduleHub) equal to an Oracle ERP (read through APISmith).",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(entities_app, name="entities")
app.add_typer(bench_app, name="bench")

INTERRUPTED = 130
"""Exit status after Ctrl-C."""

GARBAGE: Final = (50_000, 20, 50)
"""Python's thresholds of garbage collection: its own go through Dagster's modules many times while they load."""

EPILOG = "Exit status: 0; 4 unavailable, 3 withheld, 1 partial or failed (the highest wins); 2 wrong usage; 143 after SIGTERM."


class _State:
    debug = False


def _tell(version: bool) -> None:  # noqa: FBT001  # as typer calls it
    """Print the version, and end."""
    if version:
        sys.stdout.write(f"syncflow {metadata.version('syncflow')}\n")
        raise typer.Exit


@app.callback()
def _options(
    *,
    debug: Annotated[bool, typer.Option(help="Show the stack of an error.")] = False,
    version: Annotated[  # noqa: ARG001  # its callback has ended the command
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_tell)
    ] = False,
) -> None:
    _State.debug = debug


Every = Annotated[bool, typer.Option("--all", help="All enabled entities.")]
Full = Annotated[bool, typer.Option("--full", help="Read everything, all slices.")]
Incremental = Annotated[
    bool, typer.Option("--incremental", help="Read what changed since the watermark.")
]
Slice = Annotated[int | None, typer.Option("--slice", min=1, help="Read one slice, from 1.")]
Wait = Annotated[
    float, typer.Option(min=0, help="Seconds to wait while another sync holds an entity.")
]


@app.command(epilog=EPILOG)
def sync(
    entities: Annotated[list[str] | None, typer.Argument(help="Entities to sync.")] = None,
    *,
    every: Every = False,
    full: Full = False,
    incremental: Incremental = False,
    slice_: Slice = None,
    wait: Wait = 60.0,
    as_json: Json = False,
) -> None:
    """Sync entities, parents first.

    Example: syncflow sync orders order_lines
    """
    from syncflow_dagster.cli.sync import Choice, run

    raise typer.Exit(
        run(
            Choice(
                names=tuple(entities or ()),
                every=every,
                full=full,
                incremental=incremental,
                slice_=slice_,
                wait_s=wait,
                as_json=as_json,
            )
        )
    )


@app.command(epilog=EPILOG)
def plan(
    what: Annotated[
        list[str] | None,
        typer.Argument(help="Entities to plan, or ids of plans to show; nothing: the open plans."),
    ] = None,
    *,
    every: Every = False,
    full: Full = False,
    incremental: Incremental = False,
    slice_: Slice = None,
    wait: Wait = 60.0,
    as_json: Json = False,
) -> None:
    """Say what a sync would do, with old and new values; nothing is pushed.

    Example: syncflow plan order_lines, then syncflow apply PLAN
    """
    from syncflow_dagster.cli.plan import is_uid, run, show
    from syncflow_dagster.cli.sync import Choice

    names = tuple(what or ())
    if not every and all(map(is_uid, names)):
        show(names, as_json=as_json)
        return
    raise typer.Exit(
        run(
            Choice(
                names=names,
                every=every,
                full=full,
                incremental=incremental,
                slice_=slice_,
                wait_s=wait,
                as_json=as_json,
            )
        )
    )


@app.command(epilog=EPILOG)
def apply(
    plans: Annotated[list[str], typer.Argument(help="Ids of plans, as syncflow plan shows them.")],
    *,
    wait: Wait = 60.0,
    as_json: Json = False,
) -> None:
    """Approve plans and do what they say, or say what has changed since.

    Example: syncflow apply 01983b1e-7c1e-7cc3-98c4-dc0c0c07398f
    """
    from syncflow_dagster.cli.plan import apply as run

    raise typer.Exit(run(plans, wait_s=wait, as_json=as_json))


@app.command(
    epilog="Exit status: 0; 1 where records differ; 4 unavailable; 2 wrong usage; 143 after SIGTERM."
)
def reconcile(
    entities: Annotated[
        list[str] | None, typer.Argument(help="Entities to compare; all without any.")
    ] = None,
    *,
    sample: Annotated[
        int, typer.Option(min=0, help="Compare so many records by content; 0: all by hash.")
    ] = 0,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair", help="Take over what the hub really holds: the plan then mends it."
        ),
    ] = False,
    wait: Wait = 60.0,
    as_json: Json = False,
) -> None:
    """Compare what SyncFlow believes with what hub and source hold.

    Example: syncflow reconcile order_lines --repair, then syncflow apply PLAN
    """
    from syncflow_dagster.cli.reconcile import run

    raise typer.Exit(
        run(entities or [], sample=sample, repair=repair, wait_s=wait, as_json=as_json)
    )


@app.command(epilog=EPILOG)
def retry(
    entities: Annotated[
        list[str] | None,
        typer.Argument(help="Entities to retry; all with something undelivered without any."),
    ] = None,
    *,
    wait: Wait = 60.0,
    as_json: Json = False,
) -> None:
    """Try once more what was not delivered: dead letters, and children that wait for a parent.

    Their rows are read anew, by key; nothing else is. Example: syncflow retry order_lines
    """
    from syncflow_dagster.cli.retry import run

    raise typer.Exit(run(entities or [], wait_s=wait, as_json=as_json))


@app.command()
def status(
    entities: Annotated[
        list[str] | None,
        typer.Argument(
            help="Entities to tell of; without any all enabled ones, and others with something open."
        ),
    ] = None,
    *,
    as_json: Json = False,
) -> None:
    """Tell where entities stand: their last batch, what was not delivered and why, what is withheld.

    Example: syncflow status
    """
    from syncflow_dagster.cli.status import run

    run(entities or [], as_json=as_json)


@app.command(
    epilog="Exit status: 0; with --test the highest of what the notifiers failed with (4 unavailable, 2 wrong settings, 1 refused)."
)
def alerts(
    *,
    test: Annotated[
        bool, typer.Option("--test", help="Send a test message, and say who took it.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Tell what is wrong now, and who was told of it.

    Example: syncflow alerts --test
    """
    from syncflow_dagster.cli.alerts import run, try_out

    if test:
        raise typer.Exit(try_out(as_json=as_json))
    run(as_json=as_json)


@app.command(
    epilog="Exit status: 0, also for a record that SyncFlow has never met; 4 the database is away; 2 wrong usage."
)
def trace(
    entity: Annotated[str, typer.Argument(help="The record's entity.")],
    key: Annotated[
        str, typer.Argument(help="Its reference (order_no=WO1|line_no=2) or key hash in hex.")
    ],
    *,
    as_json: Json = False,
) -> None:
    """Tell one record's story: its history, its state, and what each layer makes of its row.

    Example: syncflow trace order_lines "order_no=WO1|line_no=2"
    """
    from syncflow_dagster.cli.trace import run

    run(entity, key, as_json=as_json)


@app.command(
    epilog="Exit status: 0, be there warnings; 1 something is wrong; 4 something is away; 2 wrong usage."
)
def doctor(
    entities: Annotated[
        list[str] | None, typer.Argument(help="Entities to look at; all enabled ones without any.")
    ] = None,
    *,
    as_json: Annotated[
        bool, typer.Option("--json", help="One line of JSON per check, nothing else.")
    ] = False,
) -> None:
    """Look whether all that SyncFlow needs is there and in order, and say how to mend what is not.

    Nothing is written anywhere. Example: syncflow doctor order_lines
    """
    from syncflow_dagster.cli.doctor import run

    raise typer.Exit(run(entities or [], as_json=as_json))


@app.command()
def migrate(
    *,
    down: Annotated[
        bool, typer.Option("--down", help="Remove schema bridge and all in it.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="With --down: also where entities are declared.")
    ] = False,
) -> None:
    """Bring the bridge database's schema, and Dagster's tables beside it, up to this version."""
    from syncflow_dagster.cli.database import migrate as run

    run(down=down, yes=yes)


@app.command()
def api(
    *,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8008,
    dagster_url: Annotated[
        str, typer.Option(help="The Dagster webserver that runs are launched through.")
    ] = "http://127.0.0.1:3000",
    ui: Annotated[
        bool, typer.Option("--ui", help="Be that webserver, too: the Dagster UI on the same port.")
    ] = False,
) -> None:
    """Serve the REST API. Ctrl-C ends it.

    Example: syncflow api --port 8008
    """
    from syncflow_dagster.cli.api import run

    run(host=host, port=port, dagster_url=dagster_url, ui=ui)


@app.command()
def token(
    name: Annotated[str, typer.Argument(help="Who it is for.")],
    *,
    role: Annotated[str, typer.Option(help="viewer, operator or admin.")] = "viewer",
    days: Annotated[float, typer.Option(min=0.0001, max=3660, help="How long it is good.")] = 30.0,
) -> None:
    """Print a token for the REST API.

    Example: syncflow token nightly-report --role viewer --days 365
    """
    from syncflow_dagster.cli.api import token as run

    run(name=name, role=role, days=days)


@app.command()
def sandbox(
    *,
    host: Annotated[
        str,
        typer.Option(help="Address to listen on; others need SYNCFLOW_SANDBOX_PASSWORD."),
    ] = "127.0.0.1",
    rows: Annotated[int, typer.Option(min=1_000, help="Rows of the seeded ERP.")] = 50_000,
    seed: Annotated[int, typer.Option(help="The same seed makes the same ERP.")] = 1,
    apismith_port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free port.")] = 8007,
    schedulehub_port: Annotated[
        int, typer.Option(min=0, max=65535, help="0: any free port.")
    ] = 5180,
    entities: Annotated[
        bool,
        typer.Option(
            "--entities",
            help="Declare its entities, where none is declared; after syncflow migrate.",
        ),
    ] = False,
) -> None:
    """Run the sandbox: APISmith over a seeded ERP, and ScheduleHub, as real servers. Ctrl-C ends it."""
    from syncflow_dagster.cli.sandbox import run

    run(
        host=host,
        rows=rows,
        seed=seed,
        apismith_port=apismith_port,
        schedulehub_port=schedulehub_port,
        entities=entities,
    )


@app.command()
def demo(
    *,
    rows: Annotated[int, typer.Option(min=1_000, help="Rows of the seeded ERP.")] = 50_000,
    seed: Annotated[int, typer.Option(help="The same seed makes the same ERP.")] = 1,
) -> None:
    """Sync a seeded ERP into a sandbox hub three times, and prove that they are equal.

    Needs nothing: the database and both servers run on this machine. Exit status 0 means equal.
    """
    from syncflow_dagster.cli.demo import run

    raise typer.Exit(run(rows=rows, seed=seed))


@app.command()
def up(
    *,
    ui_port: Annotated[int, typer.Option(min=1, max=65535, help="The Dagster UI.")] = 3000,
    api_port: Annotated[int, typer.Option(min=1, max=65535, help="The REST API.")] = 8008,
    rows: Annotated[int, typer.Option(min=1_000, help="Rows of the sandbox's ERP.")] = 50_000,
) -> None:
    """Run everything on this machine: database, sandbox (unless URLs are set), UI, daemon, API. Ctrl-C ends it."""
    from syncflow_dagster.cli.up import run

    raise typer.Exit(run(ui_port=ui_port, api_port=api_port, rows=rows))


def main() -> None:
    """Run the command that the arguments name."""
    gc.set_threshold(*GARBAGE)
    open_closed()
    try:
        try:
            app()
        finally:
            sys.stdout.flush()  # what cannot be written is found here, not when Python has ended
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except SyncFlowError as error:
        if _State.debug:
            raise
        for line in str(error).splitlines():
            sys.stderr.write(f"syncflow: {printable(line)}\n")
        sys.exit(error.exit_status)
    except OSError as error:  # a full disk under the output, say
        if _State.debug:
            raise
        close_output()
        what = "" if error.filename else "the output cannot be written: "
        with contextlib.suppress(OSError):  # it may be standard error itself
            sys.stderr.write(f"syncflow: {what}{printable(str(error))}\n")
        sys.exit(1)
