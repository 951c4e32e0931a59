"""When what failed or waits may be tried again, and when no more.

Belongs here: the delays and the bound.
Does not belong here: trying (``stages``), the repeats of one HTTP call (``http``).

Source: product.md 6: exponential, at most five attempts; then a person is told.
"""

from typing import Final

import polars as pl

ATTEMPTS: Final = 5
"""Attempts after which a record waits for nobody but its parent, or a person."""
FIRST_S: Final = 60
FACTOR: Final = 4
"""A minute, then 4, 16 and 64 minutes: a parent of the same night is seldom later than an hour."""


def delay_s(attempts: pl.Expr) -> pl.Expr:
    """Seconds until the next attempt after so many; null where there is none.

    >>> pl.DataFrame({"n": [1, 2, 4, 5]}).select(delay_s(pl.col("n"))).to_series().to_list()
    [60, 240, 3840, None]
    """
    return pl.when(attempts < ATTEMPTS).then(
        (FIRST_S * pl.lit(FACTOR).pow(attempts - 1)).cast(pl.Int64)
    )
