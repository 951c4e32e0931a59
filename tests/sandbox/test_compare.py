from collections.abc import Callable, Iterator

import httpx
import pytest

from syncflow_core.sandbox import Sandbox, compare, database, store


@pytest.fixture
def filled(
    sandbox: Sandbox, fill_hub: Callable[[], dict[str, int]]
) -> Iterator[database.Connection]:
    fill_hub()
    with database.connect(sandbox.database_url) as connection:
        yield connection


def one(connection: database.Connection, collection: str) -> tuple[object, ...]:
    row = connection.execute(
        "SELECT uid, doc FROM hub.records JOIN hub.collections ON id = collection"
        " WHERE name = %s ORDER BY uid LIMIT 1",
        [collection],
    ).fetchone()
    assert row is not None
    return row


@pytest.mark.usefixtures("filled")
def test_a_hub_that_holds_the_truth_is_equal(sandbox: Sandbox) -> None:
    result = compare.compare(sandbox.database_url)
    absent = {item.entity: item.absent for item in result.entities if item.absent}

    assert result.equal, result.table()
    assert sum(item.expected + item.absent for item in result.entities) == 2_000
    assert absent == {"order_lines": 4 + 8, "operations": 4, "stock": 4}


@pytest.mark.usefixtures("filled")
def test_after_a_day_the_hub_differs_by_what_the_day_did(
    sandbox: Sandbox,
    hub: httpx.Client,
    apismith: httpx.Client,
    fill_hub: Callable[[], dict[str, int]],
) -> None:
    counts = apismith.post("/sandbox/day", json={"changed": 0.05}).json()["customers"]
    customers = next(
        e for e in compare.compare(sandbox.database_url).entities if e.entity == "customers"
    )

    assert len(customers.missing) == counts["inserted"]
    assert len(customers.extra) == counts["deleted"]
    assert len({item.key for item in customers.different}) == counts["changed"]
    hub.post("/sandbox/reset")
    fill_hub()
    assert compare.compare(sandbox.database_url).equal


@pytest.mark.parametrize(
    ("statement", "entity", "kind"),
    [
        ("UPDATE hub.records SET doc = replace(doc, '\"total\":', '\"total\":9') WHERE uid = %s", "orders", "different"),
        ("UPDATE hub.records SET doc = regexp_replace(doc, '}$', ',\"more\":1}') WHERE uid = %s", "sites", "different"),
        ("UPDATE hub.records SET deleted = true WHERE uid = %s", "stock", "missing"),
        ("UPDATE hub.records SET doc = regexp_replace(doc, '\"site_code\":\"S', '\"site_code\":\"X') WHERE uid = %s", "sites", "extra"),
        ("UPDATE hub.records SET doc = regexp_replace(doc, '\"customer\": ?\"[0-9a-f]{4}', '\"customer\":\"ffff') WHERE uid = %s", "orders", "different"),
        ("UPDATE hub.records SET doc = regexp_replace(doc, '(\"area_m2\":[0-9]+)[0-9.]*', '\\1.50') WHERE uid = %s", "sites", "different"),
    ],
)  # fmt: skip
def test_one_wrong_record_is_found(
    sandbox: Sandbox, filled: database.Connection, statement: str, entity: str, kind: str
) -> None:
    changed = filled.execute(statement.encode(), [one(filled, entity)[0]])
    result = {item.entity: item for item in compare.compare(sandbox.database_url).entities}

    assert changed.rowcount == 1
    assert len(getattr(result[entity], kind)) == 1, result[entity]


def test_the_command_ends_with_1_when_the_hub_differs(
    sandbox: Sandbox, filled: database.Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--database-url", sandbox.database_url]
    assert compare.main(arguments) == 0
    filled.execute(
        "UPDATE hub.records SET deleted = true WHERE uid = %s", [one(filled, "parts")[0]]
    )

    assert compare.main([*arguments, "--entity", "parts"]) == 1
    assert "parts: missing part_no=P-" in capsys.readouterr().out


def test_a_table_of_its_own_compares_like_the_others(sandbox: Sandbox, hub: httpx.Client) -> None:
    table = store.Table(
        "coins",
        [{"name": "CODE", "data_type": "VARCHAR2(3)"}, {"name": "RATE", "data_type": "NUMBER"}],
        ["CODE"],
        has_truth=True,
    )
    with database.connect(sandbox.database_url) as connection:
        store.load_table(
            connection, table, [{"CODE": "EUR", "RATE": "1,0"}], [{"code": "EUR", "rate": 1}]
        )
        before = compare.compare(sandbox.database_url, ["coins"])
        record = {"erp_key_hash": "0" * 32, "code": "EUR", "rate": 1}
        hub.post("/api/v1/coins", json=record).raise_for_status()
        after = compare.compare(sandbox.database_url, ["coins"])
        connection.execute("DROP TABLE erp.t_coins")
        connection.execute("DELETE FROM erp.tables WHERE name = 'coins'")

    assert before.entities[0].missing == ["code=EUR"]
    assert after.equal
