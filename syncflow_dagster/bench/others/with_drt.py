"""The rows that dlt has loaded, pushed to the hub by drt-core: its SQL source, its REST destination.

Belongs here: drt's project (two syncs, YAML), and running it by drt's own command.
Does not belong here: anything of SyncFlow's; what drt leaves out is told in ``compare``.

It runs where drt-core is installed (``make compare``). drt has neither hashes nor a memory of what the
hub holds, and its REST destination writes to one fixed address. So the models, which are SQL, make the
hashes and join the hub's own table to tell new rows from changed ones: a user would have to bring that
table into the warehouse first. Batches of 1,000 without drt's default limit of ten requests a second.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpx
from drt.cli.main import app

from syncflow_dagster.bench.others.child import Task, serve

RECORD = """
  id, code, name, status, site, uom, qty, price::float8 AS price, weight::float8 AS weight,
  lead_time, priority, to_char(created, 'YYYY-MM-DD"T"HH24:MI:SS') AS created,
  to_char(due, 'YYYY-MM-DD"T"HH24:MI:SS') AS due, planner, remark,
  md5('id=' || id) AS erp_key_hash,
  encode(sha256(convert_to(concat_ws('|', id, code, name, status, site, uom, qty, price, weight,
    lead_time, priority, created, due, planner, remark), 'UTF8')), 'hex') AS erp_data_hash,
  rowversion::text AS erp_rowversion, 'id=' || id AS erp_ref_str, '{}'::json AS parent_refs
"""
KNOWN = """
  SELECT hub.records.* FROM hub.records JOIN hub.collections ON collections.id = collection
  WHERE collections.name = '%(collection)s'
"""
NEW = f"""
WITH known AS ({KNOWN}), rows AS (SELECT {RECORD} FROM dlt.bench WHERE %(chosen)s)
SELECT rows.* FROM rows LEFT JOIN known ON key_hash = decode(erp_key_hash, 'hex') WHERE key_hash IS NULL
"""  # noqa: S608  # constants, and a number
CHANGED = f"""
WITH known AS ({KNOWN}), rows AS (SELECT {RECORD} FROM dlt.bench WHERE %(chosen)s)
SELECT known.uid::text AS uid, row_to_json(rows) AS data
FROM rows JOIN known ON key_hash = decode(erp_key_hash, 'hex') WHERE data_hash <> erp_data_hash
"""  # noqa: S608  # constants, and a number
BATCH = 1_000


def _sync(name: str, url: str, model: str, template: str) -> dict[str, object]:
    return {
        "name": name,
        "model": model,
        "destination": {
            "type": "rest_api",
            "url": url,
            "method": "POST",
            "headers": {"Content-Type": "application/json"},
            "body_mode": "batch",
            "batch_template": template,
            "max_records_per_request": BATCH,
            "auth": {"type": "bearer", "token_env": "HUB_TOKEN"},
        },
        "sync": {
            "mode": "full",
            "batch_size": BATCH,
            "rate_limit": {"requests_per_second": 0},
            "on_error": "fail",
        },
    }


def write_project(task: Task, folder: Path) -> None:
    """The files of a drt project, profile included; JSON is YAML too."""
    place = urlsplit(task.database_url)
    profile = {
        "type": "postgres",
        "host": place.hostname,
        "port": place.port,
        "dbname": place.path.strip("/"),
        "user": place.username,
        "password": unquote(place.password or ""),
    }
    chosen = "true" if task.rows is None else f"id <= {task.rows}"
    values = {"collection": task.collection, "chosen": chosen}
    batch = f"{task.schedulehub_url}/api/v1/{task.collection}/batch"
    insert = _sync(
        "insert", f"{batch}/insert", NEW % values, '{"records": {{ rows | tojson_safe }}}'
    )
    update = _sync(
        "update", f"{batch}/update", CHANGED % values, '{"updates": {{ rows | tojson_safe }}}'
    )
    files: dict[str, object] = {
        ".drt/profiles.yml": {"bench": profile},
        "drt_project.yml": {"name": "bench", "version": "0.1", "profile": "bench"},
        "syncs/insert.yml": insert,
        "syncs/update.yml": update,
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content), encoding="utf-8")


def work(task: Task) -> Mapping[str, object]:
    """Update what has changed, then insert what is new.

    Raises:
        SystemExit: drt ended with another status than 0.
    """
    folder = Path(task.home) / "drt"
    write_project(task, folder)
    account = {"username": task.username, "password": task.password}
    login = f"{task.schedulehub_url}/api/v1/auth/login"
    token = httpx.post(login, json=account, trust_env=False).raise_for_status().json()
    os.environ |= {"HUB_TOKEN": token["access_token"], "HOME": str(folder)}  # profiles lie at home
    os.chdir(folder)
    for sync in ("update", "insert"):
        status = app(["run", "--select", sync, "--output", "json"], standalone_mode=False)
        if status:
            raise SystemExit(f"drt run --select {sync}: status {status}")
    return {}


if __name__ == "__main__":
    serve(work)
