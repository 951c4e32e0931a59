"""The five layers over a whole frame, one lane per field, with their accounts.

Belongs here: which values need work at all, running the layers, counting, filing what was refused.
Does not belong here: any rule (the layers), hashes (``identity``).

Most values are canonical as they come. One expression per lane finds the others, and only those go
through the layers; what is plain would come out of every layer as it went in.

Source: product.md 2; decision 0002.
"""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Final

import polars as pl

from syncflow_core.body import Member, json_object, quoted
from syncflow_core.columns import KEY_SOURCE, REJECTED, ROW, ROWVERSION
from syncflow_core.fields import Shape, TargetField
from syncflow_core.normalize.coerce import coerce
from syncflow_core.normalize.mapping import (
    NULL_KEY,
    REQUIRED,
    check_presence,
    fill_default,
    is_mapped,
    is_source_text,
    map_field,
    source_type,
)
from syncflow_core.normalize.moment import read_moments
from syncflow_core.normalize.number import NUMERIC, read_numbers
from syncflow_core.normalize.reading import Fault, Outcome, Reading, located, positions_of, put
from syncflow_core.normalize.routes import check_shape, home_layer, lane_fields, plain_values
from syncflow_core.normalize.text import clean
from syncflow_core.normalize.version import ROWVERSION_SOURCE, canonical_of
from syncflow_core.privacy import Privacy, privacy_of

NAMES: Final = ("types", "strings", "numbers", "dates", "mapping")
LONGEST_VALUE: Final = 500  # characters of an offending value that are kept

_LAYERS: Final[tuple[tuple[int, Callable[[pl.Series, Reading], Outcome]], ...]] = (
    (1, coerce),
    (2, clean),
    (3, read_numbers),
    (4, read_moments),
)
_JSON_NUMBER: Final = r"^-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?$"


@dataclass
class Lane:
    """One source column on its way to one field (or to a transformation that reads it)."""

    order: int
    field: TargetField
    reading: Reading
    raw: pl.Series
    text: pl.Series
    """After the layers; until then as it came."""
    where: pl.Series
    """Positions of the values that are not plain."""
    rest: pl.Series
    """Those values."""


@dataclass(frozen=True)
class Filed:
    """A fault with its place: the layer, the field's order, and the values as they came."""

    layer: int
    order: int
    name: str
    column: str
    fault: Fault
    raw: pl.Series
    hidden: bool
    """Whether the values are personal data."""


@dataclass
class Tally:
    """What one layer did so far."""

    changed: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Step:
    """What one layer made of one field of one row."""

    layer: int
    name: str
    field: str
    before: str | None
    after: str | None
    rule: str | None
    """The rule that refused the value, else the layer's name where it changed it, else None."""
    message: str | None = None


@dataclass
class Work:
    """A frame under normalization."""

    raw: pl.DataFrame
    shape: Shape
    clock: Callable[[], float]
    lanes: list[Lane] = field(default_factory=list)
    filed: list[Filed] = field(default_factory=list)
    tallies: dict[int, Tally] = field(default_factory=lambda: {n: Tally() for n in range(1, 6)})
    folded: dict[str, int] = field(default_factory=dict)
    """Per source column: local times that exist twice and were taken as the earlier one."""
    present: dict[int, int] = field(default_factory=dict)
    """Per field: values that came, those refused among them."""
    fields: dict[str, pl.Series] = field(default_factory=dict)
    privacy: Privacy = field(init=False)
    steps: list[Step] | None = None
    """Filled where it is a list: ``explain`` asks for it."""

    def __post_init__(self) -> None:
        self.privacy = privacy_of(self.shape.entity)

    def run(self) -> None:
        """Take every lane through the five layers."""
        check_shape(self.shape)
        self._open()
        for number, layer in _LAYERS:
            started = self.clock()
            self._pass(number, layer)
            self.tallies[number].seconds += self.clock() - started
        started = self.clock()
        self._map()
        self.tallies[5].seconds += self.clock() - started

    @property
    def folds(self) -> int:
        """Local times that exist twice, each counted once however many fields read it."""
        return sum(self.folded.values())

    def column(self, name: str | None) -> pl.Series:
        """A raw column as text; all null where the frame lacks it."""
        if name is None or name not in self.raw.columns:
            return pl.repeat(None, self.raw.height, dtype=pl.String, eager=True)
        return self.raw[name]

    def _open(self) -> None:
        """Make the lanes, and find what is not plain: all columns at once, so that all cores help."""
        started = self.clock()
        pairs = list(lane_fields(self.shape))
        plains = [
            plain_values(source_type(item)).alias(str(number))
            for number, (_, item) in enumerate(pairs)
        ]
        frames = [
            pl.DataFrame({"value": self.column(item.source)}).lazy().select(plain)
            for (_, item), plain in zip(pairs, plains, strict=True)
        ]
        masks = pl.collect_all(frames)
        for number, (order, item) in enumerate(pairs):
            text = self.column(item.source)
            mask = masks[number].to_series()
            keep_all = self.steps is not None
            dull = mask.fill_null(value=True)
            if keep_all:
                where = positions_of(text.is_null() | text.is_not_null())
            elif dull.all():
                where = pl.Series([], dtype=pl.UInt32)
            else:
                where = positions_of(~dull)
            self.lanes.append(
                Lane(order, item, source_type(item), text, text, where, text.gather(where))
            )
        spent = self.clock() - started
        for lane in self.lanes:
            self.tallies[home_layer(lane.reading)].seconds += spent / len(self.lanes)

    def _pass(self, number: int, layer: Callable[[pl.Series, Reading], Outcome]) -> None:
        """One layer for all lanes; each in its own thread, for polars works without Python's lock."""
        lanes = [lane for lane in self.lanes if not lane.where.is_empty()]
        workers = max(1, min(len(lanes), pl.thread_pool_size()))
        with ThreadPoolExecutor(workers) as pool:
            outcomes = list(pool.map(lambda lane: layer(lane.rest, lane.reading), lanes))
        for lane, outcome in zip(lanes, outcomes, strict=True):
            self._account(number, lane, lane.rest, outcome)
            self._file(number, lane, located(outcome.faults, lane.where))
            lane.rest = outcome.text
            if number == _LAYERS[-1][0]:
                lane.text = put(lane.text, lane.where, lane.rest)

    def _map(self) -> None:
        by_column = {lane.field.source: lane for lane in self.lanes if lane.order < 0}
        by_field = {lane.order: lane for lane in self.lanes if lane.order >= 0}
        columns = {str(name): lane.text for name, lane in by_column.items()}
        types = {str(name): lane.reading.type for name, lane in by_column.items()}
        for order, item in enumerate(self.shape.fields):
            lane = by_field[order]
            before = lane.text
            self.present[order] = before.len() - before.null_count()
            if is_mapped(item):
                forms = is_source_text(item, types)
                outcome = map_field(before, item, columns, forms=forms)
                self.present[order] = outcome.text.len() - outcome.text.null_count()
                outcome = fill_default(outcome, item)
                self._account(5, lane, before, outcome)
                self._file(5, lane, outcome.faults)
                lane.text = outcome.text
            elif self.steps is not None:
                self._account(5, lane, before, Outcome(before))
            key = item.name in self.shape.key_fields
            self._file(5, lane, check_presence(lane.text, item, key=key))
            self.fields[item.name] = lane.text

    def _account(self, number: int, lane: Lane, before: pl.Series, outcome: Outcome) -> None:
        name = lane.field.source or lane.field.name
        self.folded[name] = max(self.folded.get(name, 0), outcome.folds)
        if outcome.text is not before:
            refused = sum(fault.positions.len() for fault in outcome.faults)
            differing = before.ne_missing(outcome.text).sum()
            self.tallies[number].changed += max(int(differing) - refused, 0)
        if self.steps is not None:
            self.steps.append(_step(number, lane, before, outcome))

    def _file(self, number: int, lane: Lane, faults: tuple[Fault, ...]) -> None:
        rules = lane.field.rules
        hidden = lane.field.name in self.privacy.fields or (
            lane.field.source in self.privacy.columns
        )
        self.filed += [
            Filed(
                number,
                lane.order if lane.order >= 0 else len(self.shape.fields) - lane.order,
                lane.field.name,
                lane.field.source or lane.field.name,
                fault,
                lane.raw,
                hidden,
            )
            for fault in faults
            if rules.on_error == "reject" or fault.refused in (REQUIRED, NULL_KEY)
        ]

    def file_rowversion(self) -> tuple[pl.Series, pl.Series]:
        """The rowversions, canonical and as they came; an invalid one is filed in layer 1."""
        source = self.column(self.shape.rowversion_column)
        if self.shape.rowversion_column is None:
            return source, source
        outcome = canonical_of(source, self.shape)
        last = 2 * len(self.shape.fields) + len(self.lanes)
        column = self.shape.rowversion_column
        self.filed += [
            Filed(1, last, column, column, fault, source, hidden=False) for fault in outcome.faults
        ]
        return outcome.text, source

    def key_source(self) -> pl.Series:
        """The business key as the source sent it, one JSON object text per row."""
        members = []
        for name in self.shape.key_columns:
            column = self.shape.api.column(name)
            kind = None if column is None else column.oracle.field_type
            text = pl.col(name)
            if kind in NUMERIC:
                number = text.str.contains(_JSON_NUMBER)
                value = pl.when(number).then(text).otherwise(quoted(text))
            else:
                value = quoted(text)
            members.append(Member(name, value, text=False, nullable=True))
        frame = pl.DataFrame({name: self.column(name) for name in self.shape.key_columns})
        return frame.select(json_object(members)).to_series()

    def rejected(self) -> pl.DataFrame:
        """One line per rejected row: the first rule it broke, by layer, then by field."""
        frames = [self._lines(filed) for filed in self.filed]
        if not frames:
            return REJECTED.to_frame()
        lines = pl.concat(frames).sort("at", "layer", "order", maintain_order=True)
        first = lines.unique("at", keep="first", maintain_order=True)
        rows = self.raw[ROW].gather(first["at"])
        return first.with_columns(rows.alias(ROW)).select(REJECTED.names())

    def _lines(self, filed: Filed) -> pl.DataFrame:
        at = filed.fault.positions
        value = filed.raw.gather(at).str.slice(0, LONGEST_VALUE)
        return pl.DataFrame({"at": at, "value": value}).select(
            "at",
            pl.lit(filed.order, pl.Int32).alias("order"),
            pl.lit("normalize").alias("stage"),
            pl.lit(filed.layer, pl.UInt8).alias("layer"),
            pl.lit(filed.fault.refused.rule).alias("rule"),
            pl.lit(filed.column).alias("column"),
            pl.lit(None, pl.String).alias("value") if filed.hidden else pl.col("value"),
            pl.lit(f"{filed.column} {filed.fault.refused.message}").alias("message"),
        )

    def accepted(
        self, rejected: pl.DataFrame, rowversions: tuple[pl.Series, pl.Series]
    ) -> pl.DataFrame:
        """The rows that broke no rule, every target field in canonical text."""
        frame = pl.DataFrame(
            {
                ROW: self.raw[ROW],
                ROWVERSION: rowversions[0],
                ROWVERSION_SOURCE: rowversions[1],
                KEY_SOURCE: self.key_source(),
                **self.fields,
            }
        )
        if rejected.is_empty():
            return frame
        positions = pl.concat([filed.fault.positions for filed in self.filed]).unique()
        kept = pl.repeat(True, frame.height, eager=True).scatter(positions, False)  # noqa: FBT003  # the value written
        return frame.filter(kept)

    def field_counts(self) -> dict[str, tuple[int, int]]:
        """Per field: its values that came (NULLs not counted), and how many of them were rejected.

        Blanks and NULL words are NULLs; a field made of several columns has the values that they made.
        """
        counts = {}
        for lane in self.lanes:
            if lane.order < 0:
                continue
            bad = [
                filed.fault.positions
                for filed in self.filed
                if filed.order == lane.order and filed.fault.refused not in (REQUIRED, NULL_KEY)
            ]
            refused = pl.concat(bad).n_unique() if bad else 0
            counts[lane.field.name] = (self.present[lane.order] + refused, refused)
        return counts


def explain_row(raw_row: Mapping[str, str | None], shape: Shape) -> list[Step]:
    """What every layer made of one row, field by field."""
    columns = {name: [value] for name, value in raw_row.items() if name != ROW}
    schema = {ROW: pl.UInt32(), **dict.fromkeys(columns, pl.String())}
    work = Work(
        pl.DataFrame({ROW: [0], **columns}, schema=schema), shape, time.perf_counter, steps=[]
    )
    work.run()
    work.file_rowversion()
    steps = work.steps or []
    layers_said = {(step.layer, step.rule) for step in steps}
    for filed in work.filed:
        refused = filed.fault.refused
        if (filed.layer, refused.rule) not in layers_said:
            name = NAMES[filed.layer - 1]
            steps.append(
                Step(
                    filed.layer, name, filed.name, filed.raw[0], None, refused.rule, refused.message
                )
            )
    return steps


def _step(number: int, lane: Lane, before: pl.Series, outcome: Outcome) -> Step:
    name = NAMES[number - 1]
    refused = outcome.faults[0].refused if outcome.faults else None
    step = Step(number, name, lane.field.name, before[0], outcome.text[0], None)
    if refused is not None:
        return replace(step, rule=refused.rule, message=refused.message)
    return step if step.before == step.after else replace(step, rule=name)
