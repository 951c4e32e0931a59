"""Dagster's UI in a real browser, as an operator uses it: launch, watch, stop, go on, backfill, approve."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from machine import until
from place import Place
from servers import Servers, serving
from tables import faults, hub, items, table

from syncflow_core.bridge.batches import history
from syncflow_core.bridge.plans import list_plans
from syncflow_core.entity import Brake, Entity

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
COLUMNS = {"ID": "VARCHAR2(9)", "NAME": "VARCHAR2(9)"}
WAIT_MS = 60_000

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        not CHROMIUM.exists(), reason="needs Debian's Chromium: apt-get install chromium"
    ),
]
playwright = pytest.importorskip("playwright.sync_api")
Page = playwright.Page


@pytest.fixture(scope="module")
def place(shared_place: Place) -> Place:
    table(shared_place, "itm", COLUMNS, items(20))
    shared_place.cut_into(7)
    shared_place.apply([Entity(name="itm", brake=Brake(rows=2, share=0.1))])
    assert shared_place.command("sync", "itm").returncode == 0  # makes the home, Dagster's too
    return shared_place


@pytest.fixture(scope="module")
def servers(place: Place) -> Iterator[Servers]:
    with serving(place, api=False) as running:
        yield running


@pytest.fixture(autouse=True)
def healthy(place: Place) -> Iterator[None]:
    """Whatever a test leaves behind, both systems answer the next one."""
    yield
    faults(place.sandbox.apismith_url)
    faults(place.sandbox.schedulehub_url)


@pytest.fixture(scope="module")
def page(servers: Servers) -> Iterator[Page]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        opened = browser.new_page(
            viewport={"width": 1500, "height": 1000}, base_url=f"http://127.0.0.1:{servers.ui}"
        )
        opened.set_default_timeout(WAIT_MS)
        yield opened
        browser.close()


def launch(page: Page, job: str) -> str:
    """Launch a job from its launchpad; the run's id."""
    page.goto(f"/locations/syncflow/jobs/{job}/playground", wait_until="domcontentloaded")
    return press_launch(page)


def press_launch(page: Page) -> str:
    """Launch what the launchpad holds; the run's id."""
    page.get_by_role("button", name="Launch Run").click()
    sure = page.get_by_role("button", name="Confirm")
    page.wait_for_function(
        "() => location.pathname.startsWith('/runs/') || document.body.innerText.includes('Confirm')"
    )
    if "/runs/" not in page.url:
        sure.click()
    page.wait_for_url("**/runs/*")
    return str(page.url.rpartition("/")[2])


def test_a_sync_is_launched_and_watched_and_its_asset_tells_what_it_did(
    servers: Servers, page: Page
) -> None:
    run = launch(page, "sync_itm")
    page.get_by_text("Success", exact=True).first.wait_for()
    for op in ("fetch", "push"):
        page.get_by_text(f"itm.{op}", exact=True).first.wait_for()

    page.goto("/assets/itm", wait_until="domcontentloaded")
    page.get_by_text("from NAME", exact=True).wait_for()
    page.get_by_text("rows_per_second", exact=True).first.wait_for()
    page.get_by_role("img", name="rows by outcome, seconds by stage").first.wait_for()
    page.get_by_text("Plots", exact=True).click()
    page.locator("canvas").first.wait_for()
    page.goto("/assets/itm?view=lineage", wait_until="domcontentloaded")
    for group in ("apismith", "schedulehub"):
        page.get_by_text(group, exact=True).first.wait_for()

    assert servers.begun(run) == {
        f"itm.{stage}" for stage in ("fetch", "normalize", "identity", "delta", "resolve", "push")
    }


def test_a_run_is_terminated_while_the_source_says_nothing(
    place: Place, servers: Servers, page: Page
) -> None:
    faults(
        place.sandbox.apismith_url, {"match": {"path": "/itm/execute"}, "action": {"hang": True}}
    )
    run = launch(page, "sync_itm")
    until(lambda: "itm.fetch" in servers.begun(run))
    page.reload(
        wait_until="domcontentloaded"
    )  # whether it can be ended was asked when it was queued
    page.get_by_role("button", name="Terminate").first.click()
    page.get_by_role("dialog").get_by_role("button", name="Terminate").click()
    page.get_by_text("Canceled", exact=True).first.wait_for()

    with place.database.begin() as connection:
        (batch,) = history(connection, dagster_run_id=run)
    assert batch.status == "stopped"
    assert page.get_by_text("taking longer than 30 seconds").count() == 0


def test_a_failed_run_goes_on_from_the_op_that_failed(
    place: Place, servers: Servers, page: Page
) -> None:
    table(place, "itm", COLUMNS, [*items(20), {"ID": "N", "NAME": "n"}])
    refuse = {"match": {"path": "/itm/batch/insert"}, "action": {"status": 403}}
    faults(place.sandbox.schedulehub_url, refuse)
    launch(page, "sync_itm")
    page.get_by_text("Failure", exact=True).first.wait_for()
    faults(place.sandbox.schedulehub_url)
    failed = page.url
    page.get_by_role("button", name=re.compile("Re-execute")).locator(
        "xpath=following::button[1]"
    ).click()
    page.get_by_role("menuitem", name="From failure").click()
    page.wait_for_function(f"() => location.href !== {failed!r}")
    page.get_by_text("Success", exact=True).first.wait_for()

    assert "STEP_FAILURE" in servers.printed(failed.rpartition("/")[2])
    assert servers.begun(page.url.rpartition("/")[2]) == {"itm.push"}
    assert "id=N" in hub(place, "itm")


def test_two_slices_are_backfilled_in_one_run(place: Place, page: Page) -> None:
    page.goto("/assets/itm", wait_until="domcontentloaded")
    page.get_by_role("button", name="Materialize").first.click()
    page.get_by_text("Select a partition or create one").click()
    for key in ("slice-2", "slice-3"):
        page.locator(f"text={key} >> visible=true").last.click()
    page.keyboard.press("Escape")
    page.get_by_role("button", name=re.compile("Launch (backfill|run)")).click()

    def seen() -> set[str]:
        with place.database.begin() as connection:
            done = history(connection, entities=["itm"], kinds=["slice"], statuses=["completed"])
        return {str(batch.partition) for batch in done}

    until(lambda: "slice-2,slice-3" in seen())


def test_a_withheld_plan_is_applied_from_the_launchpad(place: Place, page: Page) -> None:
    table(place, "itm", COLUMNS, items(12))
    launch(page, "sync_itm")
    page.get_by_text("Success", exact=True).first.wait_for()
    with place.database.begin() as connection:
        (plan,) = list_plans(connection, entity="itm", statuses=["open"])
    assert len(hub(place, "itm")) >= 20

    page.goto("/assets/itm", wait_until="domcontentloaded")
    page.get_by_role("link", name="approve and apply").first.click()
    page.get_by_text(str(plan.uid)).first.wait_for()
    press_launch(page)
    page.get_by_text("Success", exact=True).first.wait_for()

    assert len(hub(place, "itm")) == 12
