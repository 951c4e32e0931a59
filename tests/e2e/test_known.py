"""Known records that are read ahead, while other stages work; and again where that came to nothing."""

import threading

import polars as pl
import pytest
from place import Place, outcome
from tables import table

from syncflow_core.bridge import records
from syncflow_core.bridge.database import Database
from syncflow_core.entity import Entity
from syncflow_core.errors import UnavailableError

COLUMNS = {"ID": "NUMBER(9)", "NAME": "VARCHAR2(9)"}


@pytest.mark.parametrize("broken", [False, True], ids=["read", "broken off"])
def test_known_records_are_read_ahead_and_where_that_fails_when_they_are_compared(
    place: Place, monkeypatch: pytest.MonkeyPatch, *, broken: bool
) -> None:
    table(place, "itm", COLUMNS, [{"ID": n, "NAME": f"n{n}"} for n in range(20)])
    place.apply([Entity(name="itm")])
    place.sync()
    readers: list[str] = []
    load = records.load_known

    def told(database: Database, entity: str) -> pl.DataFrame:
        readers.append(threading.current_thread().name.partition("_")[0])
        if broken and len(readers) == 1:
            raise UnavailableError("the connection broke")
        return load(database, entity)

    monkeypatch.setattr(records, "load_known", told)

    run = place.sync()

    assert outcome(run, "itm") == {"fetched": 20, "normalized": 20, "unchanged": 20}
    assert readers == (["known", "MainThread"] if broken else ["known"])
