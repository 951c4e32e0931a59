"""Small tables by hand: what is odd about them, and what must be true afterwards."""

import json
import os
import signal
import time
from decimal import Decimal

import pytest
import sqlalchemy as sa
from forked import Failpoint
from local import LOCAL
from place import Place, lines, outcome
from tables import hub, link, references, table

from syncflow_core.bridge import state
from syncflow_core.bridge.entities import load_entities
from syncflow_core.bridge.failed import open_failed
from syncflow_core.entity import Entity, Field, Rowversion
from syncflow_core.errors import ConfigError
from syncflow_core.sandbox import erp, store
from syncflow_core.sandbox.store import Row
from syncflow_dagster.sandbox import demo_entities


def test_XH05_records_that_refer_to_each_other_are_deleted_together(place: Place) -> None:
    people: list[Row] = [{"ID": f"E{n}", "DEPT": f"D{n}"} for n in range(3)]
    depts: list[Row] = [{"ID": f"D{n}", "HEAD": f"E{n}"} for n in range(3)]
    table(place, "emp", {"ID": "VARCHAR2(9)", "DEPT": "VARCHAR2(9)"}, people)
    table(place, "dep", {"ID": "VARCHAR2(9)", "HEAD": "VARCHAR2(9)"}, depts)
    references(place, ("emp", "dept", "dep"), ("dep", "head", "emp"))
    place.apply(
        [
            Entity(name="emp", parents={"dept": link("dep", "dept")}),
            Entity(name="dep", parents={"head": link("emp", "head")}),
        ]
    )
    place.sync()
    assert (len(hub(place, "emp")), len(hub(place, "dep"))) == (3, 3)

    table(place, "emp", {"ID": "VARCHAR2(9)", "DEPT": "VARCHAR2(9)"}, people[:1])
    table(place, "dep", {"ID": "VARCHAR2(9)", "HEAD": "VARCHAR2(9)"}, depts[:1])
    place.sync()

    assert (len(hub(place, "emp")), len(hub(place, "dep"))) == (1, 1)


def test_a_part_and_its_part_that_refer_to_each_other_are_deleted(place: Place) -> None:
    columns = {"ID": "VARCHAR2(9)", "UP": "VARCHAR2(9)"}
    table(place, "slf", columns, [{"ID": "A", "UP": "B"}, {"ID": "B", "UP": "A"}, {"ID": "C"}])
    references(place, ("slf", "up", "slf"))
    place.apply([Entity(name="slf", parents={"up": link("slf", "up")})])
    place.sync()
    assert len(hub(place, "slf")) == 3

    table(place, "slf", columns, [{"ID": "C"}])
    place.sync()

    assert len(hub(place, "slf")) == 1


def test_a_reference_that_arrives_late_never_brings_an_old_version_back(place: Place) -> None:
    emp, dep = (
        {"ID": "VARCHAR2(9)", "DEPT": "VARCHAR2(9)"},
        {"ID": "VARCHAR2(9)", "HEAD": "VARCHAR2(9)", "NAME": "VARCHAR2(9)"},
    )
    table(place, "emp", emp, [{"ID": "E0", "DEPT": None}])
    table(place, "dep", dep, [{"ID": "D0", "HEAD": "E0", "NAME": "v1"}])
    references(place, ("emp", "dept", "dep"), ("dep", "head", "emp"))
    people = Entity(
        name="emp",
        fields=[Field(source="DEPT", required=False)],
        parents={"dept": link("dep", "dept")},
    )
    place.apply([people, Entity(name="dep", parents={"head": link("emp", "head")})])
    place.sync("dep")
    table(place, "dep", dep, [{"ID": "D0", "HEAD": "E0", "NAME": "v2"}])
    place.sync("dep")

    place.sync("emp")
    place.sync("dep")
    table(place, "emp", emp, [{"ID": "E0", "DEPT": "D0"}])
    place.sync("emp")

    assert '"name":"v2"' in hub(place, "dep")["id=D0"]
    assert outcome(place.sync("dep"), "dep") == {"fetched": 1, "normalized": 1, "unchanged": 1}


def test_two_entities_never_share_a_collection(place: Place) -> None:
    place.apply([Entity(name="one")])

    with pytest.raises(ConfigError, match="'one' is entity one's"):
        place.apply([Entity(name="two", collection="one")])


def test_a_source_that_was_restored_is_followed_and_said(place: Place) -> None:
    columns = {"ID": "VARCHAR2(9)", "NAME": "VARCHAR2(9)", "RV": "NUMBER(9)"}
    table(place, "t", columns, [{"ID": "A", "NAME": "new", "RV": 50}])
    place.apply([Entity(name="t", delta="hash")])
    place.sync()
    with place.tables.connection() as connection:
        store.update_row(connection, "t", {"ID": "A"}, {"ID": "A", "NAME": "restored", "RV": 10})

    run = place.sync()

    assert outcome(run, "t")["updated"] == 1
    assert "restored" in hub(place, "t")["id=A"]
    assert "1 rows are older than what was acknowledged" in str(run.batches[0].proof)


def test_XF28_an_incremental_sync_finds_ties_and_what_was_committed_late(place: Place) -> None:
    columns = {"ID": "VARCHAR2(9)", "NAME": "VARCHAR2(9)", "RV": "NUMBER(9)"}
    rows: list[Row] = [{"ID": f"{n}", "NAME": "old", "RV": 1000 + n} for n in range(1500)]
    table(place, "t", columns, rows)
    place.apply(
        [Entity(name="t", delta="rowversion", rowversion=Rowversion(column="RV", overlap_s=100))]
    )
    assert outcome(place.sync(mode="auto"), "t")["fetched"] == 1500
    with place.tables.connection() as connection:
        store.update_row(connection, "t", {"ID": "1499"}, {"ID": "1499", "NAME": "tie", "RV": 2499})
        store.update_row(
            connection, "t", {"ID": "1490"}, {"ID": "1490", "NAME": "late", "RV": 2490}
        )
        store.insert_row(connection, "t", {"ID": "new", "NAME": "new", "RV": 2500})

    counts = outcome(place.sync(mode="auto"), "t")

    assert (counts["updated"], counts["inserted"]) == (2, 1)
    assert counts["fetched"] < 200


def test_thirty_eight_digits_arrive_in_the_hub_digit_for_digit(place: Place) -> None:
    columns = {"ID": "VARCHAR2(9)", "WHOLE": "NUMBER(38,0)", "PART": "NUMBER", "TINY": "NUMBER"}
    whole, part = (
        "12345678901234567890123456789012345678",
        "0.12345678901234567890123456789012345678",
    )
    table(
        place,
        "t",
        columns,
        [{"ID": "A", "WHOLE": int(whole), "PART": Decimal(part), "TINY": Decimal("1E-30")}],
    )
    place.apply([Entity(name="t")])

    place.sync()

    document = hub(place, "t")["id=A"]
    assert f'"whole":{whole},' in document
    assert f'"part":{part},' in document
    assert f'"tiny":0.{"0" * 29}1,' in document


def test_deleting_and_inserting_the_same_key_revives_the_record(place: Place) -> None:
    columns = {"ID": "VARCHAR2(9)"}
    table(place, "t", columns, [{"ID": "A"}, {"ID": "B"}])
    place.apply([Entity(name="t")])
    place.sync()
    table(place, "t", columns, [{"ID": "B"}])
    place.sync()
    assert list(hub(place, "t")) == ["id=B"]

    table(place, "t", columns, [{"ID": "A"}, {"ID": "B"}])
    run = place.sync()

    assert outcome(run, "t")["inserted"] == 1
    assert sorted(hub(place, "t")) == ["id=A", "id=B"]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_stops_a_sync_which_says_so_and_frees_the_entities(
    place: Place, number: int, status: int
) -> None:
    with place.tables.connection() as connection:
        erp.seed_erp(connection, rows=1_000, seed=3)
    place.apply(demo_entities())
    LOCAL.post(
        f"{place.sandbox.apismith_url}/sandbox/faults",
        json=[{"match": {"path": "/runtime/.*/execute"}, "action": {"delay_s": 0.5}}],
    ).raise_for_status()
    running = place.process("sync", "--all", "--full", "--json")
    deadline = time.monotonic() + 60
    while _running(place) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)

    os.kill(running.pid, number)
    out, error = running.communicate(timeout=60)

    assert running.returncode == status, error
    assert {line["status"] for line in lines(out)} == {"stopped"}
    assert "Traceback" not in error
    assert _running(place) == 0


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize(
    "point",
    {
        "before there is a run": "syncflow_dagster.launch.end_abandoned",
        "before the run begins": "syncflow_dagster.launch.left_alone",
        "before its first op": "syncflow_dagster.resources.mark",
    }.values(),
)
def test_a_signal_before_the_first_op_stops_the_sync_too(
    shared_place: Place, point: str, number: int, status: int
) -> None:
    table(shared_place, "itm", {"ID": "NUMBER(9)"}, [{"ID": 1}])
    shared_place.apply([Entity(name="itm")])

    told = shared_place.process("sync", "itm", "--json", at=Failpoint(point, signal=number))
    out, said = told.communicate(timeout=60)

    assert told.returncode == status, said
    assert [line["status"] for line in lines(out)] == ["stopped"]
    assert "stopped by a person or a signal" in said
    assert "Traceback" not in said


def _running(place: Place) -> int:
    with place.database.begin() as connection:
        query = "SELECT count(*) FROM bridge.sync_batches WHERE status = 'running'"
        return int(connection.exec_driver_sql(query).scalar_one())


def test_the_demo_never_empties_a_home_that_became_somebodys_own(place: Place) -> None:
    own = {"SYNCFLOW_HOME": str(place.home / "own"), "SYNCFLOW_DATABASE_URL": ""}
    (place.home / "own").mkdir()
    (place.home / "own" / "demo").touch()
    file = place.home / "mine.yaml"
    file.write_text("version: 1\nentities:\n  - {name: mine}\n", encoding="utf-8")
    assert place.command("migrate", **own).returncode == 0
    assert place.command("entities", "apply", str(file), **own).returncode == 0

    refused = place.command("demo", "--rows", "1000", **own)

    assert refused.returncode == 2
    assert "set SYNCFLOW_HOME to another folder" in refused.stderr


def test_XN06_a_key_hash_that_belongs_to_another_key_is_filed_and_overwrites_nothing(
    place: Place,
) -> None:
    columns = {"ID": "VARCHAR2(9)", "NAME": "VARCHAR2(9)"}
    table(place, "col", columns, [{"ID": "A", "NAME": "one"}, {"ID": "B", "NAME": "one"}])
    place.apply([Entity(name="col")])
    place.sync()
    with place.database.begin() as connection:  # as if Z's text had the hash that A's has
        connection.execute(
            sa.text("UPDATE bridge.synced_records SET reference = 'id=Z' WHERE reference = 'id=A'")
        )

    table(place, "col", columns, [{"ID": "A", "NAME": "two"}, {"ID": "B", "NAME": "two"}])
    run = place.sync()

    with place.database.begin() as connection:
        letters = open_failed(connection, "col")
    assert outcome(run, "col") == {"fetched": 2, "normalized": 2, "rejected": 1, "updated": 1}
    assert letters.select("rule", "value").rows() == [("key_collision", "id=A")]
    assert '"name":"one"' in hub(place, "col")["id=A"]


def test_XF18_each_of_several_rows_with_one_key_is_filed_with_what_it_held(place: Place) -> None:
    columns = {"ID": "VARCHAR2(9)", "NAME": "VARCHAR2(9)", "RV": "NUMBER(9)"}
    rows: list[Row] = [{"ID": "A", "NAME": "old", "RV": 1}, {"ID": "A ", "NAME": "new", "RV": 2}]
    table(place, "dup", columns, rows)
    place.apply([Entity(name="dup")])

    run = place.sync()

    with place.database.begin() as connection:
        letters = open_failed(connection, "dup")
    assert outcome(run, "dup") == {"fetched": 2, "normalized": 2, "rejected": 1, "inserted": 1}
    assert '"name":"new"' in hub(place, "dup")["id=A"]
    assert letters["rule"].to_list() == ["duplicate_key"]
    assert json.loads(letters["raw"][0])["name"] == "old"


def test_XF25_texts_of_megabytes_arrive_whole_and_one_absurd_number_costs_its_row_alone(
    place: Place,
) -> None:
    long = 'Zeile "x" \\ \t ü\r\n' * 200_000
    rows: list[Row] = [
        {"ID": "A", "C": long, "J": "{}"},
        {"ID": "B", "C": "x", "J": '{"a":1e99999999999999999999}'},
        {"ID": "C", "C": "x" * 3_000_000, "J": '{"b":1,"a":[1.50]}'},
    ]
    table(place, "clb", {"ID": "VARCHAR2(9)", "C": "CLOB", "J": "JSON"}, rows)
    place.apply([Entity(name="clb")])

    run = place.sync()

    assert outcome(run, "clb") == {"fetched": 3, "normalized": 2, "rejected": 1, "inserted": 2}
    assert json.loads(hub(place, "clb")["id=A"])["c"] == long.replace("\r\n", "\n").strip()
    assert json.loads(hub(place, "clb")["id=C"])["j"] == {"a": [1.5], "b": 1}
    with place.database.begin() as connection:
        assert open_failed(connection, "clb")["rule"].to_list() == ["json"]


def test_each_form_of_pages_gives_the_same_records(place: Place) -> None:
    columns = {
        "ID": "VARCHAR2(9)",
        "NAME": "VARCHAR2(99)",
        "N": "NUMBER",
        "D": "DATE",
        "F": "BINARY_DOUBLE",
        "RV": "NUMBER(38)",
    }
    whole = {"NAME": ' ä "x"\\\n\t', "D": "2025-12-08T10:30:00", "F": 0.1, "RV": 10**37}
    rows: list[Row] = [
        {"ID": "A", "N": Decimal("1.50"), **whole},
        {"ID": "B", "N": Decimal("-12345678901234567890.123456789"), **whole},
        {"ID": "C", **dict.fromkeys(["NAME", "N", "D", "F", "RV"])},
    ]
    table(place, "frm", columns, rows)
    place.apply([Entity(name="frm")])

    found = {}
    for form in ("json", "ndjson", "arrow"):
        ended = place.command("sync", "frm", "--full", "--json", SYNCFLOW_APISMITH_PAGES=form)
        assert ended.returncode == 0, ended.stderr
        (line,) = lines(ended.stdout)
        found[form] = {name: number for name, number in line["counts"].items() if number}

    assert found == {
        "json": {"fetched": 3, "inserted": 3},
        "ndjson": {"fetched": 3, "unchanged": 3},
        "arrow": {"fetched": 3, "unchanged": 3},
    }


def test_the_schema_is_removed_with_what_is_declared_in_it_by_who_says_so_alone(
    place: Place,
) -> None:
    place.apply([Entity(name="fdb")])

    asked = place.command("migrate", "--down")
    with place.database.read() as connection:
        kept = [entity.name for entity in load_entities(connection)]
    told = place.command("migrate", "--down", "--yes")

    assert asked.returncode == 2
    assert "declarations (entities: 1)" in asked.stderr
    assert kept == ["fdb"]
    assert told.returncode == 0, told.stderr
    with place.database.read() as connection:
        assert "bridge" not in sa.inspect(connection).get_schema_names()
    assert place.command("migrate", "--down").returncode == 0, "nothing is left to lose"


def test_the_state_has_the_accounts_of_the_last_batch_and_the_rows_of_the_last_whole_read(
    place: Place,
) -> None:
    columns = {"ID": "NUMBER(9)", "VER": "NUMBER(9)"}
    table(place, "itm", columns, [{"ID": n, "VER": n} for n in range(5)])
    place.apply([Entity(name="itm", rowversion=Rowversion(column="VER", overlap_s=0))])
    place.sync()
    place.sync(mode="incremental")

    with place.database.read() as connection:
        found = state.load_state(connection, "itm", "itm")
    assert found.counts is not None
    assert {name: n for name, n in found.counts.items() if n} == {
        "fetched": 1,
        "normalized": 1,
        "unchanged": 1,
        "rows": 5,
    }
