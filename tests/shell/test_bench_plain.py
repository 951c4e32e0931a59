"""The plain program that SyncFlow is compared with does the same work: its hashes are SyncFlow's."""

import json
from decimal import Decimal
from itertools import zip_longest

from syncflow_core.columns import DATA_HASH, KEY_HASH, REFERENCE, ROW
from syncflow_core.identity import add_identity
from syncflow_core.normalize import normalize
from syncflow_core.pages import JSON, parse_page
from syncflow_dagster.bench.others.plain import BadValueError, read_record
from syncflow_dagster.bench.rows import WIDE, pages, shape_named

UNTIDY = [
    {"NAME": " a|b=c\\d\u00a0"},
    {"NAME": "line\r\nend\u0007", "REMARK": "   "},
    {"NAME": "e\u0301", "QTY": "1,234,567"},
    {"QTY": None, "PRICE": "007.10", "WEIGHT": -0.5},
    {"CREATED": "08-DEC-2025", "DUE": "2025-12-08 10:30:00.250"},
    {"PRICE": "1.234"},
    {"QTY": "many"},
    {"PRIORITY": 5.5},
    {"ID": None},
]


def test_the_plain_program_gives_the_hashes_of_syncflow_and_rejects_the_same_rows() -> None:
    answer = json.loads(next(pages(WIDE, 0, 1_000)))
    answer["data"] = [
        row | untidy for row, untidy in zip_longest(answer["data"], UNTIDY, fillvalue={})
    ]
    body = json.dumps(answer).encode()
    shape = shape_named(WIDE)
    page = parse_page(body, JSON, shape.api.columns).frame
    accepted = add_identity(normalize(page.with_row_index(ROW), shape).accepted, shape)
    ours = [
        (reference, key.hex(), data.hex())
        for reference, key, data in accepted.select(REFERENCE, KEY_HASH, DATA_HASH).rows()
    ]

    theirs = []
    for row in json.loads(body, parse_float=Decimal)["data"]:
        try:
            record = read_record(row)
        except BadValueError:
            continue
        theirs.append((record.reference, record.key_hash, record.data_hash))

    assert len(theirs) == 1_000 - 3
    assert ours == theirs
