"""What all tables of schema ``bridge`` share: the names of constraints, columns that recur.

Belongs here: the metadata and the recurring columns.
Does not belong here: tables (``main``, ``beside``).
"""

from collections.abc import Sequence
from typing import Any, Final

import sqlalchemy as sa

from syncflow_core.bridge.tables.words import quoted

SCHEMA: Final = "bridge"

metadata = sa.MetaData(
    schema=SCHEMA,
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    },
)


def entity_column(**options: Any) -> sa.Column[str]:  # noqa: ANN401  # Column's own keywords
    """The entity that a row is of."""
    return sa.Column("entity", sa.Text, sa.ForeignKey("bridge.entities.name"), **options)


def batch_column(
    name: str, *, nullable: bool = True, primary_key: bool = False, index: bool = False
) -> sa.Column[Any]:
    """A batch that a row belongs to; with an index where many rows do, so that old batches can go."""
    key = sa.ForeignKey("bridge.sync_batches.uid")
    return sa.Column(
        name, sa.Uuid, key, nullable=nullable, primary_key=primary_key, index=index or None
    )


def at_column(name: str, *, nullable: bool = False, now: bool = False) -> sa.Column[Any]:
    """A moment, with its zone."""
    default = sa.func.now() if now else None
    return sa.Column(name, sa.TIMESTAMP(timezone=True), nullable=nullable, server_default=default)


def one_of(column: str, values: Sequence[str]) -> sa.CheckConstraint:
    """That a column holds one of these words."""
    return sa.CheckConstraint(f"{column} IN ({quoted(values)})", name=column)


def count_column(name: str) -> sa.Column[int]:
    """A number of records."""
    return sa.Column(name, sa.BigInteger, nullable=False, server_default="0")
