"""Faults on demand: what a rule matches, and what is then done to the answer.

Belongs here: the rules, the ASGI middleware that applies them, the control calls.
Does not belong here: faults of the data (``erp``), switches of a server (``web``).

Source: product.md 11; the fault matrix of the tests.
"""

import asyncio
import contextlib
import json
import random
import re
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, field_validator
from starlette.types import ASGIApp, Message, Receive, Scope, Send

TRANSPORT = "sandbox.transport"
"""Key in the ASGI scope under which the server puts the connection's transport."""
_RST = struct.pack("ii", 1, 0)  # SO_LINGER with time 0: closing sends RST and drops what is unsent

Expire = Callable[..., None]


class Match(BaseModel):
    """Which requests a rule is for; what is not given matches all."""

    model_config = ConfigDict(extra="forbid")

    method: str | None = None
    path: str | None = Field(default=None, examples=["/runtime/orders/execute"])
    """Regular expression, searched in the path."""
    nth: Annotated[int, Field(ge=1)] | None = None
    """Only the nth matching request."""
    since: Annotated[int, Field(ge=1)] | None = None
    """The nth matching request and all after it."""
    every: Annotated[int, Field(ge=1)] | None = None
    """Every nth matching request."""
    times: Annotated[int, Field(ge=1)] | None = None
    """At most so many times."""
    probability: Annotated[float, Field(ge=0, le=1)] | None = None
    seed: int = 0

    @field_validator("path")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
        return value


class Action(BaseModel):
    """What happens. Delay and expiry come first, then one of the others; the handler has run only where it says so."""

    model_config = ConfigDict(extra="forbid")

    delay_s: Annotated[float, Field(ge=0)] = 0
    expire_tokens: Literal["access", "all"] | None = None
    status: Annotated[int, Field(ge=100, le=599)] | None = None
    """Answer this instead of calling the handler."""
    body: str | None = None
    """Body of ``status``; without ``status`` it replaces the handler's, after the handler has run."""
    headers: dict[str, str] = {}
    hang: bool = False
    """Never answer; the handler is not called."""
    drop: Literal["before", "after"] | None = None
    """Reset the connection without an answer: before the handler, or after it has committed."""
    truncate: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Send this share of the body under its full Content-Length, then reset."""
    drip_s: Annotated[float, Field(gt=0)] | None = None
    """Send the body in 64-byte pieces with so many seconds between them."""
    repeat: bool = False
    """Send the body of the last answer on this path once more instead of this one."""
    twice: bool = False
    """Call the handler twice with the same request; the second answer is sent."""
    put: dict[str, Any] = {}
    """Dotted path in the JSON answer to a value: ``{"metadata.total_rows": 7}``."""
    cut: dict[str, int] = {}
    """Dotted path of a list in the JSON answer to how many of its last items are missing."""


class Rule(BaseModel):
    """One fault."""

    model_config = ConfigDict(extra="forbid")

    match: Match = Match()
    action: Action


class RuleState(BaseModel):
    """One fault with how often it matched and struck."""

    rule: Rule
    seen: int
    hits: int


@dataclass
class _Live:
    rule: Rule
    seen: int = 0
    hits: int = 0
    dice: random.Random = field(default_factory=random.Random)

    def strikes(self, method: str, path: str) -> bool:
        match = self.rule.match
        if match.method not in (None, method) or not re.search(match.path or "", path):
            return False
        self.seen += 1
        if match.times is not None and self.hits >= match.times:
            return False
        if match.nth not in (None, self.seen) or self.seen < (match.since or 0):
            return False
        if match.every is not None and self.seen % match.every:
            return False
        if match.probability is not None and self.dice.random() >= match.probability:
            return False
        self.hits += 1
        return True


@dataclass
class _Answer:
    """A response as the handler gave it, not yet sent."""

    start: Message = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)

    async def take(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.start = message
        elif message["type"] == "http.response.body":
            self.body += message.get("body", b"")


class Faults:
    """The rules now in force; the first that strikes is applied."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rules: list[_Live] = []
        self._last: dict[str, bytes] = {}

    def replace(self, rules: list[Rule]) -> None:
        """Exactly these rules are in force, their counters at zero."""
        with self._lock:
            self._rules = [
                _Live(rule, dice=random.Random(rule.match.seed))  # noqa: S311  # not for secrets
                for rule in rules
            ]
            self._last = {}

    def states(self) -> list[RuleState]:
        """The rules with their counters."""
        return [RuleState(rule=live.rule, seen=live.seen, hits=live.hits) for live in self._rules]

    def middleware(self, app: ASGIApp, expire: Expire) -> ASGIApp:
        """*app* with the faults in front of it; the control calls and the OpenAPI are spared."""

        async def faulty(scope: Scope, receive: Receive, send: Send) -> None:
            action = None
            if self._rules and scope["type"] == "http" and scope["path"].startswith("/api/"):
                action = self._action(scope)
                if action is None and any(live.rule.action.repeat for live in self._rules):
                    await self._remember(app, scope, receive, send)
                    return
            if action is None:
                await app(scope, receive, send)
            else:
                await self._apply(action, app, scope, receive, send, expire)

        return faulty

    def _action(self, scope: Scope) -> Action | None:
        with self._lock:
            for live in self._rules:
                if live.strikes(scope["method"], scope["path"]):
                    return live.rule.action
        return None

    async def _apply(  # an ASGI call and what is done to it
        self,
        action: Action,
        app: ASGIApp,
        scope: Scope,
        receive: Receive,
        send: Send,
        expire: Expire,
    ) -> None:
        if action.delay_s:
            await asyncio.sleep(action.delay_s)
        if action.expire_tokens is not None:
            expire(refresh=action.expire_tokens == "all")
        if action.hang:
            await _until_gone(receive)
        elif action.drop == "before":
            _reset(scope)
        elif action.status is not None:
            await _send(scope, send, action.status, (action.body or "").encode(), action)
        elif action.twice:
            await _twice(app, scope, receive, send)
        elif _touches_answer(action):
            await self._spoil(action, app, scope, receive, send)
        else:
            await app(scope, receive, send)

    async def _spoil(
        self, action: Action, app: ASGIApp, scope: Scope, receive: Receive, send: Send
    ) -> None:
        answer = await _call(app, scope, receive)
        body = bytes(answer.body)
        if action.drop == "after":
            _reset(scope)
            return
        if action.repeat:
            body = self._last.get(scope["path"], body)
        if action.put or action.cut:
            body = _edited(body, action)
        if action.body is not None:
            body = action.body.encode()
        headers = _with_length(answer.start["headers"], len(body), action.headers)
        await send({**answer.start, "headers": headers})
        if action.truncate is not None:
            part = body[: int(len(body) * action.truncate)]
            await send({"type": "http.response.body", "body": part, "more_body": True})
            await asyncio.sleep(
                0.05
            )  # lets the part leave: a reset drops what is still in the buffer
            _reset(scope)
            return
        await _send_body(send, body, action.drip_s)

    async def _remember(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        answer = await _call(app, scope, receive)
        self._last[scope["path"]] = bytes(answer.body)
        await send(answer.start)
        await send({"type": "http.response.body", "body": bytes(answer.body)})


def control_router(faults: Faults) -> APIRouter:
    """``/sandbox/faults``: replace, read with counters, remove."""
    router = APIRouter(prefix="/sandbox", tags=["sandbox"])

    @router.post("/faults")
    def set_faults(rules: list[Rule]) -> list[RuleState]:
        """Replace all faults."""
        faults.replace(rules)
        return faults.states()

    @router.get("/faults")
    def read_faults() -> list[RuleState]:
        """The faults with how often each matched and struck."""
        return faults.states()

    @router.delete("/faults")
    def remove_faults() -> list[RuleState]:
        """Remove all faults; answers what they did."""
        states = faults.states()
        faults.replace([])
        return states

    return router


def _touches_answer(action: Action) -> bool:
    return bool(
        action.drop == "after"
        or action.truncate is not None
        or action.drip_s is not None
        or action.repeat
        or action.body is not None
        or action.headers
        or action.put
        or action.cut
    )


async def _call(app: ASGIApp, scope: Scope, receive: Receive) -> _Answer:
    answer = _Answer()
    plain = [(name, value) for name, value in scope["headers"] if name != b"accept-encoding"]
    await app({**scope, "headers": plain}, receive, answer.take)
    return answer


async def _twice(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    body = bytearray()
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)

    def again() -> Receive:
        async def replay() -> Message:
            return {"type": "http.request", "body": bytes(body), "more_body": False}

        return replay

    await _call(app, scope, again())
    await app(scope, again(), send)


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _reset(scope: Scope) -> None:
    transport: asyncio.Transport = scope[TRANSPORT]
    connection = transport.get_extra_info("socket")
    if connection is not None:
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST)
    transport.abort()


async def _send(scope: Scope, send: Send, status: int, body: bytes, action: Action) -> None:
    given = {b"content-type": b"application/json"}
    request_id = dict(scope["headers"]).get(b"x-request-id")
    if request_id is not None:
        given[b"x-request-id"] = request_id
    headers = _with_length(list(given.items()), len(body), action.headers)
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await _send_body(send, body, action.drip_s)


async def _send_body(send: Send, body: bytes, drip_s: float | None) -> None:
    if drip_s is not None:
        for start in range(0, len(body), 64):
            piece = body[start : start + 64]
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            await asyncio.sleep(drip_s)
        body = b""
    await send({"type": "http.response.body", "body": body})


def _with_length(
    headers: list[tuple[bytes, bytes]], length: int, more: dict[str, str]
) -> list[tuple[bytes, bytes]]:
    replaced = {name.lower().encode(): value.encode() for name, value in more.items()}
    replaced.setdefault(b"content-length", str(length).encode())
    return [(n, v) for n, v in headers if n.lower() not in replaced] + list(replaced.items())


def _edited(body: bytes, action: Action) -> bytes:
    answer = json.loads(body, parse_float=_Digits, parse_int=_Digits)
    for path, value in action.put.items():
        place, name = _place(answer, path)
        place[name] = value
    for path, count in action.cut.items():
        place, name = _place(answer, path)
        place[name] = place[name][: max(0, len(place[name]) - count)]
    return _dumped(answer).encode()


class _Digits(str):
    """A number's own digits: an answer that passes through here keeps them."""

    __slots__ = ()


def _dumped(value: object) -> str:
    if isinstance(value, _Digits):
        return str(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(k)}:{_dumped(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_dumped, value)) + "]"
    return json.dumps(value)


def _place(answer: Any, path: str) -> tuple[Any, Any]:  # noqa: ANN401  # whatever JSON holds
    *parents, last = path.split(".")
    for name in parents:
        answer = answer[int(name)] if isinstance(answer, list) else answer[name]
    return answer, int(last) if isinstance(answer, list) else last
