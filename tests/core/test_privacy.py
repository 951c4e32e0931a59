"""What stands for personal data: in a value, a column, a row, a reference, what a system says."""

from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncflow_core.entity import Entity
from syncflow_core.errors import RejectedError, SyncFlowError
from syncflow_core.identity import hashed_text
from syncflow_core.privacy import MASK, Kind, Privacy, privacy_of, shown_to

KEY = b"k" * 32
RECORD = bytes(range(16))


def privacy(*fields: dict[str, Any]) -> Privacy:
    return privacy_of(Entity(name="people", fields=list(fields)), lambda: KEY)


EACH = privacy(
    {"source": "MAIL", "target": "mail", "pii": "mask"},
    {"source": "PHONE", "target": "phone", "pii": "hash"},
    {"source": "NOTE", "target": "note", "pii": "drop"},
    {"source": "CITY", "target": "city"},
)
NOTHING = privacy({"source": "CITY", "target": "city"})


def test_each_mark_shows_what_it_says_in_a_row_and_in_its_json() -> None:
    row = {"MAIL": "a@b.c", "PHONE": "123", "NOTE": "secret", "CITY": "Ulm"}
    shown = EACH.row(row)

    assert {**shown, "PHONE": "..."} == {"MAIL": MASK, "PHONE": "...", "CITY": "Ulm"}
    assert EACH.json('{"mail":"a@b.c","note":1,"phone":"123","price":1.2300}') == (
        f'{{"mail":"{MASK}","phone":"{shown["PHONE"]}","price":1.2300}}'
    )
    assert EACH.row(shown) == shown


def test_equal_values_have_one_digest_and_another_installation_has_another() -> None:
    other = Privacy(EACH.fields, EACH.columns, lambda: b"l" * 32)

    assert EACH.value("hash", "123") == EACH.value("hash", "123") != EACH.value("hash", "124")
    assert EACH.value("hash", "123") != other.value("hash", "123")
    assert EACH.value("hash", 123) == EACH.value("hash", "123")


def test_null_has_nothing_to_hide() -> None:
    assert EACH.row({"MAIL": None, "PHONE": None}) == {"MAIL": None, "PHONE": None}


@pytest.mark.parametrize("kind", ["mask", "hash", "drop"])
def test_a_column_is_hidden_as_its_values_are(kind: Kind) -> None:
    values = ["a@b.c", "", None, "ß|=\\"]
    column = pl.DataFrame({"v": values}).select(EACH.expr(kind, pl.col("v")).alias("v"))["v"]

    assert column.to_list() == [EACH.value(kind, value) for value in values]


@given(
    mail=st.text(),
    phone=st.text(min_size=1),
    note=st.text(),
    city=st.text(min_size=1),
)
def test_a_references_column_is_hidden_as_one_reference_is(
    mail: str, phone: str, note: str, city: str
) -> None:
    values: dict[str, str | None] = {"note": note, "mail": mail, "city": city, "phone": phone}
    text = hashed_text(values)
    frame = pl.DataFrame({"r": [text], "k": [RECORD]})

    column = frame.select(EACH.references(pl.col("r"), pl.col("k"), list(values)).alias("r"))
    shown = EACH.reference(text, RECORD.hex())

    assert column["r"][0] == shown
    assert EACH.reference(shown, RECORD.hex()) == shown
    plain = hashed_text({"city": city})
    assert shown == f"{plain}|mail={MASK}|phone={EACH.value('hash', phone)} [{RECORD.hex()}]"


def test_a_reference_of_other_fields_stays_as_it_is() -> None:
    assert EACH.reference("city=Ulm|mailbox=7", RECORD.hex()) == "city=Ulm|mailbox=7"
    assert EACH.reference("note=x", RECORD.hex()) == f"[{RECORD.hex()}]"


def test_source_columns_that_a_marked_field_is_made_of_are_hidden_too() -> None:
    found = privacy(
        {"target": "name", "pii": "mask", "transform": {"concat": {"columns": ["FIRST", "LAST"]}}},
        {"source": "MAIL", "target": "mail", "pii": "hash", "transform": {"coalesce": ["MAIL2"]}},
        {"source": "LAST", "target": "index"},
        {"source": "MAIL2", "target": "second"},
        {"target": "label", "transform": {"concat": {"columns": ["CITY", "MAIL"]}}},
    )

    assert found.columns == {"FIRST": "mask", "LAST": "mask", "MAIL": "hash", "MAIL2": "hash"}
    # what is the marked value, or holds it whole, is hidden as the marked field is; a part is not
    assert found.fields == {"name": "mask", "mail": "hash", "second": "hash", "label": "hash"}


def test_what_a_system_says_of_a_record_does_not_say_its_hidden_values() -> None:
    record = '{"mail":"Eve.Moss@b.c","phone":"12","city":"Ulm","erp_ref_str":"mail=Eve.Moss@b.c"}'
    said = (
        "body.0.mail: 'eve.moss@B.C' is taken by 'other@b.c'; ask moss (12, not 123); "
        "Key (mail)=(x@y.z); 'city' 'Ulm' is well"
    )

    assert EACH.words(said, record) == (
        "body.0.mail: '***' is taken by '***'; ask *** (***, not 123); "
        "Key (mail)=(***); 'city' 'Ulm' is well"
    )
    assert NOTHING.words(said, record) == said


def test_errors_say_neither_a_systems_words_nor_those_that_nobody_has_thought_of() -> None:
    refused = RejectedError(
        "schedulehub refused POST /people/batch/insert (422): mail: 'a@b.c'", status=422
    )
    refused.__cause__ = ValueError("a@b.c")

    assert str(EACH.error(refused, "people")) == (
        "schedulehub refused POST /people/batch/insert (422): (its words are hidden: personal data)"
    )
    assert refused.__cause__ is None
    unexpected = EACH.error(ValueError("cannot read 'a@b.c'"), "people")
    assert "a@b.c" not in str(unexpected)
    assert "ValueError" in str(unexpected)
    assert isinstance(unexpected, SyncFlowError)


def test_viewers_see_no_hidden_value_of_what_is_kept_whole() -> None:
    row = {"mail": "a@b.c", "city": "Ulm"}

    assert shown_to("viewer", row, EACH) == {"mail": MASK, "city": "Ulm"}
    assert shown_to("operator", row, EACH) == shown_to("admin", row, EACH) == row
    assert shown_to("viewer", row, NOTHING) == row


def test_a_row_that_is_no_object_is_hidden_whole_where_anything_is_hidden() -> None:
    assert EACH.json('["a@b.c"]') is None
    assert NOTHING.json('["a@b.c"]') == '["a@b.c"]'


def test_a_frame_is_hidden_as_its_rows_are() -> None:
    rows = [{"MAIL": "a@b.c", "PHONE": "123", "NOTE": "secret", "CITY": "Ulm"}]

    assert EACH.frame(pl.DataFrame(rows), {**EACH.columns, "GONE": "mask"}).to_dicts() == [
        EACH.row(rows[0])
    ]


def test_a_record_of_the_hub_is_hidden_with_the_reference_that_it_has() -> None:
    record = {"mail": "a@b.c", "erp_ref_str": "mail=a@b.c|city=Ulm", "erp_key_hash": RECORD.hex()}

    assert EACH.row(record)["erp_ref_str"] == f"mail={MASK}|city=Ulm [{RECORD.hex()}]"
    assert EACH.reference(None) is None


def test_where_nothing_is_hidden_references_and_errors_stay_as_they_are() -> None:
    frame = pl.DataFrame({"r": ["city=Ulm"], "k": [RECORD]})
    said = "schedulehub refused POST /people (422): city: 'Ulm'"

    assert frame.select(EACH.references(pl.col("r"), pl.col("k"), ["city"])).to_series()[0] == (
        "city=Ulm"
    )
    assert NOTHING.told(said) == said
    assert str(NOTHING.error(SyncFlowError(said), "people")) == said


@pytest.mark.parametrize("record", ["{", "[1]", None])
def test_of_a_record_that_cannot_be_read_no_quoted_word_is_told(record: str | None) -> None:
    assert EACH.words("'a@b.c' is taken", record) == "'***' is taken"
