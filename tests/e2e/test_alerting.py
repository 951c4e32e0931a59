"""The sensor ``alerts`` over a whole SyncFlow: each change is told once, whoever is away."""

import threading
from collections.abc import Iterator

import dagster as dg
import pytest
from place import Place, lines
from receivers import Hook, Mailbox, mailbox, webhook
from tables import faults, table

from syncflow_core.entity import Entity
from syncflow_dagster.definitions import build

COLUMNS = {"ID": "VARCHAR2(9)", "NAME": "VARCHAR2(9)"}


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hook]:
    with webhook() as opened:
        monkeypatch.setenv("SYNCFLOW_ALERT_WEBHOOK_URL", opened.url)
        monkeypatch.setenv("SYNCFLOW_INSTALLATION", "north")
        yield opened


@pytest.fixture
def box(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mailbox]:
    with mailbox() as opened:
        monkeypatch.setenv("SYNCFLOW_SMTP_URL", f"smtp://127.0.0.1:{opened.port}")
        monkeypatch.setenv("SYNCFLOW_ALERT_MAIL_FROM", "sync@b.example")
        monkeypatch.setenv("SYNCFLOW_ALERT_MAIL_TO", "ops@b.example")
        yield opened


def tick(place: Place, repository: dg.RepositoryDefinition | None = None) -> str:
    repository = repository or build([Entity(name="itm")], 7).get_repository_def()
    context = dg.build_sensor_context(instance=place.instance, repository_def=repository)
    return str(repository.get_sensor_def("alerts").evaluate_tick(context).skip_message)


def fill(place: Place, name: str | None = "a") -> None:
    table(place, "itm", COLUMNS, [{"ID": f"I{n}", "NAME": name} for n in range(3)])
    place.apply([Entity(name="itm")])


def subjects(box: Mailbox) -> list[str]:
    return [str(letter["Subject"]) for letter in box.letters]


def test_an_entity_that_fails_is_told_once_in_many_ticks_and_so_is_its_recovery(
    place: Place, hook: Hook, box: Mailbox
) -> None:
    fill(place)
    place.sync()
    quiet = tick(place)
    faults(
        place.sandbox.apismith_url,
        {"match": {"path": "/itm/execute"}, "action": {"status": 400, "body": "tiger"}},
    )
    run = place.sync()
    ticks = [tick(place) for _ in range(3)]
    faults(place.sandbox.apismith_url)
    place.sync()
    ticks += [tick(place) for _ in range(3)]

    told = [("firing", "failed", "itm"), ("recovered", "failed", "itm")]
    assert hook.told == told
    assert subjects(box) == ["[north] firing: failed itm", "[north] recovered: failed itm"]
    assert (quiet, ticks[1], ticks[5]) == ("nothing has changed",) * 3
    assert ticks[0] == "told: webhook firing failed itm, mail firing failed itm"
    firing, recovered = hook.bodies
    assert (firing["batch"], firing["run_id"]) == (str(run.batches[0].uid), run.run_id)
    assert firing["id"] != recovered["id"]
    assert "tiger" not in str(hook.bodies)


def test_a_webhook_that_is_down_is_told_at_a_later_tick_and_keeps_no_mail_back(
    place: Place, hook: Hook, box: Mailbox
) -> None:
    fill(place, "a" * 9)
    place.apply([Entity.model_validate({"name": "itm", "fields": [MUST_BE_NUMBER]})])
    hook.status = 500
    place.sync()
    down = tick(place)
    hook.status, before = 200, len(hook.got)
    later = [tick(place) for _ in range(2)]

    assert "webhook did not take it: the webhook at 127.0.0.1 answered 500" in down
    assert {state for state, _, _ in hook.told[:before]} == {"firing"}
    assert sorted(hook.told[before:]) == [
        ("firing", "dead_letters", "itm"),
        ("firing", "partial", "itm"),
    ]
    assert sorted(subjects(box)) == [
        "[north] firing: dead_letters itm",
        "[north] firing: partial itm",
    ]
    assert later[1] == "nothing has changed"
    assert "aaa" not in str([body for _, body in hook.got])


MUST_BE_NUMBER = {"source": "NAME", "target": "name", "type": "integer"}


def test_notifiers_that_tick_at_once_tell_each_change_once(place: Place, hook: Hook) -> None:
    fill(place, "x")
    place.apply([Entity.model_validate({"name": "itm", "fields": [MUST_BE_NUMBER]})])
    place.sync()
    begin, said = threading.Barrier(4), []
    # one for each thread, made before them: Dagster composes one asset at a time in a process
    repositories = [build([Entity(name="itm")], 7).get_repository_def() for _ in range(4)]

    def look(repository: dg.RepositoryDefinition) -> None:
        begin.wait()
        said.append(tick(place, repository))

    threads = [threading.Thread(target=look, args=[own]) for own in repositories]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tick(place)

    assert len(said) == 4
    assert sorted(hook.told) == [("firing", "dead_letters", "itm"), ("firing", "partial", "itm")]


def test_the_command_lists_what_is_wrong_and_says_who_takes_a_test(
    place: Place, hook: Hook, box: Mailbox
) -> None:
    fill(place, "x")
    place.apply([Entity.model_validate({"name": "itm", "fields": [MUST_BE_NUMBER]})])
    place.sync()
    variables = {
        "SYNCFLOW_ALERT_WEBHOOK_URL": hook.url,
        "SYNCFLOW_SMTP_URL": f"smtp://127.0.0.1:{box.port}",
        "SYNCFLOW_ALERT_MAIL_FROM": "sync@b.example",
        "SYNCFLOW_ALERT_MAIL_TO": "ops@b.example",
    }

    before = lines(place.command("alerts", "--json", **variables).stdout)
    tick(place)
    after = lines(place.command("alerts", "--json", **variables).stdout)
    shown = place.command("alerts")
    hook.got.clear()
    box.letters.clear()
    tried = place.command("alerts", "--test", "--json", **variables)
    hook.status = 404
    refused = place.command("alerts", "--test", **variables)
    unset = place.command("alerts", "--test")

    assert [(line["kind"], line["subject"], line["told"]) for line in before] == [
        ("dead_letters", "itm", []),
        ("partial", "itm", []),
    ]
    assert [line["told"] for line in after] == [["mail", "webhook"]] * 2
    assert "dead_letters" in shown.stdout
    assert [(line["notifier"], line["took"]) for line in lines(tried.stdout)] == [
        ("webhook", True),
        ("mail", True),
    ]
    assert (tried.returncode, refused.returncode, unset.returncode) == (0, 1, 2)
    assert hook.told[:1] == [("firing", "test", "syncflow")]
    assert subjects(box)[:1] == ["[syncflow] firing: test syncflow"]
    assert "webhook: did not take it: the webhook at 127.0.0.1 answered 404" in refused.stdout
    assert "mail: took the test message" in refused.stdout


def test_without_a_notifier_the_sensor_says_so_and_keeps_nothing(place: Place) -> None:
    fill(place)

    said = tick(place)

    assert said.startswith("no notifier is set up (SYNCFLOW_ALERT_WEBHOOK_URL")
    with place.database.begin() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM bridge.alerts").scalar_one() == 0
