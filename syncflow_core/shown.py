"""Lines that are kept of a record, as they may be kept and shown: dead letters, what waits, samples.

Belongs here: which parts of such a line may say personal data.
Does not belong here: what stands in its place (``privacy``).
"""

from collections.abc import Mapping
from typing import Any

from syncflow_core.columns import KEY_HASH, KEY_SOURCE, REFERENCE
from syncflow_core.privacy import Privacy


def shown_line(line: Mapping[str, Any], privacy: Privacy) -> dict[str, Any]:
    """A dead letter (``failed.FAILED``), or what waits for a parent (``pending.PENDING``), hidden whole."""
    if not privacy:
        return dict(line)
    shown = dict(line)
    digest = line[KEY_HASH].hex() if line[KEY_HASH] else None
    shown[REFERENCE] = privacy.reference(line[REFERENCE], digest)
    for name in ("raw", "payload", KEY_SOURCE):
        if name in line:
            shown[name] = privacy.json(line[name])
    if "message" in line:
        shown["message"] = privacy.words(line["message"], line["raw"])
        kind = privacy.columns.get(line["column"]) or privacy.fields.get(line["column"])
        if kind is not None:
            shown["value"] = privacy.value(kind, line["value"])
        elif line["stage"] == "identity":
            shown["value"] = privacy.reference(line["value"], digest)
        elif line["column"] is None:
            shown["value"] = None  # the row, or more than one column's
        elif line["stage"] == "resolve":
            shown["value"] = privacy.words(line["value"], line["raw"])  # the parent's reference
    return shown


def shown_sample(sample: Mapping[str, Any], privacy: Privacy) -> dict[str, Any]:
    """A sample of a plan (``op record field old new``) or of a comparison (``side kind record``)."""
    shown = dict(sample)
    if isinstance(record := sample.get("record"), str):
        shown["record"] = privacy.reference(record)
    if kind := privacy.fields.get(str(sample.get("field"))):
        shown |= {name: privacy.value(kind, sample.get(name)) for name in ("old", "new")}
    return shown
