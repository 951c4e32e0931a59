"""When absence is deletion: whole scans, sweeps of seven slices, and the second look before a delete."""

import dataclasses
from collections.abc import Mapping, Sequence

import polars as pl
import pytest
import sqlalchemy as sa
from place import Place, notes, outcome
from tables import hub, link, references, table

from syncflow_core.apismith import Filter, LookedUp, Sort, Source
from syncflow_core.bridge import sweeps
from syncflow_core.catalog import Api
from syncflow_core.entity import Brake, Entity
from syncflow_core.pages import Page
from syncflow_core.sandbox import store
from syncflow_core.sandbox.store import Row
from syncflow_core.settings import read_settings
from syncflow_core.stages import absent

COLUMNS = {"ID": "NUMBER(9)", "NAME": "VARCHAR2(9)", "RV": "NUMBER(9)"}
LOOSE = Brake(rows=100_000, share=1)


def rows_of(numbers: Sequence[int], rv: int = 1) -> list[Row]:
    return [{"ID": n, "NAME": f"n{n}", "RV": rv} for n in numbers]


def delete(place: Place, numbers: Sequence[int], name: str = "swp") -> None:
    with place.tables.connection() as connection:
        for number in numbers:
            store.delete_row(connection, name, {"ID": number})


def insert(place: Place, rows: Sequence[Row], name: str = "swp") -> None:
    with place.tables.connection() as connection:
        for row in rows:
            store.insert_row(connection, name, row)


@pytest.fixture
def swept(place: Place) -> Place:
    """Seven thousand rows in the hub, and nothing swept yet."""
    table(place, "swp", COLUMNS, rows_of(range(7_000)))
    place.apply([Entity(name="swp", brake=LOOSE)])
    place.sync()
    return place


@pytest.mark.parametrize("piece", [absent.PIECE, 100], ids=["whole", "piece by piece"])
def test_what_no_slice_of_a_sweep_saw_is_deleted_after_the_last_one(
    swept: Place, monkeypatch: pytest.MonkeyPatch, piece: int
) -> None:
    monkeypatch.setattr(absent, "PIECE", piece)
    delete(swept, [10, 3_500, 6_999])
    runs = swept.sweep(slices=3)

    assert [outcome(run, "swp").get("deleted", 0) for run in runs] == [0, 0, 3]
    assert len(hub(swept, "swp")) == 6_997
    with swept.database.begin() as connection:
        assert sweeps.load_slices(connection, "swp") == []


def test_XF15_rows_that_come_and_go_between_the_nights_are_neither_lost_nor_deleted(
    swept: Place,
) -> None:
    swept.cut_into(7)
    for number in (3, 1, 7, 2):
        swept.sync(slice_=number)
    insert(swept, rows_of(range(7_000, 7_050)))
    delete(swept, range(1_000, 2_900))  # everything behind moves by more than slices overlap
    for number in (5, 4, 6):
        last = swept.sync(slice_=number)

    there = {reference.removeprefix("id=") for reference in hub(swept, "swp")}
    gone = {str(n) for n in range(1_000, 2_900)}
    assert {str(n) for n in range(2_900, 7_000)} <= there
    assert notes(last.batches[0]).count("in no slice") == 0
    assert last.batches[0].counts.unaccounted == 0
    # those deleted after their slice was seen wait for the next sweep
    *_, last = swept.sweep(slices=3)
    there = {reference.removeprefix("id=") for reference in hub(swept, "swp")}
    assert there & gone == set()
    assert there == {str(n) for n in [*range(1_000), *range(2_900, 7_050)]}
    assert last.batches[0].status == "completed"


def test_a_slice_that_meets_no_neighbour_reads_on_until_it_does(swept: Place) -> None:
    swept.sync(slice_=1)
    delete(swept, range(700))  # slice 2 by offset now begins 700 rows behind the end of slice 1

    run = swept.sync(slice_=2)

    assert outcome(run, "swp")["fetched"] > 1_400
    assert outcome(run, "swp")["unchanged"] == outcome(run, "swp")["fetched"]


def test_a_slices_rows_never_overwrite_what_was_acknowledged_since(place: Place) -> None:
    table(place, "swp", COLUMNS, rows_of(range(7), rv=5))
    place.apply([Entity(name="swp")])
    place.sync()
    table(place, "swp", COLUMNS, [{"ID": n, "NAME": "old", "RV": 4} for n in range(7)])

    run = place.sync(slice_=1)

    assert outcome(run, "swp")["unchanged"] == outcome(run, "swp")["fetched"]
    assert "older than what was acknowledged: none overwrites it" in notes(run.batches[0])
    assert '"name":"n0"' in hub(place, "swp")["id=0"]


def test_a_newer_rowversion_of_the_same_data_guards_against_a_slow_slice(place: Place) -> None:
    table(place, "swp", COLUMNS, rows_of(range(7), rv=1))
    place.apply([Entity(name="swp")])
    place.sync()
    table(place, "swp", COLUMNS, rows_of(range(7), rv=9))
    place.sync()
    table(place, "swp", COLUMNS, [{"ID": n, "NAME": "old", "RV": 5} for n in range(7)])

    place.sync(slice_=1)

    assert '"name":"n0"' in hub(place, "swp")["id=0"]


def test_a_sweep_with_a_row_whose_key_cannot_be_read_deletes_nothing_and_says_so(
    swept: Place,
) -> None:
    delete(swept, [10])
    with swept.tables.connection() as connection:
        connection.execute(
            'UPDATE erp.t_swp SET doc = replace(doc, \'"ID":20,\', \'"ID":"x",\') WHERE k1 = 20'
        )
    runs = swept.sweep(slices=3)

    assert "1 records were seen in no slice" not in notes(runs[-1].batches[0])
    assert "2 records were seen in no slice, but 1 rejected rows have no readable key" in notes(
        runs[-1].batches[0]
    )
    assert len(hub(swept, "swp")) == 7_000


def test_a_last_slice_without_rows_does_not_make_the_source_empty(place: Place) -> None:
    table(place, "swp", COLUMNS, rows_of(range(3)))
    place.apply([Entity(name="swp", brake=LOOSE)])
    place.sync()
    for number in (1, 2, 3):
        place.sync(slice_=number, slices=4)
    delete(place, [1, 2])
    table(place, "swp", COLUMNS, rows_of(range(1)))

    *_, last = place.sweep(slices=4)

    assert last.batches[0].status == "completed"
    assert list(hub(place, "swp")) == ["id=0"]


def test_a_sweep_of_an_empty_table_deletes_nothing(place: Place) -> None:
    table(place, "swp", COLUMNS, rows_of(range(3)))
    place.apply([Entity(name="swp", brake=LOOSE)])
    for number in (3, 2, 1):
        place.sync(slice_=number, slices=3)
    assert len(hub(place, "swp")) == 3
    table(place, "swp", COLUMNS, [])

    *_, last = place.sweep(slices=3)

    assert last.batches[0].status == "withheld"
    assert "the source is empty" in notes(last.batches[0])
    assert len(hub(place, "swp")) == 3


class Shifting(Source):
    """A source whose rows move by one while its pages are read: one row is passed over, one comes twice."""

    def execute(
        self,
        api: Api,
        *,
        offset: int = 0,
        limit: int = 10_000,
        filters: Sequence[Filter] = (),
        sort: Sequence[Sort] = (),
    ) -> Page:
        if not filters and offset == 0 and limit > 1:
            return super().execute(api, offset=0, limit=50, filters=filters, sort=sort)
        if not filters and limit > 1:  # the 51st row has slipped past, the last one comes twice
            page = super().execute(api, offset=offset + 1, limit=limit, filters=filters, sort=sort)
            frame = pl.concat([page.frame, page.frame.tail(1)])
            return Page(
                frame=frame,
                rejected=page.rejected,
                total_rows=page.total_rows,
                offset=offset,
                limit=limit,
                digest=b"\1" + page.digest[1:],
            )
        return super().execute(api, offset=offset, limit=limit, filters=filters, sort=sort)


def shift(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Shifting.open(read_settings())
    monkeypatch.setattr(Source, "open", lambda *_, **__: opened)


@pytest.fixture
def shifting(place: Place, monkeypatch: pytest.MonkeyPatch) -> Place:
    table(place, "swp", COLUMNS, rows_of(range(100)))
    place.apply([Entity(name="swp", brake=LOOSE)])
    place.sync()
    shift(monkeypatch)
    return place


def test_XF14_XF15_a_row_that_slipped_past_a_scan_that_counts_right_is_not_deleted(
    shifting: Place,
) -> None:
    delete(shifting, [3])

    run = shifting.sync()

    assert outcome(run, "swp")["deleted"] == 1
    assert "1 records that were not seen are in the source after all" in notes(run.batches[0])
    assert "id=51" in hub(shifting, "swp")
    assert len(hub(shifting, "swp")) == 99


def test_a_waiting_child_that_slipped_past_such_a_scan_goes_on_waiting(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = {"ID": "NUMBER(9)", "UP": "NUMBER(9)"}
    children: list[Row] = [{"ID": n, "UP": 2 if n == 51 else 1} for n in range(1, 101)]
    table(place, "par", {"ID": "NUMBER(9)"}, [{"ID": 1}])
    table(place, "chi", columns, children)
    references(place, ("chi", "up", "par"))
    entity = Entity(name="chi", brake=LOOSE, parents={"up": link("par", "up")})
    place.apply([Entity(name="par", brake=LOOSE), entity])
    assert outcome(place.sync(), "chi")["pending"] == 1

    with monkeypatch.context() as meanwhile:
        shift(meanwhile)
        run = place.sync("chi")
    assert run.batches[0].counts.pending == 0  # it was not seen
    table(place, "par", {"ID": "NUMBER(9)"}, [{"ID": 1}, {"ID": 2}])
    place.sync("par")

    assert "id=51" in hub(place, "chi")


def test_a_scan_that_was_not_proven_deletes_nothing_and_says_why(place: Place) -> None:
    table(place, "swp", COLUMNS, rows_of(range(100)))
    place.apply([Entity(name="swp", brake=LOOSE)])
    place.sync()
    delete(place, [3])
    with place.tables.connection() as connection:  # the source counts a row that does not come
        connection.execute("UPDATE erp.tables SET row_count = row_count + 1 WHERE name = 'swp'")

    run = place.sync()

    assert "deleted" not in outcome(run, "swp")
    assert "1 records were not seen, but the scan is not proven complete" in notes(run.batches[0])
    with place.database.begin() as connection:
        proof = connection.execute(
            sa.text("SELECT * FROM bridge.scan_proofs ORDER BY batch DESC LIMIT 1")
        ).one()
    assert (proof.declared_total, proof.counted, proof.complete) == (100, 99, False)
    assert proof.digest is not None


class Moving(Source):
    """A source whose total is one more in the answer after the first page of the first scan."""

    scans = 0

    def execute(
        self,
        api: Api,
        *,
        offset: int = 0,
        limit: int = 10_000,
        filters: Sequence[Filter] = (),
        sort: Sequence[Sort] = (),
    ) -> Page:
        page = super().execute(api, offset=offset, limit=limit, filters=filters, sort=sort)
        if filters or not sort:
            return page
        self.scans += offset == 0
        moved = self.scans == 1 and offset > 0
        return dataclasses.replace(page, total_rows=page.total_rows + moved)


def test_XF16_a_scan_whose_total_moved_is_read_once_more(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    table(place, "swp", COLUMNS, rows_of(range(100)))
    place.apply([Entity(name="swp", brake=LOOSE)])
    place.sync()
    delete(place, [3])
    moving = Moving.open(read_settings())
    monkeypatch.setattr(Source, "open", lambda *_, **__: moving)

    run = place.sync()

    assert moving.scans == 2
    assert outcome(run, "swp") == {
        "fetched": 99,
        "normalized": 99,
        "unchanged": 99,
        "deleted": 1,
    }


def test_rows_of_one_rowversion_across_page_borders_are_all_seen(place: Place) -> None:
    table(place, "swp", COLUMNS, rows_of(range(12_000)))
    place.apply([Entity(name="swp", delta="rowversion", brake=LOOSE)])
    place.sync()
    changed: list[Row] = [{"ID": n, "NAME": "new", "RV": 9} for n in range(12_000)]
    table(place, "swp", COLUMNS, [*changed[:11_500], *rows_of(range(11_500, 12_000), rv=2)])

    run = place.sync(mode="incremental")
    quiet = place.sync(mode="incremental")

    assert outcome(run, "swp")["updated"] == 11_500
    assert outcome(quiet, "swp")["unchanged"] >= 11_500
    assert "updated" not in outcome(quiet, "swp")


def test_a_look_up_that_brings_an_unreadable_row_deletes_none_of_those_asked_for(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    table(place, "swp", COLUMNS, rows_of(range(10)))
    place.apply([Entity(name="swp", brake=LOOSE)])
    place.sync()
    delete(place, [3])
    ask = Source.look_up

    def unreadable(self: Source, api: Api, keys: Sequence[Mapping[str, object]]) -> LookedUp:
        return LookedUp(ask(self, api, keys).frame, 1)

    monkeypatch.setattr(Source, "look_up", unreadable)
    place.sync()

    assert len(hub(place, "swp")) == 10


def test_delete_and_insert_again_keeps_the_hubs_uid_whatever_the_order(place: Place) -> None:
    table(place, "swp", COLUMNS, rows_of(range(5)))
    place.apply([Entity(name="swp", brake=LOOSE)])
    place.sync()
    first = uid(place, "id=2")
    delete(place, [2])
    place.sync()
    insert(place, rows_of([2], rv=2))
    place.sync()
    delete(place, [2])
    insert(place, [{"ID": 2, "NAME": "again", "RV": 3}])
    place.sync()

    assert uid(place, "id=2") == first
    assert '"name":"again"' in hub(place, "swp")["id=2"]


def uid(place: Place, reference: str) -> str:
    with place.database.begin() as connection:
        return str(
            connection.scalar(
                sa.text("SELECT hub_uid FROM bridge.synced_records WHERE reference = :reference"),
                {"reference": reference},
            )
        )
