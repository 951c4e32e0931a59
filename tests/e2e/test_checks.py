"""The checks that a sync makes of itself, and the sensors that look after what nobody asked for."""

import subprocess
import sys
from datetime import timedelta

import dagster as dg
from dagster._core.test_utils import create_run_for_test
from place import Place
from tables import items, table

from syncflow_core.bridge.alerts import find_conditions
from syncflow_core.entity import Brake, Entity, Field, ParentRef
from syncflow_dagster.abandoned import end_abandoned, mark
from syncflow_dagster.checks import CHECKS
from syncflow_dagster.definitions import build
from syncflow_dagster.tidying import forget_runs

COLUMNS = {"ID": "VARCHAR2(9)", "NAME": "VARCHAR2(9)"}
WARN, ERROR = dg.AssetCheckSeverity.WARN, dg.AssetCheckSeverity.ERROR


def failing(place: Place, entity: str) -> dict[str, dg.AssetCheckSeverity]:
    """The entity's checks that failed when they were made last."""
    keys = [dg.AssetCheckKey(dg.AssetKey([entity]), check.name) for check in CHECKS]
    storage = place.instance.event_log_storage
    records = storage.get_latest_asset_check_execution_by_key(keys).values()
    events = [record.event.dagster_event for record in records if record.event is not None]
    made = dg.DagsterEventType.ASSET_CHECK_EVALUATION  # not those that were planned and never made
    found = [
        event.asset_check_evaluation_data
        for event in events
        if event is not None and event.event_type is made
    ]
    assert len(found) >= 1
    return {item.check_name: item.severity for item in found if not item.passed}


def sensor(place: Place, name: str, cursor: str | None = None) -> dg.SensorResult:
    repository = build([Entity(name="itm")], 7).get_repository_def()
    context = dg.build_sensor_context(
        instance=place.instance, cursor=cursor, repository_def=repository
    )
    return repository.get_sensor_def(name).evaluate_tick(context)  # type: ignore[return-value]


def test_checks_warn_of_new_columns_and_of_what_is_withheld_rejected_and_there_twice(
    place: Place,
) -> None:
    table(place, "itm", COLUMNS, items(10))
    place.apply([Entity(name="itm", brake=Brake(rows=2, share=0.1))])
    place.sync()
    quiet = failing(place, "itm")
    widened = {**COLUMNS, "NEW": "VARCHAR2(9)"}
    table(place, "itm", widened, [*items(5), *items(1, "b"), {"ID": None, "NAME": "x"}])

    place.sync()

    assert quiet == {}
    assert failing(place, "itm") == {
        "brake": WARN,
        "unique_keys": WARN,
        "failed_within_limits": WARN,
        "schema_contract": WARN,
    }


def test_columns_that_broke_the_contract_fail_its_check_before_and_at_the_sync(
    place: Place,
) -> None:
    table(place, "itm", COLUMNS, items(3))
    place.apply([Entity(name="itm")])
    place.sync()
    as_accepted = sensor(place, "source_changed")
    table(place, "itm", {"ID": "VARCHAR2(9)"}, [{"ID": "I0"}])

    told = sensor(place, "source_changed", as_accepted.cursor)
    again = sensor(place, "source_changed", told.cursor)
    place.sync()

    (event,) = told.asset_events
    assert isinstance(event, dg.AssetCheckEvaluation)
    assert (event.check_name, event.passed, event.severity) == ("schema_contract", False, ERROR)
    assert "NAME (VARCHAR2(9)) is gone" in str(event.metadata["changed"].value)
    assert (list(as_accepted.asset_events), list(again.asset_events)) == ([], [])
    assert failing(place, "itm") == {"schema_contract": ERROR}


IN_DOUBT = """
    CREATE FUNCTION bridge.doubt() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO bridge.push_journal (uid, entity, batch, op, key_hashes)
        VALUES (gen_random_uuid(), 'par', NEW.uid, 'insert', ARRAY['\\x00'::bytea]);
        RETURN NEW;
    END $$;
    CREATE TRIGGER doubt AFTER UPDATE ON bridge.sync_batches FOR EACH ROW
        WHEN (NEW.entity = 'par' AND NEW.status = 'completed') EXECUTE FUNCTION bridge.doubt();
"""


def test_children_of_an_entity_that_is_in_doubt_are_not_synced(place: Place) -> None:
    family = [
        Entity(name="par"),
        Entity(name="kid", parents={"par": ParentRef(entity="par", key={"id": "id"})}),
        Entity(name="other"),
    ]
    for entity in family:
        table(place, entity.name, COLUMNS, items(3))
    place.apply(family)
    with place.database.begin() as connection:
        connection.exec_driver_sql(IN_DOUBT)

    run = place.sync("par", "kid", "other")

    told = {batch.entity: (batch.status, batch.error) for batch in run.batches}
    with place.database.begin() as connection:
        wrong = find_conditions(connection, run.batches[0].started_at, failed_share=1)
    assert failing(place, "par") == {"nothing_in_doubt": ERROR}
    assert told == {
        "par": ("completed", None),
        "kid": ("failed", "parent not synced"),
        "other": ("completed", None),
    }
    assert [item.message for item in wrong if item.subject == "kid"] == [
        "its last sync (full) failed: a parent was not synced"
    ]


def test_the_asset_shows_columns_lineage_chart_and_samples_without_values(place: Place) -> None:
    table(place, "itm", COLUMNS, items(3))
    place.apply([Entity(name="itm")])
    place.sync()
    table(place, "itm", COLUMNS, items(3, "secret"))
    place.sync()

    record = place.instance.fetch_materializations(dg.AssetKey(["itm"]), limit=1).records[0]
    assert record.asset_materialization is not None
    metadata = record.asset_materialization.metadata

    schema = metadata["dagster/column_schema"].value
    lineage = metadata["dagster/column_lineage"].value
    assert [(column.name, column.type) for column in schema.columns] == [
        ("id", "text"),
        ("name", "text"),
    ]
    (source,) = lineage.deps_by_column["name"]
    assert (source.asset_key.path, source.column_name) == (["apismith", "itm"], "NAME")
    samples = [dict(row.data) for row in metadata["samples"].records]
    assert samples == [
        {"done": "updated", "record": f"id=I{n}", "changed": "name"} for n in range(3)
    ]
    assert "data:image/svg+xml;base64," in metadata["chart"].value
    assert "secret" not in str(metadata)


def test_a_run_whose_process_is_gone_is_ended_and_one_that_lives_is_not(place: Place) -> None:
    table(place, "itm", COLUMNS, items(3))
    place.apply([Entity(name="itm")])
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    dead, alive = (
        create_run_for_test(place.instance, job_name="x", status=dg.DagsterRunStatus.STARTED)
        for _ in range(2)
    )
    mark(place.instance, alive.run_id)
    tag = place.instance.get_run_by_id(alive.run_id).tags["syncflow/process"]  # type: ignore[union-attr]
    host, _, born, _ = tag.split(" ")
    place.instance.add_run_tags(
        dead.run_id, {"syncflow/process": f"{host} {gone.pid} {born} {dead.run_id}"}
    )
    # one that takes up the dead run has its tags at first
    heir = create_run_for_test(
        place.instance,
        job_name="x",
        status=dg.DagsterRunStatus.STARTED,
        tags={"syncflow/process": f"{host} {gone.pid} {born} {dead.run_id}"},
    )

    # the lease's session of a living one was ended by a database that was started anew
    ended = end_abandoned(place.instance, {alive.run_id})

    assert ended == [dead.run_id]
    status = {
        run.run_id: place.instance.get_run_by_id(run.run_id).status  # type: ignore[union-attr]
        for run in (dead, alive, heir)
    }
    assert status[dead.run_id] is dg.DagsterRunStatus.FAILURE
    assert status[alive.run_id] is status[heir.run_id] is dg.DagsterRunStatus.STARTED


def test_a_run_that_died_with_its_lease_is_ended_whatever_machine_it_was_on(place: Place) -> None:
    table(place, "itm", COLUMNS, items(3))
    place.apply([Entity(name="itm")])
    place.sync()
    run = create_run_for_test(place.instance, job_name="x", status=dg.DagsterRunStatus.STARTED)
    with place.database.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE bridge.leases SET released_at = NULL, dagster_run_id = %s", (run.run_id,)
        )

    living = sensor(place, "dead_workers")
    assert living.skip_message == "every worker lives"  # type: ignore[attr-defined]  # a moment ago it did
    with place.database.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE bridge.leases SET heartbeat_at = heartbeat_at - interval '16 seconds'"
        )
    told = sensor(place, "dead_workers")

    assert told.skip_message == f"ended {run.run_id}"  # type: ignore[attr-defined]
    ended = place.instance.get_run_by_id(run.run_id)
    assert ended is not None
    assert ended.status is dg.DagsterRunStatus.FAILURE


def test_a_night_that_closed_with_slices_left_is_told_once(place: Place) -> None:
    place.cut_into(7)
    table(place, "itm", COLUMNS, items(3))
    place.apply([Entity(name="itm")])
    with place.database.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE bridge.background_sync_schedule SET sweep_night = '2026-01-01', "
            "last_night = '2026-01-01', last_slice = 1, window_start = (now() - interval '3 hours')::time, "
            "window_end = (now() - interval '1 hour')::time, time_zone = 'UTC'"
        )

    told = sensor(place, "missed_nights")
    again = sensor(place, "missed_nights", told.cursor)

    (event,) = told.asset_events
    assert isinstance(event, dg.AssetObservation)
    assert event.metadata["slices_left"].value == "1, 2, 3, 4, 5, 6, 7"
    assert list(again.asset_events) == []


def test_runs_of_the_past_are_removed_and_the_asset_is_still_known(place: Place) -> None:
    table(place, "itm", COLUMNS, items(3))
    place.apply([Entity(name="itm")])
    place.sync()
    key = dg.AssetKey(["itm"])
    created = place.instance.get_run_records(limit=1)[0].create_timestamp

    kept = forget_runs(place.instance, created - timedelta(days=1))
    gone = forget_runs(place.instance, created + timedelta(days=1))

    assert (kept, gone) == (0, 1)
    assert place.instance.get_runs() == []
    assert place.instance.get_latest_materialization_event(key) is not None


def test_a_slice_that_a_person_has_read_by_day_says_so(place: Place) -> None:
    table(place, "itm", COLUMNS, items(30))
    place.apply([Entity(name="itm")])
    with place.database.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE bridge.background_sync_schedule SET time_zone = 'UTC', "
            "window_start = (now() + interval '3 hours')::time, "
            "window_end = (now() + interval '5 hours')::time"
        )

    batch = place.sync("itm", slice_=2).batches[0]

    (note,) = [text for text in (batch.proof or {})["notes"] if "night window" in text]
    assert note.startswith("read outside the night window (")


def test_what_comes_through_the_erp_is_text_in_the_assets_metadata(place: Place) -> None:
    script = "<script>alert(1)</script>"
    table(place, "itm", COLUMNS, items(1))
    place.apply([Entity(name="itm", fields=[Field(source="NAME", max_length=2)])])
    place.sync()
    more = {**COLUMNS, script: "VARCHAR2(99)"}
    table(place, "itm", more, [{"ID": script[:8], "NAME": script[:9], script: script}])

    place.sync()

    record = place.instance.fetch_materializations(dg.AssetKey(["itm"]), limit=1).records[0]
    assert record.asset_materialization is not None
    metadata = record.asset_materialization.metadata
    assert "&lt;script&gt;" in str(metadata["notes"].value)
    written = [value for value in metadata.values() if isinstance(value, dg.MarkdownMetadataValue)]
    assert len(written) >= 3
    assert not any("<script" in str(value.value) for value in written)
