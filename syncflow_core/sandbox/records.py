"""What each write call does to the hub's records, row by row, and the log of its effects.

Belongs here: insert, update and delete with their rules.
Does not belong here: reading (``plan``), how an outcome becomes a status (``schedulehub``).

The law of this module: a record's JSON text is kept as it was sent, so no number passes through a float;
every applied write and its line in ``hub.effects`` are one transaction.

Source: contract.md, "ScheduleHub: holds the plan".
"""

import uuid
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any, cast

import msgspec
from msgspec import UNSET, Raw, UnsetType

from syncflow_core.sandbox.database import Column, Connection, Pool
from syncflow_core.sandbox.plan import Plan
from syncflow_core.sandbox.wire import (
    EMPTY,
    NOT_STORED,
    Held,
    New,
    Outcome,
    Refs,
    Uids,
    Update,
    correct_doubles,
    encoded,
    fail,
    fields_decoder,
    incoming_decoder,
    parse_uid,
    patch_decoder,
    patched_refs,
    sent_bytes,
)


class Records(Plan):
    """All collections of the hub, read and written. Only this process writes them."""

    def __init__(self, pool: Pool) -> None:
        super().__init__(pool)
        self.reject: list[dict[str, Any]] = []
        self._uids = Uids()

    def insert(
        self, collection: str, raws: Sequence[Raw | bytes], request_id: str | None
    ) -> list[Outcome]:
        """Each record is stored, or its outcome says why not (409, 422, 424)."""
        outcomes = [Outcome(index) for index in range(len(raws))]
        new = self._parse_new(collection, raws, outcomes)
        identity = self._id(collection)
        self._load_parents()
        with self.pool.connection() as connection, connection.transaction():
            accepted = self._with_parents(connection, collection, new, outcomes)
            if accepted:
                self._store(connection, identity, collection, accepted, outcomes, request_id)
        self._changed(identity)
        return outcomes

    def update(
        self, collection: str, updates: Sequence[Update], request_id: str | None
    ) -> list[Outcome]:
        """Each record has the fields sent; a field that is not sent keeps its value."""
        outcomes = [Outcome(index) for index in range(len(updates))]
        identity = self._id(collection)
        self._load_parents()
        uids = {uid for update in updates if (uid := parse_uid(update.uid)) is not None}
        with self.pool.connection() as connection, connection.transaction():
            held = self._hold(connection, identity, uids)
            parents = self._known_parents(connection, patched_refs(updates))
            for outcome, update in zip(outcomes, updates, strict=True):
                self._merge(collection, update, held, parents, outcome)
            self._write(connection, identity, collection, held, request_id)
        self._changed(identity)
        return outcomes

    def delete(self, collection: str, uids: Sequence[str], request_id: str | None) -> list[Outcome]:
        """Each record is soft-deleted, unless live children refer to it (409) or it is not there (404)."""
        outcomes = [Outcome(index, uid) for index, uid in enumerate(uids)]
        identity = self._id(collection)
        wanted = [parse_uid(text) for text in uids]
        known = sorted({uid for uid in wanted if uid is not None})
        with self.pool.connection() as connection, connection.transaction():
            live = {
                cast("uuid.UUID", row[0])
                for row in connection.execute(
                    "SELECT uid FROM hub.records WHERE uid = ANY(%b) AND collection = %s"
                    " AND NOT deleted ORDER BY uid FOR UPDATE",
                    [known, identity],
                )
            }
            children: dict[uuid.UUID, set[uuid.UUID]] = {}
            for parent, child in connection.execute(
                "SELECT parent, child FROM hub.links JOIN hub.records ON uid = child"
                " WHERE parent = ANY(%b) AND NOT deleted AND child <> parent",
                [known],
            ):
                children.setdefault(cast("uuid.UUID", parent), set()).add(cast("uuid.UUID", child))
            gone: set[uuid.UUID] = set()
            for outcome, uid in zip(outcomes, wanted, strict=True):
                left = len(children.get(uid, set()) - gone) if uid is not None else 0
                if uid is None or uid not in live or uid in gone:
                    fail(outcome, 404, "no such record")
                elif left:
                    fail(outcome, 409, f"{left} live children refer to it").children = left
                else:
                    gone.add(uid)
                    outcome.status = "deleted"
            connection.execute(
                "WITH gone AS (UPDATE hub.records SET deleted = true WHERE uid = ANY(%b)"
                " RETURNING uid, key_hash, data_hash, rowversion)"
                " INSERT INTO hub.effects (request_id, collection, uid, key_hash, effect, changed,"
                " data_hash, rowversion)"
                " SELECT %s, %s, uid, key_hash, 'delete', true, data_hash, rowversion FROM gone",
                [list(gone), request_id, identity],
            )
        self._changed(identity)
        return outcomes

    def _parse_new(
        self, collection: str, raws: Sequence[Raw | bytes], outcomes: list[Outcome]
    ) -> list[New]:
        new = []
        for outcome, raw, uid in zip(outcomes, raws, self._uids.take(len(raws)), strict=True):
            try:
                head = incoming_decoder.decode(raw)
                doc = bytes(raw).strip()
                doc.decode()
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                fail(outcome, 422, str(error))
                continue
            if not head.is_whole:
                doc = encoded({**EMPTY, **fields_decoder.decode(raw)}).encode()
            refused = self._refused(collection, raw) if self.reject else None
            if refused is not None:
                fail(outcome, 422, refused)
                continue
            new.append(New(outcome.index, uid, head, bytes.fromhex(head.erp_key_hash), doc))
        return new

    def _refused(self, collection: str, raw: Raw | bytes) -> str | None:
        values = msgspec.json.decode(raw)
        for rule in self.reject:
            if rule.get("collection") in (None, collection) and rule["field"] in values:
                value = values[rule["field"]]
                if "value" not in rule or value == rule["value"]:
                    return f"{rule['field']!r}: {value!r} is not accepted"
        return None

    def _with_parents(
        self, connection: Connection, collection: str, new: list[New], outcomes: list[Outcome]
    ) -> list[New]:
        """The records whose key comes first in this call and whose parents are there."""
        known = self._known_parents(connection, (item.head.refs for item in new))
        identity = self._id(collection)
        accepted: dict[bytes, New] = {}
        for item in new:
            missing = self._missing(collection, item.head.refs, known)
            outcome = outcomes[item.index]
            if missing:
                fail(outcome, 424, "parents are missing").missing_parents = missing
            elif item.key_hash in accepted:
                first = accepted[item.key_hash]
                fail(outcome, 409, "the key hash is there already").uid = str(first.uid)
            else:
                accepted[item.key_hash] = item
                known.add((identity, item.key_hash))
                known.add((None, item.key_hash))
        return list(accepted.values())

    def _known_parents(
        self, connection: Connection, refs: Iterable[Refs]
    ) -> set[tuple[int | None, bytes]]:
        """The live records among the parents named, locked against deletion until the call's end."""
        hashes = sorted({value for item in refs for value in item.values() if value is not None})
        if not hashes:
            return set()
        known: set[tuple[int | None, bytes]] = set()
        for identity, key_hash in connection.execute(
            "SELECT collection, key_hash FROM hub.records WHERE key_hash = ANY(%b) AND NOT deleted"
            " ORDER BY uid FOR SHARE",
            [[bytes.fromhex(value) for value in hashes]],
        ):
            known.add((cast("int", identity), cast("bytes", key_hash)))
            known.add((None, cast("bytes", key_hash)))
        return known

    def _missing(
        self, collection: str, refs: Refs, known: set[tuple[int | None, bytes]]
    ) -> list[str]:
        return [
            name
            for name, value in refs.items()
            if value is not None
            and (self._parent_of(collection, name), bytes.fromhex(value)) not in known
        ]

    def _store(  # one statement's parts
        self,
        connection: Connection,
        identity: int,
        collection: str,
        accepted: list[New],
        outcomes: list[Outcome],
        request_id: str | None,
    ) -> None:
        ordered = sorted(accepted, key=attrgetter("key_hash"))
        told = connection.execute(
            "WITH put AS (INSERT INTO hub.records (uid, collection, key_hash, data_hash,"
            " rowversion, doc) SELECT uid, %s, key_hash, data_hash, rowversion, doc"
            " FROM unnest(%b::uuid[], %b::bytea[], %b::text[], %b::text[], %b::text[])"
            " AS sent (uid, key_hash, data_hash, rowversion, doc)"
            " ON CONFLICT (key_hash, collection) DO UPDATE SET deleted = false,"
            " data_hash = excluded.data_hash, rowversion = excluded.rowversion,"
            " doc = excluded.doc WHERE records.deleted"
            " RETURNING uid, key_hash, data_hash, rowversion, xmax = 0 AS fresh),"
            " logged AS (INSERT INTO hub.effects (request_id, collection, uid, key_hash, effect,"
            " changed, data_hash, rowversion) SELECT %s, %s, uid, key_hash,"
            " CASE WHEN fresh THEN 'insert' ELSE 'revive' END, true, data_hash, rowversion"
            " FROM put), other AS (SELECT count(*) < %s OR bool_or(NOT fresh) AS told FROM put)"
            # where all are new, their uids are those sent: that is told, and no more
            " SELECT NULL, NULL, told FROM other"
            " UNION ALL SELECT uid, key_hash, fresh FROM put, other WHERE told",
            [
                identity,
                Column("uuid", [item.uid.bytes for item in ordered]),
                Column("bytea", [item.key_hash for item in ordered]),
                Column("text", [sent_bytes(item.head.erp_data_hash) for item in ordered]),
                Column("text", [sent_bytes(item.head.erp_rowversion) for item in ordered]),
                Column("text", [item.doc for item in ordered]),
                request_id,
                identity,
                len(ordered),
            ],
            binary=True,
        ).fetchall()
        if told[0][2]:
            written = {
                cast("bytes", key_hash): (cast("uuid.UUID", uid), bool(fresh))
                for uid, key_hash, fresh in told[1:]
            }
        else:
            written = {item.key_hash: (item.uid, True) for item in ordered}
        self._link(
            connection,
            collection,
            {
                written[item.key_hash][0]: item.head.refs
                for item in ordered
                if item.key_hash in written
            },
            [uid for uid, fresh in written.values() if not fresh],
        )
        there = self._uids_of(
            connection, identity, [i.key_hash for i in ordered if i.key_hash not in written]
        )
        for item in accepted:
            outcome = outcomes[item.index]
            if item.key_hash in written:
                outcome.uid, outcome.status = str(written[item.key_hash][0]), "inserted"
            else:
                fail(outcome, 409, "the key hash is there already").uid = there[item.key_hash]
        correct_doubles(accepted, outcomes)

    def _link(
        self,
        connection: Connection,
        collection: str,
        refs: dict[uuid.UUID, Refs],
        replaced: list[uuid.UUID],
    ) -> None:
        """The links of these records are those of their references."""
        if replaced:
            connection.execute("DELETE FROM hub.links WHERE child = ANY(%b)", [replaced])
        lines = [
            (uid, name, self._parent_of(collection, name), bytes.fromhex(value))
            for uid, item in refs.items()
            for name, value in item.items()
            if value is not None
        ]
        if lines:
            connection.execute(
                "INSERT INTO hub.links SELECT child, reference, uid"
                " FROM unnest(%b::uuid[], %b::text[], %b::int[], %b::bytea[])"
                " AS sent (child, reference, parent, parent_hash)"
                " JOIN hub.records ON key_hash = parent_hash AND NOT deleted"
                " AND (parent IS NULL OR parent = collection) ON CONFLICT DO NOTHING",
                [list(column) for column in zip(*lines, strict=True)],
            )

    def _hold(
        self, connection: Connection, identity: int, uids: set[uuid.UUID]
    ) -> dict[uuid.UUID, Held]:
        rows = connection.execute(
            "SELECT uid, key_hash, doc, data_hash, rowversion FROM hub.records"
            " WHERE uid = ANY(%b) AND collection = %s AND NOT deleted ORDER BY uid FOR UPDATE",
            [sorted(uids), identity],
        )
        return {
            cast("uuid.UUID", uid): Held(
                cast("bytes", key_hash),
                fields_decoder.decode(str(doc)),
                cast("str | None", data_hash),
                cast("str | None", rowversion),
            )
            for uid, key_hash, doc, data_hash, rowversion in rows
        }

    def _merge(
        self,
        collection: str,
        update: Update,
        held: dict[uuid.UUID, Held],
        known: set[tuple[int | None, bytes]],
        outcome: Outcome,
    ) -> None:
        outcome.uid = update.uid
        uid = parse_uid(update.uid)
        record = held.get(uid) if uid is not None else None
        if record is None:
            fail(outcome, 404, "no such record")
            return
        try:
            patch = patch_decoder.decode(update.data)
            fields = {
                k: v for k, v in fields_decoder.decode(update.data).items() if k not in NOT_STORED
            }
            bytes(update.data).decode()
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            fail(outcome, 422, str(error))
            return
        if patch.erp_key_hash not in (UNSET, record.key_hash.hex()):
            fail(outcome, 422, "erp_key_hash cannot change")
            return
        refused = self._refused(collection, update.data) if self.reject else None
        if refused is not None:
            fail(outcome, 422, refused)
            return
        if not isinstance(patch.parent_refs, UnsetType):
            missing = self._missing(collection, patch.parent_refs, known)
            if missing:
                fail(outcome, 424, "parents are missing").missing_parents = missing
                return
            record.refs = patch.parent_refs
        changed = any(bytes(record.fields.get(k, Raw(b""))) != bytes(v) for k, v in fields.items())
        record.fields |= fields
        if not isinstance(patch.erp_data_hash, UnsetType):
            record.data_hash = patch.erp_data_hash
        if not isinstance(patch.erp_rowversion, UnsetType):
            record.rowversion = patch.erp_rowversion
        record.effects.append((changed, record.data_hash, record.rowversion))
        outcome.status = "updated"

    def _write(
        self,
        connection: Connection,
        identity: int,
        collection: str,
        held: dict[uuid.UUID, Held],
        request_id: str | None,
    ) -> None:
        done = {uid: record for uid, record in held.items() if record.effects}
        if not done:
            return
        connection.execute(
            "UPDATE hub.records SET doc = sent.doc, data_hash = sent.data_hash,"
            " rowversion = sent.rowversion"
            " FROM unnest(%b::uuid[], %b::text[], %b::text[], %b::text[])"
            " AS sent (uid, doc, data_hash, rowversion) WHERE records.uid = sent.uid",
            [
                list(done),
                [encoded(record.fields) for record in done.values()],
                [record.data_hash for record in done.values()],
                [record.rowversion for record in done.values()],
            ],
        )
        lines = [
            (uid, record.key_hash, *effect)
            for uid, record in done.items()
            for effect in record.effects
        ]
        connection.execute(
            "INSERT INTO hub.effects (request_id, collection, uid, key_hash, effect, changed,"
            " data_hash, rowversion) SELECT %s, %s, uid, key_hash, 'update', changed, data_hash,"
            " rowversion FROM unnest(%b::uuid[], %b::bytea[], %b::boolean[], %b::text[], %b::text[])"
            " AS sent (uid, key_hash, changed, data_hash, rowversion)",
            [request_id, identity, *(list(column) for column in zip(*lines, strict=True))],
        )
        refs = {uid: record.refs for uid, record in done.items() if record.refs is not None}
        self._link(connection, collection, refs, list(refs))
