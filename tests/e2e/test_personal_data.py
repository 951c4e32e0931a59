"""Values of marked fields are nowhere but on their way: not in the database, nor in any log or output."""

import json
import re
from pathlib import Path
from typing import Any, Final

import psycopg
from local import LOCAL
from place import Place, lines
from psycopg import sql
from tables import faults, hits, hub, references, table

from syncflow_core.entity import Brake, Entity, Field, ParentRef
from syncflow_core.sandbox.store import Row

COLUMNS: Final = {
    "MAIL": "VARCHAR2(60)",
    "PHONE": "VARCHAR2(40)",
    "NOTE": "VARCHAR2(60)",
    "FIRST": "VARCHAR2(40)",
    "LAST": "VARCHAR2(40)",
    "WAGE": "NUMBER(6)",
    "CITY": "VARCHAR2(40)",
}
PEOPLE = Entity(
    name="people",
    business_key=["MAIL"],
    brake=Brake(rows=1, share=0),
    fields=[
        {"source": "MAIL", "target": "mail", "pii": "mask"},
        {"source": "PHONE", "target": "phone", "pii": "hash", "max_length": 20},
        {"source": "NOTE", "target": "note", "pii": "drop"},
        {"target": "full", "pii": "mask", "transform": {"concat": {"columns": ["FIRST", "LAST"]}}},
        {"source": "WAGE", "target": "wage", "pii": "mask", "maximum": 9000},
    ],
)
VISITS = Entity(
    name="visits",
    fields=[{"source": "HOST", "target": "host"}],
    parents={"host": ParentRef(entity="people", key={"mail": "host"})},
)
WHOLE: Final = {
    ("synced_records", "key_source"),
    ("failed_records", "key_source"),
    ("pending_children", "key_source"),
    ("pending_children", "payload"),
}
"""Columns that hold what is needed to read or send a record again."""


def person(name: str, **other: Any) -> Row:
    """Every value of a marked field is a word of its own that is easy to look for."""
    row = {
        "MAIL": f"zq_{name}@zq_mail.example",
        "PHONE": f"zq_{name}phone",
        "NOTE": f"zq_{name}note",
        "FIRST": f"zq_{name}first",
        "LAST": f"zq_{name}last",
        "WAGE": "4711",
        "CITY": f"city{name}",
    }
    return {**row, **other}


def found(place: Place, secret: str) -> set[tuple[str, str]]:
    """The columns of the whole database in which the text stands; the ERP and the hub are others'."""
    columns = """SELECT table_schema, table_name, column_name FROM information_schema.columns
        JOIN information_schema.tables USING (table_schema, table_name)
        WHERE table_type = 'BASE TABLE'
        AND table_schema NOT IN ('pg_catalog', 'information_schema', 'erp', 'hub')"""
    seen = set()
    with psycopg.connect(place.url) as connection:
        for schema, name, column in connection.execute(columns).fetchall():
            query = sql.SQL("SELECT count(*) FROM {} WHERE {}::text ~* %s").format(
                sql.Identifier(schema, name), sql.Identifier(column)
            )
            (number,) = connection.execute(query, [secret]).fetchone() or (0,)
            if number:
                seen.add((name, column))
    return seen


def files_with(folder: Path, secret: str) -> list[str]:
    """Files of the home, staged frames left out, that hold the text."""
    pattern = re.compile(secret.encode(), re.IGNORECASE)
    return [
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and "frames" not in path.parts and pattern.search(path.read_bytes())
    ]


def switch(place: Place, **switches: Any) -> None:
    url = f"{place.sandbox.schedulehub_url}/sandbox/switches"
    LOCAL.post(url, json=switches).raise_for_status()


def test_values_of_marked_fields_are_nowhere_but_on_their_way(place: Place) -> None:
    """Every way in which a record can be kept or shown is taken, and everything is searched after."""
    told: list[str] = []

    def run(*arguments: str, status: int | None = None) -> str:
        ended = place.command(*arguments)
        told.append(ended.stdout + ended.stderr)
        assert status in {None, ended.returncode}, ended.stdout + ended.stderr
        return ended.stdout

    place.apply([PEOPLE, VISITS])
    references(place, ("visits", "host", "people"))
    people = [person(f"p{n}") for n in range(6)]
    bad = [
        person("long", PHONE="zq_longphone" * 3),
        person("rich", WAGE="zq_wage"),
        person("nokey", MAIL=None),
        person("refused"),
        person("twice"),
        person("twice", NOTE="zq_twiceother"),
    ]
    table(place, "people", COLUMNS, [*people, *bad], key="MAIL")
    visits: list[Row] = [{"ID": "1", "HOST": "yx_absent@yx_mail.example"}]
    table(place, "visits", {"ID": "NUMBER(9)", "HOST": "VARCHAR2(60)"}, visits)
    switch(
        place,
        reject=[{"collection": "people", "field": "mail", "value": "zq_refused@zq_mail.example"}],
    )

    run("plan", "--all")
    run("sync", "--all", status=1)
    delivered = hub(place, "people")
    assert "zq_p0first" in delivered["mail=zq_p0@zq_mail.example"]
    assert len(delivered) == 7

    # updates and deletes are withheld, with old and new values; then a system breaks, and says why
    people = [{**row, "PHONE": "zq_newphone", "CITY": "elsewhere"} for row in people[:4]]
    table(place, "people", COLUMNS, [*people, *bad], key="MAIL")
    run("sync", "people", status=3)
    run("plan")
    run("plan", "--json")
    faults(
        place.sandbox.schedulehub_url,
        {
            "match": {"path": "/people"},
            "action": {"status": 400, "body": '{"detail": "Key (mail)=(zq_p0@zq_mail.example)"}'},
        },
    )
    run("reconcile", "people", "--json")
    assert hits(place.sandbox.schedulehub_url) > 0
    faults(place.sandbox.schedulehub_url)
    run("reconcile", "people")
    run("reconcile", "people", "--sample", "10", "--repair")
    for number in range(5):
        run("retry", *(["--json"] if number % 2 else []))
    run("status")
    run("status", "--json")
    for key in ("zq_p0@zq_mail.example", "zq_refused@zq_mail.example", "zq_long@zq_mail.example"):
        run("trace", "people", key, status=0)
        story = json.loads(run("trace", "people", key, "--json", status=0))
        by_hash = json.loads(run("trace", "people", story["key_hash"], "--json", status=0))
        by_reference = json.loads(run("trace", "people", story["reference"], "--json", status=0))
        assert story["row"]["CITY"] in {"elsewhere", "cityrefused", "citylong"}
        assert story == by_hash == by_reference
    run("trace", "visits", "1", "--json", status=0)
    run("trace", "people", "zq_nobody@zq_mail.example|zq_")

    letters = {line["rule"] for line in lines(run("status", "--json"))[0]["failures"]}
    assert letters == {"max_length", "number", "null_key", "duplicate_key", "hub_422"}
    assert found(place, "zq_") - WHOLE == set()
    assert ("synced_records", "key_source") in found(place, "zq_p0@")
    assert not [text for text in told if re.search("zq_", text, re.IGNORECASE)]
    assert files_with(place.home, "zq_") == []
    # the child's own field is not marked: its row and payload show it, the parent's reference does not
    assert found(place, "yx_absent") == {("failed_records", "raw"), ("pending_children", "payload")}


def test_a_record_whose_key_is_hidden_is_retried_adopted_and_deleted_by_its_key(
    place: Place,
) -> None:
    place.apply([PEOPLE.model_copy(update={"brake": Brake()})])
    table(place, "people", COLUMNS, [person("a"), person("b", WAGE="much"), person("c")], "MAIL")
    assert place.sync("people").batches[0].counts.rejected == 1

    table(place, "people", COLUMNS, [person("a"), person("b"), person("c")], "MAIL")
    assert place.command("retry", "people").returncode == 0
    assert len(hub(place, "people")) == 3

    with psycopg.connect(
        place.url
    ) as connection:  # a lost bridge: the hub's references tell the keys
        connection.execute("TRUNCATE bridge.synced_records")
        connection.execute("UPDATE bridge.erp_sync_state SET adopted_at = NULL")
    table(place, "people", COLUMNS, [person("a"), person("b")], "MAIL")
    counts = place.sync("people").batches[0].counts

    assert (counts.unchanged, counts.deleted) == (2, 1)
    assert sorted(hub(place, "people")) == [
        "mail=zq_a@zq_mail.example",
        "mail=zq_b@zq_mail.example",
    ]
    with psycopg.connect(place.url) as connection:
        names = connection.execute("SELECT reference FROM bridge.synced_records").fetchall()
    assert all(re.fullmatch(r"mail=\*\*\* \[[0-9a-f]{32}\]", name) for (name,) in names)


def test_what_was_kept_before_a_field_was_marked_is_hidden_by_the_next_sync(place: Place) -> None:
    unmarked = [item.model_copy(update={"pii": None}) for item in PEOPLE.fields]
    host = VISITS.model_copy(update={"fields": [Field(source="HOST", target="host", pii="mask")]})
    place.apply([PEOPLE.model_copy(update={"fields": unmarked}), VISITS])
    references(place, ("visits", "host", "people"))
    bad = [person("rich", WAGE="zq_wage"), person("refused"), person("twice")]
    rows = [*(person(f"p{n}") for n in range(4)), *bad, person("twice", NOTE="zq_other")]
    table(place, "people", COLUMNS, rows, key="MAIL")
    visits: list[Row] = [{"ID": "1", "HOST": "zq_absent@zq_mail.example"}]
    table(place, "visits", {"ID": "NUMBER(9)", "HOST": "VARCHAR2(60)"}, visits)
    switch(place, reject=[{"collection": "people", "field": "phone", "value": "zq_refusedphone"}])
    for _ in range(5):
        place.sync()
    table(place, "people", COLUMNS, [person("p0", PHONE="zq_new"), *bad], key="MAIL")
    place.sync("people")
    assert {("plans", "samples"), ("failed_records", "raw"), ("failed_records", "message")} < found(
        place, "zq_"
    )

    place.apply([PEOPLE, host])
    place.sync()

    assert found(place, "zq_") - WHOLE == set()
    # whoever is asked about by key is found still
    table(place, "people", COLUMNS, [person("p0"), *bad], key="MAIL")
    place.apply([PEOPLE.model_copy(update={"brake": Brake()})])
    assert place.sync("people").batches[0].counts.deleted == 3


def test_a_rowversion_cannot_be_marked(place: Place) -> None:
    place.apply([Entity(name="people", rowversion={"column": "AT"}, fields=[{"source": "AT", "pii": "mask"}])])  # fmt: skip
    table(place, "people", {"ID": "NUMBER(9)", "AT": "NUMBER(9)"}, [{"ID": "1", "AT": "1"}])

    ended = place.command("sync", "people", "--json")

    assert ended.returncode == 1
    assert "a rowversion is kept and shown as it is" in ended.stderr
