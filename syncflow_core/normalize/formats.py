"""The forms in which dates and times may be written, as patterns with named parts.

Belongs here: the default forms, and Oracle's format models and strftime's directives as patterns.
Does not belong here: what the parts mean together, and zones (``moment``).

Names of parts: y, y2 (two digits), m, mon, d, doy, w, wd, H, h12, M, S, f, sod, ap, z, tzh, tzm.

Source: product.md 2.4; Oracle SQL Language Reference, "Datetime Format Models"; ISO 8601.
"""

import re
from functools import lru_cache
from typing import Final, Literal

from syncflow_core.errors import ConfigError

MONTHS: Final = tuple(
    "january february march april may june july august september october november december".split()  # noqa: SIM905  # reads as a list of words
)

_FRACTION: Final = r"(?:[.,](?P<f>[0-9]+))?"
_ZONE: Final = (
    r"(?:\s*(?P<z>[Zz]|UTC|GMT|[+-][0-9]{2}(?::?[0-9]{2})?|[A-Za-z]+(?:/[A-Za-z_+-]+[0-9]*)+))?"
)
_CLOCK: Final = (
    r"(?P<H>[0-9]{1,2})(?::(?P<M>[0-9]{2})(?::(?P<S>[0-9]{2})" + _FRACTION + r")?)"
    r"(?:\s*(?P<ap>[AaPp]\.?[Mm]\.?))?"
)
_DOTTED_CLOCK: Final = _CLOCK.replace(":(?P", "[.:](?P")
_TAIL: Final = rf"(?:(?:[Tt]|[Tt]?\s+|\s*$)(?:{_CLOCK}{_ZONE})?)?"
_ISO_CLOCK: Final = r"(?P<H>[0-9]{2})(?::?(?P<M>[0-9]{2})(?::?(?P<S>[0-9]{2}))?)?" + _FRACTION
_ISO_TAIL: Final = rf"(?:[Tt ]{_ISO_CLOCK}{_ZONE})?"
_MONTH_NAME: Final = r"(?P<mon>[A-Za-z]{3,9})"

ISO_FORMS: Final = (
    re.compile(rf"(?P<y>[0-9]{{4}})-(?P<m>[0-9]{{2}})-(?P<d>[0-9]{{2}}){_ISO_TAIL}"),
    re.compile(rf"(?P<y>[0-9]{{4}})-?W(?P<w>[0-9]{{2}})-?(?P<wd>[1-7]){_ISO_TAIL}"),
    re.compile(rf"(?P<y>[0-9]{{4}})-?(?P<doy>[0-9]{{3}}){_ISO_TAIL}"),
    re.compile(rf"(?P<y>[0-9]{{4}})(?P<m>[0-9]{{2}})(?P<d>[0-9]{{2}}){_ISO_TAIL}"),
)
DEFAULT_FORMS: Final = (
    *ISO_FORMS,
    re.compile(rf"(?P<y>[0-9]{{4}})/(?P<m>[0-9]{{1,2}})/(?P<d>[0-9]{{1,2}}){_TAIL}"),
    re.compile(rf"(?P<d>[0-9]{{1,2}})\.(?P<m>[0-9]{{1,2}})\.(?P<y>[0-9]{{4}}){_TAIL}"),
    re.compile(
        rf"(?P<d>[0-9]{{1,2}})[- ]{_MONTH_NAME}[- ](?:(?P<y>[0-9]{{4}})|(?P<y2>[0-9]{{2}}))"
        + _TAIL.replace(_CLOCK, _DOTTED_CLOCK)
    ),
    re.compile(
        r"(?P<y>[0-9]{4})(?P<m>[0-9]{2})(?P<d>[0-9]{2})(?P<H>[0-9]{2})(?P<M>[0-9]{2})(?P<S>[0-9]{2})"
        + _FRACTION
    ),
)
_YEAR: Final = r"(?:(?P<y>[0-9]{4})|(?P<y2>[0-9]{2}))"
_FIRST: Final = r"(?P<{}>[0-9]{{1,2}})[./-](?P<{}>[0-9]{{1,2}})[./-]"
AMBIGUOUS: Final = re.compile(
    rf"[0-9]{{1,2}}[./-][0-9]{{1,2}}[./-][0-9]{{2}}(?:[0-9]{{2}})?{_TAIL}"
)
"""What can be read two ways; only a declared order decides."""
ORDERED: Final = {
    "dmy": re.compile(_FIRST.format("d", "m") + _YEAR + _TAIL),
    "mdy": re.compile(_FIRST.format("m", "d") + _YEAR + _TAIL),
    "ymd": re.compile(r"(?P<y2>[0-9]{2})[./-](?P<m>[0-9]{1,2})[./-](?P<d>[0-9]{1,2})" + _TAIL),
}
Order = Literal["dmy", "mdy", "ymd"]

_MODEL: Final = re.compile(
    r'"(?P<quoted>[^"]*)"|(?P<element>YYYY|RRRR|RR|YY|MONTH|MON|MM|MI|DDD|DD|DAY|DY|HH24|HH12|HH'
    r"|SSSSS|SS|FF[1-9]?|A\.M\.|P\.M\.|AM|PM|TZH|TZM|TZR|FM|FX)|(?P<x>X)|(?P<mark>[^A-Za-z0-9])|(?P<t>T)",
    re.IGNORECASE,
)
_AP: Final = r"(?P<ap>[AaPp]\.?[Mm]\.?)"
_ELEMENTS: Final = {
    "YYYY": r"(?P<y>[0-9]{4})",
    "RRRR": _YEAR,
    "RR": r"(?P<y2>[0-9]{2})",
    "YY": r"(?P<y2>[0-9]{2})",
    "MONTH": _MONTH_NAME,
    "MON": _MONTH_NAME,
    "MM": r"(?P<m>[0-9]{1,2})",
    "DDD": r"(?P<doy>[0-9]{3})",
    "DD": r"(?P<d>[0-9]{1,2})",
    "DAY": r"[A-Za-z]+",
    "DY": r"[A-Za-z]{3}",
    "HH24": r"(?P<H>[0-9]{1,2})",
    "HH12": r"(?P<h12>[0-9]{1,2})",
    "HH": r"(?P<h12>[0-9]{1,2})",
    "MI": r"(?P<M>[0-9]{2})",
    "SSSSS": r"(?P<sod>[0-9]{1,5})",
    "SS": r"(?P<S>[0-9]{2})",
    "AM": _AP,
    "PM": _AP,
    "A.M.": _AP,
    "P.M.": _AP,
    "TZH": r"(?P<tzh>[+-]?[0-9]{2})",
    "TZM": r"(?P<tzm>[0-9]{2})",
    "TZR": r"(?P<z>[A-Za-z_/+-]+[0-9]*(?::[0-9]{2})?|[+-][0-9]{2}:[0-9]{2})",
    "FM": "",
    "FX": "",
}
_DIRECTIVES: Final = {
    "Y": _ELEMENTS["YYYY"],
    "y": _ELEMENTS["RR"],
    "m": _ELEMENTS["MM"],
    "d": _ELEMENTS["DD"],
    "b": _MONTH_NAME,
    "B": _MONTH_NAME,
    "j": _ELEMENTS["DDD"],
    "H": _ELEMENTS["HH24"],
    "I": _ELEMENTS["HH12"],
    "M": _ELEMENTS["MI"],
    "S": _ELEMENTS["SS"],
    "f": r"(?P<f>[0-9]{1,9})",
    "p": _AP,
    "z": r"(?P<z>[Zz]|[+-][0-9]{2}:?[0-9]{2})",
    "Z": _ELEMENTS["TZR"],
    "a": r"[A-Za-z]{3}",
    "A": r"[A-Za-z]+",
    "T": r"(?P<H>[0-9]{2}):(?P<M>[0-9]{2}):(?P<S>[0-9]{2})",
    "F": r"(?P<y>[0-9]{4})-(?P<m>[0-9]{2})-(?P<d>[0-9]{2})",
    "%": "%",
}


@lru_cache(maxsize=1024)
def compile_format(model: str) -> re.Pattern[str]:
    """A declared format as a pattern: strftime's when it holds ``%``, else an Oracle format model.

    Raises:
        ConfigError: The format holds an element that nobody knows, one twice, or no whole date.
    """
    pattern = _strftime(model) if "%" in model else _oracle(model)
    try:
        # A number next to another one has its full width, or 1112025 could be read two ways.
        compiled = re.compile(re.sub(r"\{1,2\}(?=\)\(\?P<[a-zA-Z0-9]+>\[0-9\])", "{2}", pattern))
    except re.error as error:
        raise ConfigError(f"formats: {model!r} has an element twice") from error
    parts = set(compiled.groupindex)
    if not parts & {"y", "y2"} or not ("doy" in parts or ({"d"} <= parts and parts & {"m", "mon"})):
        raise ConfigError(f"formats: {model!r} does not say year, month and day")
    return compiled


def _oracle(model: str) -> str:
    found = []
    at = 0
    while at < len(model):
        match = _MODEL.match(model, at)
        if match is None:
            raise ConfigError(f"formats: {model!r} is not understood at {model[at:]!r}")
        at = match.end()
        element = (match["element"] or "").upper()
        if element.startswith("FF"):
            digits = element[2:] or "9"
            found.append(rf"(?P<f>[0-9]{{1,{digits}}})")
        elif element:
            found.append(_ELEMENTS[element])
        elif match["x"]:
            found.append("[.,]")
        else:
            literal = match["quoted"] if match["quoted"] is not None else match["mark"] or "T"
            found.append(re.escape(literal))
    return "".join(found)


def _strftime(model: str) -> str:
    found = []
    letters = iter(model)
    for letter in letters:
        if letter != "%":
            found.append(re.escape(letter))
            continue
        directive = next(letters, "")
        if directive not in _DIRECTIVES:
            raise ConfigError(f"formats: {model!r} is not understood at '%{directive}'")
        found.append(_DIRECTIVES[directive])
    return "".join(found)
