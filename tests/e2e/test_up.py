"""``syncflow up``: what it starts answers, comes back when it is killed, and ends with it."""

import os
import signal
import subprocess
from pathlib import Path

from local import LOCAL
from machine import free_port, until
from place import SYNCFLOW, Place
from servers import await_answer, end
from tables import items, table

from syncflow_core.entity import Entity


def children(parent: int, words: str) -> list[int]:
    """The processes that it started whose command has these words."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            above = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it ended meanwhile
        if above == parent and words in command:
            found.append(int(folder.name))
    return found


def test_a_code_location_that_is_killed_comes_back_and_ctrl_c_ends_all(
    place: Place, tmp_path: Path
) -> None:
    table(place, "itm", {"ID": "VARCHAR2(9)", "NAME": "VARCHAR2(9)"}, items(3))
    place.apply([Entity(name="itm")])
    ui, api = str(free_port()), str(free_port())
    log = tmp_path / "up.out"
    with log.open("wb") as said:
        up = subprocess.Popen(
            [SYNCFLOW, "up", "--ui-port", ui, "--api-port", api],
            env=place.environment,
            cwd=tmp_path,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
    try:
        await_answer(f"http://127.0.0.1:{api}/api/v1/health")
        until(lambda: "Ctrl-C ends all" in log.read_text())
        (server,) = children(up.pid, "code-server")
        (location,) = children(server, "api grpc")
        token = place.command("token", "anna", "--role", "operator").stdout.strip()
        os.kill(location, signal.SIGKILL)
        refused = LOCAL.post(
            f"http://127.0.0.1:{api}/api/v1/sync/start",
            json={"entities": ["itm"]},
            headers={"Authorization": f"Bearer {token}"},
            timeout=60,
        )
        until(lambda: "the code location answers again" in log.read_text(), log.read_text)
        came_back = children(server, "api grpc")
        up.send_signal(signal.SIGINT)
        status = up.wait(60)
    finally:
        end(up)

    assert refused.status_code == 503, refused.text
    assert "code location syncflow does not answer" in refused.json()["detail"]
    assert location not in came_back
    assert came_back
    assert status == 0
    assert [p for p in (server, *came_back) if Path(f"/proc/{p}").exists()] == []
