"""What is kept of a record, as it may be shown: dead letters, what waits, samples."""

from typing import Any

import pytest

from syncflow_core.columns import KEY_HASH, KEY_SOURCE, REFERENCE
from syncflow_core.entity import Entity
from syncflow_core.privacy import MASK, privacy_of
from syncflow_core.shown import shown_line, shown_sample

MAIL = "tiger@b.example"
FIELDS = [{"source": "MAIL", "target": "mail", "pii": "mask"}, {"source": "CITY", "target": "city"}]
PRIVACY = privacy_of(Entity(name="people", fields=FIELDS), lambda: b"k" * 32)  # type: ignore[arg-type]
DIGEST = bytes(range(16))
LINE: dict[str, Any] = {
    KEY_HASH: DIGEST,
    REFERENCE: f"mail={MAIL}|city=Ulm",
    KEY_SOURCE: f'{{"MAIL":"{MAIL}"}}',
}


@pytest.mark.parametrize(
    ("stage", "column", "value", "expected"),
    [
        ("normalize", "MAIL", MAIL, MASK),
        ("normalize", "mail", MAIL, MASK),
        ("normalize", "CITY", "Ulm", "Ulm"),
        ("normalize", None, f"the row of {MAIL}", None),
        ("identity", None, f"mail={MAIL}|city=Ulm", f"mail={MASK}|city=Ulm [{DIGEST.hex()}]"),
        ("resolve", "chief", f"mail={MAIL}", f"mail={MASK}"),
    ],
)
def test_a_dead_letter_shows_no_personal_data_wherever_it_says_its_value(
    stage: str, column: str | None, value: str, expected: str | None
) -> None:
    raw = f'{{"mail":"{MAIL}","city":"Ulm"}}'
    words = {"stage": stage, "column": column, "value": value, "message": f"{MAIL} is refused"}

    shown = shown_line({**LINE, **words, "raw": raw}, PRIVACY)

    assert shown["value"] == expected
    assert shown["raw"] == f'{{"mail":"{MASK}","city":"Ulm"}}'
    assert "tiger" not in str(shown)


def test_what_waits_for_a_parent_shows_no_personal_data() -> None:
    shown = shown_line({**LINE, "payload": f'{{"mail":"{MAIL}"}}'}, PRIVACY)

    assert shown["payload"] == f'{{"mail":"{MASK}"}}'
    assert "tiger" not in str(shown)


@pytest.mark.parametrize(
    ("sample", "expected"),
    [
        (
            {"op": "update", "record": f"mail={MAIL}", "field": "mail", "old": None, "new": MAIL},
            {"op": "update", "record": f"mail={MASK}", "field": "mail", "old": None, "new": MASK},
        ),
        ({"op": "update", "record": None, "field": "city", "new": "Ulm"}, None),
    ],
)
def test_a_sample_shows_no_personal_data(
    sample: dict[str, object], expected: dict[str, object] | None
) -> None:
    assert shown_sample(sample, PRIVACY) == (expected or sample)
