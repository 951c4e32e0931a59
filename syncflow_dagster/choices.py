"""What a person may ask for, on the command line, the launchpad and the API alike.

Belongs here: refusing what does not exist, in the same words everywhere. It knows nothing of Dagster,
whose import takes seconds.
Does not belong here: turning a choice into orders (``orders``).
"""

from collections.abc import Sequence
from typing import Literal

from syncflow_core.bridge.database import Database
from syncflow_core.bridge.entities import DISABLED, load_entities
from syncflow_core.entity import Entity
from syncflow_core.errors import ConfigError

Mode = Literal["auto", "full", "incremental"]


def refuse_unknown(names: Sequence[str], entities: Sequence[Entity], database: Database) -> None:
    """Return where every name is an enabled entity's.

    Args:
        names: Those asked for.
        entities: Those that are enabled.
        database: Asked for those that are not, where a name is not among *entities*.

    Raises:
        ConfigError: Names that are no entity's, with those that there are; entities that are disabled.
    """
    known = {entity.name for entity in entities}
    missing = [name for name in names if name not in known]
    if not missing:
        return
    with database.begin() as connection:
        disabled = {entity.name for entity in load_entities(connection, enabled=False)}
    faults = [DISABLED.format(name) for name in missing if name in disabled]
    unknown = [name for name in missing if name not in disabled]
    if unknown:
        faults.append(
            f"unknown entity {', '.join(unknown)}; known are {', '.join(sorted(known)) or 'none'}"
            " (syncflow entities apply FILE declares more)"
        )
    raise ConfigError("; ".join(faults))


def refuse_slice(number: int | None, slices: int) -> None:
    """Return where there is such a slice, or none is asked for.

    Raises:
        ConfigError: There is none of this number.
    """
    if number is not None and not 1 <= number <= slices:
        raise ConfigError(f"slice {number} does not exist: slices are 1 to {slices}")
