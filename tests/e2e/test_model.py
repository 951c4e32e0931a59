"""Random edits in the ERP, random kinds of run: whatever claims success has made the hub equal.

The model is the ERP's tables as plain dictionaries; what the hub must hold of them is told by code
that shares nothing with SyncFlow. ``SYNCFLOW_TEST_MODEL_EXAMPLES`` asks for so many longer examples.
"""

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Literal

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from local import LOCAL
from place import Place
from tables import effects, references

from syncflow_core.entity import Entity, ParentRef, Rowversion
from syncflow_core.sandbox import database, store
from syncflow_core.sandbox.compare import compare
from syncflow_core.sandbox.effects import inserted_twice, updated_twice
from syncflow_dagster.choices import Mode
from syncflow_dagster.launch import Run

SLICES = 3
"""Slices of an entity."""
EXAMPLES = int(os.environ.get("SYNCFLOW_TEST_MODEL_EXAMPLES", "0"))
OVERLAP = 5
"""How far, in counts or seconds, a row may be committed late."""
EPOCH = datetime(2026, 1, 1)  # noqa: DTZ001  # Oracle's DATE knows no zone

Key = tuple[Any, ...]
Row = dict[str, Any]
Name = Literal["ord", "prt", "lin"]
Record = tuple[Name, Key]


@dataclass(frozen=True)
class Table:
    """One table of the ERP."""

    key: tuple[str, ...]
    columns: dict[str, str]
    parents: dict[str, tuple[Name, str]] = field(default_factory=dict)
    """Reference to the parent's table and this table's column that holds the parent's key."""
    dated: bool = False
    """Whether the rowversion is a point of time; else it is a counter."""


TABLES: dict[Name, Table] = {
    "ord": Table(
        key=("ID",),
        columns={"ID": "VARCHAR2(9)", "NAME": "VARCHAR2(9)", "RV": "NUMBER(18)"},
    ),
    "prt": Table(
        key=("ID",),
        columns={"ID": "VARCHAR2(9)", "UP": "VARCHAR2(9)", "NAME": "VARCHAR2(9)", "RV": "DATE"},
        parents={"up": ("prt", "UP")},
        dated=True,
    ),
    "lin": Table(
        key=("NO", "LINE"),
        columns={
            "NO": "VARCHAR2(9)",
            "LINE": "NUMBER(9)",
            "QTY": "NUMBER(12,2)",
            "PART": "VARCHAR2(9)",
            "RV": "NUMBER(18)",
        },
        parents={"order": ("ord", "NO"), "part": ("prt", "PART")},
    ),
}
NARROWED: tuple[Name, ...] = ("ord", "prt")
"""Those whose strategy is rowversion; the lines are compared by hash and declare no rowversion."""


def parents_of(name: Name) -> dict[str, ParentRef]:
    return {
        reference: ParentRef(entity=parent, key={"id": column.lower()})
        for reference, (parent, column) in TABLES[name].parents.items()
    }


ENTITIES = [
    Entity(
        name="ord",
        delta="rowversion",
        rowversion=Rowversion(column="RV", kind="integer", overlap_s=OVERLAP),
    ),
    Entity(
        name="prt",
        delta="rowversion",
        rowversion=Rowversion(column="RV", kind="timestamp", overlap_s=OVERLAP),
        parents=parents_of("prt"),
    ),
    Entity(name="lin", delta="hash", business_key=["NO", "LINE"], parents=parents_of("lin")),
]
ORDERS = st.sampled_from([f"O{n}" for n in range(5)])
PARTS = st.sampled_from([f"P{n}" for n in range(5)])
LINES = st.integers(1, 2)
NAMES = st.sampled_from("ABC")
PICK = st.integers(0, 9)
ENTITY = st.sampled_from(sorted(TABLES))
LATE = st.none() | st.integers(0, OVERLAP)
"""None: the newest row there is. Else committed late, so many counts behind the newest; 0 is a tie."""
QUANTITIES = st.sampled_from(["1", "1.50", "2.00"])
Call = tuple[str, dict[str, Any]]
"""A method of the machine below, and its arguments."""


def call(method: str, **arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[Call]:
    return st.tuples(st.just(method), st.fixed_dictionaries(arguments))


# one rule draws from these: hypothesis would leave half of many rules out of each of few examples
EDITS = st.one_of(
    call("insert_or_change_an_order", no=ORDERS, name=NAMES, late=LATE),
    call(
        "insert_or_change_a_line_of_any_order_and_part",
        no=ORDERS,
        line=LINES,
        quantity=QUANTITIES,
        part=st.none() | PARTS,
        late=LATE,
    ),
    call(
        "insert_change_or_re_parent_a_part", no=PARTS, up=st.none() | PARTS, name=NAMES, late=LATE
    ),
    call("change_an_order_to_another_name_and_back", pick=PICK, late=LATE, seen=st.booleans()),
    call("move_a_part_below_another_and_back", pick=PICK, to=PARTS, late=LATE, seen=st.booleans()),
    call("move_a_line_to_another_part_and_back", pick=PICK, to=PARTS, seen=st.booleans()),
    call("delete_an_order", pick=PICK, with_lines=st.booleans()),
    call("delete_a_line", pick=PICK),
    call("delete_a_part", pick=PICK, frees=st.sampled_from(["nothing", None, "PZ", "P4"])),
    call("re_key_an_order_with_its_lines", pick=PICK, to=ORDERS),
    call("re_key_a_line", pick=PICK, to=st.tuples(ORDERS, LINES)),
    call("give_all_rows_one_rowversion", name=ENTITY),
)
RUNS = st.one_of(
    call("nothing"),
    call("nothing"),
    call("sync_everything"),
    call("sync_one_entity", name=ENTITY),
    call("sync_what_changed"),
    call("sync_what_changed_of_one_entity", name=ENTITY),
    call("sync_as_the_strategies_say"),
    # a sweep of all of them costs a run each
    call(
        "sync_slices", name=ENTITY, numbers=st.sets(st.integers(1, SLICES), min_size=1, max_size=2)
    )
    if not EXAMPLES
    else call("sync_slices", name=ENTITY, numbers=st.just(set(range(1, SLICES + 1)))),
)


@dataclass(frozen=True)
class Held:
    """One live record of the hub: its fields, and its parents by their keys."""

    fields: Row
    parents: dict[str, Record | None]


class Erp(RuleBasedStateMachine):
    """The ERP's side, the runs, and what must hold after them."""

    def __init__(self, place: Place, connection: database.Connection) -> None:
        super().__init__()
        self.place = place
        self.connection = connection
        self.counter = 100
        self.rows: dict[Name, dict[Key, Row]] = {"ord": {}, "prt": {}, "lin": {}}
        self.versions: dict[Record, list[Row]] = {}
        """Everything that the ERP has ever said of a record."""
        self.seen: dict[Record, int] = {}
        """How many of these were said before the version that a run has seen last."""
        empty(place)
        for name, table in TABLES.items():
            load(connection, name, table)
        place.apply(ENTITIES)
        references(place, ("lin", "order", "ord"), ("lin", "part", "prt"), ("prt", "up", "prt"))
        # these are never edited: an empty source never deletes
        self._put("ord", {"ID": "OZ", "NAME": "Z"})
        self._put("prt", {"ID": "PZ", "UP": None, "NAME": "Z"})
        self._put("lin", {"NO": "OZ", "LINE": 1, "QTY": "1", "PART": None})
        for number in range(3):
            up = f"P{number - 1}" if number else None
            self._put("ord", {"ID": f"O{number}", "NAME": "A"})
            self._put("prt", {"ID": f"P{number}", "UP": up, "NAME": "A"})
            self._put("lin", {"NO": f"O{number}", "LINE": 1, "QTY": "1", "PART": f"P{number}"})

    # edits

    def _put(self, name: Name, row: Row, late: int | None = None) -> None:
        """Insert the row, or change the one of its key."""
        self.counter += late is None
        behind = self.counter - (late or 0)
        version = (EPOCH + timedelta(seconds=behind)).isoformat() if TABLES[name].dated else behind
        row = {**row, "RV": version}
        key = key_of(name, row)
        if key in self.rows[name]:
            store.update_row(self.connection, name, named_key(name, key), row, truth(row))
        else:
            store.insert_row(self.connection, name, row, truth(row))
        self.rows[name][key] = row
        self.versions.setdefault((name, key), []).append(fields_of(row))

    def _drop(self, name: Name, row: Row) -> None:
        key = key_of(name, row)
        store.delete_row(self.connection, name, named_key(name, key))
        del self.rows[name][key]
        self.seen.pop((name, key), None)

    def _referring(self, name: Name, column: str, value: str) -> list[Row]:
        return [row for row in self.rows[name].values() if row[column] == value]

    def _pick(self, name: Name, number: int) -> Row | None:
        """One of the rows that can be edited."""
        keys = sorted(key for key in self.rows[name] if key[0][-1] != "Z")
        return self.rows[name][keys[number % len(keys)]] if keys else None

    def insert_or_change_an_order(self, no: str, name: str, late: int | None) -> None:
        self._put("ord", {"ID": no, "NAME": name}, late)

    def insert_or_change_a_line_of_any_order_and_part(
        self, no: str, line: int, quantity: str, part: str | None, late: int | None
    ) -> None:
        self._put("lin", {"NO": no, "LINE": line, "QTY": quantity, "PART": part}, late)

    def insert_change_or_re_parent_a_part(
        self, no: str, up: str | None, name: str, late: int | None
    ) -> None:
        self._put("prt", {"ID": no, "UP": up, "NAME": name}, late)

    def change_an_order_to_another_name_and_back(
        self, pick: int, late: int | None, *, seen: bool
    ) -> None:
        if row := self._pick("ord", pick):
            self._there_and_back("ord", row, {"NAME": "D"}, late, seen=seen)

    def move_a_part_below_another_and_back(
        self, pick: int, to: str, late: int | None, *, seen: bool
    ) -> None:
        if row := self._pick("prt", pick):
            self._there_and_back("prt", row, {"UP": to}, late, seen=seen)

    def move_a_line_to_another_part_and_back(self, pick: int, to: str, *, seen: bool) -> None:
        if row := self._pick("lin", pick):
            self._there_and_back("lin", row, {"PART": to}, None, seen=seen)

    def _there_and_back(
        self, name: Name, row: Row, change: Row, late: int | None, *, seen: bool
    ) -> None:
        self._put(name, {**row, **change}, late)
        if seen:
            self._run(name)
        self._put(name, row, late)
        if seen:
            self._run(name)

    def delete_an_order(self, pick: int, *, with_lines: bool) -> None:
        if order := self._pick("ord", pick):
            self._drop("ord", order)
            for row in self._referring("lin", "NO", order["ID"]) if with_lines else ():
                self._drop("lin", row)

    def delete_a_line(self, pick: int) -> None:
        if row := self._pick("lin", pick):
            self._drop("lin", row)

    def delete_a_part(self, pick: int, frees: str | None) -> None:
        """Delete it; those that refer to it are left as they are, or refer to another or none."""
        if not (part := self._pick("prt", pick)):
            return
        self._drop("prt", part)
        if frees == "nothing":
            return
        for row in self._referring("prt", "UP", part["ID"]):
            self._put("prt", {**row, "UP": frees})
        for row in self._referring("lin", "PART", part["ID"]):
            self._put("lin", {**row, "PART": frees})

    def re_key_an_order_with_its_lines(self, pick: int, to: str) -> None:
        order = self._pick("ord", pick)
        if order is None or (to,) in self.rows["ord"]:
            return
        self._drop("ord", order)
        self._put("ord", {**order, "ID": to})
        for line in self._referring("lin", "NO", order["ID"]):
            self._drop("lin", line)
            self._put("lin", {**line, "NO": to})

    def re_key_a_line(self, pick: int, to: tuple[str, int]) -> None:
        row = self._pick("lin", pick)
        if row is not None and to not in self.rows["lin"]:
            self._drop("lin", row)
            self._put("lin", {**row, "NO": to[0], "LINE": to[1]})

    def give_all_rows_one_rowversion(self, name: Name) -> None:
        self.counter += 1
        for row in list(self.rows[name].values()):
            self._put(name, row, late=0)

    # runs

    def _run(self, *names: Name, mode: Mode = "full", number: int | None = None) -> Run:
        run = self.place.sync(*names, mode=mode, slice_=number, slices=SLICES)
        for batch in run.batches:
            assert (batch.entity, batch.error) == (batch.entity, None)
            assert (batch.entity, batch.status) == (batch.entity, "completed")
            assert (batch.entity, batch.counts.unaccounted) == (batch.entity, 0)
        assert inserted_twice(self.place.url) == []
        assert [item for item in updated_twice(self.place.url) if not item.changed] == []
        held = self._held()
        if number is None:  # a slice may leave an older rowversion alone
            self._note_seen(names or tuple(TABLES), held)
        for record, before in self.seen.items():
            assert (record, record in held) == (record, True)
            said = self.versions[record][before:]
            assert (record, held[record].fields) in [(record, version) for version in said]
        return run

    def _note_seen(self, names: Sequence[Name], held: Mapping[Record, Held]) -> None:
        """From now on no run may bring an older version back, or take the record away."""
        waits = set(self._waiting(held))
        for name in names:
            for record in [(name, key) for key in self.rows[name]]:
                if record not in waits:
                    self.seen[record] = len(self.versions[record]) - 1

    def sync_everything(self) -> None:
        self._run()
        self._equal()
        before = effects(self.place)
        quiet = self._run()
        counts = [batch.counts for batch in quiet.batches]
        assert sum(c.inserted + c.updated + c.deleted + c.retried for c in counts) == 0
        assert effects(self.place) == before

    def sync_one_entity(self, name: Name) -> None:
        self._run(name)
        assert self._late(name, self._held()) == []

    def sync_what_changed(self) -> None:
        self._run(mode="incremental")
        held = self._held()
        assert [line for name in NARROWED for line in self._late(name, held)] == []

    def sync_what_changed_of_one_entity(self, name: Name) -> None:
        self._run(name, mode="incremental")
        if name in NARROWED:
            assert self._late(name, self._held()) == []

    def sync_as_the_strategies_say(self) -> None:
        self._run(mode="auto")

    def sync_slices(self, name: Name, numbers: set[int]) -> None:
        for number in sorted(numbers):
            self._run(name, number=number)

    def nothing(self) -> None:
        """The day goes by and nobody syncs."""

    @rule(edits=st.lists(EDITS, max_size=5), run=RUNS)
    def a_day_passes(self, edits: list[Call], run: Call) -> None:
        for method, arguments in [*edits, run]:
            getattr(self, method)(**arguments)

    # what must hold

    def teardown(self) -> None:
        """At the end all is equal and quiet; not asked where something is wrong already."""
        if sys.exc_info()[0] is None:
            self.sync_everything()

    def _equal(self) -> None:
        """The hub holds what the ERP holds; the rest of it waits, and for good reason."""
        held = self._held()
        assert [line for name in TABLES for line in self._late(name, held)] == []
        waits = list(self._waiting(held))
        gone = [record for record in held if record[1] not in self.rows[record[0]]]
        for record in waits:
            if record in held:  # an earlier version of it
                assert (record, held[record].fields) in [(record, v) for v in self.versions[record]]
        for record in gone:
            needed = [
                child
                for child, item in held.items()
                if child not in gone and record in item.parents.values()
            ]
            assert (record, needed) != (record, [])
        if not gone and not any(record in held for record in waits):
            comparison = compare(self.place.url)
            assert comparison.equal, comparison.table()

    def _late(self, name: Name, held: Mapping[Record, Held]) -> list[object]:
        """Rows whose parents are all in the hub, and which are not there as the ERP has them."""
        waits = set(self._waiting(held))
        wrong: list[object] = []
        for key, row in self.rows[name].items():
            must = Held(fields_of(row), wanted_parents(name, row))
            if (name, key) not in waits and held.get((name, key)) != must:
                wrong.append(((name, key), must, held.get((name, key))))
        return wrong

    def _waiting(self, held: Mapping[Record, Held]) -> Iterator[Record]:
        for name in TABLES:
            for key, row in self.rows[name].items():
                needed = wanted_parents(name, row).values()
                lacking = any(parent is not None and parent not in held for parent in needed)
                # parts that wait for each other alone can go together
                if lacking and (name != "prt" or self._lacks(key, held)):
                    yield name, key

    def _lacks(self, key: Key, held: Mapping[Record, Held]) -> bool:
        """Whether the chain above a part ends at one that is nowhere, rather than in itself."""
        seen: set[Key] = set()
        while key not in seen:
            seen.add(key)
            row = self.rows["prt"].get(key)
            if row is None:
                return ("prt", key) not in held
            if row["UP"] is None or ("prt", (row["UP"],)) in held:
                return False
            key = (row["UP"],)
        return False

    def _held(self) -> dict[Record, Held]:
        """The hub's live records."""
        found = self.connection.execute(
            "SELECT c.name, encode(r.key_hash, 'hex'), r.doc FROM hub.records r"
            " JOIN hub.collections c ON c.id = r.collection WHERE NOT r.deleted"
        ).fetchall()
        documents = [(str(name), str(key), json.loads(str(doc))) for name, key, doc in found]
        by_hash: dict[tuple[str, str], Record] = {}
        for name, key_hash, document in documents:
            table: Name = next(item for item in TABLES if item == name)
            key = tuple(document[column.lower()] for column in TABLES[table].key)
            by_hash[name, key_hash] = (table, key)
        held: dict[Record, Held] = {}
        for name, key_hash, document in documents:
            record = by_hash[name, key_hash]
            table = record[0]
            own = {
                field: value
                for field, value in document.items()
                if not field.startswith("erp_")
                and field not in {"parent_refs", "uid", "is_deleted"}
            }
            refs = document.get("parent_refs") or {}
            parents = {
                reference: None if refs.get(reference) is None else by_hash[parent, refs[reference]]
                for reference, (parent, _) in TABLES[table].parents.items()
            }
            held[record] = Held(own, parents)
        return held


def key_of(name: Name, row: Row) -> Key:
    return tuple(row[column] for column in TABLES[name].key)


def named_key(name: Name, key: Key) -> Row:
    return dict(zip(TABLES[name].key, key, strict=True))


def fields_of(row: Row) -> Row:
    """What the hub must hold of a row: the rowversion is no field, and 1.50 is 1.5."""
    return {
        column.lower(): float(value) if column == "QTY" else value
        for column, value in row.items()
        if column != "RV"
    }


def truth(row: Row) -> Row:
    """The same with exact numbers, as the sandbox's comparison reads it."""
    exact = {"qty": Decimal(row["QTY"]).normalize()} if "QTY" in row else {}
    return {**fields_of(row), **exact}


def wanted_parents(name: Name, row: Row) -> dict[str, Record | None]:
    return {
        reference: None if row[column] is None else (parent, (row[column],))
        for reference, (parent, column) in TABLES[name].parents.items()
    }


def load(connection: database.Connection, name: Name, table: Table) -> None:
    """The table is there and empty."""
    described: list[store.ColumnInfo] = [
        {"name": column, "data_type": kind} for column, kind in table.columns.items()
    ]
    parents: dict[str, store.ParentInfo] = {
        reference: {"entity": parent, "key": {"id": column.lower()}}
        for reference, (parent, column) in table.parents.items()
    }
    described_table = store.Table(
        name=name,
        columns=described,
        business_key=table.key,
        rowversion_column="RV",
        parents=parents,
        has_truth=True,
    )
    store.load_table(connection, described_table, [])


def empty(place: Place) -> None:
    """No history, no hub."""
    LOCAL.post(f"{place.sandbox.schedulehub_url}/sandbox/reset", timeout=30).raise_for_status()
    with place.database.begin() as connection:
        names = connection.scalars(
            sa.text(
                "SELECT string_agg('bridge.' || tablename, ', ') FROM pg_tables "
                "WHERE schemaname = 'bridge' AND tablename <> 'alembic_version'"
            )
        ).one()
        connection.execute(sa.text(f"TRUNCATE {names} CASCADE"))  # the schema's own tables


@pytest.mark.timeout(300 + 60 * EXAMPLES)
def test_whatever_is_edited_and_run_the_hub_becomes_equal_and_stays_quiet(place: Place) -> None:
    with database.connect(place.url) as connection:

        class Here(Erp):
            def __init__(self) -> None:
                super().__init__(place, connection)

        run_state_machine_as_test(
            Here,
            settings=settings(
                max_examples=EXAMPLES or 2,
                stateful_step_count=40 if EXAMPLES else 12,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                derandomize=False,
                print_blob=True,
            ),
        )
