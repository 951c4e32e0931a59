"""What the clock starts, at chosen moments."""

from datetime import datetime
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
from dagster._utils.schedules import schedule_execution_time_iterator

from syncflow_core.entity import Entity
from syncflow_dagster.definitions import build

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
    schedule = repository.get_schedule_def(name)
    instance = dg.DagsterInstance.ephemeral()

    tick = schedule.evaluate_tick(
        dg.build_schedule_context(
            instance=instance, scheduled_execution_time=at, repository_def=repository
        )
    )

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
