"""What a person declares of an entity: keys, fields, parents, schedule.

Belongs here: the shape of a declaration and the checks that need nothing else.
Does not belong here: reading and writing files (``entities_file``), what the source
adds where the declaration is silent (``fields``).

Source: design.md, "Entities file".
"""

import keyword
import re
from typing import Annotated, Any, Final, Literal

import pydantic
from pydantic import AfterValidator, BeforeValidator, model_validator

from syncflow_core.catalog import FieldType
from syncflow_core.columns import OWN
from syncflow_core.transforms import Declared, Transform, named
from syncflow_core.zones import zone_name

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


def is_pattern(name: str) -> bool:
    """Whether the column engine takes the name for many columns: ``*``, or ``^...$``."""
    return name == "*" or (name.startswith("^") and name.endswith("$"))


def _no_nul(value: object) -> object:
    """PostgreSQL stores no NUL, so no declaration holds one."""
    if isinstance(value, str) and "\0" in value:
        raise ValueError("holds a NUL character")
    return value


def _limit(value: str | float | None) -> str | float | None:
    if isinstance(value, str) and not _LIMIT.fullmatch(value):
        raise ValueError(f"{value!r} is neither a number nor a date")
    return value


_LIMIT = re.compile(r"[-+]?\d+(\.\d+)?([eE][-+]?\d+)?|\d{4}-\d{2}-\d{2}([T ][\d:.]+Z?)?")
Zone = Annotated[str, AfterValidator(zone_name)] | None
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


class Field(Declared):
    """One field of an entity: where it comes from, what it becomes."""

    source: str | None = pydantic.Field(default=None, examples=["QTY"])
    """The source column."""
    target: str | None = pydantic.Field(default=None, examples=["quantity"])
    """The hub's field; the source's name in lower case without one."""
    type: FieldType | None = pydantic.Field(default=None, examples=["decimal"])
    """What it holds; as APISmith says without one."""
    transform: Annotated[list[Transform], BeforeValidator(named)] = pydantic.Field(
        default=[], examples=[["trim", "upper"]]
    )
    """What its value goes through, in this order."""
    values: dict[str, str | None] | None = pydantic.Field(
        default=None, examples=[{"Released": "RELEASED"}]
    )
    """The values that are allowed, each with what it becomes."""
    default: str | int | bool | None = pydantic.Field(default=None, examples=["PLANNED"])
    """What stands for NULL."""
    required: bool = pydantic.Field(default=False, examples=[True])
    """Whether NULL is rejected."""
    precision: int | None = pydantic.Field(default=None, ge=1, le=38, examples=[12])
    """Digits of a number, at most."""
    scale: int | None = pydantic.Field(default=None, ge=-84, le=127, examples=[3])
    """Digits behind its point, at most."""
    minimum: Limit = pydantic.Field(default=None, examples=[0])
    """The least number or date."""
    maximum: Limit = pydantic.Field(default=None, examples=[1000000])
    """The greatest number or date."""
    max_length: int | None = pydantic.Field(default=None, ge=1, examples=[40])
    """Characters of a text, at most."""
    formats: list[str] = pydantic.Field(default=[], examples=[["DD.MM.YYYY"]])
    """How dates may be written, in this order."""
    date_order: Literal["dmy", "mdy", "ymd"] | None = pydantic.Field(default=None, examples=["dmy"])
    """How ``01/02/2025`` is read; an ambiguous date is rejected without one."""
    time_zone: Zone = pydantic.Field(default=None, examples=["Europe/Berlin"])
    """The zone of its times; the entity's without one."""
    decimal_separator: Literal[".", ","] = pydantic.Field(default=".", examples=[","])
    """What stands before the fraction."""
    percent: bool = pydantic.Field(default=False, examples=[False])
    """Whether ``12 %`` is 0.12."""
    encoding: Literal["hex", "base64"] = pydantic.Field(default="hex", examples=["base64"])
    """How the source writes bytes."""
    null_words: list[str] = pydantic.Field(default=[], examples=[["N/A"]])
    """Texts that mean NULL."""
    repair: bool = pydantic.Field(default=False, examples=[True])
    """Whether text that was decoded wrongly is repaired."""
    invalid_unicode: Literal["reject", "replace"] = pydantic.Field(
        default="reject", examples=["replace"]
    )
    """What is done with text that is none."""
    on_error: Literal["reject", "null"] = pydantic.Field(default="reject", examples=["null"])
    """Whether a bad value rejects the record, or becomes NULL."""
    volatile: bool = pydantic.Field(default=False, examples=[True])
    """Sent, but no reason for an update."""
    pii: Literal["mask", "hash", "drop"] | None = pydantic.Field(default=None, examples=["mask"])
    """How its values are hidden wherever people look; the hub gets them as they are."""

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

    column: str = pydantic.Field(examples=["ROWVERSION"])
    """The source column."""
    kind: RowversionKind | None = pydantic.Field(default=None, examples=["timestamp"])
    """How two of them compare; as APISmith says without one."""
    overlap_s: int = pydantic.Field(default=300, ge=0, examples=[300])
    """How far an incremental fetch looks back, for rows that were committed late: seconds of a
    timestamp; of an integer or hex counter, so many counts. A text cannot be moved."""


class Brake(Declared):
    """Withhold deletes (or updates) beyond both numbers."""

    rows: int = pydantic.Field(default=100, ge=0, examples=[100])
    """So many go through in any case."""
    share: float = pydantic.Field(default=0.1, ge=0, le=1, examples=[0.1])
    """So large a share of the known records goes through in any case."""


class ParentRef(Declared):
    """A reference to a parent: the parent entity, and its key fields from this entity's fields."""

    entity: str = pydantic.Field(examples=["orders"])
    """The parent."""
    key: dict[str, str] = pydantic.Field(min_length=1, examples=[{"order_no": "order_no"}])
    """Parent's key field (target name) to this entity's field (target name)."""


class Background(Declared):
    """The sweep of the whole table in slices, at night."""

    enabled: bool = pydantic.Field(default=True, examples=[True])
    """Whether the table is swept."""
    window: Annotated[
        str, pydantic.Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$")
    ] = pydantic.Field(default="19:00-07:00", examples=["19:00-07:00"])
    """From when to when."""
    time_zone: Zone = pydantic.Field(default=None, examples=["Europe/Berlin"])
    """The zone of the window; the installation's without one."""
    nights: int = pydantic.Field(default=7, ge=1, le=366, examples=[7])
    """In how many nights the table is swept."""

    @model_validator(mode="after")
    def _closes(self) -> "Background":
        begin, _, end = self.window.partition("-")
        if begin == end:
            raise ValueError(f"the window {self.window} is never closed")
        return self


MONTH: Final = 31 * 24 * 60
"""Minutes."""


class Schedule(Declared):
    """When an entity is synced without anyone asking."""

    incremental_minutes: int | None = pydantic.Field(default=None, ge=1, le=MONTH, examples=[15])
    """By day, what has changed is read so often; never without one."""
    background: Background = Background()
    """The sweep by night."""


class Entity(Declared):
    """One entity: what is read, what it becomes, where it goes."""

    name: str = pydantic.Field(pattern=NAME.pattern, examples=["order_lines"])
    """Its name, the key of its asset."""
    api: Place = pydantic.Field(default="", examples=["order_lines"])
    """APISmith's slug; the name without one."""
    collection: Place = pydantic.Field(default="", examples=["order_lines"])
    """ScheduleHub's collection; the name without one."""
    group: str = pydantic.Field(default="erp", pattern=r"^[A-Za-z0-9_]+$", examples=["sales"])
    """Its group in the Dagster UI."""
    description: Text = pydantic.Field(default="", examples=["Lines of sales orders."])
    """For people."""
    owners: list[Owner] = pydantic.Field(default=[], examples=[["team:planning"]])
    """Teams or addresses."""
    enabled: bool = pydantic.Field(default=True, examples=[True])
    """Whether it is synced."""
    business_key: list[str] = pydantic.Field(default=[], examples=[["ORDER_NO", "LINE_NO"]])
    """The source columns of its key; as APISmith says without any."""
    rowversion: Rowversion | None = None
    """The source's change counter; as APISmith says without one."""
    delta: Literal["hash", "rowversion", "full"] | None = pydantic.Field(
        default=None, examples=["hash"]
    )
    """How changes are found; as APISmith says without one."""
    deletes: Literal["delete", "ignore"] = pydantic.Field(default="delete", examples=["delete"])
    """Whether records that are gone from the source are deleted."""
    brake: Brake = Brake()
    """Beyond what numbers a person is asked."""
    time_zone: Zone = pydantic.Field(default=None, examples=["Europe/Berlin"])
    """The zone of times without one; they stay without a zone where there is none."""
    date_order: Literal["dmy", "mdy", "ymd"] | None = pydantic.Field(default=None, examples=["dmy"])
    """How ``01/02/2025`` is read; an ambiguous date is rejected without one."""
    unmapped: Literal["keep", "drop"] = pydantic.Field(default="keep", examples=["keep"])
    """What becomes of source columns that no field names."""
    fields: list[Field] = pydantic.Field(default=[])
    """What is made of the source's columns."""
    parents: dict[Annotated[str, pydantic.Field(pattern=NAME.pattern)], ParentRef] = pydantic.Field(
        default={}
    )
    """Its references to other entities, by name."""
    schedule: Schedule = Schedule()
    """When it is synced without anyone asking."""

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
