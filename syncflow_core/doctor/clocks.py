"""How far another machine's clock is from this one's.

Belongs here: measuring, and what is too far.
Does not belong here: asking for the time (``bridge``, ``systems``).

Source: product.md 10, "clock skew".
"""

from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from syncflow_core.answers import Answer
from syncflow_core.doctor.checks import Seen

NEAR_S: Final = 2.0
"""As near as a ``Date`` header can be read: whole seconds, which servers renew once a second."""
FAR_S: Final = 10.0
"""Beyond: a token of the API that was issued on one machine may not be good yet on another."""
TOO_FAR_S: Final = 300.0
"""Beyond: more than an incremental sync looks back by default, and night windows are another night's."""


def clock_seen(whose: str, ask: Callable[[], datetime | None], now: Callable[[], datetime]) -> Seen:
    """How far a clock is from this machine's, the time that asking took allowed for.

    Args:
        whose: In the finding's words.
        ask: Its time, aware; None where it does not say.
        now: This machine's, aware.
    """
    before = now()
    said = ask()
    after = now()
    if said is None:
        return Seen(f"{whose} does not say its time", "skipped")
    skew = (said - (before + (after - before) / 2)).total_seconds()
    if abs(skew) <= NEAR_S:
        return Seen(f"{whose} and this machine are within {NEAR_S:.0f} s")
    words = f"{whose} is {abs(skew):,.0f} s {'ahead of' if skew > 0 else 'behind'} this machine"
    if abs(skew) > TOO_FAR_S:
        return Seen(words, "fail")
    return Seen(words, "warn" if abs(skew) > FAR_S else "ok")


def date_of(answer: Answer) -> datetime | None:
    """The time in an answer's ``Date`` header (whole seconds); None where it has none that can be read."""
    try:
        said = parsedate_to_datetime(answer.headers.get("date", ""))
    except ValueError:
        return None
    return said if said.tzinfo is not None else said.replace(tzinfo=UTC)
