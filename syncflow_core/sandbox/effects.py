"""What was applied to the hub, asked of its append-only log: was anything applied twice?

Belongs here: queries over ``hub.effects``.
Does not belong here: writing the log (``records``).

Source: product.md, "The promise" (nothing doubled).
"""

from dataclasses import dataclass

from syncflow_core.sandbox.database import connect


@dataclass(frozen=True)
class Repeat:
    """An effect that follows one like it. ``changed`` is whether it changed the stored record.

    An update of an equal data hash that changed something is no repetition of work: a reference or a
    volatile field was new.
    """

    collection: str
    key_hash: str
    uid: str
    seq: int
    effect: str
    changed: bool


def inserted_twice(database_url: str) -> list[Repeat]:
    """Inserts and revivals of a record that was there: no deletion lies between it and the effect before."""
    return _repeats(
        database_url, "effect IN ('insert', 'revive') AND before IS NOT NULL AND before <> 'delete'"
    )


def updated_twice(database_url: str) -> list[Repeat]:
    """Updates that carry the data hash which the record already had."""
    return _repeats(
        database_url,
        "effect = 'update' AND before <> 'delete' AND data_hash IS NOT DISTINCT FROM hash_before",
    )


def count_effects(database_url: str) -> dict[str, dict[str, int]]:
    """Effects per collection and kind."""
    counts: dict[str, dict[str, int]] = {}
    with connect(database_url) as connection:
        for name, effect, count in connection.execute(
            "SELECT name, effect, count(*) FROM hub.effects JOIN hub.collections ON id = collection"
            " GROUP BY name, effect ORDER BY name, effect"
        ):
            counts.setdefault(str(name), {})[str(effect)] = int(str(count))
    return counts


def _repeats(database_url: str, condition: str) -> list[Repeat]:
    with connect(database_url) as connection:
        rows = connection.execute(
            _STATEMENT.replace(
                "CONDITION", condition
            ).encode()  # one of the two above, nothing else
        ).fetchall()
    return [
        Repeat(str(name), str(key_hash), str(uid), int(str(seq)), str(effect), bool(changed))
        for name, key_hash, uid, seq, effect, changed in rows
    ]


_STATEMENT = """
SELECT name, encode(key_hash, 'hex'), uid, seq, effect, changed
FROM (
    SELECT *, lag(effect) OVER line AS before, lag(data_hash) OVER line AS hash_before
    FROM hub.effects WINDOW line AS (PARTITION BY collection, key_hash ORDER BY seq)
) AS effects
JOIN hub.collections ON id = collection
WHERE CONDITION
ORDER BY seq
"""
