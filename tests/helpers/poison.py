"""``syncflow`` under a curse: records that kill who sends or reads them, clocks that jump."""

import datetime as dt
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import polars as pl

from syncflow_core.schedulehub import Target
from syncflow_core.stages import normalize
from syncflow_dagster import ops
from syncflow_dagster.cli.app import main

POISON = "POISON"
JUMP_CALLS = 4
"""How often the time is asked for between two jumps of the clock."""


def dies_of_sending() -> None:
    """``syncflow``, killed as it would be by a crash in native code while it sends the record."""
    insert = Target.insert

    def deadly(self: Target, collection: str, records: pl.Series, **named: Any) -> pl.DataFrame:
        if records.str.contains(POISON).any():
            os.kill(os.getpid(), signal.SIGKILL)
        return insert(self, collection, records, **named)

    Target.insert = deadly  # type: ignore[method-assign]
    main()


def breaks_on_reading() -> None:
    """``syncflow``, whose normalization raises on the record, as a defect of its own would."""
    real: Callable[..., Any] = normalize.normalize

    def brittle(raw: pl.DataFrame, *arguments: Any, **named: Any) -> Any:
        if (raw["NAME"] == POISON).any():
            raise pl.exceptions.ComputeError("cannot happen")
        return real(raw, *arguments, **named)

    normalize.normalize = brittle
    main()


def jumps() -> None:
    """``syncflow`` on a machine whose clock goes back an hour, and on by a day, while it runs."""
    real_time, real_now = time.time, ops.utc_now
    asked = 0

    def offset() -> float:
        return (0.0, -3_600.0, 86_400.0)[min(asked // JUMP_CALLS, 2)]

    def now() -> dt.datetime:
        nonlocal asked
        asked += 1
        return real_now() + dt.timedelta(seconds=offset())

    time.time = lambda: real_time() + offset()
    ops.utc_now = now
    main()
