"""Declarations in the database: exact, versioned, and checked."""

from datetime import UTC, date, datetime

import polars as pl
import pytest
import sqlalchemy as sa

from syncflow_core.bridge import batches, schedules, sweeps
from syncflow_core.bridge.database import Database
from syncflow_core.bridge.entities import (
    apply_entities,
    disable_entity,
    load_entities,
    load_registered,
    save_contract,
)
from syncflow_core.bridge.schedules import Progress
from syncflow_core.bridge.sweeps import Slice
from syncflow_core.bridge.tables import entity_contracts, field_mappings
from syncflow_core.entity import Entity
from syncflow_core.errors import ConfigError

FULL = Entity.model_validate(
    {
        "name": "order_lines",
        "api": "lines_v2",
        "group": "sales",
        "business_key": ["ORDER_NO", "LINE_NO"],
        "rowversion": {"column": "RV", "kind": "timestamp", "overlap_s": 60},
        "delta": "hash",
        "brake": {"rows": 5, "share": 0.5},
        "time_zone": "Europe/Berlin",
        "fields": [
            {"source": "ORDER_NO", "target": "order_no", "transform": ["upper"]},
            {"source": "QTY", "type": "decimal", "precision": 12, "scale": 3, "minimum": "0.001"},
            {"source": "STATUS", "values": {"Released": "R", "Gone": None}, "default": "P"},
            {"source": "DONE", "default": False, "required": True},
            {"target": "full", "transform": [{"concat": {"columns": ["A", "B"]}}]},
            {"target": "zero", "default": 0},
            {"source": "CODE", "transform": [{"lookup": {"a": None, "b": "B"}}, "trim"]},
        ],
        "parents": {"order": {"entity": "orders", "key": {"order_no": "order_no"}}},
        "schedule": {"incremental_minutes": 15, "background": {"window": "22:00-05:30"}},
    }
)
ORDERS = Entity(name="orders")
NOW = datetime(2025, 12, 8, 22, tzinfo=UTC)
NIGHT = date(2025, 12, 8)


def test_a_declaration_comes_back_exactly_as_it_was(database: Database) -> None:
    with database.begin() as connection:
        applied = apply_entities(connection, [FULL, ORDERS])
        found = load_entities(connection)

    assert [(item.name, item.version, item.change) for item in applied] == [
        ("order_lines", 1, "created"),
        ("orders", 1, "created"),
    ]
    assert found == [FULL, ORDERS]
    assert (
        found[0].model_dump(exclude_unset=True)["fields"]
        == (FULL.model_dump(exclude_unset=True)["fields"])
    )


def test_only_a_real_change_makes_a_version_and_the_old_one_stays(database: Database) -> None:
    changed = FULL.model_copy(update={"fields": FULL.fields[:1]})
    with database.begin() as connection:
        apply_entities(connection, [FULL, ORDERS])
        again = apply_entities(connection, [FULL, ORDERS])
        third = apply_entities(connection, [changed])

        assert {item.change for item in again} == {"unchanged"}
        assert [(item.version, item.change) for item in third] == [(2, "changed")]
        assert load_entities(connection, ["order_lines"]) == [changed]
        fields = connection.execute(
            sa.select(field_mappings.c.version, sa.func.count())
            .group_by(field_mappings.c.version)
            .order_by(field_mappings.c.version)
        ).all()
        assert fields == [(1, 7), (2, 1)]


def test_the_schedule_follows_the_declaration_and_the_sweep_starts_anew_with_other_nights(
    database: Database,
) -> None:
    three = Entity.model_validate(
        {"name": "orders", "schedule": {"background": {"nights": 3, "window": "01:00-04:00"}}}
    )
    with database.begin() as connection:
        apply_entities(connection, [ORDERS])
        batch = batches.open_batch(
            connection, entity="orders", entity_version=1, kind="slice", now=NOW
        )
        seen = Slice(2, 7, batch, 10, complete=True, unkeyed=0, head=(), tail=())
        sweeps.save_slice(connection, "orders", seen, pl.Series([bytes(16)]), NOW)
        schedules.note_slice(connection, "orders", 2, night=NIGHT, ends=False, now=NOW)
        (half_way,) = schedules.load_nights(connection)
        apply_entities(connection, [Entity(name="orders", group="sales")])
        (same,) = schedules.load_nights(connection)
        apply_entities(connection, [three])
        (anew,) = schedules.load_nights(connection)

    assert half_way.progress == Progress(10, 10, 0, 2, NIGHT, NIGHT, None)
    assert same.progress == half_way.progress
    assert (anew.nights, anew.window_start.hour, anew.progress) == (
        3,
        1,
        Progress(None, 0, 0, None, NIGHT, None, None),
    )


def test_every_unknown_parent_is_named(database: Database) -> None:
    orphan = Entity.model_validate(
        {"name": "stock", "parents": {"part": {"entity": "parts", "key": {"a": "a"}}}}
    )
    with (
        database.begin() as connection,
        pytest.raises(ConfigError, match=r"order_lines.parents.order: .*'orders'; stock.*'parts'"),
    ):
        apply_entities(connection, [FULL, orphan])


def test_a_parent_that_is_in_the_database_already_is_known(database: Database) -> None:
    with database.begin() as connection:
        apply_entities(connection, [ORDERS])
        (applied,) = apply_entities(connection, [FULL])

    assert applied.change == "created"


def test_an_unknown_name_is_said_with_those_that_are_there(database: Database) -> None:
    with database.begin() as connection:
        apply_entities(connection, [ORDERS])
        with pytest.raises(ConfigError, match=r"no entity nope \(there are: orders\)"):
            load_entities(connection, ["orders", "nope"])


def test_a_parent_is_not_disabled_before_its_children(database: Database) -> None:
    with database.begin() as connection:
        apply_entities(connection, [FULL, ORDERS])
        with pytest.raises(ConfigError, match="parent of order_lines"):
            disable_entity(connection, "orders")
        disable_entity(connection, "order_lines")
        disable_entity(connection, "orders")

        assert load_entities(connection) == []
        assert [item.name for item in load_entities(connection, enabled=None)] == [
            "order_lines",
            "orders",
        ]
        with pytest.raises(ConfigError, match="no entity nope"):
            disable_entity(connection, "nope")


def test_a_disabled_entity_is_back_when_it_is_applied_again(database: Database) -> None:
    with database.begin() as connection:
        apply_entities(connection, [ORDERS])
        disable_entity(connection, "orders")
        (applied,) = apply_entities(connection, [ORDERS])

        assert (applied.version, applied.change) == (2, "changed")
        assert load_entities(connection) == [ORDERS]


def test_the_accepted_contract_is_kept(database: Database) -> None:
    with database.begin() as connection:
        apply_entities(connection, [ORDERS])
        now = datetime(2026, 1, 1, tzinfo=UTC)
        save_contract(connection, "orders", {"ORDER_NO": "CHAR"}, "first seen", now)
        version = save_contract(
            connection, "orders", {"ORDER_NO": "VARCHAR2"}, "ORDER_NO was CHAR", now
        )
        (found,) = load_registered(connection)
        kept = connection.execute(sa.select(entity_contracts)).all()

    assert (found.contract, found.version, found.enabled) == ({"ORDER_NO": "VARCHAR2"}, 1, True)
    assert (version, found.contract_version) == (2, 2)
    assert [(row.version, row.columns["ORDER_NO"]) for row in kept] == [
        (1, "CHAR"),
        (2, "VARCHAR2"),
    ]
