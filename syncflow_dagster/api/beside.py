"""Dagster's UI and the REST API in one process and on one port.

Belongs here: putting the two applications beside each other.
Does not belong here: either of them.

Each keeps its own middleware: what the API forbids browsers, the UI needs.

Source: product.md 9.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster_webserver.app import create_app_from_workspace_process_context
from starlette.types import ASGIApp, Receive, Scope, Send

from syncflow_dagster.api.app import PREFIX


@contextmanager
def with_ui(api: ASGIApp, instance: dg.DagsterInstance, workspace: Path) -> Iterator[ASGIApp]:
    """Both applications as one: the API below its prefix, the UI everywhere else.

    Args:
        api: The REST API.
        instance: Dagster's history.
        workspace: The workspace file whose code locations the UI shows; they are loaded now.
    """
    with WorkspaceProcessContext(instance, WorkspaceFileTarget([str(workspace)])) as context:
        ui: ASGIApp = create_app_from_workspace_process_context(context)

        async def both(scope: Scope, receive: Receive, send: Send) -> None:
            ours = scope["type"] == "http" and _is_below(scope["path"])
            await (api if ours else ui)(scope, receive, send)

        yield both


def _is_below(path: str) -> bool:
    return path == PREFIX or path.startswith(f"{PREFIX}/")
