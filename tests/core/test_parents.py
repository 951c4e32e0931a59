from collections.abc import Mapping, Sequence

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncflow_core.columns import KEY_HASH, PARENT_REFS, ROW
from syncflow_core.entity import Entity, Field, ParentRef
from syncflow_core.errors import ConfigError
from syncflow_core.identity import key_hash
from syncflow_core.parents import (
    WAVES,
    Resolved,
    add_parent_refs,
    lineage,
    parent_column,
    parent_in_refs,
    refs_expr,
    refs_text,
    refs_without,
    refuse_other_keys,
    resolve,
)

SITE = ParentRef(entity="sites", key={"code": "site"})


def entity(name: str, /, *required: str, **parents: str) -> Entity:
    return Entity(
        name=name,
        fields=[Field(source=field.upper(), required=True) for field in required],
        parents={
            reference: ParentRef(entity=parent, key={"id": f"{reference}_id"})
            for reference, parent in parents.items()
        },
    )


def test_parents_come_before_children_whatever_the_order_given() -> None:
    found = lineage([entity("c", b="b"), entity("b", a="a"), entity("a")])

    assert found.order == ("a", "b", "c")
    assert found.parents == {"c": ("b",), "b": ("a",), "a": ()}
    assert found.deferred == frozenset()


def test_a_cycle_is_cut_at_a_reference_that_can_be_null() -> None:
    found = lineage(
        [
            entity("departments", "manager_id", manager="employees"),
            entity("employees", department="departments"),
        ]
    )

    assert found.deferred == {("employees", "department")}
    assert found.deferred_of("employees") == ("department",)
    assert found.deferred_of("departments") == ()
    assert found.order == ("employees", "departments")


def test_a_self_reference_is_deferred_and_orders_nothing() -> None:
    found = lineage([entity("parts", parent="parts")])

    assert found.deferred == {("parts", "parent")}
    assert found.order == ("parts",)


def test_a_cycle_without_a_nullable_reference_is_refused_and_named() -> None:
    with pytest.raises(ConfigError, match=r"a\.x -> b\.y"):
        lineage([entity("a", "x_id", x="b"), entity("b", "y_id", y="a")])


def test_a_self_reference_that_can_never_be_null_is_refused() -> None:
    with pytest.raises(ConfigError) as refused:
        lineage([entity("parts", "up_id", up="parts")])

    assert refused.value.entity == "parts"
    assert str(refused.value) == (
        "parents: parts.up refers to parts itself and can never be NULL: no record could be the first"
    )


@pytest.mark.parametrize(
    "fields", [[Field(source="X_ID")], [Field(source="X_ID", target="x")], []], ids=len
)
def test_a_reference_in_the_business_key_cannot_be_null(fields: list[Field]) -> None:
    target = "x" if fields and fields[0].target else "x_id"
    child = Entity(
        name="a",
        business_key=["X_ID"],
        fields=fields,
        parents={"x": ParentRef(entity="b", key={"id": target})},
    )

    found = lineage([child, entity("b", y="a")])

    assert found.deferred == {("b", "y")}


def test_a_parent_that_is_not_among_the_entities_orders_nothing() -> None:
    assert lineage([entity("a", x="elsewhere")]).order == ("a",)


def test_a_reference_that_is_not_made_of_its_parents_whole_key_is_refused() -> None:
    keys = {"order": "ord", "line": "line"}
    child = Entity(name="c", parents={"line": ParentRef(entity="lines", key=keys)})

    refuse_other_keys(child, {"lines": ["line", "order"]})
    with pytest.raises(ConfigError) as refused:
        refuse_other_keys(child, {"lines": ["order", "no"]})

    assert refused.value.entity == "c"
    assert str(refused.value) == (
        "entity c: parents.line: the key of lines is order, no, not order, line"
    )


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=20))
def test_every_parent_that_is_not_deferred_comes_first(edges: list[tuple[int, int]]) -> None:
    entities = [
        entity(f"e{n}", **{f"r{number}": f"e{p}" for number, (c, p) in enumerate(edges) if c == n})
        for n in range(8)
    ]

    found = lineage(entities)

    assert sorted(found.order) == [f"e{n}" for n in range(8)]
    for number, (child, parent) in enumerate(edges):
        if (f"e{child}", f"r{number}") not in found.deferred:
            assert found.order.index(f"e{parent}") < found.order.index(f"e{child}")


def test_a_reference_hashes_the_parents_key_from_the_childs_fields_and_null_needs_no_parent() -> (
    None
):
    parents = {"order": ParentRef(entity="orders", key={"order_no": "ord"})}
    frame = pl.DataFrame({"ord": ["WO1", None]})

    found = add_parent_refs(frame, parents)

    expected = key_hash({"order_no": "WO1"})
    assert found[parent_column("order")].to_list() == [expected, None]
    assert found[PARENT_REFS].to_list() == [f'{{"order":"{expected.hex()}"}}', '{"order":null}']


def test_references_are_written_as_those_read_one_by_one_are() -> None:
    parents = {"part": ParentRef(entity="p", key={"no": "a"}), "order": SITE}
    found = add_parent_refs(pl.DataFrame({"a": ["1", "2"], "site": [None, "s"]}), parents)

    held: list[dict[str, str | None]] = [
        {"part": key_hash({"no": "1"}).hex(), "order": None},
        {"part": key_hash({"no": "2"}).hex(), "order": key_hash({"code": "s"}).hex()},
    ]
    assert found[PARENT_REFS].to_list() == [refs_text(record, parents) for record in held]


def test_an_entity_without_parents_has_empty_references() -> None:
    assert add_parent_refs(pl.DataFrame({"a": ["1"]}), {})[PARENT_REFS].to_list() == ["{}"]


def test_references_read_from_a_column_are_those_read_one_by_one() -> None:
    texts = ['{"b":"01","a":"02"}', '{"a":null}', "{}", None]
    records: list[dict[str, str | None]] = [{"b": "01", "a": "02"}, {"a": None}, {}, {}]

    found = pl.DataFrame({"t": texts}).select(refs_expr(pl.col("t"), ["a", "b"])).to_series()

    assert found.to_list() == [refs_text(record, ["a", "b"]) for record in records]


def test_left_out_references_are_nulled_and_the_others_stay() -> None:
    frame = pl.DataFrame({"t": ['{"a":"01","b":"02"}'] * 2, "out": [["a"], []]})

    found = frame.select(refs_without(pl.col("t"), pl.col("out"), ["a", "b"])).to_series()

    assert found.to_list() == ['{"a":null,"b":"02"}', '{"a":"01","b":"02"}']


def test_a_parents_key_hash_comes_back_out_of_the_references() -> None:
    frame = pl.DataFrame({"t": ['{"a":"0aff"}', '{"a":null}', '{"a":"another program\'s"}']})

    assert frame.select(parent_in_refs(pl.col("t"), "a")).to_series().to_list() == [
        b"\x0a\xff",
        None,
        None,
    ]


SELF = {"parent": ParentRef(entity="parts", key={"no": "parent_no"})}
NONE = '{"parent":null}'
TWIN = {"twin": ParentRef(entity="parts", key={"no": "twin_no"})}
OTHER = {"site": SITE}


def rows(*links: tuple[str | None, ...], references: Sequence[str] = ("parent",)) -> pl.DataFrame:
    """Rows of a key and, behind it, the key of each reference's parent."""
    names = [KEY_HASH, *map(parent_column, references)]
    text = pl.DataFrame(list(links), schema=dict.fromkeys(names, pl.String), orient="row")
    return text.cast(pl.Binary).with_row_index(ROW)


def keys(frame: pl.DataFrame) -> set[str]:
    return {key.decode() for key in frame[KEY_HASH]}


def missing(found: Resolved) -> set[tuple[int, str, bytes]]:
    return set(found.missing.rows())


def resolve_parts(
    frame: pl.DataFrame, *landed: str, references: Mapping[str, ParentRef] = SELF
) -> Resolved:
    return resolve(
        frame,
        references=references,
        entity="parts",
        deferred=frozenset(("parts", name) for name in references),
        acknowledged={"parts": pl.Series([key.encode() for key in landed], dtype=pl.Binary)},
    )


def test_a_chain_goes_in_waves_whatever_its_order() -> None:
    found = resolve_parts(rows(("c", "b"), ("a", None), ("b", "a")))

    assert [keys(wave) for wave in found.waves] == [{"a"}, {"b"}, {"c"}]
    assert found.parked.is_empty()
    assert found.missing.is_empty()


def test_nothing_to_push_makes_no_wave_and_misses_nothing() -> None:
    found = resolve_parts(rows())

    assert found.waves == ()
    assert found.missing.schema == {ROW: pl.UInt32, "reference": pl.String, "parent": pl.Binary}


def test_a_chain_that_is_too_deep_goes_on_without_its_references() -> None:
    chain = [("0", None), *((str(n), str(n - 1)) for n in range(1, WAVES + 2))]

    found = resolve_parts(rows(*chain))

    *waves, rest = found.waves
    assert [keys(wave) for wave in waves] == [{str(n)} for n in range(WAVES)]
    assert keys(rest) == {str(WAVES), str(WAVES + 1)}
    # the first of the rest finds its parent in the wave before
    assert rest[PARENT_REFS].to_list() == [f'{{"parent":"{str(WAVES - 1).encode().hex()}"}}', NONE]
    assert missing(found) == {(WAVES + 1, "parent", str(WAVES).encode())}


def test_a_parent_that_is_acknowledged_needs_no_wave() -> None:
    found = resolve_parts(rows(("b", "a"), ("c", None)), "a")

    assert [keys(wave) for wave in found.waves] == [{"b", "c"}]


def test_a_missing_parent_parks_the_row_and_everything_below_it() -> None:
    found = resolve_parts(rows(("b", "lost"), ("c", "b"), ("a", None)))

    assert [keys(wave) for wave in found.waves] == [{"a"}]
    assert keys(found.parked) == {"b", "c"}
    assert missing(found) == {(0, "parent", b"lost"), (1, "parent", b"b")}


def test_of_a_row_that_waits_those_parents_are_missing_that_are_not_there() -> None:
    found = resolve_parts(
        rows(("b", "lost", None), ("c", "a", "gone"), references=["parent", "twin"]),
        "a",
        references={**SELF, **TWIN},
    )

    assert found.waves == ()
    assert missing(found) == {(0, "parent", b"lost"), (1, "twin", b"gone")}


def test_rows_that_wait_for_one_that_is_not_here_are_told_from_those_that_wait_on_each_other() -> (
    None
):
    found = resolve_parts(rows(("a", "b"), ("b", "a"), ("c", "lost")))

    assert [keys(wave) for wave in found.waves] == [{"a", "b"}]
    assert keys(found.parked) == {"c"}
    assert missing(found) == {(0, "parent", b"b"), (1, "parent", b"a"), (2, "parent", b"lost")}


def test_each_reference_is_looked_at_whatever_the_ones_before_it_say() -> None:
    found = resolve(
        rows(("a", None, "o1", "s2"), references=["parent", "owner", "site"]),
        references={**SELF, "owner": ParentRef(entity="owners", key={"id": "owner"}), **OTHER},
        entity="parts",
        deferred=frozenset({("parts", "parent")}),
        acknowledged={
            "parts": pl.Series([], dtype=pl.Binary),
            "owners": pl.Series([b"o1"]),
            "sites": pl.Series([b"s1"]),
        },
    )

    assert keys(found.parked) == {"a"}
    assert missing(found) == {(0, "site", b"s2")}


def test_rows_that_wait_on_each_other_go_without_the_reference_first() -> None:
    found = resolve_parts(rows(("a", "b"), ("b", "a"), ("c", "a")))

    assert [keys(wave) for wave in found.waves] == [{"a", "b", "c"}]
    assert found.waves[0][PARENT_REFS].to_list() == [NONE] * 3
    assert sorted(found.missing["parent"].to_list()) == [b"a", b"a", b"b"]


def test_a_missing_parent_of_another_entity_parks() -> None:
    found = resolve(
        rows(("a", "s1"), ("b", "s2"), references=["site"]),
        references=OTHER,
        entity="parts",
        deferred=frozenset(),
        acknowledged={"sites": pl.Series([b"s1"])},
    )

    assert [keys(wave) for wave in found.waves] == [{"a"}]
    assert keys(found.parked) == {"b"}


def test_a_missing_parent_behind_a_deferred_reference_leaves_the_reference_out() -> None:
    found = resolve(
        rows(("a", "s1"), ("b", "s2"), references=["site"]),
        references=OTHER,
        entity="parts",
        deferred=frozenset({("parts", "site")}),
        acknowledged={"sites": pl.Series([b"s1"])},
    )

    assert [keys(wave) for wave in found.waves] == [{"a", "b"}]
    assert found.waves[0].sort(KEY_HASH)[parent_column("site")].to_list() == [b"s1", None]
    assert missing(found) == {(1, "site", b"s2")}


@given(
    st.lists(st.one_of(st.none(), st.integers(0, 14)), min_size=1, max_size=12),
    st.sets(st.integers(0, 14)),
)
def test_each_row_is_in_one_place_and_no_row_goes_before_its_parent(
    parents: list[int | None], landed: set[int]
) -> None:
    links = [(str(n), None if p is None else str(p)) for n, p in enumerate(parents)]
    found = resolve_parts(rows(*links), *(str(n) for n in landed))

    placed = [row for wave in found.waves for row in wave[ROW]] + found.parked[ROW].to_list()
    assert sorted(placed) == list(range(len(parents)))
    there = {str(n) for n in landed}
    for wave in found.waves:
        for parent in wave[parent_column("parent")].drop_nulls():
            assert parent.decode() in there
        there |= keys(wave)
