"""The schema contract: the source's columns as they were accepted, against what they are now.

Belongs here: telling a change that must stop an entity from one that is only reported.
Does not belong here: keeping the contract (``bridge.entities``), asking the source (``apismith``).

A column that SyncFlow reads and that is gone, or has become another type, would turn every record
into a change to NULL or to nonsense. A wider NUMBER or VARCHAR2 is still read as before.

Source: product.md 12; faults.md XF26.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from syncflow_core.catalog import Api, Column, parse_oracle_type
from syncflow_core.entity import Entity
from syncflow_core.errors import DriftError

Contract = Mapping[str, str]
"""Column name to its type in full."""


@dataclass(frozen=True)
class Drift:
    """What differs from the contract, a phrase for each column."""

    broken: tuple[str, ...] = ()
    """Columns that are read, gone or of another type: nothing may be written."""
    reported: tuple[str, ...] = ()
    """New columns, other widths, columns gone that nobody reads."""

    @property
    def text(self) -> str:
        """All of it in one line."""
        return "; ".join((*self.broken, *self.reported))


def agree(accepted: Contract, api: Api, entity: Entity) -> Drift:
    """What differs from the contract and may.

    Raises:
        DriftError: A column that is read is gone or of another type.
    """
    found = drift(accepted, api, entity)
    if found.broken:
        raise DriftError(
            f"entity {entity.name}: the source's columns are not those that were accepted: "
            f"{'; '.join(found.broken)}; nothing was read or written. Where the source is right: "
            f"syncflow entities accept {entity.name}",
            system="apismith",
            entity=entity.name,
        )
    return found


def contract_of(api: Api) -> dict[str, str]:
    """The contract that the source offers now."""
    return {column.name: type_text(column) for column in api.columns}


def type_text(column: Column) -> str:
    """A column's type with its precision or length, wherever APISmith says it.

    >>> type_text(Column(name="QTY", data_type="NUMBER", precision=12, scale=3))
    'NUMBER(12,3)'
    >>> type_text(Column(name="NAME", data_type="VARCHAR2", max_length=40))
    'VARCHAR2(40)'
    """
    if "(" in column.data_type:
        return column.data_type.upper()
    parts = [part for part in (column.precision, column.scale) if part is not None]
    if not parts and column.max_length is not None:
        parts = [column.max_length]
    return column.data_type.upper() + (f"({','.join(map(str, parts))})" if parts else "")


def drift(accepted: Contract, api: Api, entity: Entity) -> Drift:
    """What of the source's columns is not as it was accepted."""
    now = contract_of(api)
    read = read_columns(entity, api) if entity.unmapped == "drop" else None
    broken: list[str] = []
    reported: list[str] = []
    for name, before in accepted.items():
        used = read is None or name in read
        if name not in now:
            phrase = f"{name} ({before}) is gone"
        elif now[name] == before:
            continue
        else:
            phrase = f"{name} was {before} and is {now[name]}"
            used = used and _reads_otherwise(before, now[name])
        (broken if used else reported).append(phrase)
    reported += [f"{name} ({kind}) is new" for name, kind in now.items() if name not in accepted]
    return Drift(tuple(broken), tuple(reported))


def read_columns(entity: Entity, api: Api) -> frozenset[str]:
    """The source columns that the declaration names, the key's and the rowversion's among them."""
    names = set(entity.business_key or api.business_key_columns)
    version = entity.rowversion.column if entity.rowversion else api.rowversion_column
    names |= {version} if version is not None else set()
    for item in entity.fields:
        names |= {item.source} if item.source is not None else set()
        names |= set(item.columns_besides)
    return frozenset(names)


def _reads_otherwise(before: str, now: str) -> bool:
    old, new = parse_oracle_type(before), parse_oracle_type(now)
    return (old.base, old.field_type) != (new.base, new.field_type)
