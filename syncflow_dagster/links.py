"""Where to look further: pages of Dagster's UI, calls of the REST API, commands.

Belongs here: addresses.
Does not belong here: what is found there (``jobs``, ``api``, ``cli``).

Paths of the UI are without its host, for they are shown in the UI itself.
"""

from collections.abc import Mapping
from urllib.parse import quote, urlencode

import yaml

from syncflow_core.settings import read_settings
from syncflow_core.standing import Standing
from syncflow_dagster.op_jobs import APPLY, RETRY, OpJob
from syncflow_dagster.partitions import LOCATION


def launchpad(job: OpJob, config: Mapping[str, object]) -> str:
    """The path of a job's launchpad with this configuration of its one op filled in."""
    text = yaml.safe_dump(job.configured(config), sort_keys=False)
    return f"/locations/{LOCATION}/jobs/{job.name}/playground/setup?{urlencode({'config': text})}"


def api(path: str, **query: str) -> str:
    """The address of a call of the REST API."""
    base = f"{read_settings().api_url}/api/v1/{quote(path)}"
    return f"{base}?{urlencode(query)}" if query else base


def further(name: str, stands: Standing) -> list[str]:
    """What to look at and what to do about an entity as it stands, one line of Markdown each."""
    lines = [f"`syncflow status {name}`", f"`syncflow trace {name} KEY`"]
    if (plan := stands.withheld) is not None:
        config = {"plans": [str(plan.uid)]}
        lines.append(
            f"withheld: [approve and apply]({launchpad(APPLY, config)}) in the launchpad, "
            f"[the plan]({api(f'plans/{plan.uid}')}) with samples, or `syncflow apply {plan.uid}`"
        )
    if stands.failed:
        lines.append(
            f"[{stands.failed:,} failed records]({api('failed-records', entity=name)}) with their reasons"
        )
    if stands.waiting or stands.dead:
        lines.append(
            f"[{stands.waiting + stands.dead:,} children]({api('pending-children', entity=name)}) "
            "that wait for their parents"
        )
    if stands.failed or stands.waiting or stands.dead:
        again = launchpad(RETRY, {"entities": [name]})
        lines.append(f"[try them again]({again}) in the launchpad, or `syncflow retry {name}`")
    return lines
