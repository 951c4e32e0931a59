"""APISmith and ScheduleHub: there, who they seem, taking the account, as the contract has them.

Belongs here: what is true of a system whatever is declared.
Does not belong here: what an entity needs of it (``entities``).

Source: product.md 10; contract.md, "Common to both".
"""

from collections.abc import Callable
from datetime import datetime
from typing import Final, Generic, Protocol, TypeVar

import msgspec

from syncflow_core.answers import Answer
from syncflow_core.apismith import Source
from syncflow_core.doctor.checks import Check, Seen
from syncflow_core.doctor.clocks import clock_seen, date_of
from syncflow_core.errors import ContractError
from syncflow_core.limiter import Limits

LIMITS: Final = Limits(
    connect_s=3.0,
    read_s=5.0,
    deadline_s=8.0,
    attempts=1,
    total_s=8.0,
    retry_after_cap_s=0.0,
    connections=4,
)
"""A doctor asks once: what is away shall be told, not waited for."""


HEALTHY: Final = "healthy"
"""What both say of themselves where they are (contract.md)."""


class Client(Protocol):
    """What both systems' clients have."""

    @property
    def url(self) -> str:
        """Its address, without an account."""
        ...

    def health(self) -> Answer:
        """What it answers when it is asked whether it is there."""
        ...

    def log_in(self) -> None:
        """Return if it accepts the account."""
        ...

    def close(self) -> None:
        """Give the connections back."""
        ...


C = TypeVar("C", bound=Client)


class _Health(msgspec.Struct):
    status: str


class System(Generic[C]):
    """One of the two systems while it is looked at; its client is opened by the first check.

    Args:
        name: ``apismith`` or ``schedulehub``: of its checks and its variables.
        open_client: Opens the client.
        has_url: Whether its address is set at all.
    """

    def __init__(self, name: str, open_client: Callable[[], C], *, has_url: bool) -> None:
        self.name = name
        self._open = open_client
        self._has_url = has_url
        self._client: C | None = None

    @property
    def client(self) -> C:
        """The client."""
        if self._client is None:
            self._client = self._open()
        return self._client

    @property
    def reach(self) -> Check:
        """That it answers, and is one of its kind."""
        variable = f"SYNCFLOW_{self.name.upper()}_URL"
        return Check(
            self.name,
            lambda: reach_seen(self.client, self.name),
            f"is it running? check {variable}: https or http, host, port; SSL_CERT_FILE names the "
            "authority of a certificate of your own",
            () if self._has_url else ("configuration",),
        )

    def checks(self, now: Callable[[], datetime]) -> tuple[Check, ...]:
        """Whether it is there, takes the account, and by which clock."""
        variable = f"SYNCFLOW_{self.name.upper()}"
        return (
            self.reach,
            Check(
                f"{self.name}.clock",
                lambda: clock_seen(self.name, lambda: date_of(self.client.health()), now),
                "set both machines' clocks by NTP",
                (self.name,),
            ),
            Check(
                f"{self.name}.login",
                self._log_in,
                f"correct {variable}_USERNAME and {variable}_PASSWORD",
                (self.name,),
            ),
        )

    def close(self) -> None:
        """Close the client, if there is one."""
        if self._client is not None:
            self._client.close()

    def _log_in(self) -> Seen:
        self.client.log_in()
        return Seen("the account is accepted")


def reach_seen(client: Client, name: str) -> Seen:
    """Whether it answers as such a system does.

    Raises:
        UnavailableError: It does not answer.
        ContractError: Something else answers at its address.
    """
    answer = client.health()
    try:
        status = msgspec.json.decode(answer.body, type=_Health).status
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        kind = answer.content_type.partition(";")[0] or "something of no declared type"
        raise ContractError(
            f"{name} at {client.url} answered GET /health with {kind} that says no status: "
            "something else answers there",
            system=name,
        ) from error
    return Seen(f"{client.url} says it is {status}", "ok" if status == HEALTHY else "fail")


def apis_seen(source: Source) -> Seen:
    """What APISmith lists: every line of it is read as the contract has it."""
    apis = source.apis()
    if not apis:
        return Seen("no API is there", "warn")
    inactive = sum(not api.is_active for api in apis)
    return Seen(f"{len(apis)} APIs" + (f", {inactive} of them not active" if inactive else ""))
