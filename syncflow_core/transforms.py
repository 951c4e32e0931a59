"""What a field's value goes through, as a person declares it; and what all declarations share.

Belongs here: the shape of a transformation.
Does not belong here: doing it (``normalize.mapping``), the rest of a declaration (``entity``).

Source: product.md 2.5; design.md, "Entities file".
"""

import re
from typing import Literal

import pydantic
from pydantic import BaseModel, ConfigDict, model_validator

BooleanWords = dict[Literal["true", "false"], list[str]]


class Declared(BaseModel):
    """Base of all declarations: frozen; a key that nobody knows is a fault, and so is ``"5"`` for 5."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True
    )


class Pad(Declared):
    """Fill a text up to ``length`` characters."""

    length: int = pydantic.Field(gt=0, le=4000, examples=[8])
    """Up to so many characters."""
    fill: str = pydantic.Field(default=" ", min_length=1, max_length=1, examples=["0"])
    """One character."""
    side: Literal["left", "right"] = pydantic.Field(default="left", examples=["left"])
    """On which side."""


class Substring(Declared):
    """Keep ``length`` characters from ``start`` (1 is the first; negative counts from the end)."""

    start: int = pydantic.Field(default=1, examples=[1])
    """1 is the first; negative counts from the end."""
    length: int | None = pydantic.Field(default=None, ge=0, examples=[4])
    """So many characters; all that follow without one."""


class Concat(Declared):
    """Join source columns; NULLs are passed over."""

    columns: list[str] = pydantic.Field(min_length=1, examples=[["FIRST_NAME", "LAST_NAME"]])
    """Source columns, in their order."""
    separator: str = pydantic.Field(default="", examples=[" "])
    """Between two of them."""


class Replace(Declared):
    """Replace every occurrence of a text, or of a regular expression."""

    old: str = pydantic.Field(min_length=1, examples=["-"])
    """What is replaced, wherever it stands."""
    new: str = pydantic.Field(default="", examples=[""])
    """What stands there then."""
    regex: bool = pydantic.Field(default=False, examples=[False])
    """Whether ``old`` is a regular expression."""

    @model_validator(mode="after")
    def _compiles(self) -> "Replace":
        if self.regex:
            try:
                re.compile(self.old)
            except re.error as error:
                raise ValueError(f"{self.old!r} is no regular expression: {error}") from error
        return self


class Transform(Declared):
    """One transformation; exactly one of the keys is given. ``upper`` alone is short for ``{upper: true}``."""

    upper: Literal[True] | None = pydantic.Field(default=None, examples=[True])
    """To upper case."""
    lower: Literal[True] | None = pydantic.Field(default=None, examples=[True])
    """To lower case."""
    trim: Literal[True] | None = pydantic.Field(default=None, examples=[True])
    """Without white space at the ends."""
    pad: Pad | None = None
    """Filled up."""
    substring: Substring | None = None
    """A part of it."""
    concat: Concat | None = None
    """Source columns, joined."""
    replace: Replace | None = None
    """A text replaced by another."""
    lookup: dict[str, str | None] | None = pydantic.Field(
        default=None, examples=[{"A": "active", "I": "inactive"}]
    )
    """Each value by another one; a value that is not there is rejected."""
    constant: str | int | bool | None = pydantic.Field(default=None, examples=["ERP"])
    """Always the same."""
    coalesce: list[str] | None = pydantic.Field(default=None, examples=[["SHIP_DATE", "DUE_DATE"]])
    """The first of these source columns that is not NULL."""
    boolean: BooleanWords | None = pydantic.Field(
        default=None, examples=[{"true": ["Y"], "false": ["N"]}]
    )
    """Which words mean true, and which false."""

    @model_validator(mode="after")
    def _one(self) -> "Transform":
        if len(self.model_fields_set) != 1:
            raise ValueError("a transformation has exactly one key")
        return self

    @property
    def kind(self) -> str:
        """The one key that is given."""
        return next(iter(self.model_fields_set))


def named(value: object) -> object:
    """``upper`` for ``[{upper: true}]``; one transformation for a list of one."""
    values = value if isinstance(value, list) else [value]
    return [{item: True} if isinstance(item, str) else item for item in values]
