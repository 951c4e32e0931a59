"""The checks that every sync makes of its entity: results of the asset's last op, and of the contract.

Belongs here: what is checked, how grave it is, what stops the children.
Does not belong here: where an entity stands (``syncflow_core.standing``), the comparison with the hub (``reconciling``).

Source: product.md 8.
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Final

import dagster as dg

from syncflow_core.stages.track import Report
from syncflow_core.stages.work import Staged
from syncflow_core.standing import Standing

FAILED_SHARE: Final = 0.01
"""Of an entity's records, how many may be dead letters before the check warns."""


@dataclass(frozen=True)
class Check:
    """One check of every entity."""

    name: str
    description: str
    blocking: bool = False
    """Whether the children of an entity that fails it are not synced in the same run."""


ACCOUNTS: Final = Check(
    "accounts_close",
    "fetched = rejected + inserted + updated + unchanged + pending + failed + withheld",
    blocking=True,
)
DOUBT: Final = Check(
    "nothing_in_doubt", "Every write has an outcome: ScheduleHub holds it or not.", blocking=True
)
PENDING: Final = Check(
    "pending_in_time", "No record has waited for its parent through all its attempts."
)
FAILED: Final = Check(
    "failed_within_limits", f"Dead letters are at most {FAILED_SHARE:.0%} of the records."
)
KEYS: Final = Check("unique_keys", "No two rows of the source have one key.")
CONTRACT: Final = Check("schema_contract", "The source's columns are those that were accepted.")
BRAKE: Final = Check("brake", "Nothing is withheld until a person approves it.")
CHECKS: Final = (ACCOUNTS, DOUBT, PENDING, FAILED, KEYS, CONTRACT, BRAKE)


def specs(name: str) -> list[dg.AssetCheckSpec]:
    """The checks of the entity's asset."""
    return [
        dg.AssetCheckSpec(
            check.name,
            asset=dg.AssetKey([name]),
            description=check.description,
            blocking=check.blocking,
        )
        for check in CHECKS
    ]


def own_checks(names: Iterable[str]) -> list[dg.AssetCheckKey]:
    """The checks that the entities' own ops make; others are runs of their own."""
    return [dg.AssetCheckKey(dg.AssetKey([name]), check.name) for name in names for check in CHECKS]


def results(report: Report, staged: Staged, stands: Standing) -> Iterator[dg.AssetCheckResult]:
    """What each check found after a batch."""
    twice = sum(staged.frames[name].rows for name in ("losers", "collided"))
    withheld = stands.withheld
    counted: dict[str, int | str] = {} if stands.known is None else {"records": stands.known}
    error, warning = dg.AssetCheckSeverity.ERROR, dg.AssetCheckSeverity.WARN
    found: list[tuple[Check, bool, dg.AssetCheckSeverity, dict[str, int | str]]] = [
        (ACCOUNTS, report.counts.unaccounted == 0, error, asdict(report.counts)),
        (DOUBT, stands.in_doubt == 0, error, {"in_doubt": stands.in_doubt}),
        (PENDING, stands.dead == 0, warning, {"waiting": stands.waiting, "given_up": stands.dead}),
        (
            FAILED,
            stands.failed <= (stands.known or 0) * FAILED_SHARE,
            warning,
            {"failed": stands.failed, **counted},
        ),
        (KEYS, twice == 0, warning, {"rows_beside_others_of_their_key": twice}),
        (CONTRACT, not staged.drift, warning, {"changed": staged.drift or "nothing"}),
        (
            BRAKE,
            withheld is None,
            warning,
            {
                "withheld": report.counts.withheld,
                "withheld_deletes": report.counts.withheld_deletes,
                "plan": "none" if withheld is None else str(withheld.uid),
            },
        ),
    ]
    for check, passed, severity, metadata in found:
        yield dg.AssetCheckResult(
            check_name=check.name,
            asset_key=dg.AssetKey([staged.name]),
            passed=passed,
            severity=severity,
            metadata=metadata,
        )


def changed_contract(name: str, words: str, *, broken: bool) -> dg.AssetCheckEvaluation:
    """That the source's columns are not those that were accepted.

    Args:
        name: The entity.
        words: What differs.
        broken: Whether nothing is read or written until a person accepts it.
    """
    return dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey([name]),
        check_name=CONTRACT.name,
        passed=False,
        severity=dg.AssetCheckSeverity.ERROR if broken else dg.AssetCheckSeverity.WARN,
        metadata={"changed": dg.MetadataValue.text(words)},
    )
