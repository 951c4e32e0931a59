"""``entities``, ``entity_versions``, ``field_mappings``: what is declared, by version.

A law: an entity and its fields are written in one transaction, and a version never changes.

Belongs here: writing declarations where they differ, reading them back exactly.
Does not belong here: their shape (``entity``), files (``entities_file``).

Source: product.md 1 and 12.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, time
from typing import Any, Final, Literal
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from syncflow_core.bridge.identifiers import new_uid
from syncflow_core.bridge.tables import (
    background_sync_schedule,
    entities,
    entity_contracts,
    entity_versions,
    field_mappings,
)
from syncflow_core.contract import Contract
from syncflow_core.entity import Entity, Field
from syncflow_core.errors import ConfigError

_OWN_COLUMNS = {"source", "target", "type", "transform", "default", "required"}
"""The keys of a field that have a column of their own; the others are in ``options``."""
LOCK = 0x53464C4F57454E54  # "SFLOWENT": two applies write one after the other


@dataclass(frozen=True)
class Applied:
    """What applying did to one entity."""

    name: str
    version: int
    change: Literal["created", "changed", "unchanged"]


DISABLED: Final = "{} is disabled: set enabled: true in its declaration and apply it"
"""What is said of an entity's name where it would have to be enabled."""


@dataclass(frozen=True)
class Registered:
    """An entity as it is in the database."""

    uid: UUID
    version: int
    enabled: bool
    entity: Entity
    contract: dict[str, str] | None
    """Source columns as last accepted, name to type; None before the first sync."""
    contract_version: int = 0


def apply_entities(connection: sa.Connection, declared: Sequence[Entity]) -> list[Applied]:
    """Write the declarations, a new version only for those that differ from their current one.

    Raises:
        ConfigError: A parent is neither among *declared* nor in the database, or a collection is
            another entity's; all are named.
    """
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(LOCK)))
    known = {item.entity.name: item for item in load_registered(connection, enabled=None)}
    _refuse_unknown_parents(declared, set(known))
    _refuse_shared_collections(declared, [item.entity for item in known.values()])
    return [_apply(connection, entity, known.get(entity.name)) for entity in declared]


def load_entities(
    connection: sa.Connection,
    names: Sequence[str] | None = None,
    *,
    enabled: bool | None = True,
) -> list[Entity]:
    """The current declarations, by name; None for *enabled* returns the disabled ones too.

    Raises:
        ConfigError: One of *names* is not there; every such name, and those that are, in the message.
    """
    return [item.entity for item in load_registered(connection, names, enabled=enabled)]


def refuse_disabled(connection: sa.Connection, names: Sequence[str]) -> None:
    """Return where none of these entities is disabled.

    Raises:
        ConfigError: Some are; all are named.
    """
    query = sa.select(entities.c.name).where(entities.c.name.in_(names), ~entities.c.enabled)
    if found := connection.scalars(query.order_by(entities.c.name)).all():
        raise ConfigError("; ".join(map(DISABLED.format, found)))


def fingerprint(connection: sa.Connection) -> str:
    """A text that changes whenever an entity is added, changed, enabled, disabled or read differently."""
    query = """
        SELECT md5(string_agg(concat_ws(' ', name, version, enabled, contract_version), ',' ORDER BY name))
        FROM bridge.entities
    """
    return str(connection.scalar(sa.text(query)))


def load_registered(
    connection: sa.Connection,
    names: Sequence[str] | None = None,
    *,
    enabled: bool | None = True,
) -> list[Registered]:
    """As :func:`load_entities`, with uid, version and schema contract."""
    query = sa.select(
        entities.c.name,
        entities.c.uid,
        entities.c.version,
        entities.c.enabled,
        entities.c.contract,
        entities.c.contract_version,
        entity_versions.c.declaration,
    ).join(
        entity_versions,
        (entity_versions.c.entity == entities.c.name)
        & (entity_versions.c.version == entities.c.version),
    )
    if names is not None:
        query = query.where(entities.c.name.in_(names))
    if enabled is not None:
        query = query.where(entities.c.enabled == enabled)
    rows = connection.execute(query.order_by(entities.c.name)).all()
    _refuse_missing(connection, names, {row.name for row in rows})
    fields = _load_fields(connection, [row.name for row in rows])
    return [
        Registered(
            uid=row.uid,
            version=row.version,
            enabled=row.enabled,
            contract=row.contract,
            contract_version=row.contract_version or 0,
            entity=Entity.model_validate(
                {**row.declaration, "enabled": row.enabled, "fields": fields.get(row.name, [])}
            ),
        )
        for row in rows
    ]


def disable_entity(connection: sa.Connection, name: str) -> None:
    """Sync the entity no more; its hub records, history and declaration stay.

    Raises:
        ConfigError: There is no such entity, or enabled entities name it as a parent.
    """
    children = [
        entity.name
        for entity in load_entities(connection)
        if entity.name != name and any(parent.entity == name for parent in entity.parents.values())
    ]
    if children:
        raise ConfigError(
            f"entity {name} is a parent of {', '.join(children)}: disable those first", entity=name
        )
    done = connection.execute(
        entities.update()
        .where(entities.c.name == name)
        .values(enabled=False, updated_at=sa.func.now())
    )
    if done.rowcount == 0:
        _refuse_missing(connection, [name], set())


def save_contract(
    connection: sa.Connection, name: str, contract: Contract, change: str, now: datetime
) -> int:
    """Accept these source columns as the entity's schema contract; returns its new version.

    Args:
        connection: In a transaction.
        name: The entity.
        contract: Column name to type.
        change: What differs from the version before, for people.
        now: Aware.
    """
    version = connection.scalar(
        sa.update(entities)
        .where(entities.c.name == name)
        .values(
            contract=dict(contract),
            contract_version=sa.func.coalesce(entities.c.contract_version, 0) + 1,
            updated_at=now,
        )
        .returning(entities.c.contract_version)
    )
    if version is None:
        _refuse_missing(connection, [name], set())
    connection.execute(
        entity_contracts.insert().values(
            entity=name, version=version, columns=dict(contract), change=change, accepted_at=now
        )
    )
    return int(version or 0)


def _refuse_unknown_parents(declared: Sequence[Entity], known: set[str]) -> None:
    there = known | {entity.name for entity in declared}
    faults = [
        f"{entity.name}.parents.{reference}: there is no entity {parent.entity!r}"
        for entity in declared
        for reference, parent in entity.parents.items()
        if parent.entity not in there
    ]
    if faults:
        raise ConfigError("; ".join(faults))


def _refuse_shared_collections(declared: Sequence[Entity], known: Sequence[Entity]) -> None:
    """Two entities on one collection would each take the other's records for gone."""
    names = {entity.name for entity in declared}
    places: dict[str, str] = {
        entity.collection: entity.name
        for entity in known
        if entity.enabled and entity.name not in names
    }
    faults = []
    for entity in declared:
        other = places.setdefault(entity.collection, entity.name)
        if other != entity.name:
            faults.append(
                f"{entity.name}.collection: {entity.collection!r} is entity {other}'s; each would "
                "delete the other's records"
            )
    if faults:
        raise ConfigError("; ".join(faults))


def _refuse_missing(
    connection: sa.Connection, names: Sequence[str] | None, found: set[str]
) -> None:
    missing = [name for name in names or () if name not in found]
    if not missing:
        return
    there = connection.scalars(
        sa.select(entities.c.name).where(entities.c.enabled).order_by(entities.c.name)
    ).all()
    raise ConfigError(
        f"there is no entity {', '.join(missing)} (there are: {', '.join(there) or 'none'})"
    )


def _apply(connection: sa.Connection, entity: Entity, known: Registered | None) -> Applied:
    if known is not None and known.entity == entity:
        return Applied(entity.name, known.version, "unchanged")
    version = 1 if known is None else _last_version(connection, entity.name) + 1
    row = {"name": entity.name, "version": version, "enabled": entity.enabled}
    statement = insert(entities).values(uid=new_uid(), **row)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["name"], set_={**row, "updated_at": sa.func.now()}
        )
    )
    connection.execute(
        entity_versions.insert().values(
            entity=entity.name,
            version=version,
            declaration=entity.model_dump(mode="json", exclude={"fields"}, exclude_unset=True),
        )
    )
    if entity.fields:
        lines = [_line(entity.name, version, at, item) for at, item in enumerate(entity.fields)]
        connection.execute(field_mappings.insert(), lines)
    _save_schedule(connection, entity)
    return Applied(entity.name, version, "created" if known is None else "changed")


def _last_version(connection: sa.Connection, name: str) -> int:
    query = sa.select(sa.func.max(entity_versions.c.version)).where(
        entity_versions.c.entity == name
    )
    return int(connection.execute(query).scalar_one())


def _line(entity: str, version: int, position: int, item: Field) -> dict[str, Any]:
    given = item.model_dump(mode="json", exclude_unset=True)
    return {
        "entity": entity,
        "version": version,
        "position": position,
        "target_field": item.name,
        "source_field": item.source,
        "type": item.type,
        "transformation": given.get("transform"),
        "default_value": item.default,
        "required": item.required,
        "options": {
            **{key: value for key, value in given.items() if key not in _OWN_COLUMNS},
            **({"target": None} if item.target is None else {}),
        },
    }


def _load_fields(
    connection: sa.Connection, names: Sequence[str]
) -> dict[str, list[dict[str, Any]]]:
    """Those of the entities' newest versions."""
    table = field_mappings.c
    newest = (entities.c.name == table.entity) & (entities.c.version == table.version)
    query = field_mappings.select().join(entities, newest).where(table.entity.in_(names))
    found: dict[str, list[dict[str, Any]]] = {}
    for row in connection.execute(query.order_by(table.entity, table.position)):
        options = dict(row.options)
        named = (
            "target" not in options
        )  # null there: no target was declared, the source's name is it
        options.pop("target", None)
        columns = {
            "source": row.source_field,
            "target": row.target_field if named else None,
            "type": row.type,
            "transform": row.transformation,
            "default": row.default_value,
            "required": row.required or None,
        }
        given = {key: value for key, value in columns.items() if value is not None}
        found.setdefault(row.entity, []).append({**given, **options})
    return found


def _save_schedule(connection: sa.Connection, entity: Entity) -> None:
    """The declaration's part of the schedule; the sweep's progress stays unless the nights change."""
    background = entity.schedule.background
    start, end = (time.fromisoformat(part) for part in background.window.split("-"))
    row = {
        "enabled": entity.enabled and background.enabled,
        "window_start": start,
        "window_end": end,
        "time_zone": background.time_zone,
        "nights": background.nights,
    }
    table = background_sync_schedule
    changed = table.c.nights != background.nights
    connection.execute(
        insert(table)
        .values(entity=entity.name, **row)
        .on_conflict_do_update(
            index_elements=["entity"],
            set_={
                **row,
                "updated_at": sa.func.now(),
                "current_offset": sa.case((changed, 0), else_=table.c.current_offset),
                "last_slice": sa.case((changed, None), else_=table.c.last_slice),
                "slice_size": sa.case((changed, None), else_=table.c.slice_size),
                "sweep_night": sa.case((changed, None), else_=table.c.sweep_night),
            },
        )
    )
