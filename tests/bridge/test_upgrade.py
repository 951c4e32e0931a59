"""A database of the first revision, with rows in every table, on its way to this code's and back.

The rows are what syncs left, taken down to the first revision; what no sync leaves is written by hand.
"""

from collections.abc import Iterator

import psycopg
import pytest
from alembic.script import ScriptDirectory
from place import Place, opened, outcome
from psycopg import sql
from tables import effects, hub, link, references, table

from syncflow_core.bridge import migrate, schema
from syncflow_core.entity import Background, Brake, Entity, Field, Schedule
from syncflow_core.sandbox.store import Row

FIRST = "0001_bridge"
REVISIONS = [script.revision for script in ScriptDirectory(str(schema.scripts())).walk_revisions()][
    ::-1
]


def test_the_scripts_names_are_the_revisions_in_their_order() -> None:
    assert schema._revisions() == (REVISIONS[-1], frozenset(REVISIONS))
    assert sorted(REVISIONS) == REVISIONS


ORDERS = {"ID": "VARCHAR2(9)", "QTY": "VARCHAR2(9)", "RV": "NUMBER(9)"}
LINES = {"ID": "VARCHAR2(9)", "ORD": "VARCHAR2(9)"}
BY_HAND = """
    INSERT INTO bridge.pending_deletes (entity, key_hash, batch)
        SELECT entity, '\\x000102030405060708090a0b0c0d0e0f', uid FROM bridge.sync_batches LIMIT 1;
    INSERT INTO bridge.start_requests (idempotency_key, body_digest, batch)
        SELECT 'tonight', '\\x00', uid FROM bridge.sync_batches LIMIT 1;
    INSERT INTO bridge.target_limits (system, state) VALUES ('elsewhere', '{"slots": 4}')
"""
Rows = dict[str, dict[str, list[str]]]
"""Of each table, of each of its columns, the values as text, sorted."""


def orders(count: int) -> list[Row]:
    # the last one breaks a rule
    return [
        {"ID": f"O{n}", "QTY": "many" if n == count - 1 else f"{n},5", "RV": 100 + n}
        for n in range(count)
    ]


ENTITIES = [
    Entity(
        name="ord",
        brake=Brake(rows=2, share=0.1),
        fields=[Field(source="QTY", type="decimal", decimal_separator=",")],
        schedule=Schedule(background=Background(window="20:00-06:00", nights=5)),
    ),
    Entity(name="lin", parents={"ord": link("ord", "ord")}),
]


@pytest.fixture(scope="module")
def place(module_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Syncs that left accounts of every kind: sent, rejected, waiting, withheld."""
    with opened(module_url, tmp_path_factory.mktemp("place")) as found:
        table(found, "ord", ORDERS, orders(10))
        lines = [{"ID": f"L{n}", "ORD": f"O{n}" if n < 5 else "nowhere"} for n in range(6)]
        table(found, "lin", LINES, lines)
        references(found, ("lin", "ord", "ord"))
        found.apply(ENTITIES)
        found.sync()
        table(found, "ord", ORDERS, [*orders(10)[:6], orders(10)[-1]])  # three deletes are withheld
        found.sync()
        yield found


def rows(url: str) -> Rows:
    with psycopg.connect(url, autocommit=True) as connection:
        found: Rows = {}
        for name, column in connection.execute(
            "SELECT table_name, column_name FROM information_schema.columns "
            "WHERE table_schema = 'bridge' AND table_name <> 'alembic_version'"
        ).fetchall():
            values = connection.execute(
                sql.SQL("SELECT {}::text FROM bridge.{}").format(
                    sql.Identifier(column), sql.Identifier(name)
                )
            )
            found.setdefault(name, {})[column] = sorted(str(value) for (value,) in values)
    return found


def differences(before: Rows, after: Rows) -> list[str]:
    """Columns that are gone, or hold other values."""
    return [
        f"{name}.{column}"
        for name, columns in before.items()
        for column, values in columns.items()
        if after.get(name, {}).get(column) != values
    ]


def test_hashes_of_another_encoding_are_made_anew_and_nothing_is_sent(place: Place) -> None:
    place.sync()
    made, written = digests(place), effects(place)
    with psycopg.connect(place.url, autocommit=True) as connection:
        # as an encoding before this one could have left them: other hashes, another layout
        connection.execute(
            "UPDATE bridge.synced_records SET data_hash = sha256(data_hash), "
            "field_digests = sha256(field_digests) WHERE NOT deleted"
        )
        connection.execute("UPDATE bridge.erp_sync_state SET encoding_version = 0")
    assert digests(place).keys() == made.keys()
    assert not set(digests(place).items()) & set(made.items())

    run = place.sync()

    assert effects(place) == written
    assert outcome(run, "ord")["unchanged"] == 6
    fetched = {key for key in made if not key.endswith(("O6", "O7", "O8"))}  # withheld: not seen
    assert {key: digests(place)[key] for key in fetched} == {key: made[key] for key in fetched}
    assert set(rows(place.url)["erp_sync_state"]["encoding_version"]) == {"1"}


def digests(place: Place) -> dict[str, tuple[bytes, bytes]]:
    with psycopg.connect(place.url, autocommit=True) as connection:
        found = connection.execute(
            "SELECT entity || ' ' || reference, data_hash, field_digests FROM bridge.synced_records "
            "WHERE NOT deleted"
        ).fetchall()
    return {str(reference): (bytes(data), bytes(fields)) for reference, data, fields in found}


def test_data_of_the_first_revision_is_kept_up_and_down_and_means_the_same(place: Place) -> None:
    known, written = hub(place, "ord") | hub(place, "lin"), effects(place)
    place.database.engine.dispose()  # what is prepared on its connections knows other columns
    down(place.url, rows(place.url))
    with psycopg.connect(place.url, autocommit=True) as connection:
        connection.execute(BY_HAND)
    first = rows(place.url)
    assert [name for name, columns in first.items() if not any(columns.values())] == []

    for _ in range(2):
        for revision in REVISIONS[1:]:
            migrate.upgrade(place.url, revision)
            assert differences(first, rows(place.url)) == [], revision
        assert down(place.url, first) == first
    migrate.upgrade(place.url)
    run = place.sync()

    # every order and line is known as it was, and nothing of them is sent
    assert effects(place) == written
    assert outcome(run, "ord") == {
        "fetched": 7,
        "normalized": 6,
        "rejected": 1,
        "unchanged": 6,
        "withheld_deletes": 3,
    }
    assert hub(place, "ord") | hub(place, "lin") == known


def down(url: str, kept: Rows) -> Rows:
    """To the first revision, step by step; each keeps what the one below it has of *kept*."""
    for revision in REVISIONS[-2::-1]:
        migrate.downgrade(url, revision)
        found = rows(url)
        there = {
            n: {c: v for c, v in columns.items() if c in found.get(n, {})}
            for n, columns in kept.items()
            if n in found
        }
        assert differences(there, found) == [], revision
    return rows(url)
