"""The processes of runs, forked from one that has imported everything: a run that is launched begins seconds sooner.

Belongs here: how a code server starts the process of a run.
Does not belong here: which runs there are, and who ends them (Dagster).

Dagster's code server has Python start a new interpreter for each run, which imports Dagster, polars and
SyncFlow before it does anything. Here Python's fork server does so once and is copied for each run;
it has no threads and no connections, and the code server's own threads are not in it.

Source: dagster 1.13, ``_grpc/server.py``, ``DagsterApiServer.StartRun``; Python's ``multiprocessing``,
"Contexts and start methods".
"""

import multiprocessing
import sys
from typing import Any, Final

IMPORTED: Final = (
    "syncflow_dagster.definitions",
    # what a run imports only when it begins
    "dagster._core.execution.plan.active",
    "dagster._core.executor.in_process",
    "dagster._core.secrets.env_file",
    "dagster._grpc.impl",
    "httpcore",
    "psycopg2.extras",
    "syncflow_core.bridge.arrow",
    "syncflow_dagster.instance_storage",
    "upath.implementations.local",
)


def fork_runs() -> None:
    """Where this process is a code server's, its runs are forked from here on; elsewhere nothing is changed."""
    server = sys.modules.get("dagster._grpc.server")
    if server is None or getattr(server.DagsterApiServer, "forks", False):
        return
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(list(IMPORTED))
    start_run = server.DagsterApiServer.StartRun

    def start_forked(self: Any, request: Any, context: Any) -> Any:  # noqa: ANN401  # gRPC's
        self._mp_ctx = forks
        return start_run(self, request, context)

    server.DagsterApiServer.StartRun = start_forked
    server.DagsterApiServer.forks = True
