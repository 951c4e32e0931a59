"""What a sample says of the whole: the share that is right, and how low the true one may be.

Belongs here: the one-sided confidence bound of a share.
Does not belong here: drawing the sample (``stages.spot_check``), judging its records (``differences``).

Source: product.md 13; C. Clopper and E. Pearson, Biometrika 26 (1934): the exact binomial bound.
"""

import math
from typing import Final

CONFIDENCE: Final = 0.95
_STEPS: Final = 60  # halvings of the interval: more than a double's digits


def lower_bound(right: int, checked: int) -> float:
    """The share of right records that the whole has at least, with ``CONFIDENCE``.

    It is the share at which so many right records or more come out of a sample of this size only as
    often as the confidence leaves open. Nothing checked says nothing: 0.

    >>> round(lower_bound(100, 100), 4), round(lower_bound(98, 100), 4), lower_bound(0, 0)
    (0.9705, 0.9384, 0.0)
    """
    if right == 0:
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        share = (low + high) / 2
        if _at_least(right, checked, share) < 1 - CONFIDENCE:
            low = share
        else:
            high = share
    return low


def _at_least(right: int, checked: int, share: float) -> float:
    """How often *right* or more of *checked* are right where the whole's share is *share*."""
    logs = (
        math.lgamma(checked + 1)
        - math.lgamma(n + 1)
        - math.lgamma(checked - n + 1)
        + n * math.log(share)
        + (checked - n) * math.log1p(-share)
        for n in range(right, checked + 1)
    )
    return math.fsum(map(math.exp, logs))
