"""One entity against both systems: its declaration, its columns, one page of its rows, its collection.

Nothing is kept and nothing is sent: the sample is read, normalized and forgotten.

Belongs here: looking at what a sync of the entity would meet.
Does not belong here: how a declaration resolves (``fields``), the layers (``normalize``), what drift is
(``contract``): they are the stages' own.

Source: product.md 10 ("contract (one page, one query), mapping against both schemas, key uniqueness on a
sample") and 12.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

import polars as pl

from syncflow_core.apismith import Sort, Source
from syncflow_core.bridge.entities import Registered
from syncflow_core.catalog import Api
from syncflow_core.columns import KEY_HASH, REFERENCE, ROW, ROWVERSION
from syncflow_core.contract import agree
from syncflow_core.doctor.checks import Check, Seen
from syncflow_core.errors import ContractError
from syncflow_core.fields import Shape, shape_of
from syncflow_core.keys import keys_of
from syncflow_core.normalize import Normalized, misdeclared, normalize
from syncflow_core.outcomes import HubRecord
from syncflow_core.pages import Page
from syncflow_core.parents import lineage, refuse_never_null, refuse_other_keys
from syncflow_core.schedulehub import Target
from syncflow_core.stages.normalize import BREAKS

SAMPLE: Final = 1_000
"""Rows of the page that is read: from so many on, ``misdeclared`` concludes something."""
WRONG_KEY: Final = 0.1
"""Share of the sample without a key of its own, from which the key is wrong rather than the rows."""
NOBODY: Final = bytes(16)
"""A key hash that no record has: a query for it writes and finds nothing."""


class Catalogue:
    """What the source says of its APIs, each asked for once.

    Args:
        source: The client.
    """

    def __init__(self, source: Callable[[], Source]) -> None:
        self._source = source
        self._known: dict[str, Api] = {}

    def describe(self, slug: str) -> Api:
        """One API's description."""
        if slug not in self._known:
            self._known[slug] = self._source().describe(slug)
        return self._known[slug]


class Declared:
    """One entity while it is looked at.

    Args:
        item: Its declaration and what was accepted of its columns.
        others: All declarations by name, for its parents.
        source: APISmith.
        target: ScheduleHub.
        catalogue: What APISmith says of its APIs.
    """

    def __init__(
        self,
        item: Registered,
        others: Mapping[str, Registered],
        source: Callable[[], Source],
        target: Callable[[], Target],
        catalogue: Catalogue,
    ) -> None:
        self._item, self._entity = item, item.entity
        self._others = others
        self._source, self._target = source, target
        self._catalogue = catalogue
        self._shape: Shape | None = None
        self._page: Page | None = None
        self._held: list[HubRecord] = []

    def checks(self) -> tuple[Check, ...]:
        """What a sync of it would meet, in the order in which it would."""
        name = self._entity.name
        own = f"entity.{name}"
        declare = f"syncflow entities export {name} > {name}.yaml, correct it, "
        declare += f"syncflow entities apply {name}.yaml"
        parents = (
            [Check(f"{own}.parents", self._parents, declare, (f"{own}.declaration",))]
            if self._entity.parents
            else []
        )
        return (
            Check(f"{own}.declaration", self._declaration, declare, ("apismith.login",)),
            Check(
                f"{own}.columns",
                self._columns,
                f"where the source is right: syncflow entities accept {name}",
                (f"{own}.declaration",),
            ),
            *parents,
            Check(
                f"{own}.page",
                self._read,
                f"see whether APISmith can read its API {self._entity.api!r}",
                (f"{own}.declaration",),
            ),
            Check(f"{own}.key", self._key, f"business_key: {declare}", (f"{own}.page",)),
            Check(
                f"{own}.rows",
                self._layers,
                f"docs/normalization.md says what each rule wants; {declare}",
                (f"{own}.page",),
            ),
            Check(
                f"{own}.collection",
                self._collection,
                f"is {self._entity.collection!r} a collection of the hub, and may the account use it? "
                f"collection: {declare}",
                ("schedulehub.login",),
            ),
            Check(
                f"{own}.mapping",
                self._mapping,
                f"fields: {declare}",
                (f"{own}.declaration", f"{own}.collection"),
            ),
        )

    def _declaration(self) -> Seen:
        shape = self._shape = shape_of(self._entity, self._catalogue.describe(self._entity.api))
        version = (
            f"rowversion {shape.rowversion_column} ({shape.rowversion_kind})"
            if shape.rowversion_column
            else "no rowversion"
        )
        words = f"{len(shape.api.columns)} columns, {len(shape.fields)} fields, "
        words += f"key {', '.join(shape.key_columns)}, {version}, delta {shape.delta}"
        if not self._entity.enabled:
            return Seen(f"{words}; it is disabled, and not synced", "warn")
        return Seen(words)

    def _columns(self) -> Seen:
        if self._item.contract is None:
            return Seen("not accepted yet: the first sync accepts them as they are")
        found = agree(self._item.contract, self._known_shape.api, self._entity)
        if found.reported:
            return Seen(f"not as accepted: {found.text}; the next sync accepts them", "warn")
        return Seen(f"as accepted (version {self._item.contract_version})")

    def _parents(self) -> Seen:
        names = sorted({parent.entity for parent in self._entity.parents.values()})
        lacking = [name for name in names if name not in self._others]
        if lacking:
            return Seen(f"not declared: {', '.join(lacking)}", "fail")
        declared = [self._others[name].entity for name in names]
        every = {name: item.entity for name, item in self._others.items() if item.enabled}
        order = lineage(list({**every, self._entity.name: self._entity}.values()))
        closing = order.deferred_of(self._entity.name)
        refuse_never_null(self._entity, closing, self._known_shape.key_fields)
        refuse_other_keys(
            self._entity,
            {
                item.name: shape_of(item, self._catalogue.describe(item.api)).key_fields
                for item in declared
            },
        )
        off = [item.name for item in declared if not item.enabled]
        if off:
            return Seen(f"disabled, so that children may wait: {', '.join(off)}", "warn")
        return Seen(", ".join(names))

    def _read(self) -> Seen:
        shape = self._known_shape
        sort = [Sort(name) for name in shape.key_columns]
        page = self._page = self._source().execute(shape.api, limit=SAMPLE, sort=sort)
        words = f"{page.rows:,} of {page.total_rows:,} rows read"
        if not page.rows and page.total_rows:
            raise ContractError(f"{words}: the page is empty", system="apismith")
        if page.unknown_columns:
            return Seen(
                f"{words}; columns that APISmith does not describe: "
                f"{', '.join(page.unknown_columns)}",
                "warn",
                "have APISmith describe them; they are left out until then",
            )
        return Seen(words)

    def _key(self) -> Seen:
        raw = self._sample
        keys = keys_of(raw, self._known_shape)
        twice = keys.filter(pl.col(KEY_HASH).is_duplicated())
        more = keys.height - keys[KEY_HASH].n_unique()
        without = raw.height - keys.height
        if not more and not without:
            return Seen(f"unique in {raw.height:,} rows")
        parts = [f"{without:,} rows without a whole key"] if without else []
        if more:
            parts.append(f"{more:,} rows with the key of another, such as {twice[REFERENCE][0]}")
        words = f"of {raw.height:,} rows: {'; '.join(parts)}"
        return Seen(words, "fail" if more + without > WRONG_KEY * raw.height else "warn")

    def _layers(self) -> Seen:
        raw, shape = self._sample, self._known_shape
        try:
            done = normalize(raw, shape)
        except BREAKS as error:
            reason = (str(error).splitlines() or [""])[0]
            return Seen(f"a row breaks the layers ({type(error).__name__}: {reason})", "warn")
        misdeclared(done.field_counts, raw.height, entity=self._entity.name)
        return self._told(done, raw.height)

    def _told(self, done: Normalized, rows: int) -> Seen:
        """What was rejected, by rule; rows that are no rows count."""
        page = self._page
        unreadable = Counter(page.rejected["rule"]) if page is not None else Counter[str]()
        broken = Counter(
            f"{rule} in {column}" if column else str(rule)
            for rule, column in done.rejected.select("rule", "column").iter_rows()
        )
        rules = unreadable + broken
        shape = self._known_shape
        late = done.accepted[ROWVERSION].null_count() if shape.rowversion_column else 0
        parts = [f"{count:,} x {rule}" for rule, count in rules.most_common()]
        if late and shape.delta == "rowversion":
            parts.append(f"{late:,} without a rowversion, which incremental syncs do not see")
        if parts:
            return Seen(f"of {rows:,} rows rejected: {', '.join(parts)}", "warn")
        return Seen(f"all {rows:,} rows pass the layers")

    def _collection(self) -> Seen:
        target, place = self._target(), self._entity.collection
        first = next(target.pages(place, ["uid", "erp_key_hash"], limit=1))
        key = first["erp_key_hash"][0] if first.height else None
        self._held = target.query(place, [NOBODY if key is None else key])
        words = "it holds records" if first.height else "it holds no record yet"
        calls = (
            "takes batches" if target.has_batch_calls(place) else "has no batch calls: one by one"
        )
        return Seen(f"{place}: {words}, and {calls}")

    def _mapping(self) -> Seen:
        """The fields against those of a record there: the hub tells nothing else of its fields."""
        if not self._held:
            return Seen("the hub tells its fields by its records, and none is there yet", "skipped")
        there = self._held[0].fields
        lacking = [item.name for item in self._known_shape.fields if item.name not in there]
        if lacking:
            return Seen(
                f"a record there has no {', '.join(lacking)}: new since its sync, or no field of the hub's",
                "warn",
            )
        return Seen(f"a record there has all {len(self._known_shape.fields)} fields")

    @property
    def _known_shape(self) -> Shape:
        assert self._shape is not None, "needs the declaration"  # noqa: S101  # as its needs say
        return self._shape

    @property
    def _sample(self) -> pl.DataFrame:
        assert self._page is not None, "needs the page"  # noqa: S101  # as its needs say
        return self._page.frame.with_row_index(ROW)
