"""Small tables made by hand in the sandbox's ERP, and what its hub holds of them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, LiteralString

from local import LOCAL
from place import Place
from psycopg import sql

from syncflow_core.entity import ParentRef
from syncflow_core.sandbox import store
from syncflow_core.sandbox.store import ColumnInfo, Row


def items(count: int, name: str = "a") -> list[Row]:
    """Rows of the columns ID and NAME."""
    return [{"ID": f"I{n}", "NAME": name} for n in range(count)]


def table(
    place: Place,
    name: str,
    columns: dict[str, str],
    rows: list[Row],
    key: str = "ID",
    keys: Sequence[str] = (),
) -> None:
    described: list[ColumnInfo] = [{"name": c, "data_type": t} for c, t in columns.items()]
    with place.tables.connection() as connection:
        store.load_table(
            connection,
            store.Table(
                name=name,
                columns=described,
                business_key=list(keys) or [key],
                key_fields=[name.lower() for name in keys or [key]],
                rowversion_column="RV" if "RV" in columns else None,
            ),
            rows,
        )


@contextmanager
def lost(place: Place, name: str, condition: LiteralString) -> Iterator[None]:
    """The rows of the table that fulfil the condition are not in the source until the block ends."""
    rows, where = sql.Identifier("erp", f"t_{name}"), sql.SQL(condition)

    def change(statement: LiteralString) -> None:
        counted: LiteralString = (
            "; UPDATE erp.tables SET version = version + 1, "
            "row_count = (SELECT count(*) FROM {rows}) WHERE name = {name}"
        )
        with place.tables.connection() as connection:
            connection.execute(
                sql.SQL(statement + counted).format(rows=rows, where=where, name=sql.Literal(name))
            )

    change(
        "CREATE TABLE erp.lost AS SELECT * FROM {rows} WHERE {where}; "
        "DELETE FROM {rows} WHERE {where}"
    )
    yield
    change("INSERT INTO {rows} OVERRIDING SYSTEM VALUE SELECT * FROM erp.lost; DROP TABLE erp.lost")


def hub(place: Place, collection: str) -> dict[str, str]:
    """Live records: reference to the document's text."""
    with place.tables.connection() as connection:
        rows = connection.execute(
            "SELECT r.doc::json ->> 'erp_ref_str', r.doc FROM hub.records r JOIN hub.collections c ON c.id = r.collection "
            "WHERE c.name = %s AND NOT r.deleted",
            [collection],
        ).fetchall()
    return {str(reference): str(document) for reference, document in rows}


def references(place: Place, *known: tuple[str, str, str]) -> None:
    LOCAL.post(
        f"{place.sandbox.schedulehub_url}/sandbox/references",
        json=[{"collection": c, "name": n, "parent": p} for c, n, p in known],
    ).raise_for_status()


def link(entity: str, field: str) -> ParentRef:
    return ParentRef(entity=entity, key={"id": field})


def effects(place: Place) -> int:
    """How many lines the hub's log of effects has."""
    with place.tables.connection() as connection:
        row = connection.execute("SELECT count(*) FROM hub.effects").fetchone()
    assert row is not None
    return int(str(row[0]))


def faults(url: str, *rules: dict[str, Any]) -> None:
    """Put these faults in the place of those that the sandbox's server at *url* has."""
    LOCAL.post(f"{url}/sandbox/faults", json=list(rules)).raise_for_status()


def hits(url: str) -> int:
    """How often the server's faults have struck."""
    states = LOCAL.get(f"{url}/sandbox/faults").json()
    return sum(int(state["hits"]) for state in states)
