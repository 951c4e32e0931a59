"""What a person may ask for, on the command line, the launchpad and the API alike.

Belongs here: refusing what does not exist, in the same words everywhere. It knows nothing of Dagster,
whose import takes seconds.
Does not belong here: turning a choice into orders (``orders``).
"""

from collections.abc import Sequence
from typing import Literal

from syncflow_core.entity import Entity
from syncflow_core.errors import ConfigError

Mode = Literal["auto", "full", "incremental"]


def refuse_unknown(names: Sequence[str], entities: Sequence[Entity]) -> None:
    """Return where every name is an entity's.

    Raises:
        ConfigError: Those that are not, and those that there are.
    """
    known = {entity.name for entity in entities}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ConfigError(
            f"unknown entity {', '.join(unknown)}; known are {', '.join(sorted(known)) or 'none'}"
            " (syncflow entities apply FILE declares more)"
        )


def refuse_slice(number: int | None, slices: int) -> None:
    """Return where there is such a slice, or none is asked for.

    Raises:
        ConfigError: There is none of this number.
    """
    if number is not None and not 1 <= number <= slices:
        raise ConfigError(f"slice {number} does not exist: slices are 1 to {slices}")
