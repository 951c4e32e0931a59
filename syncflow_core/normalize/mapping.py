"""Layer 5, mapping: from source columns to target fields.

Belongs here: transformations, value lists, defaults, required fields, reading a result as its declared type.
Does not belong here: renaming (the lanes carry the target's name), reading source values (layers 1 to 4).

Where a field declares transformations or a value list, layers 1 to 4 read its source column by the
column's own type; what comes out of the transformations is read again as the field's type, here.

Source: product.md 2.5.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Final

import polars as pl

from syncflow_core.catalog import FieldType
from syncflow_core.entity import FORMS, Field
from syncflow_core.errors import ConfigError
from syncflow_core.fields import TargetField
from syncflow_core.normalize.coerce import coerce
from syncflow_core.normalize.moment import read_moments
from syncflow_core.normalize.number import read_numbers
from syncflow_core.normalize.reading import (
    VALUE,
    Fault,
    Outcome,
    Reading,
    Refused,
    apply,
    chain,
    put,
    refuse,
)
from syncflow_core.normalize.text import check_length, clean
from syncflow_core.transforms import Transform

_ALLOWED: Final = Refused("allowed", "is not among the values that the field declares")
_BOOLEAN: Final = Refused("boolean", "is not among the words that the field declares")
_LOOKUP: Final = Refused("lookup", "is not in the look-up table that the field declares")
REQUIRED: Final = Refused("required", "is NULL, and the field is required")
NULL_KEY: Final = Refused("null_key", "is NULL, and the field is part of the business key")


def is_shaped(field: TargetField) -> bool:
    """Whether something stands between the source's value and the field's."""
    return bool(field.rules.transform) or field.rules.values is not None


def source_type(field: TargetField) -> Reading:
    """How layers 1 to 4 read the field's source column.

    A text over a column of another type is that type's canonical text, so that a number is the same
    text whether it came as 10, as 1e1 or as "10".
    """
    if is_shaped(field) or field.type == "text":
        kind = field.oracle.field_type or "text"
        return Reading(kind, field, final=kind == field.type and not is_shaped(field))
    return Reading(field.type, field, final=True)


def is_mapped(field: TargetField) -> bool:
    """Whether layer 5 has anything to do for the field."""
    rules = field.rules
    reading = source_type(field)
    return (
        is_shaped(field) or not reading.final or rules.default is not None or field.source is None
    )


def needed_columns(field: TargetField) -> tuple[str, ...]:
    """The source columns that the field's transformations read besides its own."""
    return field.rules.columns_besides


def map_field(
    text: pl.Series, field: TargetField, columns: Mapping[str, pl.Series], *, forms: bool = True
) -> Outcome:
    """Layer 5 for one field: transformed, looked up, read as its type.

    Args:
        text: The field's source column after layer 4; all null where it has none.
        field: The field.
        columns: Other source columns after layer 4, by source name: what ``needed_columns`` asks for.
        forms: Whether these are texts in the declared forms (``is_source_text``).
    """
    steps: list[Callable[[pl.Series], Outcome]] = [
        partial(transform, step=step, columns=columns) for step in field.rules.transform
    ]
    if field.rules.values is not None:
        steps.append(partial(_listed, values=field.rules.values))
    if not source_type(field).final:
        steps.append(partial(_read_result, field=field, forms=forms))
    return chain(text, steps)


def fill_default(outcome: Outcome, field: TargetField) -> Outcome:
    """The field's default wherever it has no value; where one was refused only if that is forgiven."""
    default = canonical_default(field)
    if default is None:
        return outcome
    filled = outcome.text.fill_null(default)
    if field.rules.on_error == "reject":  # what was refused has no value, not even the default
        for fault in outcome.faults:
            nothing = pl.repeat(None, fault.positions.len(), dtype=pl.String, eager=True)
            filled = put(filled, fault.positions, nothing)
    return Outcome(filled, outcome.faults, outcome.folds)


def check_presence(text: pl.Series, field: TargetField, *, key: bool) -> tuple[Fault, ...]:
    """The rows where a required field, or a part of the business key, is NULL."""
    if not (key or field.rules.required) or not text.null_count():
        return ()
    return refuse(text, text.is_null(), NULL_KEY if key else REQUIRED).faults


def read_as(text: pl.Series, field: TargetField) -> Outcome:
    """Any text as the field's type, with its rules: what layers 1 to 4 do, at once."""
    reading = Reading(field.type, field, final=True)
    if field.type == "text":
        present = apply(text, pl.when(VALUE.str.len_bytes() > 0).then(VALUE.str.normalize("NFC")))
        return check_length(Outcome(present), reading)
    layers = (coerce, clean, read_numbers, read_moments)
    return chain(text, [partial(layer, reading=reading) for layer in layers])


def _read_result(text: pl.Series, field: TargetField, *, forms: bool) -> Outcome:
    """What transformations made, as the field's type.

    The declared forms say how the source writes. What layers 1 to 4 read is canonical by then, and is
    not read by them a second time: 1.234 would become 1234.
    """
    if forms:
        return read_as(text, field)
    rules = field.rules.model_copy(
        update={name: Field.model_fields[name].get_default() for name in FORMS}
    )
    return read_as(text, replace(field, rules=rules))


def is_source_text(field: TargetField, types: Mapping[str, FieldType]) -> bool:
    """Whether what the field's transformations work on is text as the source wrote it.

    Args:
        field: The field.
        types: The types of the columns that transformations read, by source name.
    """
    own = [source_type(field).type] if field.source is not None else []
    return all(kind == "text" for kind in (*own, *(types[name] for name in needed_columns(field))))


def canonical_default(field: TargetField) -> str | None:
    """The default in the canonical text of the field's type.

    Raises:
        ConfigError: It is no value of that type, or breaks a rule of the field.
    """
    if field.rules.default is None:
        return None
    outcome = read_as(pl.Series("value", [_text(field.rules.default)]), field)
    if outcome.faults:
        raise ConfigError(f"fields.{field.name}: the default {outcome.faults[0].refused.message}")
    found = outcome.text[0]
    return None if found is None else str(found)


def transform(text: pl.Series, step: Transform, columns: Mapping[str, pl.Series]) -> Outcome:
    """One declared transformation of one column; NULL stays NULL but where the step makes a value."""
    if step.lookup is not None:
        return _looked_up(text, step.lookup, _LOOKUP)
    if step.boolean is not None:
        words = {word: truth for truth, known in step.boolean.items() for word in known}
        return _looked_up(text, {**words}, _BOOLEAN)
    if step.constant is not None:
        return Outcome(pl.repeat(_text(step.constant), text.len(), dtype=pl.String, eager=True))
    frame = pl.DataFrame({"value": text, **{f"#{name}": columns[name] for name in _used(step)}})
    return Outcome(frame.select(_expression(step).alias("value")).to_series())


def _used(step: Transform) -> list[str]:
    return [*(step.coalesce or ()), *(step.concat.columns if step.concat else ())]


def _expression(step: Transform) -> pl.Expr:
    if step.concat is not None:
        parts = [pl.col(f"#{name}") for name in step.concat.columns]
        joined = pl.concat_str(parts, separator=step.concat.separator, ignore_nulls=True)
        return pl.when(pl.any_horizontal(part.is_not_null() for part in parts)).then(joined)
    if step.coalesce is not None:
        return pl.coalesce(VALUE, *(pl.col(f"#{name}") for name in step.coalesce))
    return _edited(step)


def _edited(step: Transform) -> pl.Expr:
    """The steps that change a text by itself."""
    if step.pad is not None:
        pad = VALUE.str.pad_start if step.pad.side == "left" else VALUE.str.pad_end
        return pad(step.pad.length, step.pad.fill)
    if step.substring is not None:
        start = step.substring.start
        return VALUE.str.slice(start - 1 if start > 0 else start, step.substring.length)
    if step.replace is not None:
        return VALUE.str.replace_all(
            step.replace.old, step.replace.new, literal=not step.replace.regex
        )
    cases = {"trim": VALUE.str.strip_chars(), "upper": VALUE.str.to_uppercase()}
    return cases.get(step.kind, VALUE.str.to_lowercase())


def _listed(text: pl.Series, values: Mapping[str, str | None]) -> Outcome:
    """The value list: mapped where it is a key, kept where it is one of the results already."""
    results = {result: result for result in values.values() if result is not None}
    return _looked_up(text, {**results, **values}, _ALLOWED)


def _looked_up(text: pl.Series, table: Mapping[str, str | None], refused: Refused) -> Outcome:
    unknown = refuse(text, text.is_not_null() & ~text.is_in(list(table)), refused)
    found = unknown.text.replace_strict(
        pl.Series(list(table), dtype=pl.String),
        pl.Series(list(table.values()), dtype=pl.String),
        return_dtype=pl.String,
        default=None,
    )
    return Outcome(found, unknown.faults)


def _text(value: str | int | bool) -> str:  # noqa: FBT001  # a declared constant may be a boolean
    return str(value).lower() if isinstance(value, bool) else str(value)


def check_expressions(field: TargetField) -> None:
    """Refuse a regular expression that cannot run, before any row is read.

    Raises:
        ConfigError: The expression is malformed, or uses what linear-time matching does not have.
    """
    for step in field.rules.transform:
        if step.replace is not None and step.replace.regex:
            try:
                pl.Series([""]).str.replace_all(step.replace.old, step.replace.new)
            except (pl.exceptions.ComputeError, re.error) as error:
                raise ConfigError(
                    f"fields.{field.name}: the regular expression {step.replace.old!r} is malformed"
                ) from error
