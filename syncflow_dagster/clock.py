"""The time, for what is kept.

Belongs here: reading the clock. It knows nothing of Dagster, whose import takes seconds.
Does not belong here: what follows from the time; whoever decides is given it.
"""

import datetime as dt


def utc_now() -> dt.datetime:
    """The time now."""
    return dt.datetime.now(tz=dt.UTC)
