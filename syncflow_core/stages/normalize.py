"""Normalize: staged raw rows through the five layers, part by part; every rejected row with its reason.

Belongs here: running the layers over staged frames, and giving rejected rows what their filing needs.
Does not belong here: the rules (``syncflow_core.normalize``), filing (``track``).

Source: product.md 2.
"""

import dataclasses
import logging
from collections import Counter
from collections.abc import Iterator

import polars as pl

from syncflow_core.columns import KEY_HASH, KEY_SOURCE, REFERENCE, REJECTED, ROW
from syncflow_core.fields import Shape
from syncflow_core.identity import text_hash_expr
from syncflow_core.keys import key_sources, keys_of
from syncflow_core.logs import about
from syncflow_core.normalize import LayerMetrics, misdeclared, normalize
from syncflow_core.privacy import Privacy
from syncflow_core.stages.known import read_ahead
from syncflow_core.stages.work import Connections, Staged, hold, timed

logger = logging.getLogger(__name__)

BREAKS = (
    ArithmeticError,
    LookupError,
    TypeError,
    ValueError,
    pl.exceptions.PanicException,
    pl.exceptions.PolarsError,
)
"""What column-wise work raises on a value that nobody has thought of."""

FILED = pl.Schema(
    {
        **REJECTED,
        "raw": pl.String(),
        KEY_HASH: pl.Binary(),
        REFERENCE: pl.String(),
        KEY_SOURCE: pl.String(),
        "raw_digest": pl.Binary(),
    }
)
"""Rejected rows as they are filed: the rule broken, the row as it came, its key where it has one.

Personal data is hidden in them; ``#key_source`` tells the key where the row does not for that reason.
"""


@about(stage="normalize")
def normalize_rows(connections: Connections, staged: Staged) -> Staged:
    """Normalize the staged raw rows.

    Returns:
        ``accepted``: normalized rows. ``rejected``: ``FILED``, the unreadable rows among them.
        ``counts`` has ``normalized`` and ``rejected``; together they are ``fetched``.

    Raises:
        ConfigError: More than half of one field's values break its declaration: the declaration is
            wrong, not the rows. Nothing was pushed.
    """
    seconds: dict[str, float] = {}
    with timed(connections, seconds, "normalize"):
        hold(connections, staged.order)
        read_ahead(connections, staged)
        work = _Normalizing(connections, staged)
        accepted = connections.frames.write(str(staged.batch), "accepted", work.parts())
        misdeclared(
            {name: (count, work.refused[name]) for name, count in work.values.items()},
            staged.counts["fetched"],
            entity=staged.name,
        )
        rejected = connections.frames.write(
            str(staged.batch), "rejected", [pl.concat(work.rejected)]
        )
    logger.info(
        "%s batch %s: %d rows accepted, %d rejected; %s",
        staged.name,
        staged.batch,
        accepted.rows,
        rejected.rows,
        ", ".join(
            f"{layer.name} changed {layer.changed} rejected {layer.rejected} in {layer.seconds:.2f} s"
            for layer in work.layers.values()
        ),
    )
    return staged.having(
        frames={"accepted": accepted, "rejected": rejected},
        counts={"normalized": accepted.rows, "rejected": rejected.rows},
        seconds=seconds,
        layers=tuple(dataclasses.asdict(layer) for layer in work.layers.values()),
    )


class _Normalizing:
    """One pass over the raw parts; sums what the layers report."""

    def __init__(self, connections: Connections, staged: Staged) -> None:
        self.connections, self.staged = connections, staged
        self.privacy = connections.privacy_of(staged.shape.entity)
        unreadable = connections.frames.read(staged.frames["unreadable"])
        self.rejected = [_unreadable(unreadable, staged.shape, self.privacy)]
        self.values: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.layers: dict[int, LayerMetrics] = {}

    def parts(self) -> Iterator[pl.DataFrame]:
        """The accepted rows of each raw part."""
        raw_ref, shape = self.staged.frames["raw"], self.staged.shape
        done = 0
        for raw in self.connections.frames.parts(raw_ref, last=True):
            yield from self._accepted(raw, shape)
            done += raw.height
            self.connections.progress(self.staged.name, "normalize", done, raw_ref.rows)

    def _accepted(self, raw: pl.DataFrame, shape: Shape) -> Iterator[pl.DataFrame]:
        """The accepted rows; a row that the layers break on, which is their fault, costs itself alone."""
        try:
            result = normalize(raw, shape)
        except BREAKS as error:
            if raw.height == 1:
                # the stack's last line would say the row's values
                logger.log(
                    logging.ERROR,
                    "%s: a row breaks the normalization: %s",
                    self.staged.name,
                    type(error).__name__,
                    exc_info=None if self.privacy else error,
                )
                broken = _broken(raw, error, hidden=bool(self.privacy))
                self.rejected.append(_filed(raw, broken, shape, self.privacy))
                return
            middle = raw.height // 2
            yield from self._accepted(raw[:middle], shape)
            yield from self._accepted(raw[middle:], shape)
            return
        if result.rejected.height:
            self.rejected.append(_filed(raw, result.rejected, shape, self.privacy))
        for field, (values, refused) in result.field_counts.items():
            self.values[field] += values
            self.refused[field] += refused
        for layer in result.layers:
            self.layers[layer.layer] = _sum(self.layers.get(layer.layer), layer)
        yield result.accepted


def _broken(raw: pl.DataFrame, error: BaseException, *, hidden: bool) -> pl.DataFrame:
    """One row that was not understood, as it is rejected; *hidden*: the error's words may say its values."""
    reason = (not hidden and str(error).splitlines()) or [type(error).__name__]
    return pl.DataFrame(
        {
            ROW: raw[ROW],
            "stage": "normalize",
            "layer": None,
            "rule": "broke",
            "column": None,
            "value": None,
            "message": f"SyncFlow itself failed on this row: {reason[0]}",
        },
        schema=REJECTED,
    )


def _sum(before: LayerMetrics | None, layer: LayerMetrics) -> LayerMetrics:
    if before is None:
        return layer
    return dataclasses.replace(
        layer,
        rows=before.rows + layer.rows,
        changed=before.changed + layer.changed,
        rejected=before.rejected + layer.rejected,
        seconds=before.seconds + layer.seconds,
    )


def _unreadable(frame: pl.DataFrame, shape: Shape, privacy: Privacy) -> pl.DataFrame:
    """Rows that the page parser could not make a row of, as they are filed."""
    filed = frame.with_columns(
        pl.lit("fetch").alias("stage"),
        pl.lit(None, dtype=pl.UInt8).alias("layer"),
        pl.lit(None, dtype=pl.Binary).alias(KEY_HASH),
        pl.lit(None, dtype=pl.String).alias(REFERENCE),
        pl.lit(None, dtype=pl.String).alias(KEY_SOURCE),
        text_hash_expr(pl.col("raw")).alias("raw_digest"),
    )
    if privacy and filed.height:
        raw = filed["raw"].to_list()
        filed = filed.with_columns(
            # a value without a column is the row, or more than one column's
            pl.when(pl.col("column").is_not_null()).then("value").alias("value"),
            pl.Series("raw", [privacy.json(text) for text in raw], dtype=pl.String),
            pl.Series(KEY_SOURCE, key_sources(raw, shape), dtype=pl.String),
        ).with_columns(_hidden_values(pl.col("value"), privacy))
    return filed.select(FILED.names())


def _filed(
    raw: pl.DataFrame, rejected: pl.DataFrame, shape: Shape, privacy: Privacy
) -> pl.DataFrame:
    """Give rejected rows the raw row as JSON, and their key where the key itself is in order."""
    rows = raw.filter(pl.col(ROW).is_in(rejected[ROW].implode()))
    keys = keys_of(rows, shape)
    as_text = rows.select(
        ROW,
        pl.struct(pl.exclude(ROW)).struct.json_encode().alias("raw"),
        pl.lit(None, pl.String).alias(KEY_SOURCE),
    )
    filed = (
        rejected.join(as_text, on=ROW, how="left", maintain_order="left")
        .join(keys, on=ROW, how="left", maintain_order="left")
        .with_columns(text_hash_expr(pl.col("raw")).alias("raw_digest"))
    )
    if privacy:
        filed = _with_values(filed, rows, privacy).with_columns(
            pl.Series(KEY_SOURCE, key_sources(filed["raw"].to_list(), shape), dtype=pl.String)
            if privacy.columns.keys() & set(shape.key_columns)
            else KEY_SOURCE,
            privacy.references(pl.col(REFERENCE), pl.col(KEY_HASH), shape.key_fields),
        )
        hidden = privacy.frame(rows, privacy.columns).select(
            ROW, pl.struct(pl.exclude(ROW)).struct.json_encode().alias("raw")
        )
        filed = filed.drop("raw").join(hidden, on=ROW, how="left", maintain_order="left")
    return filed.select(FILED.names())


def _with_values(filed: pl.DataFrame, rows: pl.DataFrame, privacy: Privacy) -> pl.DataFrame:
    """What stands for the offending values of hidden columns, which the layers do not tell."""
    names = [name for name in privacy.columns if name in rows.columns]
    sent = rows.select(ROW, *(pl.col(name).alias(f"#sent:{name}") for name in names))
    value = pl.col("value")
    for name in names:
        value = pl.when(pl.col("column") == name).then(pl.col(f"#sent:{name}")).otherwise(value)
    told = filed.join(sent, on=ROW, how="left", maintain_order="left")
    return told.with_columns(_hidden_values(value, privacy)).select(filed.columns)


def _hidden_values(value: pl.Expr, privacy: Privacy) -> pl.Expr:
    shown = value
    for name, kind in privacy.columns.items():
        shown = pl.when(pl.col("column") == name).then(privacy.expr(kind, value)).otherwise(shown)
    return shown.alias("value")
