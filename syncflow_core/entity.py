"""What a person declares of an entity: keys, fields, parents, schedule.

Belongs here: the shape of a declaration and the checks that need nothing else.
Does not belong here: reading and writing files (``entities_file``), what the source
adds where the declaration is silent (``fields``).

Source: design.md, "Entities file".
"""

import keyword
import re
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pydantic
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, model_validator

from syncflow_core.catalog import FieldType
from syncflow_core.columns import OWN

NAME = re.compile(r"^[a-z][a-z0-9_]{0,62}$")
"""An entity's name: it becomes a Dagster asset key and part of op names."""

HUB_FIELDS = frozenset(
    {
        "uid",
        "erp_key_hash",
        "erp_data_hash",
        "erp_rowversion",
        "erp_ref_str",
        "parent_refs",
        "is_deleted",
    }
)
"""The hub's own fields of a record (contract.md); no target field may take their names."""

FORMS = (
    "formats",
    "date_order",
    "decimal_separator",
    "percent",
    "encoding",
    "null_words",
    "repair",
    "invalid_unicode",
)
"""The keys of a field that say how the source writes its values."""

BooleanWords = dict[Literal["true", "false"], list[str]]


def is_pattern(name: str) -> bool:
    """Whether the column engine takes the name for many columns: ``*``, or ``^...$``."""
    return name == "*" or (name.startswith("^") and name.endswith("$"))


def _no_nul(value: object) -> object:
    """PostgreSQL stores no NUL, so no declaration holds one."""
    if isinstance(value, str) and "\0" in value:
        raise ValueError("holds a NUL character")
    return value


def _zone(value: str | None) -> str | None:
    if value is not None:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError(f"{value!r} is not a time zone name such as Europe/Berlin") from error
    return value


def _limit(value: str | float | None) -> str | float | None:
    if isinstance(value, str) and not _LIMIT.fullmatch(value):
        raise ValueError(f"{value!r} is neither a number nor a date")
    return value


_LIMIT = re.compile(r"[-+]?\d+(\.\d+)?([eE][-+]?\d+)?|\d{4}-\d{2}-\d{2}([T ][\d:.]+Z?)?")
Zone = Annotated[str | None, AfterValidator(_zone)]
Limit = Annotated[str | int | float | None, AfterValidator(_limit)]
Text = Annotated[str, AfterValidator(_no_nul)]
Place = Annotated[str, pydantic.Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9_.-]*)?$")]
"""A part of a URL's path: an API's slug, a collection."""
Owner = Annotated[
    str,
    pydantic.Field(
        pattern=r"^(team:[A-Za-z0-9_-]+|[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,})$"
    ),
]
"""``team:planning`` or an e-mail address, as Dagster takes them."""


class Declared(BaseModel):
    """Base of all declarations: frozen; a key that nobody knows is a fault, and so is ``"5"`` for 5."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Pad(Declared):
    """Fill a text up to ``length`` characters."""

    length: int = pydantic.Field(gt=0, le=4000)
    fill: str = pydantic.Field(default=" ", min_length=1, max_length=1)
    side: Literal["left", "right"] = "left"


class Substring(Declared):
    """Keep ``length`` characters from ``start`` (1 is the first; negative counts from the end)."""

    start: int = 1
    length: int | None = pydantic.Field(default=None, ge=0)


class Concat(Declared):
    """Join source columns; NULLs are passed over."""

    columns: list[str] = pydantic.Field(min_length=1)
    separator: str = ""


class Replace(Declared):
    """Replace every occurrence of a text, or of a regular expression."""

    old: str = pydantic.Field(min_length=1)
    new: str = ""
    regex: bool = False

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

    upper: Literal[True] | None = None
    lower: Literal[True] | None = None
    trim: Literal[True] | None = None
    pad: Pad | None = None
    substring: Substring | None = None
    concat: Concat | None = None
    replace: Replace | None = None
    lookup: dict[str, str | None] | None = None
    constant: str | int | bool | None = None
    coalesce: list[str] | None = None
    boolean: BooleanWords | None = None

    @model_validator(mode="after")
    def _one(self) -> "Transform":
        if len(self.model_fields_set) != 1:
            raise ValueError("a transformation has exactly one key")
        return self

    @property
    def kind(self) -> str:
        """The one key that is given."""
        return next(iter(self.model_fields_set))


def _transforms(value: object) -> object:
    """``upper`` for ``[{upper: true}]``; one transformation for a list of one."""
    values = value if isinstance(value, list) else [value]
    return [{item: True} if isinstance(item, str) else item for item in values]


class Field(Declared):
    """One field of an entity: where it comes from, what it becomes."""

    source: str | None = None
    target: str | None = None
    type: FieldType | None = None
    transform: Annotated[list[Transform], BeforeValidator(_transforms)] = []
    values: dict[str, str | None] | None = None
    default: str | int | bool | None = None
    required: bool = False
    precision: int | None = pydantic.Field(default=None, ge=1, le=38)
    scale: int | None = pydantic.Field(default=None, ge=-84, le=127)
    minimum: Limit = None
    maximum: Limit = None
    max_length: int | None = pydantic.Field(default=None, ge=1)
    formats: list[str] = []
    date_order: Literal["dmy", "mdy", "ymd"] | None = None
    time_zone: Zone = None
    decimal_separator: Literal[".", ","] = "."
    percent: bool = False
    encoding: Literal["hex", "base64"] = "hex"
    null_words: list[str] = []
    repair: bool = False
    invalid_unicode: Literal["reject", "replace"] = "reject"
    on_error: Literal["reject", "null"] = "reject"
    volatile: bool = False
    pii: Literal["mask", "hash", "drop"] | None = None

    @model_validator(mode="after")
    def _named(self) -> "Field":
        makes_value = any(
            step.kind in {"constant", "concat", "coalesce"} for step in self.transform
        )
        if self.source is None and not makes_value and self.default is None:
            raise ValueError("needs a source, a constant, a concat, a coalesce or a default")
        if self.source is None and self.target is None:
            raise ValueError("needs a target, for it has no source to take a name from")
        for name in (self.source, self.target):
            if name is not None and (not name or name.startswith(OWN)):
                raise ValueError(
                    f"{name!r} is no name: names are not empty and do not begin with {OWN}"
                )
            if name is not None and is_pattern(name):
                raise ValueError(f"{name!r} is no name: it reads as a pattern of names")
        if self.name in HUB_FIELDS:
            raise ValueError(f"target {self.name!r} is one of the hub's own fields")
        return self

    @property
    def columns_besides(self) -> tuple[str, ...]:
        """The source columns that its transformations read besides its own."""
        names: list[str] = []
        for step in self.transform:
            names += step.coalesce or ()
            names += step.concat.columns if step.concat else ()
        return tuple(dict.fromkeys(names))

    @property
    def name(self) -> str:
        """The target name: as declared, else the source's in lower case."""
        return self.target if self.target is not None else (self.source or "").lower()


RowversionKind = Literal["integer", "timestamp", "hex", "text"]
"""How two rowversions compare."""


class Rowversion(Declared):
    """The source's change counter: its column, how two of them compare, how far to look back."""

    column: str
    kind: RowversionKind | None = None
    overlap_s: int = pydantic.Field(default=300, ge=0)
    """How far an incremental fetch looks back, for rows that were committed late: seconds of a
    timestamp; of an integer or hex counter, so many counts. A text cannot be moved."""


class Brake(Declared):
    """Withhold deletes (or updates) beyond both numbers."""

    rows: int = pydantic.Field(default=100, ge=0)
    share: float = pydantic.Field(default=0.1, ge=0, le=1)


class ParentRef(Declared):
    """A reference to a parent: the parent entity, and its key fields from this entity's fields."""

    entity: str
    key: dict[str, str] = pydantic.Field(min_length=1)
    """Parent's key field (target name) to this entity's field (target name)."""


class Background(Declared):
    """The sweep of the whole table in slices, at night."""

    enabled: bool = True
    window: Annotated[
        str, pydantic.Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$")
    ] = "19:00-07:00"
    time_zone: Zone = None
    nights: int = pydantic.Field(default=7, ge=1, le=366)


class Schedule(Declared):
    """When an entity is synced without anyone asking."""

    incremental_minutes: int | None = pydantic.Field(default=None, ge=1)
    background: Background = Background()


class Entity(Declared):
    """One entity: what is read, what it becomes, where it goes."""

    name: str = pydantic.Field(pattern=NAME.pattern)
    api: Place = ""
    collection: Place = ""
    group: str = pydantic.Field(default="erp", pattern=r"^[A-Za-z0-9_]+$")
    description: Text = ""
    owners: list[Owner] = []
    enabled: bool = True
    business_key: list[str] = []
    rowversion: Rowversion | None = None
    delta: Literal["hash", "rowversion", "full"] | None = None
    deletes: Literal["delete", "ignore"] = "delete"
    brake: Brake = Brake()
    time_zone: Zone = None
    date_order: Literal["dmy", "mdy", "ymd"] | None = None
    unmapped: Literal["keep", "drop"] = "keep"
    fields: list[Field] = []
    parents: dict[Annotated[str, pydantic.Field(pattern=NAME.pattern)], ParentRef] = {}
    schedule: Schedule = Schedule()

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, data: Any) -> Any:  # noqa: ANN401  # whatever the file held
        if isinstance(data, dict) and isinstance(data.get("name"), str):
            name = data["name"]
            return {"api": name, "collection": name, **data}
        return data

    @model_validator(mode="after")
    def _consistent(self) -> "Entity":
        if keyword.iskeyword(self.name):
            raise ValueError(f"{self.name!r} is a word of Python, which Dagster refuses as a name")
        targets = [item.name for item in self.fields]
        twice = sorted({name for name in targets if targets.count(name) > 1})
        if twice:
            raise ValueError(f"two fields have the target {', '.join(twice)}")
        if len(set(self.business_key)) != len(self.business_key):
            raise ValueError("business_key names a column twice")
        return self
