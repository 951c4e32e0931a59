"""What the clock starts, at chosen moments."""

import itertools
from datetime import datetime
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
from dagster._utils.schedules import schedule_execution_time_iterator

from syncflow_core.entity import Entity
from syncflow_dagster.definitions import build
from syncflow_dagster.reconciling import build_reconcile_job
from syncflow_dagster.schedules import build_schedules
from syncflow_dagster.tidying import build_tidy_job

BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("name", "at", "sample"),
    [
        ("reconcile_daily", datetime(2026, 3, 29, 5, 30, tzinfo=BERLIN), 1_000),  # a short night
        ("reconcile_weekly", datetime(2026, 10, 25, 3, 0, tzinfo=BERLIN), 0),  # a long one
    ],
)
def test_reconciling_is_started_daily_by_a_sample_and_weekly_whole(
    name: str, at: datetime, sample: int
) -> None:
    repository = build([Entity(name="orders")], 7, time_zone="Europe/Berlin").get_repository_def()
    schedule = next(
        item
        for item in build_schedules(
            build_reconcile_job(), build_tidy_job(), "Europe/Berlin", now=lambda: at
        )
        if item.name == name
    )
    instance = dg.DagsterInstance.ephemeral()

    tick = schedule.evaluate_tick(
        dg.build_schedule_context(
            instance=instance, scheduled_execution_time=at, repository_def=repository
        )
    )

    assert repository.has_schedule_def(name)
    assert (schedule.job_name, schedule.default_status.value) == ("reconcile", "RUNNING")
    assert schedule.execution_timezone == "Europe/Berlin"
    (request,) = tick.run_requests or []
    config = request.run_config
    assert config == {"ops": {"compare": {"config": {"sample": sample}}}}
    assert dg.validate_run_config(repository.get_job("reconcile"), config)


def test_the_two_are_due_when_the_night_window_is_open() -> None:
    repository = build([], 7, time_zone="Europe/Berlin").get_repository_def()
    start = datetime(2026, 1, 1, tzinfo=BERLIN).timestamp()

    schedules = [repository.get_schedule_def(f"reconcile_{often}") for often in ("daily", "weekly")]
    due = {
        item.name: next(
            schedule_execution_time_iterator(
                start, str(item.cron_schedule), item.execution_timezone, ascending=True
            )
        )
        for item in schedules
    }

    assert all(at.hour < 7 for at in due.values())
    assert due["reconcile_weekly"].isoweekday() == 7


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"])
def test_XT01_XT02_each_schedule_is_due_once_a_day_through_short_and_long_nights(
    zone: str,
) -> None:
    start, end = (datetime(year, 1, 1, tzinfo=ZoneInfo(zone)).timestamp() for year in (2026, 2027))
    repository = build([], 7, time_zone=zone).get_repository_def()
    for schedule in repository.schedule_defs:
        ticks = itertools.takewhile(
            lambda at: at.timestamp() < end,
            schedule_execution_time_iterator(
                start, str(schedule.cron_schedule), schedule.execution_timezone, ascending=True
            ),
        )
        days = [at.astimezone(ZoneInfo(zone)).date() for at in ticks]
        assert len(days) == len(set(days)) == (52 if schedule.name.endswith("weekly") else 365)


def test_XT04_what_was_missed_over_several_nights_is_made_up_for_once() -> None:
    woken = datetime(2026, 3, 31, 9, 0, tzinfo=BERLIN)
    schedules = build_schedules(
        build_reconcile_job(), build_tidy_job(), "Europe/Berlin", now=lambda: woken
    )
    started = {
        schedule.name: [
            day
            for day in (27, 28, 29, 30, 31)
            if schedule.evaluate_tick(
                dg.build_schedule_context(
                    scheduled_execution_time=datetime(2026, 3, day, 5, 30, tzinfo=BERLIN)
                )
            ).run_requests
        ]
        for schedule in schedules
        if schedule.name == "reconcile_daily"
    }

    assert started == {"reconcile_daily": [31]}


def test_XT05_the_sensor_starts_nothing_while_its_last_run_goes_on() -> None:
    repository = build([Entity(name="orders")], 7).get_repository_def()
    sensor = repository.get_sensor_def("undelivered")
    with dg.DagsterInstance.ephemeral() as instance:
        going_on = instance.create_run_for_job(
            repository.get_job("retry_failed"), status=dg.DagsterRunStatus.STARTED
        )
        tick = sensor.evaluate_tick(dg.build_sensor_context(instance=instance))

    assert tick.run_requests == []
    assert tick.skip_message == f"run {going_on.run_id} is still trying"
