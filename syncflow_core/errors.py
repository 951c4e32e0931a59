"""Why a batch stopped: the class says what must happen next; ``system`` says who caused it.

* SyncFlowError
  + ConfigError        a person must change SyncFlow's configuration; nothing was read or written
    - OvertakenError   another run has applied or replaced it meanwhile
  + ContractError      the other side broke its documented shape; a person must look; retrying is pointless
    - DriftError       the source's columns are not those that were accepted
  + RejectedError      the other side understood the whole request and refused it (4xx); retrying is pointless
  + UnavailableError   nobody is wrong; try again later (timeout, connection, 408, 429, 5xx); has ``retry_after_s``
    - DoubtError       a write went out and its answer did not come back
    - PausedError      the system is taken to be away; nothing was sent
  + HeldError          another sync of the entity goes on (``bridge.leases``)
  + NightOverError     the night has ended; the next one does the rest (``stages.work``)

A record that cannot be used is not an error: see ``columns.REJECTED``.
"""


class SyncFlowError(Exception):
    """A batch, or a whole command, cannot go on.

    Args:
        message: One line: what was attempted, what came back, what to do.
        system: Whose side: ``apismith``, ``schedulehub``, ``database``, ``frames`` or ``None`` for SyncFlow's own.
        entity: The entity concerned, where there is one.
    """

    exit_status = 1
    """What the command line ends with (``product.md``, "Accounts, statuses, exits")."""
    refused = False
    """Whether the batch was only turned away: another run does, or did, what it is for."""

    def __init__(
        self, message: str, *, system: str | None = None, entity: str | None = None
    ) -> None:
        super().__init__(message)
        self.system = system
        self.entity = entity


class ConfigError(SyncFlowError):
    """A person must change SyncFlow's configuration; nothing was read or written."""

    exit_status = 2


class OvertakenError(ConfigError):
    """Another run has applied or replaced meanwhile what was asked for; nothing was pushed."""

    refused = True


class ContractError(SyncFlowError):
    """The other side broke its documented shape; a person must look."""


class DriftError(ContractError):
    """The source's columns are not those that were accepted; nothing was read or written."""


class RejectedError(SyncFlowError):
    """The other side understood the whole request and refused it; ``status`` is its answer's."""

    def __init__(
        self,
        message: str,
        *,
        status: int,
        system: str | None = None,
    ) -> None:
        super().__init__(message, system=system)
        self.status = status


class UnavailableError(SyncFlowError):
    """Nobody is wrong; try again later, at the earliest after ``retry_after_s`` seconds."""

    exit_status = 4

    def __init__(
        self,
        message: str,
        *,
        retry_after_s: float | None = None,
        system: str | None = None,
        entity: str | None = None,
    ) -> None:
        super().__init__(message, system=system, entity=entity)
        self.retry_after_s = retry_after_s


class DoubtError(UnavailableError):
    """A write went out and its answer did not come back: it may have been applied."""


class PausedError(UnavailableError):
    """The system is taken to be away; nothing was sent."""
