"""Programs that a record kills: ``syncflow``, which dies whenever it is about to send, or to read, a poisoned one."""

import os
import signal
from collections.abc import Callable
from typing import Any

import polars as pl

from syncflow_core.schedulehub import Target
from syncflow_core.stages import normalize
from syncflow_dagster.cli.app import main

POISON = "POISON"


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
