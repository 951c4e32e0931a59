"""Look once more: ask the source for each record that seems to be gone before it is deleted.

Belongs here: telling, by the record's own key, whether the source still has it.
Does not belong here: who seems to be gone (``delta``), deleting (``deleter``).

Rows shift while pages are read and nights pass, so a row can be passed over although every count came
out right. Absence in a scan is therefore a suspicion, and the answer to a question by key the proof.

Source: product.md 4, "Deletes need proof of completeness"; faults.md XF14, XF15.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from syncflow_core.apismith import LOOK_UP
from syncflow_core.columns import KEY_HASH, KEY_SOURCE, REFERENCE, ROW
from syncflow_core.fields import Shape
from syncflow_core.keys import keys_of, source_keys, with_plain_references
from syncflow_core.stages.work import Connections


@dataclass(frozen=True)
class SecondLook:
    """What the source said of the records that seem to be gone."""

    gone: pl.DataFrame
    """Those that it does not have."""
    there: int
    """Those that it has after all."""
    unasked: int
    """Those whose key nobody can spell for the source."""


def look_again(
    connections: Connections, shape: Shape, absent: pl.DataFrame, *, trust_scan: bool
) -> SecondLook:
    """Ask the source for each of the records, by its key as the source sent it.

    Args:
        connections: The source.
        shape: The records' entity.
        absent: ``#key_hash`` (unique), ``#key_source``, ``#reference`` and more: the records that no row
            was seen of.
        trust_scan: Whether a record that cannot be asked for is gone because the scan says so (a
            whole scan, proven complete), or stays.
    """
    name = shape.entity.name
    named = with_plain_references(absent.select(KEY_HASH, KEY_SOURCE, REFERENCE), shape)
    keys = {
        digest: source_keys(text, reference, shape) for digest, text, reference in named.iter_rows()
    }
    askable = [(digest, key) for digest, spelled in keys.items() for key in spelled]
    there: list[bytes] = []
    for start in range(0, len(askable), LOOK_UP):
        part = askable[start : start + LOOK_UP]
        found = connections.source.look_up(shape.api, [key for _, key in part])
        there += _there(found.frame, found.unreadable, [digest for digest, _ in part], shape)
        connections.progress(name, "look up", start + len(part), len(askable))
    unasked = [digest for digest, spelled in keys.items() if not spelled]
    kept = pl.Series(KEY_HASH, there if trust_scan else there + unasked, dtype=pl.Binary)
    return SecondLook(
        gone=absent.filter(~pl.col(KEY_HASH).is_in(kept.implode())),
        there=len(set(there)),
        unasked=len(unasked),
    )


def _there(
    rows: pl.DataFrame, unreadable: int, asked: Sequence[bytes], shape: Shape
) -> Sequence[bytes]:
    """Which of the asked are there: all, where a row came whose key cannot be read."""
    numbered = rows.with_row_index(ROW)
    found = keys_of(numbered, shape)
    if unreadable or found.height < numbered.height:
        return asked
    return [digest for digest in asked if digest in set(found[KEY_HASH])]
