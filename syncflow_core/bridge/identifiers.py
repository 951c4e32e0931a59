"""Identifiers that sort by the time they were made: UUID version 7.

Belongs here: making one.
Does not belong here: identity of records (``identity``).

Source: RFC 9562, 5.7; product.md 1 (``sync_batches.uid``).
"""

import secrets
import time
from collections.abc import Callable
from uuid import UUID


def new_uid(clock: Callable[[], float] = time.time) -> UUID:
    """A new UUID version 7: 48 bits of Unix milliseconds, then 74 random bits."""
    milliseconds = int(clock() * 1000) & (2**48 - 1)
    random = secrets.randbits(74)
    value = milliseconds << 80 | 0x7 << 76 | (random >> 62) << 64 | 0b10 << 62 | random % 2**62
    return UUID(int=value)
