"""Layer 2, strings: white space, control characters, line ends, Unicode form, lengths.

Belongs here: what is cleaned from a text, and what makes a text unusable.
Does not belong here: reading a text as another type; transformations that a person declares (``mapping``).

Kept on purpose: everything inside a text that can be meant. Zero-width joiners shape emoji and
Indic and Persian words, direction marks order mixed scripts, tabs and line feeds lay text out.

Source: product.md 2.2; Unicode 15 (White_Space, normalization form C).
"""

from typing import Final

import ftfy
import polars as pl

from syncflow_core.normalize.reading import (
    VALUE,
    Outcome,
    Reading,
    Refused,
    apply,
    by_distinct,
    located,
    positions_of,
    put,
    refuse,
)

WHITE: Final = "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
"""Unicode's White_Space, and the four C0 separators that Python and Oracle's TRIM scripts count too."""
ENDS: Final = WHITE + "\u200b\ufeff"
"""What is trimmed: white space, and the two invisible characters that only ends lose."""
CONTROL: Final = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\x{FEFF}]"
"""C0 except tab, line feed and carriage return (a line end, below), DEL, C1 except NEL, byte order mark."""
REPLACEMENT: Final = "\ufffd"

# Letters that are in form C alone and stay so beside each other: no combining mark is among them.
_LETTER: Final = "!-~\u00a1-\u02ff\u0388-\u03ff\u0400-\u0482\u048a-\u052f\u3041-\u3096\u30a1-\u30fc\u4e00-\u9fff\uac00-\ud7a3"
_ASCII: Final = r"^[!-~](?:[ -~]*[!-~])?$"  # mojibake is made of letters: there only ASCII is plain
_PLAIN: Final = f"^[{_LETTER}](?:[ {_LETTER}]*[{_LETTER}])?$"
_UNUSABLE: Final = Refused(
    "unicode", "holds U+FFFD, which stands for characters that were lost before"
)


def plain_text(reading: Reading) -> pl.Expr:
    """Whether printable characters in form C without white space at the ends, within its length: nothing to do.

    Null words are settled by ``coerce`` before; a field that declares some is never plain here.
    """
    rules = reading.field.rules
    if rules.null_words:
        return pl.lit(value=False) & VALUE.is_not_null()
    plain = VALUE.str.contains(_ASCII if rules.repair else _PLAIN)
    if reading.final and rules.max_length is not None:
        plain &= VALUE.str.len_bytes() <= rules.max_length
    return plain


def cleaned() -> pl.Expr:
    """Control characters gone, line ends as LF, NFC, trimmed, empty as null."""
    text = VALUE.str.replace_all(r"\r\n?", "\n").str.replace_all(CONTROL, "")
    text = text.str.replace_all("\x85", "").str.strip_chars(ENDS)
    text = text.str.normalize("NFC")
    return pl.when(text.str.len_bytes() > 0).then(text)


def trimmed(text: pl.Series) -> pl.Series:
    """The cleaning that a number, a moment or a word needs before it is read."""
    if text.str.contains(CONTROL).any():
        text = text.str.replace_all(CONTROL, "")
    bare = VALUE.str.strip_chars(ENDS)
    return apply(text, pl.when(bare.str.len_bytes() > 0).then(bare))


def clean(text: pl.Series, reading: Reading) -> Outcome:
    """Layer 2 for one column.

    Texts are cleaned, repaired where the field says so, and their length is checked in characters;
    values of other types only lose what surrounds them.
    """
    if reading.type == "json":
        return Outcome(text)  # canonical since layer 1
    if reading.type != "text":
        return Outcome(trimmed(text))
    stripped = apply(text, VALUE.str.strip_chars(ENDS))
    rules = reading.field.rules
    where = positions_of(
        ~stripped.str.contains(_ASCII if rules.repair else _PLAIN).fill_null(value=True)
    )
    hard = apply(stripped.gather(where), cleaned())
    if rules.repair:
        hard = apply(by_distinct(hard, repaired).text, cleaned())
    sound = _sound(hard, reading)
    cleaning = Outcome(put(stripped, where, sound.text), located(sound.faults, where))
    return check_length(cleaning, reading)


def repaired(text: str) -> str:
    """Mojibake undone: ``MÃ¼nchen`` is ``München`` again; nothing else of the text changes.

    A text whose repair would be repaired once more is left alone: one of the two is a mistake.

    >>> repaired("MÃ¼nchen")
    'München'
    >>> repaired("3 ½″ “quoted” ﬁne")
    '3 ½″ “quoted” ﬁne'
    """
    found = ftfy.fix_encoding(text)
    return found if ftfy.fix_encoding(found) == found else text


def check_length(outcome: Outcome, reading: Reading) -> Outcome:
    """*outcome* with too long texts refused, where the field declares a length."""
    limit = reading.field.rules.max_length
    if limit is None or not reading.final:
        return outcome
    long = refuse(
        outcome.text,
        outcome.text.str.len_chars() > limit,
        Refused("max_length", f"is longer than {limit} characters"),
    )
    return Outcome(long.text, (*outcome.faults, *long.faults), outcome.folds)


def _sound(text: pl.Series, reading: Reading) -> Outcome:
    """Refuse U+FFFD, the trace of characters that were lost; kept where ``invalid_unicode: replace``."""
    if reading.field.rules.invalid_unicode == "replace":
        return Outcome(text)
    return refuse(text, text.str.contains(REPLACEMENT, literal=True), _UNUSABLE)
