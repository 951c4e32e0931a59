"""Opening the database, its health, its errors, and frames in and out."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
import sqlalchemy as sa
from machine import free_port, until
from polars.testing import assert_frame_equal
from pydantic import SecretStr

from syncflow_core.bridge import database as bridge_database
from syncflow_core.bridge.address import driver_url, place
from syncflow_core.bridge.bulk import copy_in, load_frame, stage
from syncflow_core.bridge.database import Database
from syncflow_core.errors import ConfigError, UnavailableError
from syncflow_core.settings import Settings


@pytest.mark.parametrize("scheme", ["postgresql", "postgresql+psycopg", "postgresql+psycopg2"])
def test_every_postgresql_scheme_is_spoken_with_psycopg_3(scheme: str) -> None:
    url = driver_url(f"{scheme}://user:secret@db.example/bridge")

    assert url.render_as_string(hide_password=False) == (
        "postgresql+psycopg://user:secret@db.example/bridge"
    )
    assert place(str(url)) == "db.example:5432/bridge"


def test_health_says_where_and_which_server(database: Database) -> None:
    health = database.health()

    assert health.place == database.place
    assert int(health.server.split(".")[0]) >= 14


def test_open_uses_the_url_of_the_settings(migrated_url: str) -> None:
    settings = Settings(database_url=SecretStr(migrated_url), home=Path("/nowhere"))

    with Database.open(settings) as database:
        assert not database.health().embedded


def test_a_database_that_is_away_is_unavailable_in_one_line_without_the_password() -> None:
    port = free_port()
    with (
        Database(f"postgresql://user:hush@127.0.0.1:{port}/bridge") as database,
        pytest.raises(UnavailableError) as caught,
        database.begin(),
    ):
        pass

    message = str(caught.value)
    assert f"127.0.0.1:{port}/bridge" in message
    assert "hush" not in message
    assert "\n" not in message


def test_a_bulk_read_from_a_database_that_is_away_is_unavailable() -> None:
    with (
        Database(f"postgresql://user:hush@127.0.0.1:{free_port()}/bridge") as database,
        pytest.raises(UnavailableError) as caught,
    ):
        database.frame("SELECT 1")

    assert "hush" not in str(caught.value)


def test_a_wrong_password_is_a_fault_of_the_configuration(migrated_url: str) -> None:
    wrong = driver_url(migrated_url).set(password="mistaken")  # it is the wrong one
    with (
        Database(wrong.render_as_string(hide_password=False)) as database,
        pytest.raises(ConfigError, match="refuses") as caught,
        database.begin(),
    ):
        pass

    assert "mistaken" not in str(caught.value)


def test_a_missing_database_is_a_fault_of_the_configuration(server_url: str) -> None:
    missing = f"{server_url.rpartition('/')[0]}/not_there"
    with (
        Database(missing) as database,
        pytest.raises(ConfigError, match="not_there"),
        database.begin(),
    ):
        pass


def test_XD04_the_pool_survives_sessions_that_were_ended(database: Database) -> None:
    with database.begin() as connection:
        pid = connection.scalar(sa.text("SELECT pg_backend_pid()"))
    with Database(database.url) as other, other.begin() as connection:
        connection.execute(
            sa.text("SELECT pg_terminate_backend(CAST(:pid AS int), 5000)"), {"pid": pid}
        )

    with database.begin() as connection:
        assert connection.scalar(sa.text("SELECT pg_backend_pid()")) != pid


@pytest.mark.parametrize(("idle_s", "asked"), [(60, 0), (0, 2)])
def test_a_connection_is_asked_whether_it_works_when_it_lay_idle(
    database: Database, monkeypatch: pytest.MonkeyPatch, idle_s: float, asked: int
) -> None:
    monkeypatch.setattr(bridge_database, "IDLE_S", idle_s)
    ping, pings = database.engine.dialect.do_ping, []
    monkeypatch.setattr(
        database.engine.dialect, "do_ping", lambda session: pings.append(session) or ping(session)
    )
    database.health()
    pings.clear()  # a new connection is none that lay idle, whatever the limit

    database.health()
    with database.read() as connection:
        connection.execute(sa.text("SELECT 1"))

    assert len(pings) == asked


def asleep(database: Database) -> int:
    """How many of the database's sessions do nothing but wait for the statement below."""
    query = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
        "AND wait_event = 'PgSleep'"
    )
    with database.begin() as connection:
        return int(connection.scalar(sa.text(query)) or 0)


def by_arrow(database: Database) -> None:
    database.frame("SELECT pg_sleep(60)::text")


def by_itself(database: Database) -> None:
    with database.read() as connection:
        connection.execute(sa.text("SELECT pg_sleep(60)"))


def in_a_transaction(database: Database) -> None:
    with database.begin(reads=True) as connection:
        connection.execute(sa.text("SELECT pg_sleep(60)"))


@pytest.mark.parametrize("read", [by_arrow, by_itself, in_a_transaction])
def test_a_read_in_another_thread_is_ended_and_the_pool_goes_on(
    database: Database, read: Callable[[Database], None]
) -> None:
    with ThreadPoolExecutor(1) as threads:
        reading = threads.submit(read, database)
        until(lambda: asleep(database) == 1)

        database.stop_reading()

        with pytest.raises(Exception, match="cancel"):
            reading.result(timeout=20)
    assert asleep(database) == 0
    assert database.health().server


def test_a_read_sees_what_is_committed_meanwhile(database: Database) -> None:
    with database.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE public.seen (x int)")

    with database.read() as reader:
        before = reader.scalar(sa.text("SELECT count(*) FROM public.seen"))
        with database.begin() as connection:
            connection.exec_driver_sql("INSERT INTO public.seen VALUES (1)")
        after = reader.scalar(sa.text("SELECT count(*) FROM public.seen"))

    assert (before, after) == (0, 1)


def test_a_transaction_that_raises_leaves_nothing(database: Database) -> None:
    def fail() -> None:
        with database.begin() as connection:
            connection.execute(sa.text("CREATE TABLE public.half (x int)"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()

    with database.begin() as connection:
        assert not sa.inspect(connection).has_table("half")


EVERYTHING = pl.DataFrame(
    {
        "at": [datetime(2025, 1, 2, 3, 4, 5, 678901, UTC), datetime(2025, 1, 2, tzinfo=UTC), None],
        "key": [b"\x00\x01", b"", None],
        "text": ['tab\t line\n return\r back\\slash \\N "quote" 漢', "", None],
        "count": [2**62, -1, None],
        "share": [0.1, -2.5e300, None],
        "yes": [True, False, None],
    },
    schema_overrides={"at": pl.Datetime("us", "UTC")},
)
SHAPE = "at timestamptz, key bytea, text text, count bigint, share double precision, yes boolean"


def test_every_value_survives_copy_in_and_load_frame(database: Database) -> None:
    with database.begin() as connection:
        stage(connection, "everything", SHAPE, EVERYTHING)
        found = load_frame(
            connection,
            "SELECT at, encode(key, 'hex'), text, count, share, yes FROM everything",
            EVERYTHING.schema,
        )

    assert_frame_equal(found, EVERYTHING, check_row_order=False)


def test_every_value_survives_the_way_through_arrow(database: Database) -> None:
    with database.begin() as connection:
        connection.execute(sa.text(f"CREATE TABLE public.everything ({SHAPE})"))
        copy_in(connection, "public.everything", EVERYTHING)

    found = database.frame("SELECT * FROM public.everything WHERE count > $1 OR $1 < 0", [-5])

    assert_frame_equal(found, EVERYTHING, check_row_order=False)


def test_a_stage_holds_only_what_was_put_into_it_last(database: Database) -> None:
    frame = pl.DataFrame({"x": [1, 2]})
    for _ in range(2):
        with database.begin() as connection:
            stage(connection, "numbers", "x bigint", frame)
            stage(connection, "numbers", "x bigint", frame)
            assert connection.scalar(sa.text("SELECT count(*) FROM numbers")) == 2


def test_a_nul_in_a_text_is_shown_as_its_picture(database: Database) -> None:
    with database.begin() as connection:
        stage(connection, "texts", "x text", pl.DataFrame({"x": ["a\x00b"]}))
        assert connection.scalar(sa.text("SELECT x FROM texts")) == "a\u2400b"


def test_more_records_than_one_block_arrive_whole(database: Database) -> None:
    with database.begin() as connection:
        found = load_frame(
            connection, "SELECT g FROM generate_series(1, 25000) AS g", {"g": pl.Int64()}
        )

    assert found["g"].sort().to_list() == list(range(1, 25_001))


def test_an_answer_without_rows_is_an_empty_frame_of_the_shape(database: Database) -> None:
    with database.begin() as connection:
        found = load_frame(connection, "SELECT 'a' WHERE :no", {"x": pl.String()}, {"no": False})

    assert_frame_equal(found, pl.DataFrame(schema={"x": pl.String()}))
