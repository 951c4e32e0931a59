"""The command groups ``entities`` and ``bench``, and their options.

Belongs here: parsing their arguments.
Does not belong here: the single commands (``app``), the work (the module named in each command).
"""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

entities_app = typer.Typer(
    help="Declare entities: apply, export, list, accept.", no_args_is_help=True
)


class WholeByDefault(TyperGroup):
    """A group whose command ``whole`` is meant where none is named."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401  # typer's own
        """Name it."""
        if not args or (args[0].startswith("-") and args[0] != "--help"):
            args = ["whole", *args]
        return super().parse_args(ctx, args)


bench_app = typer.Typer(
    cls=WholeByDefault,
    help="Measure on seeded data, on this machine; the whole where no part is named.",
)

Save = Annotated[Path | None, typer.Option(help="Write the numbers to this JSON file.")]
Compare = Annotated[
    Path | None, typer.Option(help="Show the ratios to the numbers of this JSON file.")
]

Json = Annotated[bool, typer.Option("--json", help="One line of JSON per entity, nothing else.")]


@entities_app.command("apply")
def entities_apply(
    files: Annotated[list[Path], typer.Argument(help="Entities files (YAML).")],
) -> None:
    """Write the declarations of these files to the bridge database.

    Example: syncflow entities apply erp.yaml
    """
    from syncflow_dagster.cli.entities import apply as run

    run(files)


@entities_app.command(
    "diff", epilog="Exit status: 0 nothing would change; 1 something would; 2 the files are wrong."
)
def entities_diff(
    files: Annotated[list[Path], typer.Argument(help="Entities files (YAML).")],
) -> None:
    """Print what applying these files would change, as a unified diff; nothing is written.

    Example: syncflow entities diff erp.yaml
    """
    from syncflow_dagster.cli.entities import diff as run

    raise typer.Exit(int(run(files)))


@entities_app.command("export")
def entities_export(
    names: Annotated[list[str] | None, typer.Argument(help="Entities; all without any.")] = None,
) -> None:
    """Print the declarations as an entities file."""
    from syncflow_dagster.cli.entities import export as run

    run(names or [])


@entities_app.command("accept")
def entities_accept(
    names: Annotated[list[str], typer.Argument(help="Entities whose source columns are right.")],
) -> None:
    """Accept the source's columns as they are now, after the schema contract stopped an entity.

    Example: syncflow entities accept order_lines
    """
    from syncflow_dagster.cli.entities import accept as run

    run(names)


@entities_app.command("list")
def entities_list(*, as_json: Json = False) -> None:
    """List the entities, parents first."""
    from syncflow_dagster.cli.entities import show as run

    run(as_json=as_json)


@bench_app.command("whole")
def bench_whole(
    *,
    rows: Annotated[
        int, typer.Option(min=10_000, help="Rows of sixteen columns, over all entities.")
    ] = 1_000_000,
    times: Annotated[int, typer.Option(min=1, help="Repetitions, after one that warms.")] = 3,
    changed: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the rows that change between syncs.")
    ] = 0.01,
    entities: Annotated[
        int, typer.Option(min=1, max=99, help="Entities that share the rows, at once.")
    ] = 1,
    by_slice: Annotated[
        bool, typer.Option("--by-slice", help="Sync each slice in a run of its own.")
    ] = False,
    save: Save = None,
    compare: Compare = None,
) -> None:
    """Measure syncs from the first request to the saved state, by stage, and the floor beneath them.

    Example: syncflow bench whole --rows 100000 --save whole.json
    """
    from syncflow_dagster.bench.whole import Choice, run

    run(
        Choice(
            rows=rows,
            times=times,
            changed=changed,
            entities=entities,
            by_slice=by_slice,
            save=save,
            compare=compare,
        )
    )


@bench_app.command("compare")
def bench_compare(
    *,
    rows: Annotated[int, typer.Option(min=10_000, help="Rows of sixteen columns.")] = 1_000_000,
    times: Annotated[int, typer.Option(min=1, help="Repetitions, after SyncFlow's warm one.")] = 1,
    changed: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the rows that change between syncs.")
    ] = 0.01,
    plain_rows: Annotated[
        int | None, typer.Option(min=1, help="Only so many rows for the plain program.")
    ] = None,
    drt_rows: Annotated[
        int | None, typer.Option(min=1, help="Only so many rows for drt-core.")
    ] = None,
    python: Annotated[
        Path | None, typer.Option(help="The interpreter that has dlt and drt-core: make compare.")
    ] = None,
    save: Save = None,
) -> None:
    """Measure the same syncs by SyncFlow, dlt, drt-core and a plain program, as ratios.

    Example: make compare ARGS="--rows 100000 --save compare.json"
    """
    from syncflow_dagster.bench.compare import Choice, run

    run(
        Choice(
            rows=rows,
            times=times,
            changed=changed,
            plain_rows=plain_rows,
            drt_rows=drt_rows,
            python=python,
            save=save,
        )
    )


@bench_app.command("normalize")
def bench_normalize(
    *,
    rows: Annotated[int, typer.Option(min=10_000, help="Rows of sixteen columns.")] = 1_000_000,
    times: Annotated[int, typer.Option(min=1, help="Repetitions, after one that warms.")] = 3,
    slices: Annotated[
        int, typer.Option(min=1, help="Make and measure the rows in so many slices.")
    ] = 1,
    odd: Annotated[
        int, typer.Option(min=0, help="Pages with a row that needs the exact reader.")
    ] = 0,
    dirty: Annotated[
        bool, typer.Option("--dirty", help="Order lines with a real ERP's dirt.")
    ] = False,
    save: Save = None,
    compare: Compare = None,
) -> None:
    """Measure pages to rows, five layers and both hashes."""
    from syncflow_dagster.bench.normalize import run

    run(rows=rows, times=times, slices=slices, odd=odd, dirty=dirty, save=save, compare=compare)


@bench_app.command("delta")
def bench_delta(
    *,
    rows: Annotated[int, typer.Option(min=10_000, help="Known records.")] = 1_000_000,
    times: Annotated[int, typer.Option(min=1, help="Repetitions, after one that warms.")] = 3,
    changed: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the records that has changed.")
    ] = 0.01,
    save: Save = None,
    compare: Compare = None,
) -> None:
    """Measure the delta of incoming against known records, and saving them."""
    from syncflow_dagster.bench.delta import run

    run(rows=rows, times=times, changed=changed, save=save, compare=compare)


@bench_app.command("push")
def bench_push(
    *,
    rows: Annotated[int, typer.Option(min=50_000, help="Records of the first load.")] = 1_000_000,
    times: Annotated[int, typer.Option(min=1, help="Repetitions, after one that warms.")] = 3,
    changed: Annotated[
        int, typer.Option(min=1, max=50_000, help="Records that change in the sandbox.")
    ] = 10_000,
    save: Save = None,
    compare: Compare = None,
) -> None:
    """Measure changed records to the local sandbox, and a first load with the hub's time left out."""
    from syncflow_dagster.bench.push import run

    run(rows=rows, times=times, changed=changed, save=save, compare=compare)
