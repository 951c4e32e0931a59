"""The columns that frames carry besides an entity's own, and the shapes made of them.

Belongs here: names and types that two stages must agree on.
Does not belong here: anything computed.

SyncFlow's own columns begin with ``#``, which no entity's column may (``entity.Field`` refuses it).
Every other column of a raw or normalized frame is text: the declared type says what it means.
"""

from typing import Final

import polars as pl

ROW: Final = "#row"
"""UInt32: the row's number within its frame set, in the order fetched. Unique within a batch."""

KEY_HASH: Final = "#key_hash"
"""Binary(16): XXH3-128 of the business key's text. Hex only at the edges."""
DATA_HASH: Final = "#data_hash"
"""Binary(32): BLAKE3-256 of the text of all hashed target fields."""
ROWVERSION: Final = "#rowversion"
"""String: the source's rowversion in the canonical text of its kind; null where there is none."""
REFERENCE: Final = "#reference"
"""String: ``order_no=WO1|line_no=2``, for people."""
KEY_SOURCE: Final = "#key_source"
"""String: JSON object of the business key's source columns, values as the source sent them."""
PARENT_REFS: Final = "#parent_refs"
"""String: canonical JSON, reference name to the parent's key hash in hex or null."""
OP: Final = "#op"
OPS: Final = pl.Enum(["insert", "update", "delete", "unchanged"])
"""The delta's verdicts."""
HUB_UID: Final = "#hub_uid"
"""String: the hub's uid of a known record."""

OWN: Final = "#"
"""First character of every column that is SyncFlow's own."""

REJECTED: Final = pl.Schema(
    {
        ROW: pl.UInt32(),
        "stage": pl.String(),
        "layer": pl.UInt8(),
        "rule": pl.String(),
        "column": pl.String(),
        "value": pl.String(),
        "message": pl.String(),
    }
)
"""One line per rejected row: the first rule that it broke.

``layer`` is 1-5 within normalize and null elsewhere; ``column`` is the source column, null where the
whole row is at fault; ``value`` is the offending value as it came, cut to 500 characters.
"""

KNOWN: Final = pl.Schema(
    {
        KEY_HASH: pl.Binary(),
        DATA_HASH: pl.Binary(),
        ROWVERSION: pl.String(),
        PARENT_REFS: pl.String(),
    }
)
"""What the hub last acknowledged and holds alive, one line per key hash."""

KNOWN_WHOLE: Final = pl.Schema({**KNOWN, HUB_UID: pl.String(), "deleted": pl.Boolean()})
"""The same of single records, with the hub's uid; deleted ones too."""
