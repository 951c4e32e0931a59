"""What APISmith says of one API: its columns, their Oracle types, its key and rowversion.

Belongs here: the shape of that description, and reading an Oracle type's name.
Does not belong here: fetching it (``apismith``), or what an entity makes of it (``entity``).

Source: contract.md, "APISmith: reads the ERP".
"""

import re
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

FieldType = Literal[
    "text",
    "integer",
    "decimal",
    "float",
    "boolean",
    "date",
    "timestamp",
    "timestamp_tz",
    "duration",
    "binary",
    "json",
]
"""The types that a field may declare."""

_NUMBER = re.compile(r"NUMBER\s*\(\s*(\d+|\*)\s*(?:,\s*(-?\d+)\s*)?\)")
_FIELD_TYPES: dict[str, FieldType] = {
    "VARCHAR2": "text",
    "NVARCHAR2": "text",
    "VARCHAR": "text",
    "CHAR": "text",
    "NCHAR": "text",
    "CLOB": "text",
    "NCLOB": "text",
    "LONG": "text",
    "ROWID": "text",
    "UROWID": "text",
    "XMLTYPE": "text",
    "INTEGER": "integer",
    "FLOAT": "float",
    "BINARY_FLOAT": "float",
    "BINARY_DOUBLE": "float",
    "DATE": "timestamp",
    "TIMESTAMP": "timestamp",
    "TIMESTAMP WITH TIME ZONE": "timestamp_tz",
    "TIMESTAMP WITH LOCAL TIME ZONE": "timestamp_tz",
    "INTERVAL YEAR TO MONTH": "duration",
    "INTERVAL DAY TO SECOND": "duration",
    "RAW": "binary",
    "LONG RAW": "binary",
    "BLOB": "binary",
    "BOOLEAN": "boolean",
    "JSON": "json",
}


class Column(BaseModel):
    """One column of an API, as APISmith describes it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    data_type: str
    nullable: bool = True
    precision: int | None = None
    scale: int | None = None
    max_length: int | None = None
    texts: Literal["plain", "comma", "base64"] = "plain"
    """How the entity reads this column's texts. A value that is no text on the wire (a JSON number, an
    Arrow binary) is written in that form when it is made one, or it would be read as another value."""

    @property
    def oracle(self) -> "OracleType":
        """The type's parts; what is in its name wins over what stands beside it."""
        named = parse_oracle_type(self.data_type)
        return OracleType(
            base=named.base,
            precision=self.precision if named.precision is None else named.precision,
            scale=self.scale if named.scale is None else named.scale,
        )


class Api(BaseModel):
    """One API, as APISmith describes it: what can be read, and how it changes."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    uid: str
    slug: str
    name: str
    is_active: bool = True
    delta_strategy: Literal["rowversion", "hash", "full"] = "hash"
    business_key_columns: tuple[str, ...] = ()
    rowversion_column: str | None = None
    columns: tuple[Column, ...]

    def column(self, name: str) -> Column | None:
        """The column of this name, or None."""
        return next((column for column in self.columns if column.name == name), None)


@dataclass(frozen=True)
class OracleType:
    """An Oracle type in parts: ``NUMBER(12,2)`` is base NUMBER, precision 12, scale 2."""

    base: str
    precision: int | None = None
    scale: int | None = None

    @property
    def field_type(self) -> FieldType | None:
        """The field type this Oracle type becomes; None for a type that SyncFlow does not know.

        ``NUMBER(p)`` and ``NUMBER(p,0)`` are integers; a NUMBER without precision, or with a
        scale, is an exact decimal.
        """
        if self.base == "NUMBER":
            whole = self.precision is not None and (self.scale or 0) <= 0
            return "integer" if whole or self.scale == 0 else "decimal"
        return _FIELD_TYPES.get(self.base)


def parse_oracle_type(name: str) -> OracleType:
    """Read an Oracle type's name, precision in the name included.

    >>> parse_oracle_type("NUMBER(12,2)")
    OracleType(base='NUMBER', precision=12, scale=2)
    >>> parse_oracle_type("NUMBER(4)").field_type
    'integer'
    >>> parse_oracle_type("timestamp(6) with time zone").base
    'TIMESTAMP WITH TIME ZONE'
    >>> parse_oracle_type("INTERVAL DAY(2) TO SECOND(6)").base
    'INTERVAL DAY TO SECOND'
    >>> parse_oracle_type("VARCHAR2(255 CHAR)").base
    'VARCHAR2'
    """
    upper = name.upper()
    base = " ".join(re.sub(r"\([^)]*\)", " ", upper).split())
    match = _NUMBER.match(upper.strip())
    if match is None:
        return OracleType(base)
    precision, scale = match.groups()
    return OracleType(
        base,
        precision=None if precision == "*" else int(precision),
        scale=None if scale is None else int(scale),
    )
