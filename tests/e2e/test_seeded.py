"""The seeded ERP through sweeps, plans and a lost bridge, judged by the comparison that owes SyncFlow nothing."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from local import LOCAL
from place import Place, lines, opened

from syncflow_core.bridge import migrate
from syncflow_core.entity import Brake
from syncflow_core.sandbox import erp
from syncflow_core.sandbox.compare import compare
from syncflow_core.sandbox.effects import inserted_twice, updated_twice
from syncflow_dagster.sandbox import demo_entities

ENTITIES = [
    entity.model_copy(update={"brake": Brake(rows=10_000, share=1)}) for entity in demo_entities()
]


@pytest.fixture(scope="module")
def synced(module_url: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database after the first sync; nobody is connected to it any more."""
    with opened(module_url, tmp_path_factory.mktemp("place")) as place:
        with place.tables.connection() as connection:
            erp.seed_erp(connection, rows=2_000, seed=5)
        place.apply(ENTITIES)
        place.sync()
        assert compare(place.url).equal
    return module_url


@pytest.fixture
def seeded(
    fresh: Callable[[str], AbstractContextManager[str]], synced: str, tmp_path: Path
) -> Iterator[Place]:
    with fresh(synced) as url, opened(url, tmp_path) as place:
        yield place


def pass_day(place: Place) -> None:
    shares = {"changed": 0.05, "inserted": 0.03, "deleted": 0.03}
    LOCAL.post(
        f"{place.sandbox.apismith_url}/sandbox/day", json=shares, timeout=60
    ).raise_for_status()


def test_slices_make_the_hub_equal_whatever_their_order(seeded: Place) -> None:
    pass_day(seeded)

    for number in (3, 1, 2):
        seeded.sync(slice_=number, slices=3)

    comparison = compare(seeded.url)
    assert comparison.equal, comparison.table()
    assert inserted_twice(seeded.url) == []


def test_plans_of_everything_make_the_hub_equal(seeded: Place) -> None:
    pass_day(seeded)

    made = seeded.command("plan", "--all", "--full", "--json")
    unequal = compare(seeded.url).equal
    plans = [line["plan"] for line in lines(made.stdout)]
    applied = seeded.command("apply", *plans)

    comparison = compare(seeded.url)
    assert (made.returncode, unequal) == (0, False)
    assert "does not fit" not in applied.stdout, applied.stdout
    assert comparison.equal, comparison.table()


def test_a_lost_bridge_makes_the_hub_equal_and_repeats_nothing(seeded: Place) -> None:
    migrate.downgrade(seeded.url)
    migrate.upgrade(seeded.url)
    seeded.apply(ENTITIES)
    pass_day(seeded)

    seeded.sync()

    comparison = compare(seeded.url)
    assert comparison.equal, comparison.table()
    assert inserted_twice(seeded.url) == []
    # a reference that is let go before a delete leaves the data hash as it was
    assert [repeat for repeat in updated_twice(seeded.url) if not repeat.changed] == []
