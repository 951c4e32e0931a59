"""What the calls on records share: what is hidden of an entity, hashes as hex.

Belongs here: making kept things fit for an answer.
Does not belong here: the rule of what is hidden (``syncflow_core.privacy``).
"""

from collections.abc import Iterable, Mapping
from typing import Any

import sqlalchemy as sa

from syncflow_core.bridge.entities import load_registered
from syncflow_core.privacy import Privacy, privacy_of


def privacies(connection: sa.Connection, names: Iterable[str]) -> dict[str, Privacy]:
    """What is hidden of these entities.

    Raises:
        ConfigError: One is not there.
    """
    return {
        item.entity.name: privacy_of(item.entity)
        for item in load_registered(connection, sorted(names), enabled=None)
    }


def hexed(line: Mapping[str, Any]) -> dict[str, Any]:
    """The line with its hashes as hexadecimal digits."""
    return {
        name: value.hex() if isinstance(value, bytes) else value for name, value in line.items()
    }
