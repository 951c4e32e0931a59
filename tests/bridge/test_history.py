"""The past goes after its time; what is open, and what is still spoken of, stays."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import polars as pl
import sqlalchemy as sa

from syncflow_core.bridge import batches, events, failed, journal
from syncflow_core.bridge.batches import Counts
from syncflow_core.bridge.database import Database
from syncflow_core.bridge.entities import apply_entities
from syncflow_core.bridge.history import forget_past
from syncflow_core.bridge.tables import metadata
from syncflow_core.entity import Entity

START = datetime(2025, 1, 1, tzinfo=UTC)
KEYS = pl.Series("#key_hash", [bytes(16), bytes([1] * 16)], dtype=pl.Binary)
KEPT = 7


def night(database: Database, now: datetime) -> None:
    """One night's lines: a batch, its calls and history, a letter that is answered and one that is not."""
    letters = pl.DataFrame({"#key_hash": KEYS}).with_columns(
        *(pl.lit(text).alias(text) for text in ("stage", "rule", "message")),
        pl.lit(None, dtype=pl.UInt8).alias("layer"),
        *(pl.lit(None, dtype=pl.String).alias(text) for text in ("column", "value")),
    )
    with database.begin() as connection:
        uid = batches.open_batch(
            connection, entity="orders", entity_version=1, kind="full", now=now
        )
        (call,) = journal.write_intents(
            connection, entity="orders", batch=uid, calls=[("insert", KEYS)], fence=1, now=now
        )
        journal.close_intents(connection, [call], "done", now)
        events.record(
            connection,
            "orders",
            pl.DataFrame({"#key_hash": KEYS, "event": ["updated"] * 2}),
            uid,
            now,
        )
        failed.file_failed(connection, "orders", letters, uid, now)
        failed.resolve_failed(connection, "orders", KEYS[:1], "went through", now)
        batches.close_batch(connection, uid, "partial", Counts(), now=now)
        forget_past(connection, now - timedelta(days=KEPT))


def sizes(database: Database) -> dict[str, int]:
    with database.begin() as connection:
        counted = {
            table.name: connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0
            for table in metadata.tables.values()
        }
    return {name: number for name, number in counted.items() if number}


def test_XD11_after_sixty_nights_there_is_no_more_than_after_ten(database: Database) -> None:
    with database.begin() as connection:
        apply_entities(connection, [Entity(name="orders")])
    after = {}
    for number in range(1, 61):
        night(database, START + timedelta(days=number))
        after[number] = sizes(database)

    assert after[60] == after[10]
    assert after[10]["sync_batches"] == KEPT + 2, "the first one is spoken of by an open letter"
    with database.begin() as connection:
        (letter,) = failed.open_failed(connection, "orders").to_dicts()
    assert letter["attempts"] == 60


def test_what_is_open_is_not_past(database: Database) -> None:
    with database.begin() as connection:
        apply_entities(connection, [Entity(name="orders")])
        uid: UUID = batches.open_batch(
            connection, entity="orders", entity_version=1, kind="full", now=START
        )
        journal.write_intents(
            connection, entity="orders", batch=uid, calls=[("insert", KEYS)], fence=1, now=START
        )
        gone = forget_past(connection, START + timedelta(days=400))
        left = journal.open_intents(connection, "orders")

    assert gone == {}
    assert [intent.batch for intent in left] == [uid]
