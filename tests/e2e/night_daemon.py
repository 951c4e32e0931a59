"""Dagster's daemon, whose scheduler looks every second: its clock is moved, and it waits for no minute."""

import sys

from dagster._daemon.cli import main
from dagster._scheduler import scheduler

if __name__ == "__main__":
    scheduler._get_next_scheduler_iteration_time = lambda start: start + 1.0
    sys.argv[0] = "dagster-daemon"
    main()
