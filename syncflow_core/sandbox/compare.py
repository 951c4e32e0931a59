"""Compare what the hub holds with the truth that the ERP was made from.

Belongs here: reading both from PostgreSQL, and saying record by record what differs.
Does not belong here: anything of SyncFlow; values are compared as JSON text, so 10.5 is not 10.50.

A row is expected in the hub when its truth is there and all its parents are expected themselves: bad
rows, orphans and their children are expected to be absent. Soft-deleted records are absent.

Source: product.md 11.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
from msgspec import Raw
from psycopg import sql

from syncflow_core.sandbox import store
from syncflow_core.sandbox.database import Connection, connect

Key = tuple[object, ...]
HUB_FIELDS = frozenset(
    {"erp_key_hash", "erp_data_hash", "erp_rowversion", "erp_ref_str", "parent_refs"}
)
_fields = msgspec.json.Decoder(dict[str, Raw])
_refs = msgspec.json.Decoder(dict[str, str | None])
_NULL = b"null"


@dataclass(frozen=True)
class Difference:
    """One field of one record that is not as it must be; values are JSON text."""

    key: str
    field: str
    expected: str
    found: str


@dataclass
class EntityComparison:
    """One entity: how many records must be there and are, and every one that is wrong."""

    entity: str
    expected: int = 0
    found: int = 0
    absent: int = 0
    """Source rows that must not be in the hub: bad ones, orphans, children of these."""
    missing: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)
    different: list[Difference] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        """Whether nothing is missing, extra or different."""
        return not (self.missing or self.extra or self.different)


@dataclass(frozen=True)
class Comparison:
    """All entities compared."""

    entities: Sequence[EntityComparison]

    @property
    def equal(self) -> bool:
        """Whether every entity is equal."""
        return all(item.equal for item in self.entities)

    def table(self) -> str:
        """A line per entity, then the first differences of each."""
        lines = [
            f"{'entity':<16}{'expected':>10}{'found':>10}{'absent':>10}{'missing':>10}{'extra':>10}{'different':>10}"
        ]
        for item in self.entities:
            wrong = f"{len(item.missing):>10}{len(item.extra):>10}{len(item.different):>10}"
            lines.append(
                f"{item.entity:<16}{item.expected:>10}{item.found:>10}{item.absent:>10}{wrong}"
            )
        for item in self.entities:
            lines += [f"{item.entity}: missing {key}" for key in item.missing[:5]]
            lines += [f"{item.entity}: extra {key}" for key in item.extra[:5]]
            lines += [
                f"{item.entity}: {d.key}: {d.field} must be {d.expected}, is {d.found}"
                for d in item.different[:5]
            ]
        return "\n".join(lines)


@dataclass(frozen=True)
class _Held:
    """A live record of the hub."""

    key: Key
    fields: Mapping[str, Raw]
    refs: Mapping[str, str | None]


Truths = dict[Key, Mapping[str, Raw]]


def compare(database_url: str, entities: Iterable[str] | None = None) -> Comparison:
    """The hub compared with the truth, entity by entity; tables without truth are left out.

    Args:
        database_url: The database of the sandbox.
        entities: Only these; their parents are read all the same.
    """
    wanted = None if entities is None else set(entities)
    with connect(database_url) as connection, connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        tables = {table.name: table for table in store.tables(connection) if table.has_truth}
        rows = {name: table.row_count for name, table in tables.items()}
        truths = {name: _read_truths(connection, table) for name, table in tables.items()}
        held = {name: _read_hub(connection, table) for name, table in tables.items()}
    expected = _expected(tables, truths)
    return Comparison(
        [
            _compare_entity(table, expected[name], held, rows[name])
            for name, table in tables.items()
            if wanted is None or name in wanted
        ]
    )


def _read_truths(connection: Connection, table: store.Table) -> Truths:
    statement = sql.SQL("SELECT truth FROM {} WHERE truth IS NOT NULL").format(table.place)
    truths = (_fields.decode(str(text)) for (text,) in connection.execute(statement))
    return {_key(table, truth): truth for truth in truths}


def _read_hub(connection: Connection, table: store.Table) -> dict[str, _Held]:
    """Live records by key hash."""
    found = connection.execute(
        "SELECT encode(key_hash, 'hex'), doc FROM hub.records JOIN hub.collections ON id = collection"
        " WHERE name = %s AND NOT deleted",
        [table.name],
    )
    held = {}
    for key_hash, doc in found:
        fields = _fields.decode(str(doc))
        refs = _refs.decode(fields.get("parent_refs", Raw(b"{}")))
        held[str(key_hash)] = _Held(_key(table, fields), fields, refs)
    return held


def _expected(tables: Mapping[str, store.Table], truths: Mapping[str, Truths]) -> dict[str, Truths]:
    """The truths whose parents are all expected, found by taking away until nothing more goes."""
    left = {name: dict(items) for name, items in truths.items()}
    needs = {
        name: [(key, _parent_keys(tables, table, truth)) for key, truth in left[name].items()]
        for name, table in tables.items()
        if table.parents
    }
    gone = True
    while gone:
        gone = False
        for name, lines in needs.items():
            kept = []
            for key, parents in lines:
                if all(parent in left.get(entity, {}) for entity, parent in parents):
                    kept.append((key, parents))
                else:
                    del left[name][key]
            gone = gone or len(kept) < len(lines)
            needs[name] = kept
    return left


def _compare_entity(
    table: store.Table, expected: Truths, held: Mapping[str, Mapping[str, _Held]], rows: int
) -> EntityComparison:
    result = EntityComparison(table.name, len(expected), len(held[table.name]))
    result.absent = rows - len(expected)
    seen: set[Key] = set()
    for record in held[table.name].values():
        truth = expected.get(record.key)
        if truth is None or record.key in seen:
            result.extra.append(_shown(table, record.key))
            continue
        seen.add(record.key)
        result.different += _differences(table, truth, record)
        result.different += _wrong_parents(table, truth, record, held)
    result.missing = [_shown(table, key) for key in expected if key not in seen]
    return result


def _differences(table: store.Table, truth: Mapping[str, Raw], record: _Held) -> list[Difference]:
    found = record.fields
    names = [*truth, *(name for name in found if name not in truth and name not in HUB_FIELDS)]
    wrong = []
    for name in names:
        must, is_ = bytes(truth.get(name, _NULL)), bytes(found.get(name, _NULL))
        if must != is_ and _value(must) != _value(is_):
            shown = _shown(table, record.key)
            wrong.append(Difference(shown, name, must.decode(), is_.decode()))
    return wrong


def _wrong_parents(
    table: store.Table,
    truth: Mapping[str, Raw],
    record: _Held,
    held: Mapping[str, Mapping[str, _Held]],
) -> list[Difference]:
    wrong = []
    for name, info in table.parents.items():
        must = _plain_key(truth, info["key"].values())
        key_hash = record.refs.get(name)
        parent = None if key_hash is None else held.get(info["entity"], {}).get(key_hash)
        is_ = None if parent is None else _plain_key(parent.fields, info["key"].keys())
        if must != is_ or (key_hash is not None and parent is None):
            shown = _shown(table, record.key)
            wrong.append(Difference(shown, f"parent_refs.{name}", str(must), str(is_ or key_hash)))
    return wrong


def _key(table: store.Table, fields: Mapping[str, Raw]) -> Key:
    return tuple(_value(bytes(fields.get(name, _NULL))) for name in table.key_fields)


def _parent_keys(
    tables: Mapping[str, store.Table], table: store.Table, truth: Mapping[str, Raw]
) -> list[tuple[str, Key]]:
    """The parents that the row needs: entity, and key in the order of that entity's key fields."""
    needed = []
    for info in table.parents.values():
        parent = tables.get(info["entity"])
        names = info["key"] if parent is None else parent.key_fields
        key = _plain_key(truth, [info["key"][name] for name in names])
        if key is not None:
            needed.append((info["entity"], key))
    return needed


def _plain_key(fields: Mapping[str, Raw], names: Iterable[str]) -> Key | None:
    key = tuple(_value(bytes(fields.get(name, _NULL))) for name in names)
    return None if None in key else key


def _value(text: bytes) -> object:
    """The JSON value; a number stays its own digits and equals no text."""
    if text[:1] == b'"' and b"\\" not in text:
        return text[1:-1].decode()
    return _values.decode(text.decode())


def _number(text: str) -> tuple[str]:
    return (text,)


_values = json.JSONDecoder(parse_int=_number, parse_float=_number)


def _shown(table: store.Table, key: Key) -> str:
    values = (value[0] if isinstance(value, tuple) else value for value in key)
    return "|".join(f"{n}={v}" for n, v in zip(table.key_fields, values, strict=True))


def main(arguments: list[str] | None = None) -> int:
    """Print the comparison; 1 when the hub differs."""
    parser = argparse.ArgumentParser(prog="python -m syncflow_core.sandbox.compare")
    parser.add_argument("--database-url", required=True)
    parser.add_argument("--entity", action="append", help="only this entity; may be repeated")
    options = parser.parse_args(arguments)
    result = compare(options.database_url, options.entity)
    sys.stdout.write(f"{result.table()}\n{'equal' if result.equal else 'DIFFERENT'}\n")
    return 0 if result.equal else 1


if __name__ == "__main__":
    sys.exit(main())
