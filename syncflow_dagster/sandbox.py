"""What SyncFlow is told of the sandbox: where it is, and which entities its ERP has.

Belongs here: the variables and the declarations.
Does not belong here: the servers (``syncflow_core.sandbox``), the command (``cli.sandbox``).
"""

from importlib.resources import files

from syncflow_core.entities_file import parse_entities
from syncflow_core.entity import Entity
from syncflow_core.sandbox import Sandbox


def demo_entities() -> list[Entity]:
    """The entities of the sandbox's ERP."""
    file = files("syncflow_core.sandbox") / "entities.yaml"
    return parse_entities(file.read_text(encoding="utf-8"), "entities.yaml")


def environment(sandbox: Sandbox) -> dict[str, str]:
    """The variables that make SyncFlow use this sandbox."""
    return {
        "SYNCFLOW_APISMITH_URL": sandbox.apismith_url,
        "SYNCFLOW_APISMITH_USERNAME": sandbox.username,
        "SYNCFLOW_APISMITH_PASSWORD": sandbox.password,
        "SYNCFLOW_SCHEDULEHUB_URL": sandbox.schedulehub_url,
        "SYNCFLOW_SCHEDULEHUB_USERNAME": sandbox.username,
        "SYNCFLOW_SCHEDULEHUB_PASSWORD": sandbox.password,
    }
