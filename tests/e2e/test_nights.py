"""Sixty nights of one table: each night the true operations, no more and no fewer."""

import random
from dataclasses import dataclass, field

import pytest
from place import Place, outcome
from tables import effects, hub, table

from syncflow_core.bridge.batches import Batch
from syncflow_core.entity import Entity
from syncflow_core.sandbox.store import Row

pytestmark = pytest.mark.e2e

NIGHTS = 60
ROWS = 500
RENAMED = (17, 41)
"""Nights on which a column has another name; the next day it has its own again."""
NEW_COLUMN = 30
COLUMNS = {"ID": "NUMBER(9)", "NAME": "VARCHAR2(20)", "QTY": "NUMBER(12,2)"}


@dataclass
class Erp:
    """The table as the ERP has it, and what has changed since the last night that was synced."""

    draw: random.Random
    rows: dict[int, dict[str, object]] = field(default_factory=dict)
    synced: dict[int, dict[str, object]] = field(default_factory=dict)
    next: int = ROWS

    def pass_day(self) -> None:
        for number in self.draw.sample(sorted(self.rows), 6):
            self.rows[number] = {
                **self.rows[number],
                "QTY": self.draw.choice(["1.50", "2.5", 3, "4.00"]),  # some spell what was there
            }
        for number in self.draw.sample(sorted(self.rows), self.draw.randint(0, 3)):
            del self.rows[number]
        for _ in range(self.draw.randint(0, 3)):
            self.rows[self.next] = {"ID": self.next, "NAME": f"n{self.next}", "QTY": 1}
            self.next += 1

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
    return (row["ID"], row["NAME"], float(str(row["QTY"])))


def load(place: Place, erp: Erp, *, quantity: str = "QTY", extra: str | None = None) -> None:
    columns = {quantity if name == "QTY" else name: kind for name, kind in COLUMNS.items()}
    if extra is not None:
        columns[extra] = "VARCHAR2(9)"
    rows: list[Row] = [
        {quantity if name == "QTY" else name: cell for name, cell in row.items()}
        for _, row in sorted(erp.rows.items())
    ]
    table(place, "ngt", columns, rows)


def notes(batch: Batch) -> str:
    return " ".join((batch.proof or {}).get("notes", ()))


def test_sixty_nights_make_the_true_operations_and_two_renames_stop_the_entity(
    place: Place,
) -> None:
    erp = Erp(random.Random(7))  # noqa: S311  # a seed, no secret
    erp.rows = {n: {"ID": n, "NAME": f"n{n}", "QTY": "1.50"} for n in range(ROWS)}
    place.apply([Entity(name="ngt")])
    extra: str | None = None
    for night in range(NIGHTS):
        if night:
            erp.pass_day()
        extra = "REMARK" if night >= NEW_COLUMN else None
        renamed = night in RENAMED
        load(place, erp, quantity="QUANTITY" if renamed else "QTY", extra=extra)
        before = effects(place)

        batch = place.sync("ngt").batches[0]

        if renamed:
            assert (night, batch.status) == (night, "failed")
            assert "QTY (NUMBER(12,2)) is gone; nothing was read or written" in str(batch.error)
            assert effects(place) == before
            continue
        counted = {
            name: number
            for name, number in vars(batch.counts).items()
            if number and name not in {"fetched", "normalized"}
        }
        assert (night, counted) == (night, erp.true_operations())
        assert ("REMARK (VARCHAR2(9)) is new" in notes(batch)) == (night == NEW_COLUMN)
        made = sum(counted.get(name, 0) for name in ("inserted", "updated", "deleted"))
        assert effects(place) == before + made
        erp.note_synced()
    assert len(hub(place, "ngt")) == len(erp.rows)
    assert outcome(place.sync("ngt"), "ngt")["unchanged"] == len(erp.rows)
