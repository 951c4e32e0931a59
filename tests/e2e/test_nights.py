"""Sixty nights of one table: each night the true operations, no more and no fewer."""

import json
import os
import random
from dataclasses import dataclass, field

from place import Place, notes, outcome
from tables import effects, hub, table

from syncflow_core.bridge.batches import Batch
from syncflow_core.entity import Entity
from syncflow_core.sandbox.store import Row

NIGHTS = int(os.environ.get("SYNCFLOW_NIGHTS", "25"))
ROWS = 500
RENAMED = (17, 41)
"""Nights on which a column has another name; the next day it has its own again."""
NEW_COLUMN = 30
"""From this night on there is a column more, NULL everywhere."""
REMARKS = 50
"""From this night on somebody writes into it."""
COLUMNS = {"ID": "NUMBER(9)", "NAME": "VARCHAR2(20)", "QTY": "NUMBER(12,2)"}


@dataclass
class Erp:
    """The table as the ERP has it, and what has changed since the last night that was synced."""

    draw: random.Random
    rows: dict[int, dict[str, object]] = field(default_factory=dict)
    synced: dict[int, dict[str, object]] = field(default_factory=dict)
    gone: list[int] = field(default_factory=list)
    next: int = ROWS

    def pass_day(self, night: int) -> None:
        for number in self.draw.sample(sorted(self.rows), 6):
            self.rows[number] = {
                **self.rows[number],
                "QTY": self.draw.choice(["1.50", "2.5", 3, "4.00"]),  # some spell what was there
            }
        if night >= REMARKS:
            for number in self.draw.sample(sorted(self.rows), 2):
                self.rows[number] = {**self.rows[number], "REMARK": f"of {night}"}
        for number in self.draw.sample(sorted(self.rows), self.draw.randint(0, 3)):
            del self.rows[number]
            self.gone.append(number)
        for _ in range(self.draw.randint(0, 3)):
            self._insert(self.next)
            self.next += 1
        if self.gone and self.draw.random() < 0.3:  # a key that was deleted comes back
            self._insert(self.gone.pop(self.draw.randrange(len(self.gone))))

    def _insert(self, number: int) -> None:
        self.rows[number] = {"ID": number, "NAME": f"n{number}", "QTY": 1, "REMARK": None}

    def true_operations(self) -> dict[str, int]:
        """What the hub lacks, counted by values and not by their spelling."""
        both = self.rows.keys() & self.synced.keys()
        changed = [n for n in both if value(self.rows[n]) != value(self.synced[n])]
        counts = {
            "inserted": len(self.rows.keys() - self.synced.keys()),
            "updated": len(changed),
            "deleted": len(self.synced.keys() - self.rows.keys()),
            "unchanged": len(both) - len(changed),
        }
        return {name: number for name, number in counts.items() if number}

    def note_synced(self) -> None:
        self.synced = {number: dict(row) for number, row in self.rows.items()}


def value(row: dict[str, object]) -> tuple[object, ...]:
    return (row["ID"], row["NAME"], float(str(row["QTY"])), row["REMARK"])


def load(place: Place, erp: Erp, *, renamed: bool, widened: bool) -> None:
    """The source offers the table, its metadata and its rows alike."""
    names = {name: name for name in COLUMNS} | ({"REMARK": "REMARK"} if widened else {})
    if renamed:
        names["QTY"] = "QUANTITY"
    columns = {shown: COLUMNS.get(name, "VARCHAR2(9)") for name, shown in names.items()}
    rows: list[Row] = [
        {shown: row[name] for name, shown in names.items()} for _, row in sorted(erp.rows.items())
    ]
    table(place, "ngt", columns, rows)


def counted(batch: Batch) -> dict[str, int]:
    """Everything that the batch counted, but for the rows that it read."""
    counts = vars(batch.counts).items()
    return {name: n for name, n in counts if n and name not in {"fetched", "normalized"}}


def held(place: Place) -> dict[int, tuple[object, ...]]:
    """The hub's records by their numbers, as ``value`` tells a row."""
    documents = [json.loads(text) for text in hub(place, "ngt").values()]
    return {
        document["id"]: (
            document["id"],
            document["name"],
            float(document["qty"]),
            document.get("remark"),
        )
        for document in documents
    }


def test_night_after_night_makes_the_true_operations_and_two_renames_stop_the_entity(
    place: Place,
) -> None:
    erp = Erp(random.Random(7))  # noqa: S311  # a seed, no secret
    erp.rows = {n: {"ID": n, "NAME": f"n{n}", "QTY": "1.50", "REMARK": None} for n in range(ROWS)}
    place.apply([Entity(name="ngt")])
    for night in range(NIGHTS):
        if night:
            erp.pass_day(night)
        renamed = night in RENAMED
        load(place, erp, renamed=renamed, widened=night >= NEW_COLUMN)
        before = effects(place)

        batch = place.sync("ngt").batches[0]

        if renamed:
            assert (night, batch.status, counted(batch)) == (night, "failed", {})
            assert "QTY (NUMBER(12,2)) is gone; nothing was read or written" in str(batch.error)
            assert effects(place) == before
            continue
        true = erp.true_operations()
        assert (night, batch.status, counted(batch)) == (night, "completed", true)
        made = sum(true.get(name, 0) for name in ("inserted", "updated", "deleted"))
        assert effects(place) == before + made
        assert ("REMARK (VARCHAR2(9)) is new" in notes(batch)) == (night == NEW_COLUMN)
        erp.note_synced()
    assert held(place) == {number: value(row) for number, row in erp.rows.items()}
    assert outcome(place.sync("ngt"), "ngt")["unchanged"] == len(erp.rows)
