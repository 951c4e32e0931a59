"""What the hub holds already: first runs, lost and restored bridge databases, other mappings, contracts."""

import json

import pytest
import sqlalchemy as sa
from local import LOCAL
from place import Place, lines, notes, outcome
from tables import effects, hub, table

from syncflow_core.bridge import migrate
from syncflow_core.entity import Brake, Entity, Field, Rowversion
from syncflow_core.sandbox.store import Row

COLUMNS = {"ID": "VARCHAR2(9)", "NAME": "VARCHAR2(9)", "QTY": "NUMBER(12,2)", "AT": "DATE"}
ITEM = Entity(name="ado", brake=Brake(rows=100, share=1))


def items(count: int, **changed: str) -> list[Row]:
    return [
        {
            "ID": f"I{n}",
            "NAME": changed.get(f"I{n}", 'a"ä'),
            "QTY": f"{n}.50",
            "AT": "2025-12-08 10:30:00",
        }
        for n in range(count)
    ]


def forget_bridge(place: Place) -> None:
    migrate.downgrade(place.url)
    migrate.upgrade(place.url)
    place.apply([ITEM])


@pytest.fixture
def synced(place: Place) -> Place:
    table(place, "ado", COLUMNS, items(20))
    place.apply([ITEM])
    place.sync()
    return place


def test_a_lost_bridge_database_doubles_nothing_and_sends_only_real_differences(
    synced: Place,
) -> None:
    before = effects(synced)
    forget_bridge(synced)
    table(synced, "ado", COLUMNS, items(21, I3="b")[1:])

    run = synced.sync()

    assert "20 records were in the target before the first batch" in notes(run.batches[0])
    assert outcome(run, "ado") == {
        "fetched": 20,
        "normalized": 20,
        "inserted": 1,
        "updated": 1,
        "deleted": 1,
        "unchanged": 18,
    }
    assert effects(synced) == before + 3


def test_a_hub_filled_by_other_means_is_compared_by_content(synced: Place) -> None:
    forget_bridge(synced)
    with synced.database.begin() as connection:
        connection.execute(
            sa.text("UPDATE hub.records SET data_hash = '00' || left(data_hash, 62)")
        )
    before = effects(synced)

    run = synced.sync()

    assert "were compared with the target: 0 differ" in (notes(run.batches[0]))
    assert outcome(run, "ado")["unchanged"] == 20
    assert effects(synced) == before
    assert outcome(synced.sync(), "ado")["unchanged"] == 20


def test_XD09_a_bridge_database_restored_from_yesterday_takes_over_what_the_hub_holds(
    synced: Place,
) -> None:
    with synced.database.begin() as connection:
        for name in ("synced_records", "erp_sync_state"):
            connection.execute(sa.text(f"CREATE TABLE public.y_{name} AS TABLE bridge.{name}"))
    table(synced, "ado", COLUMNS, items(25, I3="b")[2:])
    synced.sync()
    with synced.database.begin() as connection:  # as a dump is loaded: rows written anew
        for statement in (
            "CREATE TABLE public.y_installation AS TABLE bridge.installation",
            "DELETE FROM bridge.synced_records",
            "DELETE FROM bridge.erp_sync_state",
            "DELETE FROM bridge.installation",
            "INSERT INTO bridge.synced_records SELECT * FROM public.y_synced_records",
            "INSERT INTO bridge.erp_sync_state SELECT * FROM public.y_erp_sync_state",
            "INSERT INTO bridge.installation SELECT * FROM public.y_installation",
        ):
            connection.execute(sa.text(statement))
    before = effects(synced)
    table(synced, "ado", COLUMNS, items(25, I3="b", I4="c")[2:])

    run = synced.sync()

    assert "the bridge database was restored from a copy" in notes(run.batches[0])
    assert outcome(run, "ado")["updated"] == 1
    assert outcome(run, "ado")["unchanged"] == 22
    assert effects(synced) == before + 1
    assert len(hub(synced, "ado")) == 23
    assert "restored" not in notes(synced.sync().batches[0])


def test_XN07_a_change_of_mapping_sends_only_records_whose_content_differs(synced: Place) -> None:
    before = effects(synced)
    synced.apply(
        [
            ITEM.model_copy(
                update={
                    "unmapped": "drop",
                    "fields": [
                        Field(source="ID", target="id"),
                        Field(source="NAME", target="name"),
                        Field(source="QTY", target="qty"),
                        Field(target="kind", default="x"),
                    ],
                }
            )
        ]
    )
    shown = synced.command("plan", "ado", "--json")
    run = synced.sync()

    plan = lines(shown.stdout)[0]
    assert plan["counts"]["updates"] == 20  # every record lacks the new field
    assert "20 known records, sent under another mapping" in plan["reason"]
    assert outcome(run, "ado")["updated"] == 20

    dropped = ITEM.model_copy(
        update={"unmapped": "drop", "fields": [Field(source="ID", target="id")]}
    )
    synced.apply([dropped])
    again = synced.sync()

    assert outcome(again, "ado")["unchanged"] == 20  # nothing that is still mapped differs
    assert "20 known records, sent under another mapping" in notes(again.batches[0])
    assert effects(synced) == before + 20
    assert notes(synced.sync().batches[0]) == ""


def test_a_field_that_becomes_another_type_is_sent_though_its_text_is_the_same(
    synced: Place,
) -> None:
    synced.apply(
        [ITEM.model_copy(update={"fields": [Field(source="QTY", target="qty", type="text")]})]
    )

    run = synced.sync()

    assert outcome(run, "ado")["updated"] == 20
    assert '"qty":"1.5"' in hub(synced, "ado")["id=I1"]


def test_what_the_hub_lost_is_pushed_again_after_its_bridge_was_forgotten(synced: Place) -> None:
    LOCAL.post(f"{synced.sandbox.schedulehub_url}/sandbox/reset", timeout=30).raise_for_status()
    forget_bridge(synced)

    assert outcome(synced.sync(), "ado")["inserted"] == 20


def test_XF26_a_column_that_is_gone_stops_the_entity_until_a_person_accepts_it(
    synced: Place,
) -> None:
    before = effects(synced)
    fewer = {name: kind for name, kind in COLUMNS.items() if name != "QTY"}
    table(synced, "ado", fewer, [{k: r[k] for k in fewer} for r in items(20)])

    stopped = synced.command("sync", "ado", "--full")
    accepted = synced.command("entities", "accept", "ado")
    run = synced.sync()

    assert stopped.returncode == 1
    assert "QTY (NUMBER(12,2)) is gone; nothing was read or written" in stopped.stdout
    assert "syncflow entities accept ado" in stopped.stdout
    assert "contract version 2: QTY (NUMBER(12,2)) is gone" in accepted.stdout
    assert outcome(run, "ado")["unchanged"] == 20  # the hub keeps what is not mapped any more
    assert effects(synced) == before


@pytest.mark.parametrize(
    ("kind", "stops"), [("VARCHAR2(20)", True), ("NUMBER(14,2)", False), ("NUMBER", False)]
)
def test_a_column_of_another_type_stops_the_entity_a_wider_one_is_reported(
    synced: Place,
    kind: str,
    stops: bool,  # noqa: FBT001  # the table's last column
) -> None:
    table(synced, "ado", {**COLUMNS, "QTY": kind}, items(20))

    ended = synced.command("sync", "ado", "--full", "--json")

    line = lines(ended.stdout)[0]
    assert line["status"] == ("failed" if stops else "completed")
    assert f"QTY was NUMBER(12,2) and is {kind}" in ended.stderr


def test_XF26_a_new_column_is_reported_and_its_nulls_send_nothing(synced: Place) -> None:
    before = effects(synced)
    table(synced, "ado", {**COLUMNS, "NEW": "VARCHAR2(9)"}, items(20))

    run = synced.sync()
    with synced.database.begin() as connection:
        kept = connection.execute(
            sa.text("SELECT version, change FROM bridge.entity_contracts ORDER BY version")
        ).all()

    assert "NEW (VARCHAR2(9)) is new" in notes(run.batches[0])
    assert outcome(run, "ado")["unchanged"] == 20
    assert effects(synced) == before
    assert [tuple(row) for row in kept] == [(1, "first seen"), (2, "NEW (VARCHAR2(9)) is new")]
    assert json.loads(hub(synced, "ado")["id=I1"])["qty"] == 1.5


def test_strategy_full_reads_everything_whatever_is_asked(place: Place) -> None:
    columns = {"ID": "VARCHAR2(9)", "RV": "NUMBER(9)"}
    table(place, "ful", columns, [{"ID": "A", "RV": 1}, {"ID": "B", "RV": 2}])
    place.apply([Entity(name="ful", delta="full")])
    place.sync()

    run = place.sync(mode="incremental")

    assert (run.batches[0].kind, outcome(run, "ful")["fetched"]) == ("full", 2)
    assert "everything was read: its strategy is full" in notes(run.batches[0])


def test_a_rowversion_column_that_is_gone_stops_the_entity_and_its_return_goes_on(
    place: Place,
) -> None:
    columns = {"ID": "VARCHAR2(9)", "RV": "NUMBER(9)"}
    rows: list[Row] = [{"ID": f"I{n}", "RV": n} for n in range(5)]
    table(place, "ado", columns, rows)
    place.apply([Entity(name="ado", delta="rowversion", rowversion=Rowversion(column="RV"))])
    place.sync()
    before = effects(place)
    table(place, "ado", {"ID": "VARCHAR2(9)"}, [{"ID": row["ID"]} for row in rows])
    stopped = place.command("sync", "ado")
    table(place, "ado", dict(reversed(columns.items())), rows)  # in another order, too

    back = place.sync()

    assert stopped.returncode == 1
    assert "RV (NUMBER(9)) is gone" in stopped.stdout
    assert outcome(back, "ado")["unchanged"] == 5
    assert effects(place) == before


def test_after_a_change_of_mapping_slices_send_only_what_differs(place: Place) -> None:
    columns = {"ID": "NUMBER(9)", "NAME": "VARCHAR2(9)"}
    table(place, "ado", columns, [{"ID": n, "NAME": "aB"[n % 2]} for n in range(700)])
    place.apply([ITEM])
    place.sync()
    before = effects(place)
    upper = [Field.model_validate({"source": "NAME", "transform": "upper", "volatile": True})]
    place.apply([ITEM.model_copy(update={"fields": [Field(source="NAME", volatile=True)]})])
    volatile = place.sweep(slices=3)
    place.apply(
        [ITEM.model_copy(update={"fields": [upper[0].model_copy(update={"volatile": False})]})]
    )

    mapped = place.sweep(slices=3)

    assert [run.batches[0].counts.updated for run in volatile] == [0] * 3
    assert sum(run.batches[0].counts.updated for run in mapped) == 350
    assert effects(place) == before + 350
    assert outcome(place.sync(), "ado")["unchanged"] == 700


def test_the_plan_of_a_first_run_says_that_the_hub_was_filled_before(synced: Place) -> None:
    before = effects(synced)
    forget_bridge(synced)

    shown = synced.command("plan", "ado", "--json")

    (plan,) = lines(shown.stdout)
    assert (plan["counts"]["inserts"], plan["counts"]["unchanged"]) == (0, 20)
    assert "20 records were in the target before the first batch" in plan["reason"]
    assert effects(synced) == before


@pytest.mark.parametrize(
    ("columns", "value"),
    [
        ({"ID": "VARCHAR2(9)", "RV": "NUMBER(9)", "NAME": "NUMBER(9)"}, 5),
        ({"ID": "VARCHAR2(9)", "RV": "NUMBER(9)", "NAME": "VARCHAR2(9)", "X": "VARCHAR2(9)"}, "a"),
    ],
)
def test_after_a_change_of_the_columns_every_row_is_read_once(
    place: Place, columns: dict[str, str], value: object
) -> None:
    before: list[Row] = [{"ID": f"I{n}", "RV": 1_000 * n, "NAME": "a"} for n in range(10)]
    first = {"ID": "VARCHAR2(9)", "RV": "NUMBER(9)", "NAME": "VARCHAR2(9)"}
    table(place, "con", first, before)
    place.apply([Entity(name="con", delta="rowversion", brake=Brake(rows=100, share=1))])
    place.sync()
    after: list[Row] = [{**row, "NAME": value, "X": "n"} for row in before]
    table(place, "con", columns, [{k: v for k, v in row.items() if k in columns} for row in after])
    place.command("entities", "accept", "con")

    run = place.sync("con", mode="auto")
    quiet = place.sync("con", mode="auto")

    assert (run.batches[0].kind, outcome(run, "con")["updated"]) == ("full", 10)
    assert (quiet.batches[0].kind, quiet.batches[0].counts.updated) == ("incremental", 0)


def test_rows_without_a_rowversion_are_told_of(place: Place) -> None:
    columns = {"ID": "VARCHAR2(9)", "RV": "NUMBER(9)"}
    table(place, "nul", columns, [{"ID": "A", "RV": 1}, {"ID": "B"}])
    place.apply([Entity(name="nul", delta="rowversion")])

    run = place.sync("nul")

    assert "1 rows have no rowversion: incremental syncs do not see" in notes(run.batches[0])
