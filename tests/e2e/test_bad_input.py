"""What a user sees of every mistake: one line that says what to do, the right status, no stack."""

import socket
import subprocess
from importlib import metadata
from pathlib import Path

import pytest
from local import LOCAL
from machine import free_port
from place import SYNCFLOW, Place, lines

from syncflow_core.entity import Entity, ParentRef
from syncflow_core.sandbox import erp
from syncflow_dagster.sandbox import demo_entities

BROKEN = """\
version: 1
entities:
  - name: orders
    buisness_key: [ORDER_NO]
    delta: hahs
    fields:
      - {source: QTY, target: quantity, type: decimall}
"""


@pytest.fixture
def seeded(place: Place) -> Place:
    with place.tables.connection() as connection:
        erp.seed_erp(connection, rows=1_000, seed=3)
    place.apply(demo_entities())
    return place


def test_an_unknown_entity_is_wrong_usage_and_names_the_known_ones(seeded: Place) -> None:
    ended = seeded.command("sync", "ordrs", "--json")

    assert [(line["entity"], line["status"]) for line in lines(ended.stdout)] == [
        ("ordrs", "failed")
    ]
    assert ended.returncode == 2
    assert "unknown entity ordrs; known are customers" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_disabled_entity_is_not_called_unknown(seeded: Place) -> None:
    seeded.apply([Entity(name="unicorns", enabled=False)])

    one = seeded.command("sync", "unicorns")
    both = seeded.command("sync", "unicorns", "ordrs")

    told = "unicorns is disabled: set enabled: true in its declaration and apply it"
    assert (one.returncode, both.returncode) == (2, 2)
    assert one.stderr.rstrip().endswith(told)
    assert f"{told}; unknown entity ordrs; known are customers" in both.stderr


def test_a_missing_address_names_the_variable(seeded: Place) -> None:
    ended = seeded.command("sync", "sites", SYNCFLOW_APISMITH_URL="")

    assert ended.returncode == 2
    assert "SYNCFLOW_APISMITH_URL not set" in ended.stderr


def test_a_wrong_password_fails_the_batch_without_showing_it(seeded: Place) -> None:
    ended = seeded.command("sync", "sites", "--json", SYNCFLOW_APISMITH_PASSWORD="hunter2")

    assert ended.returncode == 1
    assert lines(ended.stdout)[0]["status"] == "failed"
    assert "credentials" in ended.stderr
    assert "hunter2" not in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr


def test_XF03_a_source_that_is_away_ends_with_status_4(seeded: Place) -> None:
    ended = seeded.command("sync", "sites", "--json", SYNCFLOW_APISMITH_URL="http://127.0.0.1:9")

    assert ended.returncode == 4
    assert lines(ended.stdout)[0]["status"] == "failed"
    assert "SYNCFLOW_APISMITH_URL" in ended.stderr


def test_XD01_a_database_that_is_away_ends_with_status_4(seeded: Place) -> None:
    ended = seeded.command(
        "sync", "sites", SYNCFLOW_DATABASE_URL="postgresql://u:secret@127.0.0.1:9/x"
    )

    assert ended.returncode == 4
    assert "127.0.0.1" in ended.stderr
    assert "secret" not in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1


def test_XD10_a_database_without_the_schema_says_migrate(seeded: Place, url: str) -> None:
    ended = seeded.command("sync", "sites", SYNCFLOW_DATABASE_URL=url)

    assert ended.returncode == 2
    assert "syncflow migrate" in ended.stderr


def test_broken_yaml_names_every_fault_with_line_and_key(seeded: Place, tmp_path: Path) -> None:
    file = tmp_path / "erp.yaml"
    file.write_text(BROKEN, encoding="utf-8")

    ended = seeded.command("entities", "apply", str(file))

    assert ended.returncode == 2
    told = ended.stderr.splitlines()
    assert len(told) == 3
    assert any("erp.yaml:4: entities[orders].buisness_key" in line for line in told)
    assert any("erp.yaml:5: entities[orders].delta" in line for line in told)
    assert any("erp.yaml:7: entities[orders].fields[1].type" in line for line in told)


def test_a_port_that_is_no_number_is_one_line_that_names_the_variable(seeded: Place) -> None:
    url = "postgresql://u:hunter2@127.0.0.1:notaport/x"
    ended = seeded.command("sync", "sites", SYNCFLOW_DATABASE_URL=url)

    assert ended.returncode == 2
    assert "SYNCFLOW_DATABASE_URL: its port is no number" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert "hunter2" not in ended.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("api", "--port"),
        ("up", "--ui-port"),
        ("up", "--api-port"),
        ("sandbox", "--apismith-port"),
        ("sandbox", "--schedulehub-port"),
    ],
)
def test_a_port_that_is_none_or_taken_is_refused(
    shared_place: Place, arguments: tuple[str, ...]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        taken = shared_place.command(*arguments, str(port))
    none = shared_place.command(*arguments, "99999")

    assert (taken.returncode, none.returncode) == (2, 2)
    assert f"port {port} is taken: is another syncflow up or sandbox running?" in taken.stderr
    assert taken.stderr.count("\n") == 1
    assert "65535" in none.stderr


def by_a_shell(place: Place, line: str) -> "subprocess.CompletedProcess[str]":
    """Run ``syncflow`` with this line's arguments and redirections."""
    return subprocess.run(
        ["/bin/sh", "-c", f'exec "{SYNCFLOW}" {line}'],
        env=place.environment,
        cwd=place.home,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("closed", ["2>&-", ">&-", ">&- 2>&-"])
def test_a_command_works_whatever_of_its_output_is_closed(shared_place: Place, closed: str) -> None:
    ended = by_a_shell(shared_place, f"status {closed}")

    assert (ended.returncode, ended.stderr) == (0, "")


def test_output_that_cannot_be_written_is_told_in_a_line(shared_place: Place) -> None:
    ended = by_a_shell(shared_place, "status >/dev/full")

    assert ended.returncode == 1
    assert (
        ended.stderr
        == "syncflow: the output cannot be written: [Errno 28] No space left on device\n"
    )


def test_a_sync_whose_progress_nobody_can_be_told_is_done(seeded: Place) -> None:
    ended = by_a_shell(seeded, "sync sites 2>/dev/full")

    assert ended.returncode == 0
    assert "completed" in ended.stdout


def test_the_version_is_told_and_a_token_is_for_somebody(shared_place: Place) -> None:
    version = shared_place.command("--version")
    nobody = shared_place.command("token", " ")

    assert (version.returncode, version.stdout) == (0, f"syncflow {metadata.version('syncflow')}\n")
    assert (nobody.returncode, nobody.stdout) == (2, "")
    assert "who is the token for" in nobody.stderr


def test_a_port_for_two_servers_is_refused(shared_place: Place) -> None:
    port = str(free_port())

    told = shared_place.command("sandbox", "--apismith-port", port, "--schedulehub-port", port)

    assert (told.returncode, told.stderr.count("\n")) == (2, 1)
    assert f"port {port} is given to two servers" in told.stderr


def test_a_reference_that_is_not_made_of_the_parents_key_is_named(seeded: Place) -> None:
    wrong = ParentRef(entity="sites", key={"site": "site_code"})
    seeded.apply([Entity(name="work_centres", parents={"site": wrong})])

    ended = seeded.command("sync", "work_centres")

    assert ended.returncode == 1
    assert "parents.site: the key of sites is site_code, not site" in ended.stdout


def test_an_api_that_does_not_exist_is_named(seeded: Place) -> None:
    seeded.apply([Entity(name="odd", api="no_such_api")])

    ended = seeded.command("sync", "odd", "--json")

    assert ended.returncode == 1
    assert lines(ended.stdout)[0]["status"] == "failed"
    assert "no_such_api" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_an_answer_that_is_not_the_contracts_is_told_as_such(seeded: Place) -> None:

    LOCAL.post(
        f"{seeded.sandbox.apismith_url}/sandbox/faults",
        json=[
            {
                "match": {"path": "/runtime/sites/execute"},
                "action": {
                    "status": 200,
                    "body": "<html>log in</html>",
                    "headers": {"content-type": "text/html"},
                },
            }
        ],
    ).raise_for_status()

    ended = seeded.command("sync", "sites", "--json")

    assert ended.returncode == 1
    assert "text/html" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_each_entity_has_its_line_of_json_also_one_that_never_began(seeded: Place) -> None:
    seeded.apply([Entity(name="sites", api="no_such_api")])

    ended = seeded.command("sync", "work_centres", "sites", "customers", "--json")

    told = {line["entity"]: line for line in lines(ended.stdout)}
    assert list(told) == ["work_centres", "sites", "customers"]
    assert [line["status"] for line in told.values()] == ["failed", "failed", "completed"]
    assert "parent not synced" in ended.stderr
    assert set(told["sites"]) == {"entity", "batch", "status", "counts", "seconds"}
    assert set(told["sites"]["counts"]) == {
        "fetched",
        "rejected",
        "inserted",
        "updated",
        "deleted",
        "unchanged",
        "pending",
        "failed",
        "withheld",
        "withheld_deletes",
        "retried",
    }


def test_what_applying_a_file_would_change_is_told_and_nothing_is_written(
    place: Place, tmp_path: Path
) -> None:
    file = tmp_path / "entities.yaml"
    file.write_text("version: 1\nentities:\n  - {name: itm, group: stock}\n  - {name: other}\n")
    place.apply([Entity(name="itm")])

    told = place.command("entities", "diff", str(file))
    listed = place.command("entities", "list", "--json")
    place.command("entities", "apply", str(file))
    again = place.command("entities", "diff", str(file))

    assert (told.returncode, again.returncode, again.stdout) == (1, 0, "")
    assert "+++ entity itm as in the file" in told.stdout
    assert "+  group: stock" in told.stdout
    assert "--- entity other as applied" in told.stdout
    assert [line["entity"] for line in lines(listed.stdout)] == ["itm"]
