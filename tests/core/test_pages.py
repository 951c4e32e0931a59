"""Every row of a body arrives in the frame or among the rejected, digit by digit."""

import io
import json
from collections.abc import Sequence
from decimal import Decimal

import polars as pl
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from syncflow_core import rows
from syncflow_core.catalog import Column
from syncflow_core.errors import ContractError, RejectedError, UnavailableError
from syncflow_core.pages import ARROW, JSON, NDJSON, Page, parse_page

COLUMNS = (
    Column(name="A", data_type="NUMBER"),
    Column(name="B", data_type="VARCHAR2(50)"),
    Column(name="C", data_type="DATE"),
)
DOCUMENT = (*COLUMNS, Column(name="D", data_type="JSON"))


def enveloped(data: str, **metadata: object) -> bytes:
    counted = {"total_rows": 1, "offset": 0, "limit": 10, "execution_time_ms": 1} | metadata
    return f'{{"success":true,"data":{data},"metadata":{json.dumps(counted)}}}'.encode()


def page_of(data: str, columns: Sequence[Column] = COLUMNS) -> Page:
    return parse_page(enveloped(data), JSON, columns)


def test_a_page_has_all_declared_columns_in_declared_order_as_text() -> None:
    page = parse_page(
        enveloped('[{"C":"2025-12-08","A":1,"B":"x"},{"B":null}]', total_rows=9, offset=2, limit=5),
        "application/json; charset=utf-8",
        COLUMNS,
    )

    expected = pl.DataFrame({"A": ["1", None], "B": ["x", None], "C": ["2025-12-08", None]})
    assert_frame_equal(expected, page.frame)
    assert (page.total_rows, page.offset, page.limit, page.rows) == (9, 2, 5, 2)
    assert page.rejected.is_empty()


NUMBERS = [
    "0.1234567890123456789",
    "12345678901234567890123456789012345678",
    "-99999999999999999999999999999999999999",
    "0.00000000000000000000000000000000000001",
    "1E-130",
    "9.99999999999999999999999999999999999999E125",
    "1e400",
    "-0.30000000000000004",
    "4.9e-324",
    "2.2250738585072014e-308",
    "1.2345e-320",
    "123456789.12345678",
    "1234567890123456.7",
    "999999999999999",
    "0.1",
    "1.10",
    "1e3",
    "-0",
    "-0.0",
    "9007199254740993",
    "18446744073709551617",
    "170141183460469231731687303715884105728",
]


@pytest.mark.parametrize("token", NUMBERS)
@pytest.mark.parametrize("separator", [":", ": ", ":  ", " :", " : "])
def test_no_digit_of_a_number_is_lost(token: str, separator: str) -> None:
    page = page_of(f'[{{"A"{separator}{token},"B":"x"}}, {{"A"{separator}7 , "B":"y"}}]')

    texts = page.frame["A"].to_list()
    assert [Decimal(token), Decimal(7)] == [Decimal(text) for text in texts]


@pytest.mark.parametrize("token", NUMBERS)
def test_a_number_among_others_beside_text_that_looks_like_json(token: str) -> None:
    text = json.dumps(f'say "{{"A":{token},"B":null}}"')
    page = page_of(f'[{{"A":{token},"B":{text},"C":null}}]')

    assert Decimal(token) == Decimal(page.frame["A"][0])
    assert json.loads(text) == page.frame["B"][0]


def test_booleans_become_words_and_texts_stay_as_they_are() -> None:
    page = page_of('[{"A":true,"B":"007"},{"A":false,"B":""},{"A":" 1,000 ","B":"null"}]')

    assert page.frame.select("A", "B").rows() == [
        ("true", "007"),
        ("false", ""),
        (" 1,000 ", "null"),
    ]


def test_a_nested_value_in_a_scalar_column_costs_its_row_alone() -> None:
    page = page_of('[{"A":1},{"A":[1,{"x":2.50}]},{"A":3}]')

    assert page.frame["A"].to_list() == ["1", "3"]
    row = page.rejected.row(0, named=True)
    assert (
        row["position"],
        row["rule"],
        row["column"],
        row["value"],
        row["raw"],
    ) == (1, "nested_value", "A", '[1,{"x":2.50}]', '{"A":[1,{"x":2.50}]}')


def test_a_nested_value_in_a_json_column_is_its_json_text() -> None:
    page = page_of('[{"A":1,"D":{"q":1.10,"t":"ü","n":[null,true]}},{"D":"[1]"}]', DOCUMENT)

    assert page.frame["D"].to_list() == ['{"q":1.10,"t":"ü","n":[null,true]}', "[1]"]
    assert page.rejected.is_empty()


@pytest.mark.parametrize(
    ("row", "column", "value"),
    [
        ('{"A":1,"A":2}', "A", "1, 2"),
        ('{"A":1,"A":null}', "A", "1, null"),
        ('{"A":null,"A":1}', "A", "null, 1"),
        ('{"A":null,"A":null}', "A", "null, null"),
        ('{"A":1,"\\u0041":1}', "A", "1, 1"),
        ('{"A":1,"X":1,"X":1}', "X", "1, 1"),
        ('{"B":"\\":","A":null,"A":1}', "A", "null, 1"),
    ],
)
def test_XF11_a_key_given_twice_is_never_settled_silently(
    row: str, column: str, value: str
) -> None:
    page = page_of(f'[{{"A":1,"B":null}},{row},{{"C":"x","B":null}}]')

    refused = page.rejected.row(0, named=True)
    assert (1, "duplicate_json_key", column, value) == (
        refused["position"],
        refused["rule"],
        refused["column"],
        refused["value"],
    )
    assert page.frame.height == 2


@pytest.mark.parametrize("row", ["[1]", "5", "null", '"text"', "true"])
def test_a_row_that_is_no_object_is_rejected(row: str) -> None:
    page = page_of(f'[{{"A":1}},{row}]')

    assert page.rejected["rule"].to_list() == ["not_an_object"]
    assert [row] == page.rejected["raw"].to_list()
    assert page.rows == 2


def test_a_lone_surrogate_becomes_the_replacement_character() -> None:
    page = page_of(r'[{"B":"a\ud800b","A":"\\ud800"},{"B":"\ud83d\ude00"},{"B":"\ude00\\ud83d"}]')

    assert page.frame["B"].to_list() == ["a\ufffdb", "😀", "\ufffd\\ud83d"]
    assert page.frame["A"][0] == "\\ud800"


def test_a_literal_backslash_before_a_low_surrogate_is_no_pair() -> None:
    page = page_of(r'[{"B":"\\ud83d\ude00"}]')

    assert page.frame["B"].to_list() == ["\\ud83d\ufffd"]


def test_new_columns_are_reported_and_cost_nothing() -> None:
    page = page_of('[{"A":1,"NEW":5},{"A":2,"OTHER":{"x":1}}]')

    assert page.unknown_columns == ("NEW", "OTHER")
    assert page.frame["A"].to_list() == ["1", "2"]


def test_white_space_between_tokens_means_nothing() -> None:
    rows_ = [{"A": 1, "B": "x\ty", "C": None}, {"A": 2.5}]
    for text in (json.dumps(rows_, indent=4), json.dumps(rows_, indent="\t"), json.dumps(rows_)):
        page = page_of(text.replace("\n", "\r\n"))

        assert page.frame.rows() == [("1", "x\ty", None), ("2.5", None, None)]


def test_an_empty_page_is_a_page() -> None:
    page = page_of("[]")

    assert (page.rows, page.frame.columns) == (0, ["A", "B", "C"])
    assert [pl.String] * 3 == page.frame.dtypes


def test_equal_rows_have_equal_digests_whatever_the_metadata_says() -> None:
    first = parse_page(enveloped('[{"A":1}]', offset=0), JSON, COLUMNS)
    second = parse_page(enveloped('[{"A":1}]', offset=10), JSON, COLUMNS)
    third = parse_page(enveloped('[{"A":2}]'), JSON, COLUMNS)

    assert first.digest == second.digest
    assert first.digest != third.digest


@pytest.mark.parametrize(
    "body",
    [
        b'{"success":true,"metadata":{"total_rows":1}}',
        b'{"success":true,"data":[]}',
        b'{"success":true,"data":[],"metadata":{}}',
        b'{"success":true,"data":[],"metadata":{"total_rows":"1"}}',
        b'{"success":true,"data":[],"metadata":{"total_rows":true}}',
        b'{"success":true,"data":[],"metadata":{"total_rows":-1}}',
        b'{"success":true,"data":{},"metadata":{"total_rows":1}}',
        b'{"data":[],"metadata":{"total_rows":1}}',
        b"[]",
        b'{"success":true,"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
def test_an_envelope_of_another_shape_is_a_broken_contract(body: bytes) -> None:
    with pytest.raises(ContractError):
        parse_page(body, JSON, COLUMNS)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        enveloped('[{"A":1},{"A":2}]')[:40],
        enveloped("[]") * 2,
        enveloped('[{"A":nul}]'),
        enveloped('[{"A":NaN}]'),
        enveloped('[{"A":01}]'),
        enveloped('[{"A":"?"}]').replace(b"?", b"\xff"),
        enveloped('[{"A":[1],"B":"?"}]').replace(b"?", b"\xff"),
    ],
)
def test_a_broken_body_is_to_be_asked_for_again(body: bytes) -> None:
    with pytest.raises(UnavailableError, match="broken"):
        parse_page(body, JSON, COLUMNS)


@pytest.mark.parametrize("depth", [500, 1_000, 100_000])
def test_XF25_a_row_nested_too_deep_costs_that_row_alone(depth: int) -> None:
    deep = "[" * depth + "]" * depth
    page = page_of(f'[{{"A":1,"B":"x, ]"}},{{"A":{deep}}} , {{"A":3}}]')

    assert page.frame["A"].to_list() == ["1", "3"]
    assert page.rejected.select("position", "rule").rows() == [(1, "nested_value")]


def test_a_body_nested_too_deep_outside_its_rows_breaks_the_contract() -> None:
    deep = "[" * 100_000 + "]" * 100_000
    with pytest.raises(ContractError, match="too deep"):
        parse_page(f'{{"success":true,"x":{deep},"data":[]}}'.encode(), JSON, COLUMNS)


def test_a_failure_with_status_200_is_a_refusal() -> None:
    body = b'{"success":false,"error":{"code":"ORA-00942","message":"no such table"}}'
    with pytest.raises(RejectedError, match="ORA-00942: no such table"):
        parse_page(body, JSON, COLUMNS)


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "", "text/plain"])
def test_another_content_type_is_never_zero_rows(kind: str) -> None:
    with pytest.raises(ContractError, match="the answer is"):
        parse_page(b"<html>sign in</html>", kind, COLUMNS)


@pytest.mark.parametrize("end", ["", "\n", "\n\n", "\r\n"])
def test_XF09_lines_of_json_are_a_page(end: str) -> None:
    body = ('{"A":0.1234567890123456789}\n\n{"A":2,"B":[1]}\n{"B":"x"}' + end).encode()
    page = parse_page(body, NDJSON, COLUMNS, total_header="12")

    assert page.frame["A"].to_list() == ["0.1234567890123456789", None]
    assert page.rejected["position"].to_list() == [1]
    assert page.total_rows == 12


def test_XF09_a_cut_line_is_an_error_not_a_row() -> None:
    with pytest.raises(UnavailableError):
        parse_page(b'{"A":1}\n{"A":2', NDJSON, COLUMNS, total_header="2")


@pytest.mark.parametrize("total", [None, "", "many", "-1", "²"])
def test_lines_need_a_total(total: str | None) -> None:
    with pytest.raises(ContractError, match="X-Total-Rows"):
        parse_page(b'{"A":1}', NDJSON, COLUMNS, total_header=total)


def test_an_arrow_stream_is_a_page() -> None:
    arrived = pl.DataFrame(
        {
            "B": ["x", None],
            "A": [Decimal("1.10"), Decimal("0.05")],
            "C": pl.Series(["2025-12-08T10:30:00", None]).str.to_datetime(),
            "D": [{"q": [1, 2]}, None],
            "E": [1, 2],
        }
    )
    stream = io.BytesIO()
    arrived.write_ipc_stream(stream)
    page = parse_page(stream.getvalue(), ARROW, DOCUMENT, total_header="2")

    assert page.frame.rows() == [
        ("1.10", "x", "2025-12-08T10:30:00.000000", '{"q":[1,2]}'),
        ("0.05", None, None, None),
    ]
    assert page.unknown_columns == ("E",)


def test_a_list_in_a_scalar_column_of_an_arrow_stream_costs_its_row_alone() -> None:
    stream = io.BytesIO()
    pl.DataFrame({"A": [[1], None]}).write_ipc_stream(stream)
    page = parse_page(stream.getvalue(), ARROW, COLUMNS, total_header="2")

    assert page.rejected["position"].to_list() == [0]
    assert (page.frame.height, page.rows) == (1, 2)


def test_a_cut_arrow_stream_is_to_be_asked_for_again() -> None:
    stream = io.BytesIO()
    pl.DataFrame({"A": ["1"] * 1000}).write_ipc_stream(stream)
    with pytest.raises(UnavailableError):
        parse_page(stream.getvalue()[:-2000], ARROW, COLUMNS, total_header="1000")


def test_a_difficult_page_is_read_natively_where_that_is_exact() -> None:
    easy = [b'{"A":1,"B":null}', b'{"A":0.1234567890123456789,"B":"x"}', b'{"A":1E-130,"C":"y"}']

    frame = rows._natively(b"\n".join(easy), 3, ["A", "B", "C"], None)

    assert frame is not None
    assert frame.rows() == [
        ("1", None, None),
        ("0.1234567890123456789", "x", None),
        ("1E-130", None, "y"),
    ]


COMMA = [
    Column(name="ID", data_type="NUMBER"),
    Column(name="V", data_type="NUMBER", texts="comma"),
    Column(name="T", data_type="VARCHAR2"),
]


@pytest.mark.parametrize(
    "body",
    [
        '[{"ID":1,"V":1.234},{"ID":2,"V":"1.234"}]',
        '[{"V":1.234,"ID":1},{"ID":2,"V":"1.234","T":"\\u00e9"}]',
        '[{"ID":1,"V":1.234,"T":[]},{"ID":1,"V":1.234},{"ID":2,"V":"1.234"}]',
    ],
)
def test_a_json_number_is_written_in_the_form_that_the_columns_texts_are_read_in(body: str) -> None:
    page = parse_page(enveloped(body), JSON, COMMA)

    assert page.frame["V"].to_list()[-2:] == ["1,234", "1.234"]


def test_an_arrow_column_is_written_in_the_form_that_its_texts_are_read_in() -> None:
    columns = [*COMMA[:2], Column(name="R", data_type="RAW", texts="base64")]
    stream = io.BytesIO()
    pl.DataFrame({"ID": [1], "V": [1.25], "R": [b"\xde\xad"]}).write_ipc_stream(stream)

    page = parse_page(stream.getvalue(), ARROW, columns, total_header="1")

    assert page.frame.row(0) == ("1", "1,25", "3q0=")


def test_an_arrow_page_with_binary_columns_files_its_nested_rows() -> None:
    stream = io.BytesIO()
    frame = pl.DataFrame({"ID": [1, 2], "R": [b"\xde\xad", None], "V": [None, [1]]})
    frame.write_ipc_stream(stream)
    columns = [*COMMA[:2], Column(name="R", data_type="RAW")]

    page = parse_page(stream.getvalue(), ARROW, columns, total_header="2")

    assert page.frame["R"].to_list() == ["dead"]
    assert page.rejected["position"].to_list() == [1]


@pytest.mark.parametrize("beside", ["", ',{"T":"\\u00e9","ID":3},{"V":1,"T":"a","ID":4}'])
def test_a_number_in_a_column_of_texts_keeps_its_spelling_whatever_is_beside_it(
    beside: str,
) -> None:
    page = parse_page(enveloped(f'[{{"ID":1,"T":1.50}}{beside}]'), JSON, COMMA)

    assert page.frame["T"][0] == "1.50"


def test_wide_rows_are_read_like_narrow_ones() -> None:
    names = [f"C{n}" for n in range(200)]
    row = json.dumps({name: n for n, name in enumerate(names)})

    page = parse_page(
        enveloped(f"[{row},{row}]"), JSON, [Column(name=name, data_type="NUMBER") for name in names]
    )

    assert page.frame.row(1) == tuple(str(n) for n in range(200))


names = st.sampled_from(["A", "B", "C", "D", "X", "a\\", 'q"', "ü"])
tokens = st.one_of(
    st.integers().map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.decimals(allow_nan=False, allow_infinity=False).map(lambda d: f"{d:f}"),
    st.sampled_from([*NUMBERS, "null", "null", "true", "false"]),
    st.text(st.characters(exclude_categories=()), max_size=8).map(json.dumps),
    st.sampled_from(
        [r'"\":null"', r'"\\\":"', '"\\ud800"', r'"\\ud83d\ude00"', "[1]", '{"x":1.0}']
    ),
    st.sampled_from(['"a\\": 0.12345678901234567890,"', '"},{"', '" :1"', '"  :"', '"\\"  :"']),
)
objects = st.lists(st.tuples(names, tokens), max_size=5)


def written(pairs: list[tuple[str, str]], colon: str, comma: str) -> str:
    return "{" + comma.join(f"{json.dumps(name)}{colon}{token}" for name, token in pairs) + "}"


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    st.lists(objects, min_size=1, max_size=4),
    st.sampled_from([":", ": ", " : ", ":\t"]),
    st.sampled_from([",", ", ", "\n,"]),
)
@example([[("A", "null"), ("A", "1")], [("B", "1")]], ":", ",")
@example([[("A", "1"), ("X", "2")], [("A", "2"), ("X", "null"), ("X", "null")]], ":", ",")
def test_any_rows_come_out_as_the_slow_reference_says(
    table: list[list[tuple[str, str]]], colon: str, comma: str
) -> None:
    texts = [written(pairs, colon, comma) for pairs in table]
    page = page_of(f"[{','.join(texts)}]", DOCUMENT)
    reference = rows.exact_rows([text.encode() for text in texts], DOCUMENT)

    assert reference.refused.drop("raw").rows() == page.rejected.drop("raw").rows()
    for column in "ABCD":
        for expected, actual in zip(reference.frame[column], page.frame[column], strict=True):
            assert same(expected, actual), (column, expected, actual)


def same(expected: str | None, actual: str | None) -> bool:
    if expected == actual or expected is None or actual is None:
        return expected == actual
    if not expected[-1:].isdigit():
        return False
    try:
        return Decimal(expected) == Decimal(actual)
    except ArithmeticError:
        return False


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    st.lists(
        st.dictionaries(
            st.sampled_from("ABC"),
            st.none()
            | st.booleans()
            | st.integers()
            | st.text(st.characters(exclude_categories=())),
        ),
        max_size=6,
    ),
    st.booleans(),
)
def test_what_python_writes_comes_back(table: list[dict[str, object]], ascii_only: bool) -> None:  # noqa: FBT001  # hypothesis passes it
    try:
        text = json.dumps(table, ensure_ascii=ascii_only).encode()
    except UnicodeEncodeError:
        text = json.dumps(table).encode()
    page = parse_page(
        b'{"success":true,"data":' + text + b',"metadata":{"total_rows":0}}', JSON, COLUMNS
    )

    assert [tuple(plain(row.get(name)) for name in "ABC") for row in table] == page.frame.rows()


def plain(value: object) -> str | None:
    """An independent reading of one scalar."""
    if value is None or isinstance(value, bool):
        return None if value is None else str(value).lower()
    return str(value).encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def test_rows_without_any_declared_column_are_rows_all_the_same() -> None:
    page = page_of('[{"NEW":1},{"NEW":2},{"NEW":3}]')

    assert page.frame.rows() == [(None, None, None)] * 3
    assert page.unknown_columns == ("NEW",)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.fixed_dictionaries(
            {"A": st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=3)},
            optional={
                "B": st.integers() | st.none(),
                "C": st.text(st.characters(exclude_categories=["Cs"]), max_size=3),
            },
        ),
        min_size=1,
        max_size=8,
    )
)
def test_regular_and_other_rows_keep_their_order(table: list[dict[str, object]]) -> None:
    page = page_of(json.dumps(table, ensure_ascii=False, separators=(",", ":")))

    assert [tuple(plain(row.get(name)) for name in "ABC") for row in table] == page.frame.rows()
