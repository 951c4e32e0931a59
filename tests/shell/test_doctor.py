"""What the doctor says of a SyncFlow that is well, and of each thing that may be wrong with it."""

import re
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from buckets import NOBODY_S_PORT, S3
from dagster._daemon.types import DaemonHeartbeat
from local import LOCAL
from place import Place, lines, opened
from tables import faults, link, table

from syncflow_core.apismith import Source
from syncflow_core.doctor.checks import Check, Finding, made, make
from syncflow_core.doctor.clocks import FAR_S, TOO_FAR_S
from syncflow_core.doctor.entities import SAMPLE
from syncflow_core.doctor.machine import disk_seen, machine_checks
from syncflow_core.doctor.systems import System
from syncflow_core.entity import Entity, Field, ParentRef
from syncflow_core.errors import UnavailableError
from syncflow_core.places import place_of
from syncflow_core.sandbox import database
from syncflow_core.settings import Settings, read_settings
from syncflow_dagster.home import open_instance

COLUMNS = {"ID": "VARCHAR2(9)", "NAME": "VARCHAR2(9)"}
NOW = datetime.now(tz=UTC)
SECRET = "hunter2"
SOURCE = ("declaration", "columns", "page", "key", "rows")
ENTITY = (*SOURCE, "collection", "mapping")


@pytest.fixture(scope="module")
def place(module_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One for all tests of the module: entity ``itm`` was synced, and nothing is wrong."""
    with opened(module_url, tmp_path_factory.mktemp("place")) as found:
        (found.home / "home").mkdir(mode=0o700)
        items(found, "itm")
        found.apply([Entity(name="itm", delta="hash")])
        found.sync("itm")
        yield found


@pytest.fixture(autouse=True)
def _others_off(request: pytest.FixtureRequest) -> Iterator[None]:
    """The entities that a test declares are no other test's."""
    yield
    if "place" in request.fixturenames:
        found: Place = request.getfixturevalue("place")
        with database.connect(found.url) as connection:
            connection.execute("UPDATE bridge.entities SET enabled = false WHERE name <> 'itm'")


def items(place: Place, name: str, rows: Any = None, columns: Any = COLUMNS) -> None:
    made_up = [{"ID": f"I{n}", "NAME": "a"} for n in range(9)]
    table(place, name, columns, made_up if rows is None else rows)


def told(place: Place, *names: str, **more: str) -> tuple[dict[str, dict[str, Any]], int]:
    """What is not ok, by name; and the exit status."""
    ended = place.command("doctor", *names, "--json", **more)
    found = lines(ended.stdout)
    assert len({item["name"] for item in found}) == len(found)
    assert all(item["mend"] for item in found if item["status"] in {"warn", "fail"})
    assert SECRET not in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr
    return {item["name"]: item for item in found if item["status"] != "ok"}, ended.returncode


def statuses(found: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {name: item["status"] for name, item in found.items()}


def everything(place: Place) -> dict[str, list[str]]:
    """All rows of every table of the bridge, of the hub's records and effects, and of the ERP."""
    with database.connect(place.url) as connection:
        names = [
            str(name)
            for (name,) in connection.execute(
                "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables "
                "WHERE schemaname IN ('bridge', 'hub', 'erp', 'public') ORDER BY 1"
            ).fetchall()
        ]
        return {
            name: sorted(
                str(row[0])
                for row in connection.execute(f"SELECT t::text FROM {name} t".encode()).fetchall()  # noqa: S608  # names of our own
            )
            for name in names
        }


def test_what_is_well_is_told_line_by_line_and_nothing_is_written(place: Place) -> None:
    before = everything(place)

    ended = place.command("doctor", "--json")

    found = lines(ended.stdout)
    assert {tuple(item) for item in found} == {("name", "status", "latency_ms", "seen", "mend")}
    assert {"itm" in item["name"] for item in found} == {True, False}
    not_ok = {item["name"]: item["status"] for item in found if item["status"] != "ok"}
    assert not_ok == {"dagster.daemon": "warn"}
    assert (ended.returncode, ended.stderr) == (0, "")
    assert len(before) > 20
    assert everything(place) == before


@pytest.mark.parametrize(
    ("variables", "name", "advice", "status"),
    [
        ({"APISMITH_PASSWORD": SECRET}, "apismith.login", "SYNCFLOW_APISMITH_PASSWORD", 1),
        ({"SCHEDULEHUB_USERNAME": "x"}, "schedulehub.login", "SYNCFLOW_SCHEDULEHUB_USERNAME", 1),
        ({"SCHEDULEHUB_URL": "http://127.0.0.1:9"}, "schedulehub", "SYNCFLOW_SCHEDULEHUB_URL", 4),
        ({"APISMITH_URL": "https"}, "apismith", "https or http", 4),
        ({"APISMITH_URL": ""}, "configuration", "export SYNCFLOW_APISMITH_URL=", 1),
        ({"SCHEDULEHUB_PASSWORD": ""}, "configuration", "SYNCFLOW_SCHEDULEHUB_PASSWORD=", 1),
        ({"TIME_ZONE": "Mars"}, "configuration", "correct the variables", 1),
        (
            {"DATABASE_URL": f"postgresql://u:{SECRET}@127.0.0.1:9/x"},
            "database",
            "SYNCFLOW_DATABASE_URL",
            4,
        ),
        ({"DATABASE_URL": "password"}, "database", "SYNCFLOW_DATABASE_URL", 1),
        ({"DATABASE_URL": ""}, "database", "syncflow migrate", 1),
        ({"FRAMES_URI": "ftp://host"}, "disk.frames", "SYNCFLOW_FRAMES_URI", 1),
        ({"HOME": "/dev/null"}, "home", "SYNCFLOW_HOME", 1),
    ],
    ids=lambda value: str(value) if not isinstance(value, dict) else next(iter(value)),
)
def test_one_wrong_variable_is_one_line_with_its_advice_and_its_status(
    place: Place, variables: dict[str, str], name: str, advice: str, status: int
) -> None:
    place_of = {
        "https": place.sandbox.apismith_url.replace("http:", "https:"),
        "password": place.url.replace(place.url.split(":")[2].split("@")[0], SECRET),
    }
    more = {f"SYNCFLOW_{key}": place_of.get(value, value) for key, value in variables.items()}

    found, ended = told(place, **more)

    failed = {name for name, item in found.items() if item["status"] == "fail"}
    also = {"schedulehub.login"} if "SCHEDULEHUB_PASSWORD" in variables else set()
    assert failed == {name} | also
    assert advice in found[name]["mend"]
    assert ended == status
    for item in found.values():
        if item["status"] == "skipped":
            assert "see" in item["seen"], item


def frames(uri: str) -> Finding:
    checks = machine_checks(read_settings(frames_uri=uri))
    return make(next(check for check in checks if check.name == "disk.frames"))


def test_a_bucket_of_frames_is_written_read_and_left_as_it_was(
    s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    uri = s3.bucket()

    found = frames(uri)

    assert (found.status, found.seen) == ("ok", f"{uri}: written, read and removed")
    assert place_of(uri).touched() == {}


@pytest.mark.parametrize("wrong", ["away", "missing", "refused"])
def test_a_bucket_of_frames_that_cannot_be_used_fails_with_its_own_status(
    s3: S3, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    away = {"AWS_ENDPOINT_URL": NOBODY_S_PORT} if wrong == "away" else {}
    for name, value in {**s3.environment, **away}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("syncflow_core.doctor.machine.BUCKET_PATIENCE_S", 0.01)
    uri = "s3://nobody-made-it" if wrong == "missing" else s3.bucket()

    with s3.knowing_nobody() if wrong == "refused" else nullcontext():
        found = frames(uri)

    assert found.status == "fail"
    assert f"SYNCFLOW_FRAMES_URI {uri}: cannot write there" in found.seen
    assert "SYNCFLOW_FRAMES_URI" in found.mend
    assert found.exit_status == (4 if wrong == "away" else 1)


def test_what_needs_something_that_is_not_there_is_skipped_and_says_so(place: Place) -> None:
    no_source, _ = told(place, SYNCFLOW_APISMITH_PASSWORD=SECRET)
    no_database, _ = told(place, SYNCFLOW_DATABASE_URL="postgresql://u:p@127.0.0.1:9/x")
    no_settings, _ = told(place, SYNCFLOW_SLICES="none")

    skipped = {name for name, item in no_source.items() if item["status"] == "skipped"}
    assert skipped == {
        "apismith.apis",
        *(f"entity.itm.{check}" for check in (*SOURCE, "mapping")),
    }
    assert {no_source[name]["seen"] for name in skipped} == {"not looked at: see apismith.login"}
    assert {name for name, item in no_database.items() if item["status"] == "skipped"} == {
        "database.migrations",
        "database.clock",
        "dagster.daemon",
        "entities",
    }
    assert no_settings["configuration"]["status"] == "fail"
    assert "SYNCFLOW_SLICES" in no_settings["configuration"]["seen"]
    assert set(statuses(no_settings).values()) == {"fail", "skipped"}


def test_a_database_before_migrate_stays_empty_and_one_without_entities_is_a_warning(
    place: Place, url: str, migrated_url: str
) -> None:
    before, status = told(place, SYNCFLOW_DATABASE_URL=url)

    assert (before["database.migrations"]["status"], status) == ("fail", 1)
    assert before["database.migrations"]["mend"].startswith("syncflow migrate")
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        ).fetchone()
    assert row == (0,)

    empty, status = told(place, SYNCFLOW_DATABASE_URL=migrated_url)

    assert (empty["entities"]["status"], status) == ("warn", 0)
    assert empty["entities"]["mend"] == "syncflow entities apply FILE"


def test_an_unknown_entity_is_wrong_usage(place: Place) -> None:
    found, status = told(place, "itms")

    assert (found["entities"]["status"], status) == ("fail", 2)
    assert "there are: itm" in found["entities"]["seen"]


@pytest.mark.parametrize(
    ("path", "answer", "name", "seen", "status"),
    [
        ("/health", {"status": 200, "body": "<html>"}, "apismith", "something else answers", 1),
        ("/health", {"status": 503}, "apismith", "answered 503", 4),
        (
            "/health",
            {"status": 200, "body": '{"status":"draining"}'},
            "apismith",
            "it is draining",
            1,
        ),
        ("/auth/login", {"status": 200, "body": "{}"}, "apismith.login", "usable token", 1),
        ("/apis$", {"put": {"items.0.columns": 7}}, "apismith.apis", "columns", 1),
        ("/execute", {"put": {"data": 7}}, "entity.itm.page", "breaks the contract", 1),
        ("/execute", {"status": 504}, "entity.itm.page", "504", 4),
    ],
    ids=["html", "down", "draining", "no-token", "listing", "page", "page-late"],
)
def test_a_source_that_answers_otherwise_than_agreed_is_told_where_it_does(
    place: Place, path: str, answer: dict[str, Any], name: str, seen: str, status: int
) -> None:
    url = place.sandbox.apismith_url
    faults(url, {"match": {"path": path}, "action": answer})
    try:
        found, ended = told(place)
    finally:
        faults(url)

    assert [item for item in found.values() if item["status"] == "fail"] == [found[name]]
    assert seen in found[name]["seen"]
    assert ended == status


def test_a_hub_without_batch_calls_is_well_and_one_that_refuses_a_collection_is_not(
    place: Place,
) -> None:
    url = place.sandbox.schedulehub_url
    switches = f"{url}/sandbox/switches"
    LOCAL.post(switches, json={"batch_missing": 501}).raise_for_status()
    try:
        single = place.command("doctor", "--json")
    finally:
        LOCAL.post(switches, json={"batch_missing": 0}).raise_for_status()
    faults(url, {"match": {"path": "/itm"}, "action": {"status": 403, "body": "{}"}})
    try:
        refused, status = told(place)
    finally:
        faults(url)

    seen = {item["name"]: item["seen"] for item in lines(single.stdout)}
    assert single.returncode == 0
    assert seen["entity.itm.collection"].endswith("has no batch calls: one by one")
    assert status == 1
    assert statuses(refused)["entity.itm.collection"] == "fail"
    assert statuses(refused)["entity.itm.mapping"] == "skipped"


def test_each_fault_of_a_declaration_or_of_the_rows_is_told_with_its_advice(place: Place) -> None:
    items(place, "gone")
    items(place, "child", columns={**COLUMNS, "UP": "VARCHAR2(9)"})
    items(place, "twice", [{"ID": "A", "NAME": "a"}, {"ID": "A", "NAME": "b"}, {"ID": None}])
    few = [{"ID": f"I{n}", "NAME": str(n)} for n in range(60)]
    items(place, "dirty", [*few, {"ID": "X", "NAME": "many"}, {"ID": None, "NAME": "1"}])
    items(place, "wrong", [{"ID": f"I{n:04}", "NAME": "abc"} for n in range(SAMPLE)])
    number = [Field(source="NAME", target="number", type="integer")]
    place.apply(
        [
            Entity(name="gone", fields=[Field(source="QTY", target="qty")]),
            Entity(name="child", parents={"up": ParentRef(entity="itm", key={"name": "up"})}),
            Entity(name="twice"),
            Entity(name="dirty", fields=number),
            Entity(name="wrong", fields=number),
            Entity(name="none"),
        ]
    )

    found, status = told(place, "gone", "child", "twice", "dirty", "wrong", "none")

    failed = {name: item["seen"] for name, item in found.items() if item["status"] == "fail"}
    assert status == 1
    assert set(failed) == {
        "entity.gone.declaration",
        "entity.none.declaration",
        "entity.child.parents",
        "entity.twice.key",
        "entity.wrong.rows",
    }
    assert "no column 'QTY'" in failed["entity.gone.declaration"]
    assert "no API 'none'" in failed["entity.none.declaration"]
    assert "the key of itm is id, not name" in failed["entity.child.parents"]
    assert failed["entity.twice.key"] == (
        "of 3 rows: 1 rows without a whole key; 1 rows with the key of another, such as id=A"
    )
    assert "number (1,000 of 1,000)" in failed["entity.wrong.rows"]
    rejected = found["entity.dirty.rows"]
    assert rejected["status"] == "warn"
    assert "1 x number in NAME" in rejected["seen"]
    assert "1 x null_key in ID" in rejected["seen"]
    assert found["entity.dirty.key"]["status"] == "warn"
    assert found["entity.dirty.mapping"]["status"] == "skipped"
    assert "syncflow entities export gone" in found["entity.gone.declaration"]["mend"]


def test_columns_that_changed_and_fields_that_the_hub_lacks_are_told(place: Place) -> None:
    items(place, "kept")
    place.apply([Entity(name="kept", delta="hash")])
    place.sync("kept")
    items(place, "kept", columns={**COLUMNS, "MORE": "DATE"})
    wider, _ = told(place, "kept")
    items(place, "kept", columns={"ID": "VARCHAR2(9)", "NAME": "DATE"})

    other, status = told(place, "kept")

    assert statuses(wider)["entity.kept.columns"] == "warn"
    assert "MORE (DATE) is new" in wider["entity.kept.columns"]["seen"]
    assert statuses(wider)["entity.kept.mapping"] == "warn"
    assert "has no more" in wider["entity.kept.mapping"]["seen"]
    assert statuses(other)["entity.kept.columns"] == "fail"
    assert other["entity.kept.columns"]["mend"].endswith("syncflow entities accept kept")
    assert status == 1


def test_a_disabled_entity_is_looked_at_by_name_alone(place: Place) -> None:
    items(place, "off")
    items(place, "under", columns={**COLUMNS, "UP": "VARCHAR2(9)"})
    place.apply([Entity(name="off"), Entity(name="under", parents={"up": link("off", "up")})])
    place.apply([Entity(name="off", enabled=False)])

    every = place.command("doctor", "--json")
    found, _ = told(place, "off")

    names = {item["name"]: item["status"] for item in lines(every.stdout)}
    assert "entity.off.declaration" not in names
    assert names["entity.under.parents"] == "warn"
    assert statuses(found)["entity.off.declaration"] == "warn"


def test_a_daemon_that_gives_signs_of_life_is_well_and_one_that_ceased_is_a_warning(
    place: Place, migrated_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = {"SYNCFLOW_DATABASE_URL": migrated_url, "SYNCFLOW_HOME": str(tmp_path / "home")}
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home" / "dagster"))
    for name, value in more.items():
        monkeypatch.setenv(name, value)
    with open_instance(read_settings()) as instance:
        found = []
        for age in (timedelta(hours=1), timedelta(0)):
            at = (datetime.now(tz=UTC) - age).timestamp()
            for kind in instance.get_required_daemon_types():
                instance.add_daemon_heartbeat(DaemonHeartbeat(at, kind, "d", []))
            found.append(told(place, **more))

    assert "nothing starts by itself" in found[0][0]["dagster.daemon"]["seen"]
    assert "syncflow up" in found[0][0]["dagster.daemon"]["mend"]
    assert [status for _, status in found] == [0, 0]
    assert "dagster.daemon" not in found[1][0]


def test_on_a_terminal_it_is_a_table_and_elsewhere_a_line_each(place: Place) -> None:
    away = {"SYNCFLOW_SCHEDULEHUB_URL": "http://127.0.0.1:9"}
    plain = place.command("doctor", **away)
    drawn = place.command("doctor", FORCE_COLOR="1", COLUMNS="200", TERM="xterm", **away)

    first, *_ = plain.stdout.splitlines()
    (line,) = [line for line in plain.stdout.splitlines() if line.startswith("fail")]
    assert first.split()[:2] == ["ok", "configuration"]
    assert "schedulehub" in line
    assert "; mend: is it running?" in line
    assert "seen, and how to mend it" in drawn.stdout
    assert "1 fail" in drawn.stdout
    assert (plain.returncode, drawn.returncode) == (4, 4)


def finding_of(skew: timedelta | None, *, whole: bool = True) -> Finding:
    """What is found of APISmith's clock, which is *skew* ahead; None where it does not say."""
    date = format_datetime(NOW + skew, usegmt=True) if skew is not None else "soon"

    def answer(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"status": "healthy"}, headers={"Date": date})

    settings = Settings.model_construct(apismith_url="http://source.test")
    carried = httpx.MockTransport(answer)
    system = System("apismith", lambda: Source.open(settings, transport=carried), has_url=whole)
    checks = [check for check in system.checks(lambda: NOW) if check.name != "apismith.login"]
    found = list(made(checks, {}))
    system.close()
    return found[-1]


def test_a_clock_that_is_far_from_this_machines_is_told() -> None:
    far = timedelta(seconds=FAR_S + 5)
    too_far = timedelta(seconds=TOO_FAR_S + 5)
    found = [finding_of(skew) for skew in (timedelta(0), far, -far, too_far, -too_far, None)]

    assert [item.name for item in found] == ["apismith.clock"] * 6
    assert [item.status for item in found] == ["ok", "warn", "warn", "fail", "fail", "skipped"]
    assert [item.exit_status for item in found] == [0, 0, 0, 1, 1, 0]
    # answers tell whole seconds
    assert re.search(r"1[3-7] s ahead of", found[1].seen)
    assert re.search(r"1[3-7] s behind", found[2].seen)
    assert all("NTP" in item.mend for item in found[1:5])


def test_a_check_that_does_not_end_is_left_and_one_that_breaks_is_a_finding() -> None:
    ended = threading.Event()

    hangs = make(Check("a", lambda: ended.wait() and None, "wait", limit_s=0.05))  # type: ignore[arg-type, return-value]
    breaks = make(Check("b", lambda: 1 / 0, "mend it"))  # type: ignore[arg-type, return-value]
    ended.set()

    assert (hangs.status, hangs.exit_status, hangs.mend) == ("fail", 4, "wait")
    assert isinstance(hangs.error, UnavailableError)
    assert (breaks.status, breaks.exit_status) == ("fail", 1)
    assert breaks.seen == "ZeroDivisionError: division by zero"


def test_a_disk_with_little_room_is_a_warning_and_a_full_one_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for limits in ((0, 0), (10**18, 0), (10**18, 10**18)):
        for name, value in zip(("LEAST_FREE", "FULL"), limits, strict=True):
            monkeypatch.setattr(f"syncflow_core.doctor.machine.{name}", value)
        found.append(disk_seen(tmp_path / "not" / "there").status)

    assert found == ["ok", "warn", "fail"]


def test_a_home_that_others_may_read_is_a_warning(place: Place, tmp_path: Path) -> None:
    home = tmp_path / "open"
    home.mkdir()
    home.chmod(0o755)

    found, status = told(place, SYNCFLOW_HOME=str(home))

    assert (found["home"]["status"], status) == ("warn", 0)
    assert found["home"]["mend"] == f"chmod 700 {home}"


def test_a_variable_that_is_almost_a_setting_is_told_with_the_one_that_is_meant(
    place: Place,
) -> None:
    slip = {"SYNCFLOW_KEEP_DAY": "30", "SYNCFLOW_API_PORT": "8008", "SYNCFLOW_UI_PORT": "3000"}
    file = place.home / ".env"
    file.touch(mode=0o600)
    file.write_text("SYNCFLOW_TIMEZONE=Europe/Berlin\n", encoding="utf-8")
    try:
        found, status = told(place, **slip)
    finally:
        file.unlink()
    unset, _ = told(place, SYNCFLOW_APISMITH_PASSWORD="", SYNCFLOW_APISMITH_PASWORD="secret")

    assert (found["configuration"]["status"], status) == ("warn", 0)
    assert found["configuration"]["seen"] == (
        "SYNCFLOW_KEEP_DAY is no setting: SYNCFLOW_KEEP_DAYS?; "
        "SYNCFLOW_TIMEZONE is no setting: SYNCFLOW_TIME_ZONE?"
    )
    assert "SYNCFLOW_APISMITH_PASWORD is no setting" in unset["configuration"]["seen"]
    assert "secret" not in str(unset["configuration"])


def test_a_file_of_secrets_that_others_may_read_is_a_warning(place: Place) -> None:
    file = place.home / ".env"
    file.write_text("SYNCFLOW_SLICES=7\n")
    try:
        file.chmod(0o640)
        opened, _ = told(place)
        file.chmod(0o600)
        closed, _ = told(place)
    finally:
        file.unlink()

    assert opened["configuration"]["status"] == "warn"
    assert opened["configuration"]["mend"] == f"chmod 600 {file}"
    assert "configuration" not in closed
