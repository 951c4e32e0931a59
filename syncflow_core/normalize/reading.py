"""What every layer takes and gives back: one column's values as text, and the faults found in them.

Belongs here: the shapes that the layers share, and the three ways to settle a column of text.
Does not belong here: any rule about what a value may be (``coerce``, ``text``, ``number``, ``moment``).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import polars as pl

from syncflow_core.catalog import FieldType
from syncflow_core.fields import TargetField

VALUE = pl.col("value")
"""The column that a layer's expressions are written over."""
SAMPLE: Final = 10_000
"""Values at the head of a column that tell whether it repeats itself: then each is settled once."""


@dataclass(frozen=True)
class Reading:
    """How a column is read: as which type, by whose rules."""

    type: FieldType
    field: TargetField
    final: bool
    """Whether the result is the field's own value, so that its ranges and lengths apply here;
    False where transformations still follow (``mapping`` reads the result again)."""


@dataclass(frozen=True)
class Refused:
    """Why a value cannot be used: the rule's name, and a sentence that does not repeat the value."""

    rule: str
    message: str


@dataclass(frozen=True)
class Fault:
    """One rule broken in the rows at ``positions`` (UInt32, within the column that was read)."""

    refused: Refused
    positions: pl.Series


@dataclass(frozen=True)
class Outcome:
    """A column after a layer: same length, null where a value was refused."""

    text: pl.Series
    faults: tuple[Fault, ...] = ()
    folds: int = 0
    """Local times that exist twice and were taken as the earlier one."""


def positions_of(mask: pl.Series) -> pl.Series:
    """Where *mask* is true, as UInt32."""
    return mask.arg_true().cast(pl.UInt32)


def apply(text: pl.Series, expression: pl.Expr) -> pl.Series:
    """*expression*, written over ``VALUE``, for one column."""
    return text.rename("value").to_frame().select(expression.alias("value")).to_series()


def refuse(text: pl.Series, mask: pl.Series, refused: Refused) -> Outcome:
    """Null wherever *mask* is true, with one fault for those rows."""
    where = mask.fill_null(value=False)
    if not where.any():
        return Outcome(text)
    frame = pl.DataFrame({"value": text, "bad": where})
    kept = frame.select(pl.when(~pl.col("bad")).then(VALUE)).to_series()
    return Outcome(kept, (Fault(refused, positions_of(where)),))


def by_distinct(text: pl.Series, read: Callable[[str], str | Refused | None]) -> Outcome:
    """*read* every distinct value once; the way of values that no expression settles."""
    distinct = text.drop_nulls().unique().to_list()
    if not distinct:
        return Outcome(text)
    answers = [read(value) for value in distinct]
    good = [answer if isinstance(answer, str) else None for answer in answers]
    settled = text.replace_strict(
        pl.Series(distinct, dtype=pl.String),
        pl.Series(good, dtype=pl.String),
        return_dtype=pl.String,
    )
    grouped: dict[Refused, list[str]] = {}
    for value, answer in zip(distinct, answers, strict=True):
        if isinstance(answer, Refused):
            grouped.setdefault(answer, []).append(value)
    faults = tuple(
        Fault(refused, positions_of(text.is_in(values).fill_null(value=False)))
        for refused, values in grouped.items()
    )
    return Outcome(settled, faults)


def settle(
    text: pl.Series,
    plain: pl.Expr,
    candidates: Sequence[pl.Expr],
    exact: Callable[[str], str | Refused | None],
    *,
    as_it_stands: bool = True,
) -> Outcome:
    """Canonical text for every value: by *candidates* where one makes it plain, else by *exact*.

    Args:
        text: The values; nulls stay null.
        plain: Boolean over ``VALUE``: it is canonical and breaks no rule.
        candidates: Rewritings over ``VALUE``, tried in order. One that turns a value into plain
            text must be right about it: *exact* is not asked again.
        exact: One value's canonical text, or why there is none; the rule that candidates shorten.
        as_it_stands: Whether a plain text means itself; False where it may be a declared form's.
    """
    if text.len() > SAMPLE and text.head(SAMPLE).n_unique() < SAMPLE // 2:
        distinct = text.drop_nulls().unique()
        once = settle(distinct.rename("value"), plain, candidates, exact, as_it_stands=as_it_stands)
        return _spread(text, distinct, once)
    settled = text.rename("value")
    opened = settled.is_not_null()
    if as_it_stands:
        opened &= ~apply(settled, plain.fill_null(value=False))
    for candidate in candidates:
        where = positions_of(opened)
        if where.is_empty():
            return Outcome(settled)
        rewritten = apply(settled.gather(where), candidate)
        good = apply(rewritten, plain.fill_null(value=False))
        if not good.any():
            continue
        settled = put(settled, where.filter(good), rewritten.filter(good))
        opened = put(opened, where.filter(good), ~good.filter(good))
    where = positions_of(opened)
    if where.is_empty():
        return Outcome(settled)
    outcome = by_distinct(settled.gather(where), exact)
    return Outcome(put(settled, where, outcome.text), located(outcome.faults, where))


def _spread(text: pl.Series, distinct: pl.Series, outcome: Outcome) -> Outcome:
    """The outcome for distinct values as the outcome for every row."""
    settled = text.replace_strict(distinct, outcome.text, return_dtype=pl.String)
    faults = tuple(
        Fault(
            fault.refused,
            positions_of(
                text.is_in(distinct.gather(fault.positions).implode()).fill_null(value=False)
            ),
        )
        for fault in outcome.faults
    )
    return Outcome(settled, faults)


def located(faults: Sequence[Fault], where: pl.Series) -> tuple[Fault, ...]:
    """The same faults, their positions counted in the column that ``where`` was taken from."""
    return tuple(Fault(fault.refused, where.gather(fault.positions)) for fault in faults)


def put(column: pl.Series, where: pl.Series, values: pl.Series) -> pl.Series:
    """*column* with *values* at the positions *where* (distinct, in any order)."""
    if where.is_empty():
        return column
    if where.len() == column.len() and where.is_sorted():
        return values.rename(column.name)
    order = pl.arange(column.len(), eager=True, dtype=pl.UInt32)
    replaced = order.scatter(
        where, pl.arange(column.len(), column.len() + where.len(), eager=True, dtype=pl.UInt32)
    )
    return pl.concat([column, values.rename(column.name)], rechunk=True).gather(replaced)


def chain(text: pl.Series, steps: Sequence[Callable[[pl.Series], Outcome]]) -> Outcome:
    """The steps one after the other; a value that one refused is null for the next."""
    faults: list[Fault] = []
    folds = 0
    for step in steps:
        outcome = step(text)
        text = outcome.text
        faults += outcome.faults
        folds += outcome.folds
    return Outcome(text, tuple(faults), folds)
