"""What the asset shows of a batch: numbers to plot, tables to read, where to look further.

Belongs here: metadata.
Does not belong here: gathering it (``syncflow_core.standing``), the checks (``checks``).

Source: product.md 8; dagster.md 7. No value of a record is shown: a sample names the record and its fields.
"""

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date, timedelta
from typing import Any, Final

import dagster as dg

from syncflow_core.bridge import schedules, sweeps
from syncflow_core.bridge.schedules import Night
from syncflow_core.fields import Shape
from syncflow_core.stages.track import Report
from syncflow_core.stages.work import STAGES, Connections, Staged
from syncflow_core.standing import Standing, standing
from syncflow_dagster.links import further

TOP_ERRORS: Final = 5
OUTCOMES: Final = {
    "unchanged": "#b8c0cc",
    "inserted": "#2f9e6e",
    "updated": "#3b7dd8",
    "deleted": "#8a5bd1",
    "pending": "#e0a526",
    "withheld": "#e07b26",
    "failed": "#d14343",
    "rejected": "#8f2d2d",
}
"""The bars of the chart, in their order, with their colours."""
_WIDTH, _BAR = 320, 14


def stands_now(connections: Connections, staged: Staged) -> Standing:
    """Where the batch's entity stands after it; a slice does not count the records of all others."""
    with connections.database.read() as connection:
        return standing(connection, staged.shape.entity, counted=staged.kind != "slice")


def metadata_of(
    connections: Connections, report: Report, staged: Staged, stands: Standing | None = None
) -> dict[str, Any]:
    """Every count, every stage's seconds, rates, top errors, samples, the sweep, the columns."""
    stands = stands or stands_now(connections, staged)
    counts = asdict(report.counts)
    total = report.seconds.get("total", 0.0)
    metadata: dict[str, Any] = {
        **counts,
        "status": report.status,
        "batch": report.batch,
        "kind": staged.kind,
        "rows_per_second": round(counts["fetched"] / total) if total else 0,
        "dagster/row_count": counts["fetched"] if staged.kind == "slice" else stands.known,
        "dagster/uri": f"schedulehub/{staged.shape.entity.collection}",
        "dagster/column_schema": column_schema(staged.shape),
        "dagster/column_lineage": column_lineage(staged.shape),
        **{f"seconds_{stage}": round(value, 3) for stage, value in report.seconds.items()},
        "chart": chart(counts, report.seconds),
        "layers": _table(staged.layers, "no rows"),
        "samples": _table(staged.samples, "nothing changed"),
        "errors": _table(_errors(stands), "none"),
        "look_further": _lines(further(staged.name, stands)),
    }
    if report.notes:
        # what a system said may be in them: it is text, and neither tag nor link
        metadata["notes"] = _lines([html.escape(note, quote=False) for note in report.notes])
    if staged.kind == "slice":
        metadata.update(_sweep(connections, staged))
    return metadata


def column_schema(shape: Shape) -> dg.TableSchema:
    """The hub's fields with their types, and what the source calls them."""
    return dg.TableSchema(
        [
            dg.TableColumn(
                item.name,
                item.type,
                description=f"from {item.source}" if item.source else "made here",
                constraints=dg.TableColumnConstraints(
                    nullable=not (item.key or item.rules.required), unique=False
                ),
                tags={"key": ""} if item.key else {},
            )
            for item in shape.fields
        ]
    )


def column_lineage(shape: Shape) -> dg.TableColumnLineage:
    """Which of the source's columns each field comes from."""
    source = source_key(shape.entity.api)
    return dg.TableColumnLineage(
        {
            item.name: [
                dg.TableColumnDep(asset_key=source, column_name=column)
                for column in item.source_columns
            ]
            for item in shape.fields
            if item.source_columns
        }
    )


def source_key(api: str) -> dg.AssetKey:
    """The asset that stands for what APISmith serves."""
    return dg.AssetKey(["apismith", *api.split("/")])


def target_key(collection: str) -> dg.AssetKey:
    """The asset that stands for what ScheduleHub holds."""
    return dg.AssetKey(["schedulehub", *collection.split("/")])


def chart(counts: Mapping[str, int], seconds: Mapping[str, float]) -> dg.MarkdownMetadataValue:
    """Two bars: the rows by outcome, the seconds by stage."""
    outcomes = [(name, float(counts[name]), colour) for name, colour in OUTCOMES.items()]
    shades = ("#1f4e8c", "#3b7dd8", "#6aa0e6", "#2f9e6e", "#7cc6a4", "#e0a526", "#b8c0cc")
    stages = [
        (stage, seconds.get(stage, 0.0), shade) for stage, shade in zip(STAGES, shades, strict=True)
    ]
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{2 * _BAR + 4}">'
        f"{_bar(outcomes, 0)}{_bar(stages, _BAR + 4)}</svg>"
    )
    image = base64.b64encode(svg.encode()).decode()
    words = [
        ", ".join(f"{name} {value:,.0f}" for name, value, _ in outcomes if value) or "no rows",
        ", ".join(f"{stage} {value:.2f} s" for stage, value, _ in stages if value),
    ]
    return dg.MetadataValue.md(
        f"![rows by outcome, seconds by stage](data:image/svg+xml;base64,{image})\n\n"
        + "\n\n".join(words)
    )


def _bar(parts: Sequence[tuple[str, float, str]], top: int) -> str:
    whole = sum(value for _, value, _ in parts) or 1.0
    left, drawn = 0.0, []
    for _, value, colour in parts:
        width = value / whole * _WIDTH
        if value:
            drawn.append(
                f'<rect x="{left:.1f}" y="{top}" width="{width:.1f}" height="{_BAR}" fill="{colour}"/>'
            )
        left += width
    return "".join(drawn)


def _errors(stands: Standing) -> list[dict[str, object]]:
    return [
        {
            "rows": cluster.count,
            "stage": cluster.stage,
            "rule": cluster.rule,
            "column": cluster.column or "",
            "since": f"{cluster.first_seen:%Y-%m-%d %H:%M}",
            "example": cluster.example or "",
        }
        for cluster in stands.failures[:TOP_ERRORS]
    ]


def _sweep(connections: Connections, staged: Staged) -> dict[str, Any]:
    """How far the sweep of the nights has come."""
    with connections.database.begin() as connection:
        (night,) = schedules.load_nights(connection, [staged.name])
        seen = [item for item in sweeps.load_slices(connection, staged.name) if item.complete]
    progress, of = night.progress, staged.order.of
    done = of if staged.ends_sweep else len(seen)
    shown: dict[str, Any] = {
        "sweep_slices_done": done,
        "sweep_slices_left": of - done,
        "sweep_rows_done": progress.current_offset,
    }
    if end := expected_end(night):
        shown["sweep_ends"] = f"with the night of {end}"
    return shown


def expected_end(night: Night) -> date | None:
    """The evening of the night in which the entity's sweep ends if none is missed."""
    begun, last = night.progress.sweep_night, night.progress.last_night
    if begun is None or last is None:
        return None
    return max(begun + timedelta(days=night.nights - 1), last)


def _lines(lines: Sequence[str]) -> dg.MarkdownMetadataValue:
    return dg.MetadataValue.md("\n".join(f"- {line}" for line in lines))


def _table(rows: Sequence[Mapping[str, object]], empty: str) -> dg.MetadataValue[Any]:
    if not rows:
        return dg.MetadataValue.text(empty)
    return dg.MetadataValue.table(
        records=[dg.TableRecord({key: _plain(value) for key, value in row.items()}) for row in rows]
    )


def _plain(value: object) -> str | int | float | bool | None:
    if isinstance(value, float):
        return round(value, 4)
    return value if isinstance(value, int) else str(value)
