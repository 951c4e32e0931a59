"""Night after night under the real daemon, whose clock is moved: each slice once in a sweep.

The clock stands in a file that libfaketime reads: daemon, code server and run workers see it, the
database and the sandbox do not. One night the daemon is down, in another a worker is killed, in the second
the clocks change, and the source grows every day.
"""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
from place import Place
from servers import end
from tables import faults, hub, link, references, table

from syncflow_core.bridge import batches, schedules
from syncflow_core.entity import Background, Brake, Entity, Schedule
from syncflow_core.settings import read_settings
from syncflow_dagster.abandoned import PROCESS_TAG
from syncflow_dagster.home import prepare, shipped
from syncflow_dagster.nights import JOB

FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")
BERLIN = ZoneInfo("Europe/Berlin")
FIRST = date(2026, 3, 27)
SWEEPS, NIGHTS = map(int, os.environ.get("SYNCFLOW_SWEEPS", "0x0").split("x"))
"""So many sweeps of so many nights; ``make nights`` takes two of seven, which is minutes."""
OUTAGE, KILLED = 1, NIGHTS * (SWEEPS - 1) + 2
COLUMNS = {"ID": "VARCHAR2(9)", "UP": "VARCHAR2(9)"}
ROWS = 70

pytestmark = [
    pytest.mark.timeout(1200),
    pytest.mark.skipif(not SWEEPS, reason="takes minutes: make nights"),
    pytest.mark.skipif(not FAKETIME.exists(), reason="needs Debian's package faketime"),
]


class Weeks:
    """A daemon whose clock the test sets."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.clock = place.home / "clock"
        self.home = prepare(read_settings()) / "dagster"
        self.daemon: subprocess.Popen[bytes] | None = None
        self.log = place.home / "daemon.log"

    def move(self, local: datetime) -> None:
        moment = local.astimezone(UTC)
        new = self.clock.with_suffix(".new")
        new.write_text(f"@{moment:%Y-%m-%d %H:%M:%S}\n", encoding="ascii")
        new.replace(self.clock)

    def start(self) -> None:
        faked = {
            "LD_PRELOAD": str(FAKETIME),
            "FAKETIME_TIMESTAMP_FILE": str(self.clock),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DAGSTER_HOME": str(self.home),
            "PYTHONPATH": str(Path(__file__).with_name("moved_clock")),
            "TZ": "UTC",
        }
        with self.log.open("ab") as log:
            self.daemon = subprocess.Popen(
                [
                    sys.executable,
                    str(Path(__file__).with_name("night_daemon.py")),
                    "run",
                    "-w",
                    str(shipped("workspace.yaml")),
                ],
                env={**self.place.environment, **faked},
                cwd=self.home,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def stop(self) -> None:
        if self.daemon is not None:
            end(self.daemon)
            self.daemon = None

    def until(self, done: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + 90
        while not done():
            if time.monotonic() > deadline:
                raise AssertionError(f"{what}: {self.log.read_text()[-3000:]}")
            time.sleep(0.2)

    def looked(self) -> bool:
        """Whether the daemon has looked at its schedules, which it does once a second."""
        time.sleep(2)
        return "Checking for new runs" in self.log.read_text()

    def idle(self) -> bool:
        """Whether no run goes on."""
        live = [
            dg.DagsterRunStatus.QUEUED,
            dg.DagsterRunStatus.NOT_STARTED,
            dg.DagsterRunStatus.STARTING,
            dg.DagsterRunStatus.STARTED,
            dg.DagsterRunStatus.CANCELING,
        ]
        with dg.DagsterInstance.from_config(str(self.home)) as instance:
            return not instance.get_runs(dg.RunsFilter(job_name=JOB, statuses=live), limit=1)

    def last_nights(self) -> set[date | None]:
        with self.place.database.begin() as connection:
            return {night.progress.last_night for night in schedules.load_nights(connection)}


@pytest.fixture
def weeks(place: Place) -> Iterator[Weeks]:
    references(place, ("kid", "up", "top"))
    night = Schedule(background=Background(time_zone="Europe/Berlin", nights=NIGHTS))
    loose = Brake(rows=1_000, share=1)
    place.apply(
        [
            Entity(name="top", schedule=night, brake=loose),
            Entity(name="kid", schedule=night, brake=loose, parents={"up": link("top", "up")}),
        ]
    )
    running = Weeks(place)
    try:
        yield running
    finally:
        running.stop()


def grown(place: Place, days: int) -> int:
    """The source after so many days; how many rows each table has."""
    number = ROWS + 3 * days
    table(place, "top", COLUMNS, [{"ID": f"T{n:05}", "UP": ""} for n in range(number)])
    table(place, "kid", COLUMNS, [{"ID": f"K{n:05}", "UP": f"T{n:05}"} for n in range(number)])
    return number


def kill_worker(weeks: Weeks) -> None:
    """Kill the process of the run that is going on, as it says itself which one that is."""
    found: list[str] = []

    def running() -> bool:
        with dg.DagsterInstance.from_config(str(weeks.home)) as instance:
            filters = dg.RunsFilter(job_name=JOB, statuses=[dg.DagsterRunStatus.STARTED])
            runs = instance.get_runs(filters, limit=1)
        found[:] = [run.tags[PROCESS_TAG] for run in runs if PROCESS_TAG in run.tags]
        return bool(found)

    weeks.until(running, "no run to kill")
    os.kill(int(found[0].split(" ")[1]), signal.SIGKILL)


def test_sweeps_end_equal_with_each_slice_done_once_whatever_a_night_brings(
    weeks: Weeks,
) -> None:
    place = weeks.place
    weeks.move(datetime(FIRST.year, FIRST.month, FIRST.day, 18, 50, tzinfo=BERLIN))
    weeks.start()
    # a schedule that the daemon has never seen begins with the next tick
    weeks.until(weeks.looked, "no first look")
    for number in range(SWEEPS * NIGHTS):
        evening = FIRST + timedelta(days=number)
        rows = grown(place, min(number, SWEEPS * NIGHTS - 2))
        weeks.move(datetime(evening.year, evening.month, evening.day, 19, 1, tzinfo=BERLIN))
        if number == OUTAGE:
            weeks.stop()
            continue
        if number == KILLED:
            faults(
                place.sandbox.apismith_url,
                {"match": {"path": "/execute", "times": 1}, "action": {"delay_s": 3.0}},
            )
        if weeks.daemon is None:
            weeks.start()
        if number == KILLED:
            kill_worker(weeks)
            weeks.until(weeks.idle, "the killed run goes on")
            weeks.move(datetime(evening.year, evening.month, evening.day, 19, 16, tzinfo=BERLIN))
        weeks.until(lambda night=evening: weeks.last_nights() == {night}, f"night {number}")
        weeks.until(weeks.idle, f"night {number} goes on")

    wanted = {f"id={letter}{n:05}" for letter in "TK" for n in range(rows)}
    assert {*hub(place, "top"), *hub(place, "kid")} == wanted
    with place.database.begin() as connection:
        done = batches.history(connection, kinds=["slice"], statuses=["completed"], limit=1_000)
        progress = {night.entity: night.progress for night in schedules.load_nights(connection)}
    slices = Counter(
        (batch.entity, key) for batch in done for key in str(batch.partition).split(",")
    )
    assert slices == {(name, f"slice-{n}"): SWEEPS for name in ("top", "kid") for n in range(1, 8)}
    assert {item.sweep_number for item in progress.values()} == {SWEEPS}
    assert all(
        item.current_offset == rows or item.sweep_night is None for item in progress.values()
    )
