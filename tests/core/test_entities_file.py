import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncflow_core.entities_file import entities_text, parse_entities
from syncflow_core.entity import Brake, Entity, Field, ParentRef, Rowversion
from syncflow_core.errors import ConfigError
from syncflow_core.transforms import Transform

GOOD = """\
version: 1
entities:
  - name: order_lines
    business_key: [ORDER_NO, LINE_NO]
    rowversion: {column: ROWVERSION, kind: timestamp, overlap_s: 300}
    delta: hash
    brake: {rows: 100, share: 0.1}
    time_zone: Europe/Berlin
    fields:
      - {source: ORDER_NO, target: order_no, transform: [upper]}
      - {source: STATUS, target: status, values: {Released: RELEASED, NO: PLANNED}, default: PLANNED}
    parents:
      order: {entity: orders, key: {order_no: order_no}}
    schedule: {incremental_minutes: 15, background: {window: "19:00-07:00", nights: 7}}
"""


def faults(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_entities(text, "f.yaml")
    return str(caught.value).splitlines()


def test_a_file_becomes_declarations_with_defaults_filled() -> None:
    (entity,) = parse_entities(GOOD, "f.yaml")

    assert (entity.api, entity.collection, entity.group) == ("order_lines", "order_lines", "erp")
    assert entity.rowversion == Rowversion(column="ROWVERSION", kind="timestamp")
    assert entity.fields[0].transform == [Transform(upper=True)]
    assert entity.fields[1].values == {"Released": "RELEASED", "NO": "PLANNED"}


def test_what_was_read_is_written_so_that_it_reads_the_same() -> None:
    entities = parse_entities(GOOD, "f.yaml")

    assert parse_entities(entities_text(entities), "g.yaml") == entities


@given(
    st.builds(
        Entity,
        name=st.just("orders"),
        business_key=st.lists(st.sampled_from(["A", "no", "1e5"]), unique=True),
        description=st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20),
        brake=st.builds(Brake, rows=st.integers(0, 10**6), share=st.floats(0, 1)),
        fields=st.lists(
            st.builds(
                Field,
                source=st.sampled_from(["A", "B", "NO", "12", "null"]),
                null_words=st.lists(st.text("aN/~#:'\" ", max_size=4), max_size=3),
                minimum=st.one_of(st.none(), st.integers()),
            ),
            max_size=3,
            unique_by=lambda field: field.source,
        ),
        parents=st.just({"p": ParentRef(entity="parents", key={"k": "a"})}),
    )
)
def test_any_declaration_survives_the_file(entity: Entity) -> None:
    assert parse_entities(entities_text([entity]), "f.yaml") == [entity]


def test_all_faults_are_told_at_once_with_line_and_key() -> None:
    broken = GOOD.replace("delta: hash", "delta: hahs").replace("group", "x")
    broken = broken.replace("    brake: {rows: 100, share: 0.1}", "    braek: 1")

    assert faults(broken) == [
        "f.yaml:6: entities[order_lines].delta: input should be 'hash', 'rowversion' or 'full'",
        "f.yaml:7: entities[order_lines].braek: SyncFlow knows no such key",
    ]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("    time_zone: Europe/Atlantis", "'Europe/Atlantis' is not a time zone name"),
        ("    group: my group!", "entities[t].group: string should match pattern"),
        ("    owners: [nobody]", "entities[t].owners[1]: string should match pattern"),
        ("    collection: ../x", "entities[t].collection: string should match pattern"),
        ('    description: "a\\0b"', "entities[t].description: holds a NUL character"),
        ("    fields: [{source: A, maximum: abc}]", "'abc' is neither a number nor a date"),
        (
            '    fields: [{source: A, transform: [{replace: {old: "(", regex: true}}]}]',
            "'(' is no regular expression",
        ),
        (
            "    fields: [{target: x}]",
            "needs a source, a constant, a concat, a coalesce or a default",
        ),
        ("    fields: [{default: x}]", "needs a target, for it has no source to take a name from"),
        ("    fields: [{source: '#x'}]", "'#x' is no name: names are not empty"),
        ("    fields: [{source: A, target: ''}]", "'' is no name: names are not empty"),
        ("    fields: [{source: '^A.*$'}]", "'^A.*$' is no name: it reads as a pattern of names"),
        ("    fields: [{source: A}, {source: B, target: a}]", "two fields have the target a"),
        ("    business_key: [A, B, A]", "business_key names a column twice"),
        (
            "    schedule: {background: {window: '19:00-19:00'}}",
            "the window 19:00-19:00 is never closed",
        ),
        (
            "    schedule: {background: {window: '7pm-07:00'}}",
            "background.window: '7pm-07:00' is no window: two times as HH:MM, such as 19:00-07:00",
        ),
        ("    fields: &e [*e]", "cannot be read"),
        ("    description: !!python/object:os.system {}", "cannot be read"),
    ],
)
def test_what_could_only_fail_later_is_refused_now(line: str, expected: str) -> None:
    told = faults(f"version: 1\nentities:\n  - name: t\n{line}\n")

    assert expected in "\n".join(told)


def test_a_word_of_python_is_no_name() -> None:
    assert "'class' is a word of Python" in faults("version: 1\nentities:\n  - name: class\n")[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "f.yaml: the file is empty; it needs version: 1 and entities:"),
        ("a: [", "f.yaml:1: no YAML: expected the node content, but found '<stream end>'"),
        ("entities: []", "f.yaml:1: version: is missing"),
        ("version: 2\nentities: []", "f.yaml:1: version: this SyncFlow reads version 1"),
        (
            "version: 1\nentities:\n  - name: a\n    api: x\n    api: y\n",
            "f.yaml:5: entities[a].api: the key stands twice",
        ),
        (
            "version: 1\nentities:\n  - name: a\n    fields: [{source: X, source: Y}]\n",
            "f.yaml:4: entities[a].fields[1].source: the key stands twice",
        ),
        (
            "version: 1\nentities: [orders]\n",
            "f.yaml:2: entities[1]: input should be keys with their values",
        ),
        ("version: 1\nentities: x\n", "f.yaml:2: entities: input should be a valid list"),
        (
            "version: 1\nentities:\n  - {name: a}\n  - name: b\n    collection: a\n",
            "f.yaml:5: entities[b].collection: 'a' is entity a's; each would delete the other's records",
        ),
        (
            "version: 1\nentities:\n  - {name: a}\n  - {name: a}\n",
            "f.yaml:4: entities[a].name: another entity has this name",
        ),
        (
            "version: 1\nentities:\n  - name: a\n    fields:\n      - {source: X, target: uid}\n",
            "f.yaml:5: entities[a].fields[1]: target 'uid' is one of the hub's own fields",
        ),
    ],
)
def test_a_broken_file_says_where_and_what(text: str, expected: str) -> None:
    assert expected in faults(text)


def test_a_key_with_nothing_behind_it_is_not_given() -> None:
    (entity,) = parse_entities("version: 1\nentities:\n  - name: a\n    group:\n", "f.yaml")

    assert entity == Entity(name="a")
