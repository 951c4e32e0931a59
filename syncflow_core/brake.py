"""Hold back a change that would do great harm until a person has said yes.

Belongs here: when deletes or updates are too many.
Does not belong here: keeping the plan or the approval (``bridge.plans``).

Source: product.md 4, "Brake".
"""

from dataclasses import dataclass
from decimal import Decimal

from syncflow_core.entity import Brake


@dataclass(frozen=True)
class Ceiling:
    """What a person has approved: so many updates and deletes at most."""

    updates: int
    deletes: int
    other_updates: int = 0
    """Updates of today that the approved plan did not name: the brake's own numbers hold for them."""
    other_deletes: int = 0


@dataclass(frozen=True)
class Verdict:
    """What is held back, and why."""

    deletes: bool
    updates: bool
    reason: str | None


def judge(  # each is a number of its own
    brake: Brake,
    *,
    known: int,
    incoming: int,
    updates: int,
    deletes: int,
    ceiling: Ceiling | None = None,
) -> Verdict:
    """Say whether this run's updates or deletes are held back.

    Both numbers must be exceeded: 100 rows may be all of a small table, and 10 % of a large one is
    many. An empty source never deletes, however few the records are and whoever has approved it.

    Args:
        brake: The entity's two numbers.
        known: Live records that the target acknowledged before this run.
        incoming: Rows fetched.
        updates: Records to update.
        deletes: Records to delete.
        ceiling: What was approved; up to there nothing is held back.

    >>> judge(Brake(), known=1000, incoming=899, updates=0, deletes=101).deletes
    True
    >>> judge(Brake(), known=10_000, incoming=9_899, updates=0, deletes=101).deletes
    False
    """
    approved = ceiling or Ceiling(0, 0)
    held_deletes = deletes > approved.deletes and _too_many(brake, deletes, known)
    held_deletes = held_deletes or _too_many(brake, approved.other_deletes, known)
    held_deletes = held_deletes or (deletes > 0 and incoming == 0)
    held_updates = updates > approved.updates and _too_many(brake, updates, known)
    held_updates = held_updates or _too_many(brake, approved.other_updates, known)
    reasons = []
    if held_deletes:
        reasons.append(f"{deletes} of {known} known records would be deleted")
    if held_updates:
        reasons.append(f"{updates} of {known} known records would be updated")
    limit = f" (more than {brake.rows} and {brake.share:.0%})"
    if ceiling is not None:
        limit = f" (approved were {approved.updates} updates and {approved.deletes} deletes"
        others = approved.other_updates + approved.other_deletes
        limit += f", {others} of these are not among them)" if others else ")"
    if held_deletes and incoming == 0:
        limit = " (the source is empty)"
    return Verdict(held_deletes, held_updates, " and ".join(reasons) + limit if reasons else None)


def _too_many(brake: Brake, changes: int, known: int) -> bool:
    # as it was written: in binary, 0.29 of 100 are less than 29
    return changes > brake.rows and changes > Decimal(str(brake.share)) * known
