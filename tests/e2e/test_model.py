"""Random edits in the ERP, random kinds of run: whatever claims success has made the hub equal.

The model is the ERP's tables as plain dictionaries, and what the hub must hold of them; it shares no
code with SyncFlow. ``SYNCFLOW_TEST_MODEL_EXAMPLES`` asks for so many longer examples.
"""

import json
import os
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from place import Place
from tables import effects, hub, link, references, table

from syncflow_core.entity import Brake, Entity, Rowversion
from syncflow_core.sandbox.effects import inserted_twice
from syncflow_dagster.launch import Run

pytestmark = pytest.mark.e2e

EXAMPLES = int(os.environ.get("SYNCFLOW_TEST_MODEL_EXAMPLES", "0"))
OVERLAP = 5
"""How far, in counts, a row may be committed late."""
COLUMNS = {
    "ord": {"ID": "VARCHAR2(9)", "NAME": "VARCHAR2(9)", "RV": "NUMBER(18)"},
    "lin": {"NO": "VARCHAR2(9)", "LINE": "NUMBER(9)", "QTY": "NUMBER(12,2)", "RV": "NUMBER(18)"},
    "prt": {"ID": "VARCHAR2(9)", "UP": "VARCHAR2(9)", "NAME": "VARCHAR2(9)", "RV": "NUMBER(18)"},
}
KEYS = {"ord": ["ID"], "lin": ["NO", "LINE"], "prt": ["ID"]}
VERSION = Rowversion(column="RV", kind="integer", overlap_s=OVERLAP)
LOOSE = Brake(rows=1000, share=1)
ENTITIES = [
    Entity(name="ord", rowversion=VERSION, delta="rowversion", brake=LOOSE),
    Entity(
        name="lin",
        business_key=["NO", "LINE"],
        rowversion=VERSION,
        delta="hash",
        brake=LOOSE,
        parents={"order": link("ord", "no")},
    ),
    Entity(
        name="prt",
        rowversion=VERSION,
        delta="rowversion",
        brake=LOOSE,
        parents={"up": link("prt", "up")},
    ),
]
ROW = dict[str, Any]
ORDERS = st.integers(0, 5).map(lambda n: f"O{n}")
PARTS = st.integers(0, 6).map(lambda n: f"P{n}")
NAMES = st.sampled_from("ABC")
NAME = st.sampled_from(sorted(COLUMNS))
LATE = st.integers(0, OVERLAP)


class Erp(RuleBasedStateMachine):
    """The ERP's side, the runs, and what must hold after them."""

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place = place
        self.counter = 100
        # one row of each is never edited: an empty source never deletes
        self.rows: dict[str, dict[tuple[Any, ...], ROW]] = {
            "ord": {("OZ",): {"ID": "OZ", "NAME": "Z", "RV": 1}},
            "lin": {("OZ", 1): {"NO": "OZ", "LINE": 1, "QTY": "1", "RV": 1}},
            "prt": {("PZ",): {"ID": "PZ", "UP": None, "NAME": "Z", "RV": 1}},
        }
        self.behind: set[str] = set()
        """Entities that were edited since their tables were written for the source."""
        _empty(place)
        for name in COLUMNS:
            self._write(name)
        place.apply(ENTITIES)
        references(place, ("lin", "order", "ord"), ("prt", "up", "prt"))

    # edits

    def _put(self, name: str, row: ROW, late: int) -> None:
        """Insert or change a row; a late commit has a rowversion from before the newest."""
        self.counter += 1
        key = tuple(row[column] for column in KEYS[name])
        self.rows[name][key] = {**row, "RV": self.counter - late}
        self.behind.add(name)

    @rule(no=ORDERS, name=NAMES, late=LATE)
    def insert_or_change_an_order(self, no: str, name: str, late: int) -> None:
        self._put("ord", {"ID": no, "NAME": name}, late)

    @rule(
        no=ORDERS, line=st.integers(1, 3), quantity=st.sampled_from(["1", "1.50", "2"]), late=LATE
    )
    def insert_or_change_a_line_of_any_order(
        self, no: str, line: int, quantity: str, late: int
    ) -> None:
        self._put("lin", {"NO": no, "LINE": line, "QTY": quantity}, late)

    @rule(no=PARTS, up=st.none() | PARTS, name=NAMES, late=LATE)
    def insert_change_or_re_parent_a_part(
        self, no: str, up: str | None, name: str, late: int
    ) -> None:
        self._put("prt", {"ID": no, "UP": up, "NAME": name}, late)

    @rule(no=ORDERS)
    def change_an_order_to_b_and_back_to_a(self, no: str) -> None:
        row = self.rows["ord"].get((no,))
        if row is not None:
            self._put("ord", row, 0)

    @rule(no=ORDERS)
    def delete_an_order_with_its_lines(self, no: str) -> None:
        if self.rows["ord"].pop((no,), None) is not None:
            for key in [key for key in self.rows["lin"] if key[0] == no]:
                del self.rows["lin"][key]
            self.behind |= {"ord", "lin"}

    @rule(no=ORDERS, line=st.integers(1, 3))
    def delete_a_line(self, no: str, line: int) -> None:
        if self.rows["lin"].pop((no, line), None) is not None:
            self.behind.add("lin")

    @rule(no=PARTS)
    def delete_a_part_and_free_those_below_it(self, no: str) -> None:
        if self.rows["prt"].pop((no,), None) is None:
            return
        for row in [row for row in self.rows["prt"].values() if row["UP"] == no]:
            self._put("prt", {**row, "UP": None}, 0)
        self.behind.add("prt")

    @rule(no=ORDERS, to=ORDERS)
    def re_key_the_lines_of_an_order(self, no: str, to: str) -> None:
        for key in [key for key in self.rows["lin"] if key[0] == no and no != to]:
            row = self.rows["lin"].pop(key)
            self._put("lin", {**row, "NO": to}, 0)

    @rule(name=NAME)
    def give_all_rows_one_rowversion(self, name: str) -> None:
        self.counter += 1
        for row in self.rows[name].values():
            row["RV"] = self.counter
        self.behind.add(name)

    def _write(self, name: str) -> None:
        rows = [self.rows[name][key] for key in sorted(self.rows[name])]
        table(self.place, name, COLUMNS[name], rows, keys=KEYS[name])

    def _publish(self) -> None:
        for name in sorted(self.behind):
            self._write(name)
        self.behind.clear()

    # runs

    def _run(self, *names: str, **how: Any) -> Run:
        self._publish()
        run = self.place.sync(*names, **how)
        assert [batch.counts.unaccounted for batch in run.batches if batch.counts.unaccounted] == []
        assert [batch.error for batch in run.batches if batch.error] == []
        return run

    @rule()
    def sync_everything(self) -> None:
        self._run(mode="full")
        self._equal()

    @rule(name=NAME)
    def sync_one_entity(self, name: str) -> None:
        self._run(name, mode="full")

    @rule()
    def sync_what_changed(self) -> None:
        self._run(mode="incremental")
        held = {name: _documents(self.place, name) for name in COLUMNS}
        for name in ("ord", "prt"):
            wanted = self._wanted(held)[name]
            late = {key: row for key, row in wanted.items() if held[name].get(key) != row}
            assert (name, late) == (name, {})

    @rule(name=NAME)
    def sync_as_the_strategy_says(self, name: str) -> None:
        self._run(name, mode="auto")

    @rule(name=NAME, number=st.integers(1, 7))
    def sync_a_slice(self, name: str, number: int) -> None:
        self._run(name, slice_=number)

    # what must hold

    def teardown(self) -> None:
        """At the end all is equal, a quiet run pushes nothing, and nothing was ever doubled."""
        self._run(mode="full")
        self._equal()
        before = effects(self.place)
        quiet = self._run(mode="full")
        assert effects(self.place) == before
        assert sum(batch.counts.retried for batch in quiet.batches) == 0
        assert inserted_twice(self.place.url) == []

    def _equal(self) -> None:
        held = {name: _documents(self.place, name) for name in COLUMNS}
        assert held == self._wanted(held)

    def _wanted(self, held: dict[str, dict[str, ROW]]) -> dict[str, dict[str, ROW]]:
        """What the hub must hold: reference to fields, the parent by its reference.

        A part that was moved below one that is not there waits; the hub keeps it as it was before.
        """
        orders = {
            f"id={no}": {"id": no, "name": row["NAME"]} for (no,), row in self.rows["ord"].items()
        }
        lines = {
            f"no={no}|line={line}": {
                "no": no,
                "line": line,
                "qty": float(row["QTY"]),
                "^order": f"id={no}",
            }
            for (no, line), row in self.rows["lin"].items()
            if f"id={no}" in orders
        }
        there = {no for (no,) in self.rows["prt"]}
        while missing := {
            no
            for no in there
            if (up := self.rows["prt"][(no,)]["UP"]) is not None
            and up not in there
            and f"id={up}" not in held["prt"]
        }:
            there -= missing
        parts = {
            f"id={no}": {
                "id": no,
                "up": row["UP"],
                "name": row["NAME"],
                "^up": None if row["UP"] is None else f"id={row['UP']}",
            }
            for (no,), row in self.rows["prt"].items()
            if no in there
        }
        waiting = {f"id={no}" for (no,) in self.rows["prt"]} - parts.keys()
        parts |= {key: row for key, row in held["prt"].items() if key in waiting}
        return {"ord": orders, "lin": lines, "prt": parts}


def _documents(place: Place, name: str) -> dict[str, ROW]:
    """The hub's live records: reference to fields, each parent by its own reference."""
    keys: dict[str, str] = {}
    for collection in COLUMNS:
        for reference, text in hub(place, collection).items():
            keys[json.loads(text)["erp_key_hash"]] = reference
    found = {}
    for reference, text in hub(place, name).items():
        document = json.loads(text)
        parents = document.get("parent_refs") or {}
        own = {key: value for key, value in document.items() if not key.startswith("erp_")}
        for field in ("parent_refs", "uid", "is_deleted"):
            own.pop(field, None)
        refs = {
            f"^{key}": None if value is None else keys.get(value) for key, value in parents.items()
        }
        found[reference] = {**own, **refs}
    return found


def _empty(place: Place) -> None:
    """No history, no hub."""
    httpx.post(
        f"{place.sandbox.schedulehub_url}/sandbox/reset", timeout=30, trust_env=False
    ).raise_for_status()
    with place.database.begin() as connection:
        names = connection.scalars(
            sa.text(
                "SELECT string_agg('bridge.' || tablename, ', ') FROM pg_tables "
                "WHERE schemaname = 'bridge' AND tablename <> 'alembic_version'"
            )
        ).one()
        connection.execute(sa.text(f"TRUNCATE {names} CASCADE"))  # the schema's own tables


def test_whatever_is_edited_and_run_the_hub_becomes_equal_and_stays_quiet(place: Place) -> None:
    machine: Callable[[], Erp] = lambda: Erp(place)  # noqa: E731  # hypothesis wants a class or the like

    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES or 5,
            stateful_step_count=40 if EXAMPLES else 14,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
