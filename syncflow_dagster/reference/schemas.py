"""A JSON schema as a table: what each key holds, its default, what it says.

Belongs here: the words for what a value is.
Does not belong here: where the schemas come from (``pages``, ``calls``).
"""

from collections.abc import Mapping
from typing import Any

from syncflow_dagster.reference.markdown import table

Schema = Mapping[str, Any]
"""A JSON schema, as pydantic and FastAPI write it."""


def keys(model: Schema) -> str:
    """A table of a model's properties."""
    needed = set(model.get("required", ()))
    rows = [
        (
            f"`{name}`",
            kind_of(part),
            "needed" if name in needed else default_of(part),
            part.get("description", ""),
            _example(part),
        )
        for name, part in model.get("properties", {}).items()
    ]
    return table(("key", "holds", "default", "says", "example"), rows)


def kind_of(part: Schema) -> str:
    """What a value is, in words; models are links."""
    if "$ref" in part:
        name = part["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in part:
        kinds = [kind_of(item) for item in part["anyOf"] if item.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if "enum" in part or "const" in part:
        return " ".join(f"`{_yaml(value)}`" for value in part.get("enum", [part.get("const")]))
    match part.get("type"):
        case "array":
            kind = f"list of {kind_of(part.get('items', {}))}"
        case "object":
            patterns = part.get("patternProperties", {}).values()
            kind = _map(next(iter(patterns), part.get("additionalProperties")))
        case "string":
            kind = "text"
        case other:
            kind = other or "any"
    return kind + _bounds(part)


def _map(inner: object) -> str:
    return f"map to {kind_of(inner)}" if isinstance(inner, Mapping) and inner else "map"


def _bounds(part: Schema) -> str:
    """What a value may be at least and at most."""
    least, most, above = (
        None if (bound := part.get(name)) is None else f"{bound:g}"
        for name in ("minimum", "maximum", "exclusiveMinimum")
    )
    words = []
    if least is not None and most is not None:
        words.append(f"{least} to {most}")
    elif least is not None:
        words.append(f"from {least}")
    elif most is not None:
        words.append(f"up to {most}")
    words += [f"above {above}"] if above is not None else []
    words += [f"at most {part['maxLength']} characters"] if "maxLength" in part else []
    words += [f"at most {part['maxItems']}"] if "maxItems" in part else []
    return f", {', '.join(words)}" if words else ""


def default_of(part: Schema) -> str:
    """The default, where it says something."""
    value = part.get("default")
    if value is None or value in ("", [], {}) or isinstance(value, Mapping):
        return ""
    return f"`{_yaml(value)}`"


def _example(part: Schema) -> str:
    examples = part.get("examples")
    return f"`{_yaml(examples[0])}`" if examples and not isinstance(examples, Mapping) else ""


def _yaml(value: object) -> str:
    """A value as one writes it in an entities file, in flow style."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_yaml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_yaml, value)) + "]"
    return str(value) if str(value).strip() else f'"{value}"'
