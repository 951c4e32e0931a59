"""What a caller sends of a record and what it is told: parsed, checked, nothing stored yet.

Belongs here: the shapes of records, updates and outcomes, and making uids.
Does not belong here: the database (``plan``, ``records``), HTTP (``schedulehub``).

Source: contract.md, "ScheduleHub: holds the plan".
"""

import os
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

KeyHash = Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]
DataHash = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
Refs = dict[str, KeyHash | None]
NOT_STORED = frozenset({"uid", "is_deleted"})
_NULL = Raw(b"null")
EMPTY = {
    "erp_key_hash": _NULL,
    "erp_data_hash": _NULL,
    "erp_rowversion": _NULL,
    "erp_ref_str": _NULL,
    "parent_refs": Raw(b"{}"),
}


class Incoming(msgspec.Struct):
    """The hub's own fields of a record to be inserted; the others are kept unread."""

    erp_key_hash: KeyHash
    erp_data_hash: DataHash | UnsetType | None = UNSET
    erp_rowversion: str | UnsetType | None = UNSET
    erp_ref_str: str | UnsetType | None = UNSET
    parent_refs: Refs | UnsetType = UNSET
    uid: Raw | UnsetType = UNSET
    is_deleted: Raw | UnsetType = UNSET

    @property
    def refs(self) -> Refs:
        """The references; none where none were sent."""
        return {} if isinstance(self.parent_refs, UnsetType) else self.parent_refs

    @property
    def is_whole(self) -> bool:
        """Whether the record holds each of the caller's own fields and none of the hub's."""
        ours = (self.erp_data_hash, self.erp_rowversion, self.erp_ref_str, self.parent_refs)
        return UNSET not in ours and self.uid is UNSET and self.is_deleted is UNSET


class Patch(msgspec.Struct):
    """The hub's own fields of an update, as far as they are sent."""

    erp_key_hash: KeyHash | UnsetType = UNSET
    erp_data_hash: DataHash | UnsetType | None = UNSET
    erp_rowversion: str | UnsetType | None = UNSET
    erp_ref_str: str | UnsetType | None = UNSET
    parent_refs: Refs | UnsetType = UNSET


class Update(msgspec.Struct):
    """One update of a batch."""

    uid: str
    data: Raw


class Outcome(msgspec.Struct, omit_defaults=True):
    """What became of one row of a call."""

    index: int
    uid: str | None = None
    status: Literal["", "inserted", "updated", "deleted", "failed"] = ""
    code: int | None = None
    error: str | None = None
    missing_parents: list[str] | None = None
    children: int | None = None


incoming_decoder = msgspec.json.Decoder(Incoming)
patch_decoder = msgspec.json.Decoder(Patch)
fields_decoder = msgspec.json.Decoder(dict[str, Raw])


@dataclass
class New:
    """A record that may be inserted."""

    index: int
    uid: uuid.UUID
    head: Incoming
    key_hash: bytes
    doc: bytes


@dataclass
class Held:
    """A record that is being updated, with what the updates have made of it so far."""

    key_hash: bytes
    fields: dict[str, Raw]
    data_hash: str | None
    rowversion: str | None
    refs: Refs | None = None
    effects: list[tuple[bool, str | None, str | None]] = field(default_factory=list)


class Uids:
    """Makes UUIDs of version 7 that never go backwards within this process."""

    def __init__(self) -> None:
        self._last = 0

    def take(self, count: int) -> list[uuid.UUID]:
        """So many uids, ascending: 48 bits of milliseconds, 42 of a counter, 32 at random."""
        first = max(self._last + 1, int(time.time() * 1000) << 42)
        self._last = first + count - 1
        noise = os.urandom(4 * count)
        return [
            _uuid7(first + number, int.from_bytes(noise[4 * number : 4 * number + 4]))
            for number in range(count)
        ]


def _uuid7(tick: int, noise: int) -> uuid.UUID:
    high, counter = tick >> 42, tick & ((1 << 42) - 1)
    value = high << 80 | 7 << 76 | (counter >> 30) << 64 | 2 << 62
    return uuid.UUID(int=value | (counter & ((1 << 30) - 1)) << 32 | noise)


def fail(outcome: Outcome, code: int, error: str) -> Outcome:
    """The outcome says that the row failed, with the status that the single call has."""
    outcome.status, outcome.code, outcome.error = "failed", code, error
    return outcome


def encoded(fields: dict[str, Raw]) -> str:
    """The fields as the hub keeps them: every value's own text, without the hub's own fields."""
    return msgspec.json.encode({k: v for k, v in fields.items() if k not in NOT_STORED}).decode()


def sent_bytes(value: str | UnsetType | None) -> bytes | None:
    """The text that was sent; None where nothing was."""
    return value.encode() if isinstance(value, str) else None


def parse_uid(text: str) -> uuid.UUID | None:
    """The uid; None for text that is no uid and so names no record."""
    try:
        return uuid.UUID(text)
    except ValueError:
        return None


def hash_bytes(text: str) -> bytes:
    """The hash's bytes; text that is no hash equals none."""
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""


def correct_doubles(accepted: list[New], outcomes: list[Outcome]) -> None:
    """A key's second row in one call names the uid that its first row has in the hub."""
    if all(outcome.code is None for outcome in outcomes):
        return
    final = {str(item.uid): outcomes[item.index].uid for item in accepted}
    for outcome in outcomes:
        if outcome.code == 409 and outcome.uid in final:  # noqa: PLR2004  # HTTP's conflict
            outcome.uid = final[outcome.uid]


def patched_refs(updates: Sequence[Update]) -> list[Refs]:
    """The references that the updates send, those that cannot be read left out."""
    found = []
    for update in updates:
        try:
            refs = patch_decoder.decode(update.data).parent_refs
        except msgspec.MsgspecError:
            continue
        if not isinstance(refs, UnsetType):
            found.append(refs)
    return found
