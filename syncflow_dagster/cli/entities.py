"""``syncflow entities``: declarations from files to the database and back.

Belongs here: the commands.
Does not belong here: the file's form (``entities_file``), the tables (``bridge.entities``).
"""

import difflib
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.table import Table

from syncflow_core.apismith import Source
from syncflow_core.bridge.database import Database
from syncflow_core.bridge.entities import (
    load_entities,
    load_registered,
    save_contract,
)
from syncflow_core.contract import contract_of, drift
from syncflow_core.entities_file import entities_text, parse_entities
from syncflow_core.entity import Entity
from syncflow_core.errors import ConfigError
from syncflow_core.parents import lineage
from syncflow_core.printable import printable, printable_json
from syncflow_core.settings import read_settings
from syncflow_dagster.clock import utc_now
from syncflow_dagster.declaring import declare
from syncflow_dagster.home import disown, prepare
from syncflow_dagster.terminal import console


def read_files(files: Sequence[Path]) -> list[Entity]:
    """The declarations of all files.

    Raises:
        ConfigError: Every fault of every file.
    """
    entities: list[Entity] = []
    faults: list[str] = []
    for file in files:
        try:
            entities += parse_entities(file.read_text(encoding="utf-8"), str(file))
        except (OSError, UnicodeDecodeError) as error:
            faults.append(f"{file}: cannot be read: {getattr(error, 'strerror', None) or error}")
        except ConfigError as error:
            faults.append(str(error))
    names = [entity.name for entity in entities]
    twice = sorted({name for name in names if names.count(name) > 1})
    faults += [f"entity {name} is declared twice in these files" for name in twice]
    if faults:
        raise ConfigError("\n".join(faults))
    return entities


def apply(files: Sequence[Path]) -> None:
    """Write the declarations; say which are new, changed or as they were."""
    entities = read_files(files)
    settings = read_settings()
    prepare(settings)
    with Database.open(settings) as database:
        database.check_schema()
        with database.begin() as connection:
            applied = declare(connection, entities, settings.slices)
    disown(settings.home_path)
    for item in applied:
        console().print(f"{item.name}: {item.change}, version {item.version}")


def diff(files: Sequence[Path]) -> bool:
    """Print what applying these files would change, as a unified diff; whether it would change anything."""
    entities = read_files(files)
    settings = read_settings()
    with Database.open(settings) as database:
        database.check_schema()
        with database.begin() as connection:
            known = {item.name: item for item in load_entities(connection, enabled=None)}
    lines: list[str] = []
    for entity in entities:
        before = known.get(entity.name)
        lines += difflib.unified_diff(
            _declared(before),
            _declared(entity),
            f"entity {entity.name} as applied",
            f"entity {entity.name} as in the file",
            lineterm="",
        )
    sys.stdout.writelines(f"{printable(line)}\n" for line in lines)
    return bool(lines)


def _declared(entity: Entity | None) -> list[str]:
    """The entity's lines in a file; none where it is not declared."""
    return [] if entity is None else entities_text([entity]).splitlines()[2:]


def accept(names: Sequence[str]) -> None:
    """Take the source's columns as they are now for the contract; say what differs."""
    settings = read_settings()
    with Database.open(settings) as database, Source.open(settings) as source:
        database.check_schema()
        with database.begin() as connection:
            registered = load_registered(connection, names, enabled=None)
        for item in registered:
            api = source.describe(item.entity.api)
            found = drift(item.contract or {}, api, item.entity)
            change = "first seen" if item.contract is None else found.text
            if not change:
                console().print(f"{item.entity.name}: as accepted before", markup=False)
                continue
            with database.begin() as connection:
                version = save_contract(
                    connection, item.entity.name, contract_of(api), change, utc_now()
                )
            words = f"{item.entity.name}: contract version {version}: {change}"
            console().print(printable(words), markup=False)


def export(names: Sequence[str]) -> None:
    """Print an entities file."""
    settings = read_settings()
    with Database.open(settings) as database:
        database.check_schema()
        with database.begin() as connection:
            entities = load_entities(connection, list(names) or None, enabled=None)
    sys.stdout.write(entities_text(entities))


def show(*, as_json: bool) -> None:
    """List the entities, parents first."""
    settings = read_settings()
    with Database.open(settings) as database:
        database.check_schema()
        with database.begin() as connection:
            entities = {entity.name: entity for entity in load_entities(connection, enabled=None)}
    order = lineage(list(entities.values())).order
    if as_json:
        for name in order:
            entity = entities[name]
            line = {
                "entity": name,
                "api": entity.api,
                "collection": entity.collection,
                "enabled": entity.enabled,
                "parents": sorted({parent.entity for parent in entity.parents.values()}),
            }
            sys.stdout.write(printable_json(msgspec.json.encode(line)) + "\n")
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("entity", "group", "api", "collection", "delta", "parents", "enabled"):
        table.add_column(heading)
    for name in order:
        entity = entities[name]
        table.add_row(
            name,
            entity.group,
            entity.api,
            entity.collection,
            entity.delta or "as APISmith says",
            ", ".join(dict.fromkeys(parent.entity for parent in entity.parents.values())) or "-",
            "yes" if entity.enabled else "no",
        )
    console().print(table)
