"""Which columns take which way through the layers: the lanes, their home layer, what is plain.

Belongs here: decisions that follow from the declaration alone, before any value is seen.
Does not belong here: running the layers (``lanes``), their rules.
"""

from collections.abc import Iterator

import polars as pl

from syncflow_core.catalog import OracleType
from syncflow_core.entity import FORMS, Field
from syncflow_core.errors import ConfigError
from syncflow_core.fields import Shape, TargetField
from syncflow_core.normalize.coerce import COERCED, plain_coerced
from syncflow_core.normalize.formats import compile_format
from syncflow_core.normalize.mapping import canonical_default, check_expressions, needed_columns
from syncflow_core.normalize.moment import MOMENTS, check_moment_limits, plain_moment
from syncflow_core.normalize.number import NUMERIC, check_number_limit, plain_number
from syncflow_core.normalize.reading import Reading
from syncflow_core.normalize.text import plain_text
from syncflow_core.normalize.zone import zone_of


def lane_fields(shape: Shape) -> Iterator[tuple[int, TargetField]]:
    """Every lane's order and field: the target fields, then the columns that transformations read.

    Such a column is read by its own type, in the forms that the field which maps it declares. What
    is wrong with it costs the row unless every field that reads it says ``on_error: null``.
    """
    yield from enumerate(shape.fields)
    needed: dict[str, list[TargetField]] = {}
    for item in shape.fields:
        for name in needed_columns(item):
            needed.setdefault(name, []).append(item)
    for number, (name, readers) in enumerate(needed.items(), 1):
        column = shape.api.column(name)
        oracle = OracleType("") if column is None else column.oracle
        kind = oracle.field_type or "text"
        mapped = next((item for item in shape.fields if item.source == name), None)
        forms = (
            {}
            if mapped is None
            else {
                form: getattr(mapped.rules, form) for form in FORMS if hasattr(mapped.rules, form)
            }
        )
        spared = all(reader.rules.on_error == "null" for reader in readers)
        yield (
            -number,
            TargetField(
                name=name,
                source=name,
                type=kind,
                oracle=oracle,
                rules=Field.model_construct(
                    source=name, on_error="null" if spared else "reject", **forms
                ),
                time_zone=shape.entity.time_zone if mapped is None else mapped.time_zone,
                date_order=shape.entity.date_order if mapped is None else mapped.date_order,
                key=False,
                hashed=False,
            ),
        )


def check_shape(shape: Shape) -> None:
    """Refuse declarations that no value could satisfy, before any row is read.

    Raises:
        ConfigError: A format, a zone, a limit, a regular expression or a default that makes no sense.
    """
    for item in shape.fields:
        for model in item.rules.formats:
            compile_format(model)
        if item.time_zone is not None:
            zone_of(item.time_zone)
        _check_limits(item)
        check_expressions(item)
        canonical_default(item)


def _check_limits(item: TargetField) -> None:
    if item.type in MOMENTS:
        check_moment_limits(item)
        return
    for limit in (item.rules.minimum, item.rules.maximum):
        if limit is None:
            continue
        if item.type not in NUMERIC:
            raise ConfigError(
                f"fields.{item.name}: minimum and maximum are for numbers, dates and times; "
                f"this field is {item.type}"
            )
        if check_number_limit(limit) is None:
            raise ConfigError(f"fields.{item.name}: {limit!r} is no limit of its type")


def home_layer(reading: Reading) -> int:
    """The layer that settles a type."""
    if reading.type in COERCED:
        return 1
    if reading.type in NUMERIC:
        return 3
    return 4 if reading.type in MOMENTS else 2


def plain_values(reading: Reading) -> pl.Expr:
    """Whether a value comes out of layers 1 to 4 as it went in; null for null."""
    if reading.field.rules.null_words:
        return pl.col("value").is_null()
    plains = {1: plain_coerced, 2: plain_text, 3: plain_number, 4: plain_moment}
    plain = plains[home_layer(reading)](reading)
    if reading.type in NUMERIC and reading.field.rules.decimal_separator == ",":
        plain &= ~pl.col("value").str.contains(".", literal=True)
    return plain
