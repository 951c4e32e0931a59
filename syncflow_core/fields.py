"""What an entity's fields are once the source has been asked: declaration and catalogue as one.

Belongs here: filling what a declaration leaves open from APISmith's columns, and refusing what does not fit.
Does not belong here: the declaration itself (``entity``), applying a field's rules (``normalize``).

Source: product.md 12; design.md, "Entities file".
"""

from dataclasses import dataclass
from typing import Literal

from syncflow_core.catalog import Api, FieldType, OracleType
from syncflow_core.columns import OWN
from syncflow_core.entity import HUB_FIELDS, Entity, Field, RowversionKind, is_pattern
from syncflow_core.errors import ConfigError
from syncflow_core.privacy import privacy_of


@dataclass(frozen=True)
class TargetField:
    """One target field with everything that its normalization needs, nothing left open."""

    name: str
    """Target name."""
    source: str | None
    """Source column; None for a constant, a concat, a coalesce or a bare default."""
    type: FieldType
    oracle: OracleType
    """The source column's type; base ``""`` where there is no source column."""
    rules: Field
    """The declaration: transformations, ranges, formats and so on."""
    time_zone: str | None
    """Zone of naive source times."""
    date_order: Literal["dmy", "mdy", "ymd"] | None
    key: bool
    """Whether it is part of the business key."""
    hashed: bool
    """Whether the data hash covers it: all but the volatile ones."""

    @property
    def source_columns(self) -> tuple[str, ...]:
        """Every source column that it is made of, its own first."""
        own = () if self.source is None else (self.source,)
        return tuple(dict.fromkeys((*own, *self.rules.columns_besides)))


@dataclass(frozen=True)
class Shape:
    """An entity as it is synced: its target fields, its key, its rowversion.

    ``fields`` are in the order declared, unmapped columns behind them in the source's order.
    """

    entity: Entity
    api: Api
    fields: tuple[TargetField, ...]
    key_columns: tuple[str, ...]
    """The business key's source columns, in key order."""
    key_fields: tuple[str, ...]
    """The business key's target names, in key order."""
    rowversion_column: str | None
    rowversion_kind: RowversionKind
    delta: Literal["hash", "rowversion", "full"]

    def field(self, name: str) -> TargetField:
        """The field of this target name."""
        return next(item for item in self.fields if item.name == name)


def shape_of(entity: Entity, api: Api) -> Shape:
    """Make one whole of what was declared and what the source says.

    Raises:
        ConfigError: Columns that the source does not have, a key that no field carries, a type that
            nobody knows: every fault found, in one message.
    """
    faults = [
        f"column {column.name!r}: SyncFlow takes no column of such a name"
        for column in api.columns
        if column.name.startswith(OWN) or is_pattern(column.name)
    ]
    known = {column.name for column in api.columns}
    key_columns = tuple(entity.business_key) or api.business_key_columns
    if not key_columns:
        faults.append("business_key: neither declared nor known to APISmith")
    faults += [
        f"business_key: the source has no column {name!r}"
        for name in key_columns
        if name not in known
    ]

    fields = [
        *(_declared(entity, api, item, key_columns, faults) for item in entity.fields),
        *_unmapped(entity, api, key_columns, faults),
    ]
    targets = [item.name for item in fields]
    faults += [
        f"fields: two columns become {name!r}"
        for name in sorted({n for n in targets if targets.count(n) > 1})
    ]
    by_source = {item.source: item.name for item in reversed(fields) if item.source is not None}
    faults += [
        f"business_key: no field carries {name!r} (unmapped: drop)"
        for name in key_columns
        if name in known and name not in by_source
    ]
    for reference, parent in entity.parents.items():
        faults += [
            f"parents.{reference}: this entity has no target field {name!r}"
            for name in parent.key.values()
            if name not in targets
        ]
    column, kind = _rowversion(entity, api)
    if column is not None and column not in known:
        faults.append(f"rowversion: the source has no column {column!r}")
    if column in privacy_of(entity).columns:
        faults.append(
            f"rowversion: {column!r} is personal data (pii), and a rowversion is kept and shown as it is"
        )
    delta = entity.delta or api.delta_strategy
    if delta == "rowversion" and column is None:
        faults.append("delta: rowversion needs a rowversion column")
    if faults:
        raise ConfigError(f"entity {entity.name}: {'; '.join(faults)}", entity=entity.name)
    return Shape(
        entity=entity,
        api=_with_texts(api, fields),
        fields=tuple(fields),
        key_columns=key_columns,
        key_fields=tuple(by_source[name] for name in key_columns),
        rowversion_column=column,
        rowversion_kind=kind,
        delta=delta,
    )


def _with_texts(api: Api, fields: list[TargetField]) -> Api:
    """The description with the form in which each column's texts are read."""
    forms: dict[str, Literal["comma", "base64"]] = {}
    for item in fields:
        if item.source is not None and item.rules.decimal_separator == ",":
            forms[item.source] = "comma"
        elif item.source is not None and item.rules.encoding == "base64":
            forms[item.source] = "base64"
    if not forms:
        return api
    columns = tuple(
        column.model_copy(update={"texts": forms.get(column.name, "plain")})
        for column in api.columns
    )
    return api.model_copy(update={"columns": columns})


def _declared(
    entity: Entity, api: Api, item: Field, key_columns: tuple[str, ...], faults: list[str]
) -> TargetField:
    column = None if item.source is None else api.column(item.source)
    if item.source is not None and column is None:
        faults.append(f"fields.{item.name}: the source has no column {item.source!r}")
    used = [
        name
        for step in item.transform
        for name in (*(step.coalesce or ()), *(step.concat.columns if step.concat else ()))
    ]
    faults += [
        f"fields.{item.name}: the source has no column {name!r}"
        for name in used
        if api.column(name) is None
    ]
    oracle = OracleType("") if column is None else column.oracle
    kind = item.type or oracle.field_type or ("text" if column is None else None)
    if kind is None:
        faults.append(
            f"fields.{item.name}: {oracle.base} is no type that SyncFlow knows; declare a type"
        )
    return _field(entity, item, kind or "text", oracle, key_columns)


def _unmapped(
    entity: Entity, api: Api, key_columns: tuple[str, ...], faults: list[str]
) -> list[TargetField]:
    named = {item.source for item in entity.fields} | {
        name for item in entity.fields for name in item.columns_besides
    }
    if (column := _rowversion(entity, api)[0]) is not None:
        named.add(column)  # it travels as erp_rowversion; a data field only where a field maps it
    if entity.unmapped == "drop":
        return []
    found = []
    for source in api.columns:
        if source.name in named:
            continue
        item = Field.model_construct(source=source.name)
        if item.name in HUB_FIELDS:
            faults.append(
                f"fields: column {source.name} would become the hub's own {item.name!r}; map it"
            )
            continue
        kind = source.oracle.field_type
        if kind is None:
            faults.append(
                f"fields.{item.name}: {source.data_type} is no type that SyncFlow knows; declare a type"
            )
        found.append(_field(entity, item, kind or "text", source.oracle, key_columns))
    return found


def _field(
    entity: Entity, item: Field, kind: FieldType, oracle: OracleType, key_columns: tuple[str, ...]
) -> TargetField:
    return TargetField(
        name=item.name,
        source=item.source,
        type=kind,
        oracle=oracle,
        rules=item,
        time_zone=item.time_zone or entity.time_zone,
        date_order=item.date_order or entity.date_order,
        key=item.source in key_columns,
        hashed=not item.volatile,
    )


def _rowversion(entity: Entity, api: Api) -> tuple[str | None, RowversionKind]:
    """The rowversion's column and kind; the kind follows the column's type where it is not declared."""
    declared = entity.rowversion
    name = api.rowversion_column if declared is None else declared.column
    if declared is not None and declared.kind is not None:
        return name, declared.kind
    column = None if name is None else api.column(name)
    kind = None if column is None else column.oracle.field_type
    if kind in {"timestamp", "timestamp_tz"}:
        return name, "timestamp"
    if kind in {"integer", "decimal", "float"}:
        return name, "integer"
    return name, "hex" if kind == "binary" else "text"
