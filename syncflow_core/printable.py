"""Text from anywhere, made inert: control characters, escapes of terminals, marks of direction are shown, not obeyed.

Belongs here: escaping for terminals and logs.
Does not belong here: what is printed (``cli``) or logged (``logs``).

Source: Unicode's own "printable" (its categories Other and Separator, but the space); RFC 8259, 7.
"""


def printable(text: str) -> str:
    r"""The text on one line, with what is not printable as escapes.

    >>> printable("a\x1b[31m\u202eb\n")
    'a\\x1b[31m\\u202eb\\n'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def printable_json(text: str | bytes) -> str:
    r"""JSON text on one line that says the same, with what is not printable in its strings as escapes.

    >>> printable_json('{"a":"\u202e\U000e0001"}')
    '{"a":"\\u202e\\udb40\\udc01"}'
    """
    text = text.decode() if isinstance(text, bytes) else text
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _unit(c) for c in text)


def _unit(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
