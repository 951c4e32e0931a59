"""Entities files: YAML text to declarations and back.

Belongs here: reading a file so that every fault is found at once, each with its line and key.
Does not belong here: what a declaration means (``entity``), applying it (``bridge.entities``).

Source: design.md, "Entities file".
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import pydantic
import yaml

from syncflow_core.entity import Entity
from syncflow_core.errors import ConfigError
from syncflow_core.transforms import Declared

VERSION = 1


def _given(value: object) -> object:
    """A key with nothing behind it, as people leave it in a file, is not given."""
    if isinstance(value, dict):
        return {key: item for key, item in value.items() if item is not None}
    return value


class EntitiesFile(Declared):
    """The whole file."""

    version: int = pydantic.Field(ge=VERSION, le=VERSION)
    entities: list[Annotated[Entity, pydantic.BeforeValidator(_given)]]


class _Loader(yaml.SafeLoader):
    """YAML 1.2's core scalars: ``NO`` and ``19:00`` are text, as a person means them."""


_Loader.yaml_implicit_resolvers = {}
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^(~|null|)$"), ["~", "n", ""])
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(true|false)$"), ["t", "f"])
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"^[-+]?(0|[1-9]\d*)$"), list("-+0123456789")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?\d+(\.\d*([eE][-+]?\d+)?|[eE][-+]?\d+)$"),
    list("-+0123456789"),
)


def parse_entities(text: str, origin: str) -> list[Entity]:
    """Read an entities file.

    Args:
        text: The file's text.
        origin: The file's name, for messages.

    Raises:
        ConfigError: The text is no YAML, or declares what SyncFlow does not know. One line a fault,
            ``file:line: key: what is wrong``, all faults at once.
    """
    try:
        root = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = "" if mark is None else f"{mark.line + 1}:"
        problem = getattr(error, "problem", None) or "cannot be read"
        raise ConfigError(f"{origin}:{line} no YAML: {problem}") from error
    if root is None:
        raise ConfigError(f"{origin}: the file is empty; it needs version: {VERSION} and entities:")
    faults = []
    try:
        loaded = yaml.load(text, Loader=_Loader)  # noqa: S506  # nosec B506  # a SafeLoader with fewer scalars
        faults += [
            f"{origin}:{line}: {_path(location, loaded)}: the key stands twice"
            for line, location in _repeated(root, ())
        ]
        entities = EntitiesFile.model_validate(loaded).entities
    except pydantic.ValidationError as error:
        faults += [
            f"{origin}:{_line(root, fault['loc'])}: {_path(fault['loc'], loaded)}: {_text(fault)}"
            for fault in error.errors()
        ]
        raise ConfigError("\n".join(faults)) from error
    except (yaml.YAMLError, RecursionError, UnicodeError) as error:
        problem = getattr(error, "problem", None) or "it refers to itself, or nests too deeply"
        raise ConfigError(f"{origin}: cannot be read: {problem}") from error
    faults += _across(entities, root, origin)
    if faults:
        raise ConfigError("\n".join(faults))
    return entities


def entities_text(entities: Sequence[Entity]) -> str:
    """The YAML of these entities; reading it gives equal declarations.

    Keys stand in the order of the declaration; what equals its default is left out.
    """
    content = {
        "version": VERSION,
        "entities": [
            {
                "name": entity.name,
                **entity.model_dump(mode="json", exclude_defaults=True, exclude={"name"}),
            }
            for entity in entities
        ],
    }
    return yaml.dump(
        _shortened(content), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110
    )


class _Dumper(yaml.SafeDumper):
    """Quotes what readers of YAML 1.1 or 1.2 would not take for text."""


for _first, _resolvers in _Loader.yaml_implicit_resolvers.items():
    for _tag, _pattern in _resolvers:
        _Dumper.add_implicit_resolver(_tag, _pattern, [_first] if _first else None)


def _shortened(value: Any) -> Any:  # noqa: ANN401  # JSON of any shape
    """Transformations that take nothing are written by their name alone: ``upper``."""
    if isinstance(value, list):
        return [_shortened(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: [
            next(iter(step)) if isinstance(step, dict) and list(step.values()) == [True] else step
            for step in item
        ]
        if key == "transform"
        else _shortened(item)
        for key, item in value.items()
    }


def _across(entities: Sequence[Entity], root: yaml.Node, origin: str) -> Iterator[str]:
    """Faults between entities of one file: names and collections given twice."""
    places: dict[str, str] = {}
    for index, entity in enumerate(entities):
        other = places.setdefault(entity.collection, entity.name)
        if other != entity.name:
            line = _line(root, ("entities", index, "collection"))
            yield (
                f"{origin}:{line}: entities[{entity.name}].collection: {entity.collection!r} is "
                f"entity {other}'s; each would delete the other's records"
            )
    names = [entity.name for entity in entities]
    for index, name in enumerate(names):
        if name in names[:index]:
            line = _line(root, ("entities", index, "name"))
            yield f"{origin}:{line}: entities[{name}].name: another entity has this name"


def _repeated(
    node: yaml.Node, path: tuple[int | str, ...]
) -> Iterator[tuple[int, tuple[int | str, ...]]]:
    """Line and place of each key that its mapping has had before."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            if name in seen:
                yield key.start_mark.line + 1, (*path, name)
            seen.add(name)
            yield from _repeated(value, (*path, name))
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from _repeated(value, (*path, index))


def _line(node: yaml.Node, location: tuple[int | str, ...]) -> int:
    """The line of the innermost node on the way to ``location`` that the file holds."""
    for step in location:
        if isinstance(node, yaml.MappingNode):
            found = next(((k, v) for k, v in node.value if k.value == str(step)), None)
            if found is None:
                break
            node = found[1]
            if isinstance(node, yaml.ScalarNode):
                return int(found[0].start_mark.line) + 1
        elif (
            isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value)
        ):
            node = node.value[step]
        else:
            break
    return int(node.start_mark.line) + 1


def _path(location: tuple[int | str, ...], loaded: object) -> str:
    """``entities[orders].fields[2].type``: entities by name, other lists by number."""
    path, value = "", loaded
    for step in location:
        if isinstance(value, Mapping):
            value = value.get(step)
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            value = value[step]
        else:
            value = None
        if isinstance(step, int):
            name = value.get("name") if isinstance(value, Mapping) else None
            path += f"[{name or step + 1}]"
        else:
            path += f".{step}" if path else step
    return path or "file"


def _text(fault: Any) -> str:  # noqa: ANN401  # pydantic's ErrorDetails
    message = str(fault["msg"]).removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        return "SyncFlow knows no such key"
    if fault["type"] == "missing":
        return "is missing"
    if fault["type"] == "model_type":
        return "input should be keys with their values"
    if fault["loc"] == ("version",) and isinstance(fault["input"], int):
        return f"this SyncFlow reads version {VERSION}"
    if fault["type"] == "string_pattern_mismatch" and fault["loc"][-2:] == ("background", "window"):
        return f"{fault['input']!r} is no window: two times as HH:MM, such as 19:00-07:00"
    return message[:1].lower() + message[1:]
