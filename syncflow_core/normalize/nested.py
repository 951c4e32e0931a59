"""Nested values as canonical JSON (RFC 8785), without losing a digit.

Belongs here: reading JSON text strictly and writing it in its one form.
Does not belong here: JSON objects for the hub (``body``).

RFC 8785 writes a number as its double does. A number that its double would change keeps its own
digits, in plain notation, so that nothing is lost; every other number is as the RFC says.

Source: product.md 3; RFC 8785; ECMA-262, Number::toString.
"""

import json
from decimal import Decimal
from typing import Final

from syncflow_core.normalize.number import LONGEST, plain_text_of
from syncflow_core.normalize.reading import Refused

_NO_JSON: Final = Refused("json", "is not JSON text, or repeats a key, or nests too deeply")
_UNICODE: Final = Refused(
    "unicode", "holds U+FFFD or a lone surrogate: characters were lost before"
)
_PLAIN_BELOW: Final = 21  # ECMA-262 writes numbers below 1e21 without an exponent
_PLAIN_ABOVE: Final = -7  # and from 1e-6 upwards


class _NotJsonError(ValueError):
    """A key twice, or a number that JSON does not know."""


def canonical_json(value: str, *, replace: bool = False) -> str | Refused:
    r"""The canonical text of a JSON text.

    >>> canonical_json('{"b": [1.0, 1e2], "a": "\\u00e9"}')
    '{"a":"é","b":[1,100]}'
    >>> canonical_json('{"a":1,"a":2}').rule
    'json'
    """
    try:
        parsed = json.loads(
            value,
            parse_float=_number,
            parse_int=_number,
            parse_constant=_constant,
            object_pairs_hook=_object,
        )
        text = _written(parsed)
    except (ValueError, ArithmeticError, RecursionError):
        return _NO_JSON
    lost = any("\ud800" <= letter <= "\udfff" or letter == "\ufffd" for letter in text)
    if lost and not replace:
        return _UNICODE
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if lost else text


class _Number(str):
    """A number's canonical text, told from a string by its class."""

    __slots__ = ()


def _number(token: str) -> _Number:
    if len(token) > LONGEST:
        raise _NotJsonError
    exact = Decimal(token)
    if exact and not -LONGEST < exact.adjusted() < LONGEST:
        raise _NotJsonError  # written out it would be as long as its exponent is large
    as_double = float(exact)
    if abs(as_double) == float("inf"):
        raise _NotJsonError
    shortest = Decimal(repr(as_double))
    if shortest != exact:
        plain = plain_text_of(exact)
        if len(plain) > LONGEST:
            raise _NotJsonError
        return _Number(plain)
    if not exact:
        return _Number("0")
    top = shortest.adjusted()
    if _PLAIN_ABOVE < top < _PLAIN_BELOW:
        return _Number(plain_text_of(exact))
    mantissa = plain_text_of(shortest.scaleb(-top))
    return _Number(f"{mantissa}e{top:+d}")


def _constant(token: str) -> None:
    raise _NotJsonError(token)


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _NotJsonError
    return found


def _written(value: object) -> str:
    if isinstance(value, _Number):
        return str(value)
    if isinstance(value, dict):
        pairs = sorted(value.items(), key=lambda pair: pair[0].encode("utf-16-be", "surrogatepass"))
        return "{" + ",".join(f"{_string(key)}:{_written(item)}" for key, item in pairs) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_written, value)) + "]"
    if isinstance(value, str):
        return _string(value)
    return json.dumps(value)


def _string(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)
