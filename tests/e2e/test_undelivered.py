"""What was not delivered is tried by the next sync that a person starts, also by an incremental one."""

from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa
from place import Place, lines, outcome
from tables import faults, hub, link, references, table

from syncflow_core.bridge.entities import load_entities
from syncflow_core.bridge.failed import open_failed
from syncflow_core.bridge.leases import Lease
from syncflow_core.bridge.pending import open_pending
from syncflow_core.entity import Entity, Field
from syncflow_core.sandbox.store import Row
from syncflow_dagster.definitions import build

COLUMNS = {"ID": "VARCHAR2(9)", "QTY": "VARCHAR2(9)", "UP": "VARCHAR2(9)", "RV": "NUMBER(9)"}
STRICT = Field(source="QTY", type="integer")


def rows(count: int, **quantities: str) -> list[Row]:
    return [
        {"ID": f"I{n}", "QTY": quantities.get(f"I{n}", "1"), "UP": None, "RV": 1_000 * n}
        for n in range(count)
    ]


def entity(*fields: Field) -> Entity:
    return Entity(name="und", delta="rowversion", fields=list(fields))


def letters(place: Place, name: str) -> int:
    with place.database.begin() as connection:
        return open_failed(connection, name).height


@pytest.fixture
def rejected(place: Place) -> Place:
    table(place, "und", COLUMNS, rows(10, I3="1.234", I4="2.345"))
    place.apply([entity(STRICT)])
    place.sync()
    assert letters(place, "und") == 2
    return place


GROUPED = Field(source="QTY", type="integer", decimal_separator=",")


def test_rows_under_a_mended_declaration_come_with_an_incremental_sync(rejected: Place) -> None:
    rejected.apply([entity(GROUPED)])

    run = rejected.sync(mode="incremental")

    found = outcome(run, "und")
    assert (found["inserted"], letters(rejected, "und")) == (2, 0)
    assert found["fetched"] == 3, "the last row, within the overlap, and the two"
    assert '"qty":1234' in hub(rejected, "und")["id=I3"]


def test_after_a_change_of_the_declaration_everything_is_read_once(rejected: Place) -> None:
    rejected.apply([entity(GROUPED)])

    first = rejected.sync(mode="auto")
    second = rejected.sync(mode="auto")

    assert [run.batches[0].kind for run in (first, second)] == ["full", "incremental"]
    assert any(
        "have changed: everything is read once" in text for text in first.batches[0].proof["notes"]
    )  # type: ignore[index]
    assert outcome(first, "und")["inserted"] == 2


def test_a_dead_letter_that_is_still_wrong_is_rejected_once_a_sync(rejected: Place) -> None:
    table(rejected, "und", COLUMNS, rows(10, I3="1.234", I4="7"))

    run = rejected.sync(mode="incremental")

    found = outcome(run, "und")
    assert (found["rejected"], found["inserted"], found["fetched"]) == (1, 1, 3)
    assert letters(rejected, "und") == 1


def test_a_row_that_changed_and_failed_before_is_read_once(rejected: Place) -> None:
    mended = rows(10, I4="2.345")
    mended[3] = {**mended[3], "RV": 50_000}
    table(rejected, "und", COLUMNS, mended)

    run = rejected.sync(mode="incremental")

    found = outcome(run, "und")
    assert (found["fetched"], found["inserted"], found["rejected"]) == (3, 1, 1)


@pytest.fixture
def family(place: Place) -> Place:
    table(place, "par", {"ID": "VARCHAR2(9)"}, [])
    table(
        place,
        "chi",
        COLUMNS,
        [{"ID": "C", "QTY": "1", "UP": "P", "RV": 1}, {"ID": "Z", "RV": 9000}],
    )
    references(place, ("chi", "up", "par"))
    place.apply(
        [
            Entity(name="par"),
            Entity(name="chi", delta="rowversion", parents={"up": link("par", "up")}),
        ]
    )
    place.sync()
    table(place, "par", {"ID": "VARCHAR2(9)"}, [{"ID": "P"}])
    return place


def test_a_child_that_was_refused_when_it_was_released_is_tried_again(family: Place) -> None:
    refusing = {"match": {"path": "/chi"}, "action": {"status": 422}}
    faults(family.sandbox.schedulehub_url, refusing)
    family.sync("par")
    faults(family.sandbox.schedulehub_url)
    assert (letters(family, "chi"), len(hub(family, "chi"))) == (1, 1)

    run = family.sync("chi", mode="incremental")

    assert outcome(run, "chi")["inserted"] == 1
    assert (letters(family, "chi"), sorted(hub(family, "chi"))) == (0, ["id=C", "id=Z"])


def test_a_child_whose_parent_landed_while_it_was_held_goes_with_its_own_sync(
    family: Place,
) -> None:
    with Lease.acquire(family.database, "chi", wait_s=0):
        family.sync("par")
    assert sorted(hub(family, "chi")) == ["id=Z"]

    run = family.sync("chi", mode="incremental")

    assert sorted(hub(family, "chi")) == ["id=C", "id=Z"]
    assert [batch.counts.retried for batch in run.batches] == [0, 1]
    assert letters(family, "chi") == 0


def told(place: Place, *arguments: str, status: int = 0) -> list[dict[str, Any]]:
    ended = place.command(*arguments, "--json")
    assert ended.returncode == status, ended.stderr + ended.stdout
    return lines(ended.stdout)


def test_a_retry_reads_what_was_not_delivered_and_nothing_else(rejected: Place) -> None:
    table(rejected, "und", COLUMNS, [*rows(11, I3="5", I4="2.345"), {"ID": "N", "QTY": "1"}])

    (line,) = told(rejected, "retry", status=1)

    counts = {name: number for name, number in line["counts"].items() if number}
    assert (line["entity"], counts) == ("und", {"fetched": 2, "rejected": 1, "inserted": 1})
    assert len(hub(rejected, "und")) == 9
    assert "N" not in str(hub(rejected, "und"))
    assert outcome(rejected.sync(), "und")["inserted"] == 2, "the watermark was not moved"


def test_a_retry_of_nothing_says_so(place: Place) -> None:
    table(place, "und", COLUMNS, rows(3))
    place.apply([entity()])
    place.sync()

    shown, named = place.command("retry"), place.command("retry", "und")

    assert (shown.returncode, shown.stdout.strip()) == (0, "nothing is undelivered")
    assert (named.returncode, named.stdout.strip()) == (0, "nothing is undelivered")
    assert told(place, "retry") == []


def test_a_dead_letter_whose_row_left_is_closed_by_a_retry(rejected: Place) -> None:
    table(rejected, "und", COLUMNS, rows(3))

    run = rejected.command("retry", "und")

    assert run.returncode == 0, run.stderr
    assert "2 that were not delivered are gone from the source" in run.stdout
    assert letters(rejected, "und") == 0
    assert len(hub(rejected, "und")) == 8, "a retry deletes nothing"


def test_the_status_tells_what_failed_alike_and_what_waits(family: Place) -> None:
    table(family, "und", COLUMNS, rows(10, I3="1.234", I4="2.345"))
    family.apply([entity(STRICT)])
    table(family, "par", {"ID": "VARCHAR2(9)"}, [])
    family.sync("und")

    by_name = {line["entity"]: line for line in told(family, "status")}
    shown = family.command("status")

    assert (by_name["chi"]["known"], by_name["chi"]["waiting"]) == (1, 1)
    (cluster,) = by_name["und"]["failures"]
    assert (cluster["rule"], cluster["column"], cluster["count"]) == ("integer", "QTY", 2)
    assert by_name["und"]["last_batch"]["status"] == "partial"
    assert (by_name["und"]["watermark"], by_name["par"]["failures"]) == ("9000", [])
    assert "und: 2 x normalize" in shown.stdout


def tick(place: Place) -> dg.SensorResult | dg.RunRequest | dg.SkipReason:
    with place.database.begin() as connection:
        definitions = build(load_entities(connection), 7)
    sensor = definitions.resolve_sensor_def("undelivered")
    context = dg.build_sensor_context(instance=place.instance)
    answer = sensor(context)
    assert isinstance(answer, dg.RunRequest | dg.SkipReason)
    return answer


def carry_out(place: Place, request: object) -> bool:
    assert isinstance(request, dg.RunRequest)
    with place.database.begin() as connection:
        job = build(load_entities(connection), 7).resolve_job_def("retry_failed")
    return job.execute_in_process(request.run_config, instance=place.instance).success


def test_the_sensor_releases_a_child_whose_parent_landed_while_it_was_held(
    family: Place,
) -> None:
    assert isinstance(tick(family), dg.SkipReason)
    with Lease.acquire(family.database, "chi", wait_s=0):
        family.sync("par")
        assert isinstance(tick(family), dg.SkipReason), "whoever holds it releases its children"
    with family.database.begin() as connection:  # what a process leaves that dies
        connection.execute(
            sa.text(
                "UPDATE bridge.leases SET released_at = NULL, "
                "heartbeat_at = now() - interval '1 minute' WHERE entity = 'chi'"
            )
        )

    request = tick(family)

    assert isinstance(request, dg.RunRequest)
    assert request.run_config["ops"]["retry"]["config"]["entities"] == ["chi"]
    assert carry_out(family, request)
    assert sorted(hub(family, "chi")) == ["id=C", "id=Z"]
    assert isinstance(tick(family), dg.SkipReason)


def make_due(place: Place) -> None:
    with place.database.begin() as connection:
        for name in ("failed_records", "pending_children"):
            connection.execute(
                sa.text(
                    f"UPDATE bridge.{name} SET due_at = now() - interval '1 s' WHERE due_at IS NOT NULL"  # noqa: S608  # constants
                )
            )


def test_the_sensor_tries_what_is_due_and_counts_the_attempt(family: Place) -> None:
    table(family, "par", {"ID": "VARCHAR2(9)"}, [])
    attempts = []
    for _ in range(6):
        make_due(family)
        request = tick(family)
        if isinstance(request, dg.RunRequest):
            carry_out(family, request)
        assert isinstance(tick(family), dg.SkipReason), "nothing is tried over and over"
        with family.database.begin() as connection:
            attempts.append(open_pending(connection, "chi")["attempts"][0])

    assert attempts == [2, 3, 4, 5, 5, 5]
    assert letters(family, "chi") == 1


def test_XP07_what_the_hub_refuses_is_tried_five_times_by_the_sensor_and_then_by_people_alone(
    family: Place,
) -> None:
    faults(family.sandbox.schedulehub_url, {"match": {"path": "/chi"}, "action": {"status": 422}})
    family.sync("par")
    runs = 0
    for _ in range(8):
        make_due(family)
        request = tick(family)
        if isinstance(request, dg.RunRequest):
            runs += 1
            carry_out(family, request)
    faults(family.sandbox.schedulehub_url)
    made = told(family, "retry", "chi")

    assert runs == 4, "the first attempt was the release"
    assert made[0]["counts"]["inserted"] == 1
    assert letters(family, "chi") == 0


def test_a_waiting_child_that_left_the_source_is_tried_no_more(family: Place) -> None:
    table(family, "par", {"ID": "VARCHAR2(9)"}, [])
    table(family, "chi", COLUMNS, [{"ID": "Z", "RV": 9000}])
    make_due(family)

    carry_out(family, tick(family))

    with family.database.begin() as connection:
        assert open_pending(connection, "chi").is_empty()


def test_a_retry_of_a_compound_key_takes_the_rows_that_failed_and_no_neighbours(
    place: Place,
) -> None:
    columns = {"A": "VARCHAR2(9)", "B": "VARCHAR2(9)", "QTY": "VARCHAR2(9)"}
    bad = {("a1", "b1"), ("a2", "b2")}

    def grid(wrong: str) -> list[Row]:
        return [
            {"A": a, "B": b, "QTY": wrong if (a, b) in bad else "1"}
            for a in ("a1", "a2", "a3")
            for b in ("b1", "b2", "b3")
        ]

    table(place, "und", columns, grid("x"), keys=["A", "B"])
    place.apply([Entity(name="und", fields=[STRICT])])
    place.sync()
    table(place, "und", columns, grid("2"), keys=["A", "B"])

    told = lines(place.command("retry", "und", "--json").stdout)

    assert (told[0]["counts"]["fetched"], told[0]["counts"]["inserted"]) == (2, 2)
    assert letters(place, "und") == 0
