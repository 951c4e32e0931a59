import unicodedata
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncflow_core.catalog import Api, Column
from syncflow_core.columns import KEY_SOURCE, REJECTED, ROW, ROWVERSION
from syncflow_core.entity import Entity
from syncflow_core.errors import ConfigError
from syncflow_core.fields import Shape, shape_of
from syncflow_core.identity import add_identity
from syncflow_core.normalize import Normalized, explain, misdeclared, normalize
from syncflow_core.normalize.text import _LETTER, repaired
from syncflow_core.normalize.version import ROWVERSION_SOURCE

ODD_TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
NUMBERS = st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**30), max_value=10**30)


def shape(
    columns: dict[str, str],
    key: tuple[str, ...] = ("ID",),
    rowversion: str | None = None,
    **entity: Any,
) -> Shape:
    api = Api(
        uid="u",
        slug="t",
        name="t",
        business_key_columns=key,
        rowversion_column=rowversion,
        columns=tuple(Column(name=name, data_type=kind) for name, kind in columns.items()),
    )
    return shape_of(Entity.model_validate({"name": "t", **entity}), api)


def raw(**columns: list[str | None]) -> pl.DataFrame:
    return pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String)).with_row_index(ROW)


def values(came: list[str | None], kind: str, **field: Any) -> Normalized:
    one = shape({"ID": "NUMBER(9)", "V": kind}, fields=[{"source": "V", **field}])
    return normalize(raw(ID=[str(n) for n in range(len(came))], V=came), one)


def test_the_accepted_frame_has_the_own_columns_then_the_fields_in_order() -> None:
    found = normalize(
        raw(ID=["1"], NAME=["a"], RV=["07"]),
        shape(
            {"ID": "NUMBER(9)", "NAME": "VARCHAR2", "RV": "NUMBER(18)"},
            rowversion="RV",
            fields=[{"source": "NAME"}],
        ),
    )

    assert found.accepted.columns == [ROW, ROWVERSION, ROWVERSION_SOURCE, KEY_SOURCE, "name", "id"]
    assert found.accepted.row(0) == (0, "7", "07", '{"ID":1}', "a", "1")
    assert set(found.accepted.dtypes[1:]) == {pl.String}


def test_a_missing_column_is_null() -> None:
    found = normalize(raw(ID=["1"]), shape({"ID": "NUMBER(9)", "NAME": "VARCHAR2"}))

    assert found.accepted["name"].to_list() == [None]


def test_an_empty_frame_keeps_its_shape() -> None:
    one = shape({"ID": "NUMBER(9)", "AT": "DATE"}, time_zone="Europe/Berlin")
    found = normalize(raw(ID=[], AT=[]), one)

    assert (found.accepted.height, found.rejected.schema) == (0, REJECTED)
    assert found.accepted.columns[-2:] == ["id", "at"]


def test_columns_that_no_field_names_are_kept_in_lower_case_or_dropped() -> None:
    columns = {"ID": "NUMBER(9)", "Extra Column": "VARCHAR2"}
    kept = shape(columns)
    dropped = shape(columns, unmapped="drop", fields=[{"source": "ID"}])

    assert (
        normalize(raw(**{"ID": ["1"], "Extra Column": ["x"]}), kept).accepted["extra column"][0]
        == "x"
    )
    assert normalize(raw(ID=["1"]), dropped).accepted.columns[4:] == ["id"]


def test_one_bad_value_costs_one_row() -> None:
    came: list[str | None] = ["12,34,5" if n == 777 else str(n) for n in range(10_000)]
    found = values(came, "NUMBER")

    assert found.accepted.height == 9_999
    assert found.rejected.row(0) == (
        777,
        "normalize",
        3,
        "number",
        "V",
        "12,34,5",
        "V is not a number in the form that the field declares",
    )


def test_a_column_that_repeats_itself_gives_every_row_its_own_answer() -> None:
    came: list[str | None] = ["08-DEC-25", "x", None, "01/02/2025", "2025-12-08"] * 5_000
    found = values(came, "DATE")

    assert found.accepted["v"].value_counts(sort=True).rows() == [
        ("2025-12-08T00:00:00", 10_000),
        (None, 5_000),
    ]
    assert found.rejected.group_by("rule").len().sort("rule").rows() == [
        ("ambiguous", 5_000),
        ("form", 5_000),
    ]
    assert found.rejected[ROW].to_list() == [n for n in range(25_000) if n % 5 in (1, 3)]


def test_the_first_rule_by_layer_then_by_field_is_filed() -> None:
    columns = {"ID": "NUMBER(9)", "ON": "DATE", "QTY": "NUMBER", "RAW": "RAW", "N": "NUMBER"}
    came = raw(ID=["1", "2"], ON=["x", "x"], QTY=["x", "x"], RAW=["x", "00"], N=["x", "x"])
    found = normalize(came, shape(columns))

    assert found.rejected.select("layer", "column").rows() == [(1, "RAW"), (3, "QTY")]


@pytest.mark.parametrize("key", [None, "", "  ", "\u200b"])
def test_XN04_a_null_in_the_key_is_refused(key: str | None) -> None:
    found = normalize(
        raw(ID=[key], B=["x"]), shape({"ID": "VARCHAR2", "B": "VARCHAR2"}, key=("ID", "B"))
    )

    assert found.rejected.select("layer", "rule", "column").rows() == [(5, "null_key", "ID")]


def test_the_key_is_kept_as_the_source_sent_it() -> None:
    columns = {"NO": "NUMBER", "TXT": "VARCHAR2", "AT": "DATE"}
    came = raw(NO=["1.50", "007", "1e2"], TXT=[' "a" ', "1", "x"], AT=["08-DEC-25"] * 3)
    found = normalize(came, shape(columns, key=("NO", "TXT", "AT"))).accepted

    assert found[KEY_SOURCE].to_list() == [
        '{"NO":1.50,"TXT":" \\"a\\" ","AT":"08-DEC-25"}',
        '{"NO":"007","TXT":"1","AT":"08-DEC-25"}',
        '{"NO":1e2,"TXT":"x","AT":"08-DEC-25"}',
    ]


def test_an_invalid_rowversion_is_filed() -> None:
    one = shape({"ID": "NUMBER(9)", "RV": "NUMBER(18)"}, rowversion="RV")
    found = normalize(raw(ID=["1", "2", "3"], RV=["1", "x", None]), one)

    assert found.rejected.select(ROW, "layer", "rule", "column", "value").rows() == [
        (1, 1, "rowversion", "RV", "x")
    ]
    assert found.accepted[ROWVERSION].to_list() == ["1", None]


def test_concat_and_coalesce_read_other_columns_normalized() -> None:
    columns = {"ID": "NUMBER(9)", "A": "VARCHAR2", "B": "NUMBER", "C": "VARCHAR2"}
    fields = [
        {"target": "joined", "transform": {"concat": {"columns": ["A", "B"], "separator": "-"}}},
        {"source": "C", "target": "first", "transform": {"coalesce": ["A", "B"]}},
    ]
    came = raw(
        ID=["1", "2", "3"], A=[" a ", None, None], B=["1.0", "2.50", None], C=["c", None, None]
    )
    found = normalize(came, shape(columns, fields=fields)).accepted

    assert found.select("joined", "first").rows() == [("a-1", "c"), ("2.5", "2.5"), (None, None)]


def test_a_column_that_a_transformation_reads_is_refused_like_any_other() -> None:
    fields = [{"target": "joined", "transform": {"concat": {"columns": ["B"]}}}]
    found = normalize(
        raw(ID=["1"], B=["x"]), shape({"ID": "NUMBER(9)", "B": "NUMBER"}, fields=fields)
    )

    assert found.rejected.select("rule", "column").rows() == [("number", "B")]


def test_a_bare_default_and_a_constant_need_no_source() -> None:
    fields = [
        {"target": "origin", "default": "ERP"},
        {"target": "n", "type": "integer", "transform": {"constant": 5}},
    ]
    found = normalize(raw(ID=["1"]), shape({"ID": "NUMBER(9)"}, fields=fields)).accepted

    assert found.select("origin", "n").rows() == [("ERP", "5")]


def test_values_of_masked_fields_are_not_kept() -> None:
    found = values(["secret"], "NUMBER", pii="mask")

    assert (found.rejected["value"][0], "secret" in found.rejected["message"][0]) == (None, False)


def test_offending_values_are_cut() -> None:
    assert values(["x" * 600], "NUMBER").rejected["value"][0] == "x" * 500


def test_folds_are_counted_and_gaps_are_filed() -> None:
    one = shape({"ID": "NUMBER(9)", "AT": "TIMESTAMP"}, time_zone="Europe/Berlin")
    times: list[str | None] = [
        "2025-10-26T02:30:00",
        "2025-10-26T02:30:00",
        "2025-03-30T02:30:00",
        None,
    ]
    found = normalize(raw(ID=["1", "2", "3", "4"], AT=times), one)

    assert (found.folds, found.rejected["rule"].to_list()) == (2, ["gap"])


def test_the_accounts_of_the_layers_close() -> None:
    columns = {"ID": "NUMBER(9)", "NAME": "VARCHAR2", "QTY": "NUMBER", "ON": "DATE"}
    came = raw(
        ID=["1", "2", None],
        NAME=[" a", "b", "c"],
        QTY=["1.0", "x", "2"],
        ON=["20250101", None, None],
    )
    ticks = iter(range(10_000))
    found = normalize(came, shape(columns), clock=lambda: float(next(ticks)))

    assert [layer.layer for layer in found.layers] == [1, 2, 3, 4, 5]
    assert [layer.rejected for layer in found.layers] == [0, 0, 1, 0, 1]
    assert [layer.changed for layer in found.layers] == [0, 1, 1, 1, 0]
    assert all(layer.rows == 3 and layer.seconds > 0 for layer in found.layers)


def test_field_counts_leave_out_nulls() -> None:
    assert values(["1", "x", "y", None], "NUMBER").field_counts == {"v": (3, 2), "id": (4, 0)}


def test_XN02_a_field_that_rejects_most_values_of_a_thousand_rows_is_a_wrong_declaration() -> None:
    with pytest.raises(ConfigError, match=r"v \(501 of 1,000\)"):
        misdeclared({"v": (1_000, 501), "w": (1_000, 500)}, 1_000, entity="t")


@pytest.mark.parametrize(
    ("counts", "rows"), [((999, 999), 999), ((1_000, 500), 1_000), ((0, 0), 5_000)]
)
def test_fewer_rows_or_rejections_conclude_nothing(counts: tuple[int, int], rows: int) -> None:
    misdeclared({"v": counts}, rows)


@pytest.mark.parametrize(
    "field",
    [
        {"source": "V", "type": "date", "formats": ["HH24:MI"]},
        {"source": "V", "type": "date", "formats": ["YYYY-QQ"]},
        {"source": "V", "type": "date", "formats": ["YYYY-MM-DD-DD"]},
        {"source": "V", "type": "date", "formats": ["%Y-%Q"]},
        {"source": "V", "type": "integer", "default": "x"},
    ],
    ids=str,
)
def test_a_declaration_that_makes_no_sense_is_refused_before_any_row(field: dict[str, Any]) -> None:
    one = shape({"ID": "NUMBER(9)", "V": "VARCHAR2"}, fields=[field])

    with pytest.raises(ConfigError):
        normalize(raw(ID=[], V=[]), one)


def test_explain_tells_every_layers_part() -> None:
    columns = {"ID": "NUMBER(9)", "NAME": "VARCHAR2", "ON": "DATE"}
    one = shape(columns, fields=[{"source": "NAME", "transform": "upper"}])
    steps = explain({"ID": "1", "NAME": " a ", "ON": "01/02/2025"}, one)
    told = {
        (step.layer, step.field, step.before, step.after, step.rule) for step in steps if step.rule
    }

    assert told == {
        (2, "name", " a ", "a", "strings"),
        (4, "on", "01/02/2025", None, "ambiguous"),
        (5, "name", "a", "A", "mapping"),
    }
    assert {step.layer for step in steps if step.field == "id"} == {1, 2, 3, 4, 5}


def test_explain_names_a_null_key() -> None:
    steps = explain({"ID": None}, shape({"ID": "NUMBER(9)"}))

    assert [step.field for step in steps if step.rule == "null_key"] == ["id"]


def test_every_letter_of_the_plain_class_is_in_form_c_alone_and_beside_others() -> None:
    ranges = _LETTER.encode().decode()
    letters: list[str] = []
    at = 0
    while at < len(ranges):
        first, last = ranges[at], ranges[at + 2]
        letters += [chr(code) for code in range(ord(first), ord(last) + 1)]
        at += 3

    assert [
        c for c in letters if unicodedata.combining(c) or not unicodedata.is_normalized("NFC", c)
    ] == []
    assert unicodedata.is_normalized("NFC", "".join(letters))
    assert [c for c in letters if c.isspace() or unicodedata.category(c) == "Cc"] == []


@settings(deadline=None)
@given(
    st.lists(st.none() | ODD_TEXT, min_size=1, max_size=10),
    st.sampled_from(
        [
            "VARCHAR2",
            "NUMBER",
            "NUMBER(9)",
            "BINARY_DOUBLE",
            "DATE",
            "TIMESTAMP WITH TIME ZONE",
            "BOOLEAN",
            "RAW",
            "INTERVAL DAY TO SECOND",
            "JSON",
        ]
    ),
)
def test_no_row_ever_disappears(came: list[str | None], kind: str) -> None:
    found = values(came, kind)

    assert sorted([*found.accepted[ROW], *found.rejected[ROW]]) == list(range(len(came)))
    assert sum(layer.rejected for layer in found.layers) == found.rejected.height


@settings(deadline=None)
@given(st.lists(st.none() | ODD_TEXT, min_size=1, max_size=10))
def test_cleaning_twice_changes_nothing(came: list[str | None]) -> None:
    once = values(came, "VARCHAR2").accepted["v"]
    again = values(once.to_list(), "VARCHAR2")

    assert again.accepted["v"].to_list() == once.to_list()
    assert again.layers[1].changed == 0


@settings(deadline=None)
@given(st.lists(NUMBERS, min_size=1, max_size=10))
def test_XN08_a_decimal_keeps_its_value_and_one_spelling(numbers: list[Decimal]) -> None:
    came: list[str | None] = [str(number) for number in numbers]
    found = values(came, "NUMBER")

    texts = found.accepted["v"].to_list()
    for row, text in zip(found.accepted[ROW], texts, strict=True):
        assert Decimal(text) == numbers[row]
    behind = [text if text.startswith("-") else f"{text}-" for text in texts]
    again = values([*texts, *behind], "NUMBER").accepted["v"].to_list()
    assert again[: len(texts)] == texts
    negative = [Decimal(text).copy_abs().copy_negate() for text in texts]
    assert [Decimal(text) for text in again[len(texts) :]] == negative


@settings(deadline=None)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=10))
def test_a_float_is_the_shortest_text_of_its_double(numbers: list[float]) -> None:
    found = values([repr(number) for number in numbers], "BINARY_DOUBLE").accepted["v"]

    assert [float(text) for text in found] == numbers
    assert [Decimal(text) for text in found] == [Decimal(repr(number)) for number in numbers]
    assert not any("e" in text or text.endswith(".0") or text == "-0" for text in found)


@settings(deadline=None)
@given(st.lists(st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)), min_size=1, max_size=10))  # noqa: DTZ001  # local times
def test_a_local_time_is_the_instant_that_python_finds_or_a_gap(times: list[datetime]) -> None:
    zone = ZoneInfo("Europe/Berlin")
    found = values([at.isoformat() for at in times], "TIMESTAMP", time_zone="Europe/Berlin")

    for row, text in found.accepted.select(ROW, "v").rows():
        assert datetime.fromisoformat(text) == times[row].replace(tzinfo=zone).astimezone(UTC)
        assert text.endswith("Z")
    for row in found.rejected[ROW]:
        back = times[row].replace(tzinfo=zone).astimezone(UTC).astimezone(zone).replace(tzinfo=None)
        assert back != times[row]


@settings(deadline=None)
@given(st.datetimes(datetime(1950, 1, 1), datetime(2049, 12, 31)))  # noqa: DTZ001  # naive on purpose
def test_one_moment_in_every_form_is_one_text(at: datetime) -> None:
    at = at.replace(microsecond=0)
    forms: list[str | None] = [
        at.isoformat(),
        at.isoformat(" "),
        f"{at:%Y/%m/%d %H:%M:%S}",
        f"{at:%d.%m.%Y %H:%M:%S}",
        f"{at:%Y%m%d%H%M%S}",
        f"{at:%d-%b-%Y %H:%M:%S}",
        f"{at:%d-%b-%y %I.%M.%S}.000000 {'AM' if at.hour < 12 else 'PM'}",
        f"{at:%G-W%V-%uT%H:%M:%S}",
        f"{at:%Y-%jT%H:%M:%S}",
    ]

    assert set(values(forms, "DATE").accepted["v"]) == {at.isoformat()}


@settings(deadline=None)
@given(st.datetimes(datetime(1973, 3, 4), datetime(2286, 1, 1)))  # noqa: DTZ001  # naive on purpose
def test_epoch_milliseconds_are_the_instant_they_count(at: datetime) -> None:
    at = at.replace(microsecond=at.microsecond // 1000 * 1000)
    milliseconds = (at - datetime(1970, 1, 1)) // timedelta(milliseconds=1)  # noqa: DTZ001  # naive on purpose
    zoned = values([str(milliseconds)], "TIMESTAMP").accepted["v"][0]
    naive = values([str(milliseconds)], "DATE").accepted["v"][0]

    assert datetime.fromisoformat(zoned) == at.replace(tzinfo=UTC)
    assert datetime.fromisoformat(naive) == at


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(["1", "x", "10,000", None, "1e3", "5-"]), min_size=1, max_size=12),
    st.randoms(use_true_random=False),
)
def test_the_order_of_rows_decides_nothing(came: list[str | None], random: Any) -> None:
    one = shape({"ID": "NUMBER(9)", "V": "NUMBER"})
    rows = raw(ID=[str(n) for n in range(len(came))], V=came)
    order = list(range(len(came)))
    random.shuffle(order)
    straight, mixed = normalize(rows, one), normalize(rows.select(pl.all().gather(order)), one)

    assert straight.accepted.equals(mixed.accepted.sort(ROW))
    assert straight.rejected.equals(mixed.rejected.sort(ROW))


def test_XF27_XN08_equal_values_in_other_spellings_have_equal_hashes() -> None:
    columns = {
        "ID": "NUMBER(9)",
        "F": "BINARY_DOUBLE",
        "N": "NUMBER",
        "AT": "DATE",
        "T": "NVARCHAR2",
        "J": "JSON",
    }
    came = raw(
        ID=["1", "1.0", "1e0"],
        F=["1.10", "1.1", "11e-1"],
        N=["1e10", "10000000000", "10,000,000,000.00"],
        AT=["08-DEC-25", "2025-12-08 00:00:00", "20251208"],
        T=["M\u00fcller ", "Mu\u0308ller", "\ufeffM\u00fcller"],
        J=['{"a":1,"b":2}', '{"b":2.0,"a":1e0}', '{ "a" : 1, "b" : 2 }'],
    )
    one = shape(columns)
    found = add_identity(normalize(came, one).accepted, one)

    assert found.select(pl.col("#key_hash", "#data_hash").n_unique()).row(0) == (1, 1)


def test_a_field_made_of_columns_is_declared_wrong_only_when_most_of_what_they_make_is_refused() -> (
    None
):
    one = shape(
        {"ID": "NUMBER(9)", "A": "VARCHAR2", "B": "VARCHAR2"},
        unmapped="drop",
        fields=[
            {"source": "ID"},
            {
                "target": "code",
                "type": "integer",
                "transform": [{"concat": {"columns": ["A", "B"]}}],
            },
        ],
    )
    found = normalize(raw(ID=["1", "2", "3"], A=["1", "2", None], B=["2", "x", None]), one)

    assert found.field_counts["code"] == (2, 1)


def test_blanks_and_null_words_are_no_values_of_a_field() -> None:
    found = values(["31.02.2025", " ", "-", None], "DATE", null_words=["-"])

    assert found.field_counts["v"] == (1, 1)


def test_one_bad_value_of_a_sparse_field_is_a_bad_row() -> None:
    misdeclared({"v": (1, 1)}, 1_500)
    with pytest.raises(ConfigError, match=r"v \(20 of 39\)"):
        misdeclared({"v": (39, 20)}, 1_500)


@pytest.mark.parametrize(
    ("kind", "limit"), [("NUMBER", "2025-01-01"), ("TIMESTAMP", 5), ("VARCHAR2", 5)]
)
def test_a_limit_of_another_type_is_refused_before_any_row(kind: str, limit: Any) -> None:
    with pytest.raises(ConfigError, match=r"limit of its type|minimum and maximum are for"):
        values([], kind, minimum=limit)


def test_a_column_that_a_transformation_reads_is_read_in_the_forms_of_the_field_that_maps_it() -> (
    None
):
    one = shape(
        {"ID": "NUMBER(9)", "AMT": "NUMBER", "D": "DATE"},
        fields=[
            {"source": "AMT", "decimal_separator": ","},
            {"source": "D", "date_order": "dmy", "null_words": ["-"]},
            {
                "target": "label",
                "transform": [{"concat": {"columns": ["AMT", "D"], "separator": "/"}}],
            },
        ],
    )
    found = normalize(raw(ID=["1", "2"], AMT=["1.234,56", "1.234"], D=["01/02/2025", "-"]), one)

    assert found.accepted["label"].to_list() == ["1234.56/2025-02-01T00:00:00", "1234"]
    assert found.accepted["amt"].to_list() == ["1234.56", "1234"]


def test_what_a_forgiving_field_cannot_read_of_another_column_is_null() -> None:
    one = shape(
        {"ID": "NUMBER(9)", "A": "NUMBER", "B": "NUMBER"},
        unmapped="drop",
        fields=[
            {"source": "ID"},
            {
                "target": "x",
                "type": "decimal",
                "on_error": "null",
                "transform": [{"coalesce": ["A", "B"]}],
            },
        ],
    )
    found = normalize(raw(ID=["1", "2"], A=["abc", None], B=["2", "y"]), one)

    assert found.accepted["x"].to_list() == ["2", None]


def test_a_rowversion_is_read_in_the_entitys_date_order_and_its_fields_formats() -> None:
    columns = {"ID": "NUMBER(9)", "RV": "TIMESTAMP"}
    ordered = shape(columns, rowversion="RV", date_order="dmy")
    declared = shape(
        columns,
        rowversion="RV",
        fields=[{"source": "RV", "target": "rv", "formats": ["DD/MM/YYYY HH24:MI:SS"]}],
    )
    for one in (ordered, declared):
        found = normalize(raw(ID=["1"], RV=["01/02/2025 10:00:00"]), one)
        assert found.accepted[ROWVERSION].to_list() == ["2025-02-01T10:00:00"]


def test_a_float_rowversion_compares_as_a_number() -> None:
    assert (
        shape({"ID": "NUMBER(9)", "RV": "FLOAT(126)"}, rowversion="RV").rowversion_kind == "integer"
    )


def test_XT02_a_local_time_that_exists_twice_is_counted_once_whoever_reads_it() -> None:
    one = shape(
        {"ID": "NUMBER(9)", "D": "DATE"},
        time_zone="Europe/Berlin",
        fields=[{"source": "D"}, {"target": "l", "transform": [{"concat": {"columns": ["D"]}}]}],
    )

    assert normalize(raw(ID=["1"], D=["2025-10-26T02:30:00"]), one).folds == 1


@pytest.mark.parametrize("name", ["#ROW", "#x", "*", "^A.*$"])
def test_a_column_whose_name_the_frames_cannot_hold_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="takes no column of such a name"):
        shape({"ID": "NUMBER(9)", name: "VARCHAR2"})


@given(st.text(st.sampled_from("Ââ\u201a¬éÃ¼ß 1aœž\u0081ñ"), max_size=6))
def test_repairing_twice_is_repairing_once(text: str) -> None:
    assert repaired(repaired(text)) == repaired(text)
