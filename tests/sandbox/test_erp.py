import json
import os
from collections.abc import Iterator

import psycopg
import pytest

from syncflow_core.sandbox import database, days, erp, store
from syncflow_core.sandbox.tables import ENTITIES


@pytest.fixture(scope="module")
def connection(database_url: str) -> Iterator[database.Connection]:
    """A second database: these tests seed anew while the servers of the others keep their rows."""
    name = f"erp_{os.getpid()}"
    with psycopg.connect(database_url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}".encode())
        url = database_url.replace(f"/sandbox_{os.getpid()}", f"/{name}")
        database.prepare(url)
        with database.connect(url) as own:
            yield own
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def contents(connection: database.Connection, name: str) -> dict[str, str]:
    key = "serial::text" if name != "bench" else "k1::text"
    rows = connection.execute(f"SELECT {key}, doc FROM erp.t_{name}".encode())  # noqa: S608  # a name of ours
    return {str(k): str(doc) for k, doc in rows}


def all_contents(connection: database.Connection) -> dict[str, dict[str, str]]:
    return {name: contents(connection, name) for name in ENTITIES}


def test_the_same_seed_makes_the_same_rows_and_another_seed_others(
    connection: database.Connection,
) -> None:
    erp.seed_erp(connection, rows=2_000, seed=1)
    first = all_contents(connection)
    erp.seed_erp(connection, rows=2_000, seed=2)
    other = all_contents(connection)
    erp.seed_erp(connection, rows=2_000, seed=1)

    assert all_contents(connection) == first
    assert other["orders"] != first["orders"]


@pytest.mark.parametrize("rows", [1_000, 2_345, 20_000])
def test_the_tables_hold_the_rows_asked_for(connection: database.Connection, rows: int) -> None:
    counts = erp.seed_erp(connection, rows=rows)

    assert sum(counts[name] for name in ENTITIES) == rows
    for name in ENTITIES:
        assert counts[name] == len(contents(connection, name))


def test_fewer_rows_than_eight_tables_need_are_refused(connection: database.Connection) -> None:
    with pytest.raises(ValueError, match="rows: 999"):
        erp.seed_erp(connection, rows=999)


def test_twelve_rows_are_bad_and_have_no_truth(connection: database.Connection) -> None:
    erp.seed_erp(connection, rows=2_000)

    bad = {
        name: connection.execute(
            f"SELECT count(*) FROM erp.t_{name} WHERE truth IS NULL".encode()  # noqa: S608  # a name of ours
        ).fetchone()
        for name in ENTITIES
    }
    assert {name for name, row in bad.items() if row != (0,)} == set(erp.FLAWED)
    assert sum(int(str(row[0])) for row in bad.values() if row) == 12


def test_no_two_rows_share_a_key(connection: database.Connection) -> None:
    erp.seed_erp(connection, rows=20_000)

    for name in ENTITIES:
        table = store.table_named(connection, name)
        keys = ", ".join(table.key_order[:-1])
        row = connection.execute(
            f"SELECT count(*) - count(DISTINCT ({keys})) FROM erp.t_{name}".encode()  # noqa: S608  # names of ours
        ).fetchone()
        assert row == (0,), name


def test_every_column_of_a_row_is_described(connection: database.Connection) -> None:
    erp.seed_erp(connection, rows=1_000)

    for name in ENTITIES:
        table = store.table_named(connection, name)
        described = {column["name"] for column in table.columns}
        for doc in contents(connection, name).values():
            assert set(json.loads(doc)) <= described


def test_a_day_changes_exactly_the_rows_that_it_counts(connection: database.Connection) -> None:
    erp.seed_erp(connection, rows=5_000, seed=3)
    for _ in range(3):
        before = all_contents(connection)
        counts = days.pass_day(connection, changed=0.05, inserted=0.01, deleted=0.01)
        after = all_contents(connection)

        for name in ENTITIES:
            old, new = before[name], after[name]
            seen = {
                "inserted": len(new.keys() - old.keys()),
                "deleted": len(old.keys() - new.keys()),
                "changed": sum(old[key] != new[key] for key in old.keys() & new.keys()),
            }
            assert {key: counts[name].as_dict()[key] for key in seen} == seen, name
            assert store.table_named(connection, name).row_count == len(new)


def test_days_are_the_same_for_the_same_seed(connection: database.Connection) -> None:
    results = []
    for _ in range(2):
        erp.seed_erp(connection, rows=3_000, seed=4)
        counts = [days.pass_day(connection) for _ in range(2)]
        results.append((counts, all_contents(connection)))

    assert results[0] == results[1]


def test_bad_rows_are_repaired_one_a_day_and_orders_of_orphans_arrive(
    connection: database.Connection,
) -> None:
    erp.seed_erp(connection, rows=5_000)
    counts = days.pass_day(connection, inserted=0.05)

    assert {name: item.repaired for name, item in counts.items() if item.repaired} == dict.fromkeys(
        erp.FLAWED, 1
    )
    orphans = connection.execute(
        "SELECT count(*) FROM erp.t_order_lines AS line WHERE NOT EXISTS"
        " (SELECT FROM erp.t_orders AS parent WHERE parent.k1 = line.k1)"
    ).fetchone()
    assert orphans == (erp.ORPHANS_FOR_EVER,)


def test_rowversions_of_a_day_are_later_than_all_before(connection: database.Connection) -> None:
    erp.seed_erp(connection, rows=2_000)
    before = connection.execute("SELECT max(rv) FROM erp.t_orders").fetchone()
    days.pass_day(connection)
    changed = connection.execute(
        "SELECT min(rv) FROM erp.t_orders WHERE rv > %s", [before[0] if before else None]
    ).fetchone()

    assert changed is not None
    assert int(str(changed[0])) == days.RV_PER_DAY + (0 if changed else 1)


def test_the_wide_table_has_sixteen_columns_and_takes_part_in_days(
    connection: database.Connection,
) -> None:
    erp.seed_bench(connection, rows=3_000)
    table = store.table_named(connection, "bench")
    counts = days.pass_day(connection, changed=0.01, inserted=0, deleted=0, tables=("bench",))

    assert len(table.columns) == 16
    assert counts["bench"].as_dict() == {"inserted": 0, "changed": 30, "deleted": 0, "repaired": 0}
