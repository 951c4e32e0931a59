"""The API's way to Dagster: its webserver's GraphQL, so that the UI shows the same runs.

Belongs here: launching a job, finding and ending a run, having the location loaded.
Does not belong here: what jobs there are (``jobs``, ``planning``), running one in this process (``launch``).

Dagster's own Python client knows no tags to find a run by, which a start that is asked for twice needs.

Source: product.md 9; dagster.md 6.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import httpx
from dagster._core.definitions.assets.job.asset_job import IMPLICIT_ASSET_JOB_NAME

from syncflow_core.errors import ConfigError, SyncFlowError, UnavailableError
from syncflow_dagster.checks import own_checks
from syncflow_dagster.op_jobs import OpJob
from syncflow_dagster.partitions import LOCATION, REPOSITORY

TIMEOUT_S: Final = 30.0
ENDED: Final = frozenset({"SUCCESS", "FAILURE", "CANCELED"})
"""Dagster's words for a run that goes on no more."""
UNREACHABLE: Final = "DagsterUserCodeUnreachable"
"""How Dagster's errors begin where its code location is not there: as good as if Dagster itself were away."""
_LAUNCH = """
    mutation ($params: ExecutionParams!) {
      launchRun(executionParams: $params) {
        __typename
        ... on LaunchRunSuccess { run { runId } }
        ... on Error { message }
        ... on RunConfigValidationInvalid { errors { message } }
      }
    }
"""
_FIND = """
    query ($filter: RunsFilter!) {
      runsOrError(filter: $filter, limit: 1) {
        __typename
        ... on Runs { results { runId status tags { key value } } }
        ... on Error { message }
      }
    }
"""
_TERMINATE = """
    mutation ($run: String!) {
      terminateRun(runId: $run) { __typename ... on TerminateRunFailure { message } ... on Error { message } }
    }
"""
_RELOAD = """
    mutation ($location: String!) {
      reloadRepositoryLocation(repositoryLocationName: $location) {
        __typename
        ... on WorkspaceLocationEntry { locationOrLoadError { __typename ... on PythonError { message } } }
        ... on Error { message }
      }
    }
"""


@dataclass(frozen=True)
class DagsterRun:
    """A run, as Dagster tells of it."""

    run_id: str
    status: str
    tags: Mapping[str, str]

    @property
    def has_ended(self) -> bool:
        """Whether it goes on no more."""
        return self.status in ENDED


class DagsterGateway:
    """Dagster's webserver. Every method raises UnavailableError where it is away.

    Args:
        url: Its address.
        transport: Carries the requests; httpx's own without one.
    """

    def __init__(self, url: str, *, transport: httpx.BaseTransport | None = None) -> None:
        self.url = url.rstrip("/")
        self._client = httpx.Client(timeout=TIMEOUT_S, trust_env=False, transport=transport)

    def close(self) -> None:
        """Close the connections to it."""
        self._client.close()

    def launch_assets(
        self, names: Sequence[str], config: Mapping[str, object], tags: Mapping[str, str]
    ) -> str:
        """Launch a run that makes these entities' assets, with the checks that their own ops make; its id.

        Raises:
            SyncFlowError: Dagster refused the run.
        """
        checks = [
            {"assetKey": {"path": key.asset_key.path}, "name": key.name}
            for key in own_checks(names)
        ]
        assets = [{"path": [name]} for name in names]
        return self._launch(
            {
                "jobName": IMPLICIT_ASSET_JOB_NAME,
                "assetSelection": assets,
                "assetCheckSelection": checks,
            },
            config,
            tags,
        )

    def launch_op(self, job: OpJob, config: Mapping[str, object], tags: Mapping[str, str]) -> str:
        """Launch a job of one op with this configuration; the run's id.

        Raises:
            SyncFlowError: Dagster refused the run.
        """
        return self._launch({"jobName": job.name}, job.configured(config), tags)

    def run(self, run_id: str) -> DagsterRun | None:
        """The run of this id; None where Dagster has none."""
        return self._find({"runIds": [run_id]})

    def run_tagged(self, key: str, value: str) -> DagsterRun | None:
        """The newest run with this tag; None where there is none."""
        return self._find({"tags": [{"key": key, "value": value}]})

    def terminate(self, run_id: str) -> None:
        """Have a run end: a queued one at once, another one within seconds.

        Raises:
            ConfigError: Dagster cannot end it, for it did not start its process.
        """
        answer = self._ask(_TERMINATE, "terminateRun", run=run_id)
        if answer["__typename"] != "TerminateRunSuccess":
            raise ConfigError(_refusal(answer.get("message") or answer["__typename"]))

    def reload(self) -> None:
        """Have the code location loaded anew.

        Raises:
            SyncFlowError: The location did not load.
        """
        answer = self._ask(_RELOAD, "reloadRepositoryLocation", location=LOCATION)
        loaded = answer.get("locationOrLoadError") or answer
        if "message" in loaded:
            raise SyncFlowError(f"dagster did not load the entities: {loaded['message']}")

    def _launch(
        self, selected: Mapping[str, object], config: Mapping[str, object], tags: Mapping[str, str]
    ) -> str:
        place = {"repositoryLocationName": LOCATION, "repositoryName": REPOSITORY}
        params = {
            "selector": {**place, **selected},
            "runConfigData": config,
            "executionMetadata": {
                "tags": [{"key": key, "value": value} for key, value in tags.items()]
            },
        }
        answer = self._ask(_LAUNCH, "launchRun", params=params)
        if answer["__typename"] != "LaunchRunSuccess":
            faults = [fault["message"] for fault in answer.get("errors", ())]
            raise _refused(answer.get("message") or "; ".join(faults) or answer["__typename"])
        return str(answer["run"]["runId"])

    def _find(self, wanted: Mapping[str, object]) -> DagsterRun | None:
        answer = self._ask(_FIND, "runsOrError", filter=wanted)
        if answer["__typename"] != "Runs":
            raise _refused(answer.get("message") or answer["__typename"])
        for found in answer["results"]:
            tags = {tag["key"]: tag["value"] for tag in found["tags"]}
            return DagsterRun(found["runId"], found["status"], tags)
        return None

    def _ask(self, query: str, field: str, **variables: object) -> dict[str, Any]:
        """What GraphQL answers in this field."""
        try:
            answer = self._client.post(
                f"{self.url}/graphql", json={"query": query, "variables": variables}
            )
            told = answer.json()
            data = told.get("data") or {}
        except (httpx.HTTPError, ValueError, AttributeError) as error:
            raise UnavailableError(
                f"the Dagster webserver at {self.url} does not answer", system="dagster"
            ) from error
        if not isinstance(data.get(field), dict):
            faults = "; ".join(str(fault.get("message")) for fault in told.get("errors") or ())
            raise _refused(faults or "no answer")
        return dict(data[field])


def _refused(words: str) -> SyncFlowError:
    """Dagster's refusal in its words, unless they say that its code location is not there."""
    if UNREACHABLE in words:
        return UnavailableError(
            f"Dagster's code location {LOCATION} does not answer", system="dagster"
        )
    return SyncFlowError(_refusal(words), system="dagster")


def _refusal(words: str) -> str:
    return f"dagster refused it: {' '.join(words.split())[:300]}"
