"""Names of time zones, as declarations and the environment give them.

Belongs here: refusing what is none.
Does not belong here: reading local times (``normalize.zone``), nights (``window``).
"""

from zoneinfo import ZoneInfo, ZoneInfoNotFoundError


def zone_name(value: str) -> str:
    """The name itself.

    >>> zone_name("Europe/Berlin")
    'Europe/Berlin'

    Raises:
        ValueError: There is no zone of this name.
    """
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"{value!r} is not a time zone name such as Europe/Berlin") from error
    return value
