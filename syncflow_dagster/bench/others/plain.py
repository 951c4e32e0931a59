r"""The same sync as a plain program: one record after the other, as an engineer writes it in an afternoon.

Belongs here: pages, rules, hashes, what is known, and batches, for the wide table alone.
Does not belong here: anything of SyncFlow's. A test holds its hashes against ``syncflow_core.identity``.

What it leaves out is told in ``compare``. The text that is hashed is SyncFlow's (decision 0002): names
sorted, ``name=value|name=value``, ``\``, ``|`` and ``=`` escaped, a NULL the bare name.
"""

import json
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Any, Final, LiteralString

import httpx
import psycopg
import xxhash
from blake3 import blake3

from syncflow_dagster.bench.others.child import Task, serve

PAGE, BATCH = 10_000, 1_000
TIMEOUT_S = 120
MOST_DIGITS = 40
CONTROL: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufeff]")
GROUPED: Final = re.compile(r"-?[1-9][0-9]{0,2}(,[0-9]{3})+(\.[0-9]+)?")
NUMBER: Final = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
FORMATS: Final = ("%Y/%m/%d", "%d-%b-%Y", "%d-%b-%y", "%d.%m.%Y", "%Y%m%d%H%M%S")
WHITE: Final = "\u200b" + "".join(chr(code) for code in range(0x3001) if chr(code).isspace())
ESCAPES: Final = str.maketrans({"\\": "\\\\", "|": "\\|", "=": "\\="})


class BadValueError(ValueError):
    """A value that breaks its column's rule; the record is rejected."""


def text(value: object) -> str | None:
    """A text without control characters and white space around it, in form C; empty is NULL."""
    if value is None:
        return None
    found = value if isinstance(value, str) else str(value)
    if not (found.isascii() and found.isprintable()):
        found = CONTROL.sub("", found.replace("\r\n", "\n").replace("\r", "\n"))
        found = unicodedata.normalize("NFC", found.strip(WHITE))
        if "\ufffd" in found:
            raise BadValueError("holds U+FFFD")
    return found.strip() or None


def number(value: object, *, whole: bool = False) -> str | None:
    """A number in plain notation without needless zeros; never rounded."""
    if isinstance(value, bool):
        raise BadValueError("is no number")
    if isinstance(value, int):
        return str(value)
    found = value if isinstance(value, Decimal) else _spelled(text(value))
    if found is None:
        return None
    plain = format(found, "f")
    if "." in plain:
        plain = plain.rstrip("0").rstrip(".")
    if whole and "." in plain:
        raise BadValueError("has a fraction")
    if len(plain) > MOST_DIGITS:
        raise BadValueError("has more digits than Oracle's NUMBER")
    return "0" if plain == "-0" else plain


def _spelled(bare: str | None) -> Decimal | None:
    if bare is None:
        return None
    if GROUPED.fullmatch(bare):
        bare = bare.replace(",", "")
    if not NUMBER.fullmatch(bare):
        raise BadValueError("is no number")
    return Decimal(bare)


def moment(value: object) -> str | None:
    """A local time as ISO 8601."""
    bare = text(value)
    if bare is None:
        return None
    try:
        found = datetime.fromisoformat(bare)
    except ValueError:
        found = _in_other_format(bare)
    whole, _, fraction = found.isoformat().partition(".")
    fraction = fraction.rstrip("0")
    return f"{whole}.{fraction}" if fraction else whole


def _in_other_format(bare: str) -> datetime:
    for form in FORMATS:
        try:
            return datetime.strptime(bare, form)  # noqa: DTZ007  # the column has no zone
        except ValueError:
            continue
    raise BadValueError("is no time")


@dataclass(frozen=True)
class Column:
    """One column: where it goes and how it is read."""

    target: str
    read: Callable[[object], str | None]
    bare: bool = False
    """Whether the hub takes it as a JSON number."""


INTEGER: Final = partial(number, whole=True)
COLUMNS: Final[Mapping[str, Column]] = {
    "ID": Column("id", INTEGER, bare=True),
    "CODE": Column("code", text),
    "NAME": Column("name", text),
    "STATUS": Column("status", text),
    "SITE": Column("site", text),
    "UOM": Column("uom", text),
    "QTY": Column("qty", INTEGER, bare=True),
    "PRICE": Column("price", number, bare=True),
    "WEIGHT": Column("weight", number, bare=True),
    "LEAD_TIME": Column("lead_time", INTEGER, bare=True),
    "PRIORITY": Column("priority", INTEGER, bare=True),
    "CREATED": Column("created", moment),
    "DUE": Column("due", moment),
    "PLANNER": Column("planner", text),
    "REMARK": Column("remark", text),
}
KEY: Final = "id"
BARE: Final = frozenset(column.target for column in COLUMNS.values() if column.bare)


@dataclass(frozen=True)
class Record:
    """A row that may be pushed."""

    values: Mapping[str, str | None]
    rowversion: int
    reference: str
    key_hash: str
    data_hash: str

    def body(self) -> str:
        """As the hub takes it; exact decimals stand as they are, so ``json`` cannot write it whole."""
        members = [
            f'"{name}":{value if name in BARE and value is not None else json.dumps(value)}'
            for name, value in self.values.items()
        ]
        members += [
            f'"erp_key_hash":"{self.key_hash}","erp_data_hash":"{self.data_hash}"',
            f'"erp_rowversion":"{self.rowversion}","erp_ref_str":{json.dumps(self.reference)}',
            '"parent_refs":{}',
        ]
        return "{" + ",".join(members) + "}"


def read_record(row: Mapping[str, Any]) -> Record:
    """A row of APISmith's as a record.

    Raises:
        BadValueError: A value breaks its column's rule, or the key is NULL.
    """
    values = {column.target: column.read(row.get(name)) for name, column in COLUMNS.items()}
    key = values[KEY]
    if key is None:
        raise BadValueError("the key is NULL")
    reference = f"{KEY}={key}"
    data = "|".join(
        name if value is None else f"{name}={value.translate(ESCAPES)}"
        for name, value in sorted(values.items())
    )
    return Record(
        values,
        int(row["ROWVERSION"]),
        reference,
        xxhash.xxh3_128_hexdigest(reference.encode()),
        blake3(data.encode()).hexdigest(),
    )


def log_in(url: str, task: Task) -> httpx.Client:
    """A client with a token; it is not renewed."""
    client = httpx.Client(base_url=f"{url}/api/v1/", timeout=TIMEOUT_S, trust_env=False)
    answer = client.post(
        "auth/login", json={"username": task.username, "password": task.password}
    ).raise_for_status()
    client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
    return client


def read_pages(
    source: httpx.Client, filters: Sequence[Mapping[str, object]]
) -> Iterator[list[dict[str, Any]]]:
    """The table's rows by ID, page by page.

    Raises:
        RuntimeError: Fewer rows came than the source has: then nothing may be deleted either.
    """
    offset, total = 0, 1
    while offset < total:
        asked = {"offset": offset, "limit": PAGE, "sort": [{"field": "ID"}], "filters": filters}
        answer = source.post("runtime/bench/execute", json=asked).raise_for_status()
        page = json.loads(answer.content, parse_float=Decimal)
        total = page["metadata"]["total_rows"]
        if not page["data"] and offset < total:
            raise RuntimeError(f"{offset} rows came of {total}")
        offset += len(page["data"])
        yield page["data"]


class Sync:
    """One sync: what it is connected to, and what it has counted."""

    def __init__(self, task: Task, hub: httpx.Client, known: psycopg.Connection) -> None:
        self.hub, self.known, self.collection = hub, known, task.collection
        self.counts = dict.fromkeys(
            ("fetched", "rejected", "inserted", "updated", "deleted", "unchanged", "failed"), 0
        )
        self.seen: set[str] = set()
        self.newest = 0
        self._new: list[Record] = []
        self._changed: list[tuple[str, Record]] = []

    def take(self, page: Sequence[Mapping[str, Any]]) -> None:
        """Read a page's rows, compare them with what is known, push what differs."""
        records = []
        for row in page:
            self.counts["fetched"] += 1
            try:
                records.append(read_record(row))
            except BadValueError:
                self.counts["rejected"] += 1
        keys = [record.key_hash for record in records]
        known = {
            str(key): (str(data), str(uid))
            for key, data, uid in self.known.execute(
                "SELECT key_hash, data_hash, uid FROM plain.known WHERE key_hash = ANY(%s)", [keys]
            )
        }
        self.seen.update(keys)
        for record in records:
            self.newest = max(self.newest, record.rowversion)
            data, uid = known.get(record.key_hash, ("", ""))
            if not uid:
                self._new.append(record)
            elif data != record.data_hash:
                self._changed.append((uid, record))
            else:
                self.counts["unchanged"] += 1
            self.flush(at_least=BATCH)

    def flush(self, at_least: int = 1) -> None:
        """Push what has come together, if it is so many."""
        if len(self._new) >= at_least:
            body = ",".join(record.body() for record in self._new)
            results = self._call("insert", f'{{"records":[{body}]}}')
            self._save("inserted", self._new, results)
            self._new = []
        if len(self._changed) >= at_least:
            body = ",".join(
                f'{{"uid":"{uid}","data":{record.body()}}}' for uid, record in self._changed
            )
            results = self._call("update", f'{{"updates":[{body}]}}')
            self._save("updated", [record for _, record in self._changed], results)
            self._changed = []

    def delete_gone(self) -> None:
        """Delete what is known and did not come."""
        gone = [
            (key, str(uid))
            for key, uid in self.known.execute("SELECT key_hash, uid FROM plain.known")
            if key not in self.seen
        ]
        for at in range(0, len(gone), BATCH):
            part = gone[at : at + BATCH]
            results = self._call("delete", json.dumps({"uids": [uid for _, uid in part]}))
            done = [part[result["index"]] for result in results if result["status"] == "deleted"]
            with self.known.transaction():
                self.known.execute(
                    "DELETE FROM plain.known WHERE key_hash = ANY(%s)", [[key for key, _ in done]]
                )
            self.counts["deleted"] += len(done)
            self.counts["failed"] += len(part) - len(done)

    def _call(self, call: str, body: str) -> list[dict[str, Any]]:
        answer = self.hub.post(
            f"{self.collection}/batch/{call}",
            content=body.encode(),
            headers={"Content-Type": "application/json"},
        ).raise_for_status()
        results: list[dict[str, Any]] = answer.json()["results"]
        return results

    def _save(
        self, status: str, records: Sequence[Record], results: Sequence[Mapping[str, Any]]
    ) -> None:
        """What the hub has acknowledged is known; the others come again with the next sync."""
        done = [
            (records[result["index"]].key_hash, records[result["index"]].data_hash, result["uid"])
            for result in results
            if result["status"] == status
        ]
        with self.known.transaction(), self.known.cursor() as cursor:
            cursor.executemany(SAVE, done)
        self.counts[status] += len(done)
        self.counts["failed"] += len(records) - len(done)


SAVE: Final[LiteralString] = (
    "INSERT INTO plain.known VALUES (%s, %s, %s) "
    "ON CONFLICT (key_hash) DO UPDATE SET data_hash = excluded.data_hash"
)
TABLES: Final[LiteralString] = """
CREATE SCHEMA IF NOT EXISTS plain;
CREATE TABLE IF NOT EXISTS plain.known (key_hash text PRIMARY KEY, data_hash text, uid text);
CREATE TABLE IF NOT EXISTS plain.watermark (newest bigint);
"""


def work(task: Task) -> Mapping[str, object]:
    """One sync, full or incremental; answers the counts."""
    with (
        closing(log_in(task.apismith_url, task)) as source,
        closing(log_in(task.schedulehub_url, task)) as hub,
        psycopg.connect(task.database_url, autocommit=True) as known,
    ):
        known.execute(TABLES)
        sync = Sync(task, hub, known)
        filters: list[dict[str, object]] = []
        if task.rows is not None:
            filters.append({"field": "ID", "operator": "<=", "value": task.rows})
        if task.incremental:
            row = known.execute("SELECT max(newest) FROM plain.watermark").fetchone()
            newest = 0 if row is None else row[0]
            filters.append({"field": "ROWVERSION", "operator": ">=", "value": newest})
        for page in read_pages(source, filters):
            sync.take(page)
        sync.flush()
        if not task.incremental and not sync.counts["rejected"]:  # it may be a known row
            sync.delete_gone()
        known.execute("INSERT INTO plain.watermark VALUES (%s)", [sync.newest])
        return sync.counts


if __name__ == "__main__":
    serve(work)
