"""The API's way to Dagster: runs are launched through its webserver, so that the UI shows the same ones.

Belongs here: launching a job, having the location loaded.
Does not belong here: what jobs there are (``jobs``, ``planning``), running one in this process (``launch``).

Source: product.md 9; dagster.md 6.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from syncflow_core.errors import SyncFlowError, UnavailableError
from syncflow_dagster.partitions import LOCATION

if TYPE_CHECKING:
    from dagster_graphql import DagsterGraphQLClient

TIMEOUT_S = 30
T = TypeVar("T")


class DagsterGateway:
    """Dagster's webserver.

    Args:
        url: Its address.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    def launch(
        self, job: str, op: str, config: Mapping[str, object], tags: Mapping[str, str]
    ) -> str:
        """Launch a job of one op; the run's id.

        Raises:
            UnavailableError: The webserver is away, or has not loaded the location.
            SyncFlowError: It refused the run.
        """
        return self._ask(
            lambda client: client.submit_job_execution(
                job,
                repository_location_name=LOCATION,
                run_config={"ops": {op: {"config": dict(config)}}},
                tags=dict(tags),
            )
        )

    def reload(self) -> None:
        """Have the code location loaded anew.

        Raises:
            UnavailableError: The webserver is away.
            SyncFlowError: The location did not load.
        """
        done = self._ask(lambda client: client.reload_repository_location(LOCATION))
        if done.message:
            raise SyncFlowError(f"dagster did not load the entities: {done.message}")

    def _ask(self, question: "Callable[[DagsterGraphQLClient], T]") -> T:
        # imported here: the client brings half a second of modules that no other call needs
        from dagster_graphql import (  # noqa: PLC0415
            DagsterGraphQLClient,
            DagsterGraphQLClientError,
        )

        place = urlsplit(self.url)
        try:
            return question(
                DagsterGraphQLClient(
                    place.hostname or "127.0.0.1",
                    port_number=place.port,
                    use_https=place.scheme == "https",
                    timeout=TIMEOUT_S,
                )
            )
        except DagsterGraphQLClientError as error:
            if error.__cause__ is not None:  # the question got no answer; a refusal is one
                raise UnavailableError(
                    f"the Dagster webserver at {self.url} does not answer", system="dagster"
                ) from error
            reason = " ".join(str(error).split())[:300]
            raise SyncFlowError(f"dagster refused it: {reason}", system="dagster") from error
