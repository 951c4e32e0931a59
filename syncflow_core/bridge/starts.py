"""``start_requests``: what was started, so that asking again under an Idempotency-Key starts nothing.

Belongs here: remembering an answer by its key, one asker at a time.
Does not belong here: starting.

Source: product.md 9; draft-ietf-httpapi-idempotency-key-header.
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from syncflow_core.bridge.database import Database
from syncflow_core.bridge.tables import start_requests
from syncflow_core.errors import ConfigError


@contextmanager
def one_at_a_time(database: Database, key: str) -> Iterator[None]:
    """Whoever else asks with the same key waits until the block has ended.

    Raises:
        UnavailableError: The one before takes too long.
    """
    with database.begin() as connection:
        lock = sa.text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))")
        connection.execute(lock, {"key": f"syncflow start {key}"})
        yield


def remembered(connection: sa.Connection, key: str, body: str) -> Mapping[str, Any] | None:
    """What the first asker with this key was told; None where there was none.

    Raises:
        ConfigError: It asked for something else.
    """
    found = connection.execute(
        sa.select(start_requests.c.body_digest, start_requests.c.answer).where(
            start_requests.c.idempotency_key == key
        )
    ).one_or_none()
    if found is None:
        return None
    if bytes(found.body_digest) != _digest(body):
        raise ConfigError("this Idempotency-Key was used for another request")
    return dict(found.answer or {})


def remember(connection: sa.Connection, key: str, body: str, answer: Mapping[str, object]) -> None:
    """Keep what the asker with this key is told."""
    connection.execute(
        start_requests.insert().values(
            idempotency_key=key, body_digest=_digest(body), answer=dict(answer)
        )
    )


def start_of(connection: sa.Connection, batch: UUID) -> str | None:
    """The name of the start that asked for the batch; None where none did."""
    query = sa.text(
        "SELECT answer->>'start' FROM bridge.start_requests "
        "WHERE answer->'batches' @> jsonb_build_array(jsonb_build_object('batch_uid', :batch))"
    )
    found = connection.scalar(query, {"batch": str(batch)})
    return None if found is None else str(found)


def forget(connection: sa.Connection, key: str) -> None:
    """The start came to nothing: the same key may be tried again."""
    connection.execute(start_requests.delete().where(start_requests.c.idempotency_key == key))


def _digest(body: str) -> bytes:
    return hashlib.sha256(body.encode()).digest()
