"""The tags of runs that the clock starts, for the queue and for people who filter by them.

Belongs here: names and values.
Does not belong here: who starts what (``nights``, ``daytime``, ``retrying``), limits (``dagster.yaml``).
"""

from typing import Final

NIGHT_TAG: Final = "syncflow/night_of"
"""The evening's date, on the runs that the night window starts."""
UNTIL_TAG: Final = "syncflow/until"
"""When that night ends."""
BY_CLOCK: Final = {"syncflow/asked_by": "clock"}
"""On every run that no person asked for: ``dagster.yaml`` keeps a place free for people."""
MAX_RUNTIME_TAG: Final = "dagster/max_runtime"
"""Seconds; the last resort against a run that neither stops by itself nor is ended by the guard."""
PRIORITY_TAG: Final = "dagster/priority"
SWEEP_FIRST: Final = {PRIORITY_TAG: "1"}
BEHIND_THE_SWEEP: Final = {PRIORITY_TAG: "-1"}
"""People's own runs have 0."""
