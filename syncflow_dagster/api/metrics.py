"""``/metrics``: what Prometheus reads.

Syncs run in other processes than this one, so every number comes from the bridge database when it is
asked for; nothing is counted here.

Belongs here: the call.
Does not belong here: the list of metrics (``families``), the numbers (``syncflow_core.bridge``).

Source: product.md 9 and 14.
"""

from collections.abc import Iterator
from importlib.metadata import version

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector, CollectorRegistry

from syncflow_core.bridge.database import Database
from syncflow_core.bridge.gauges import load_gauges
from syncflow_core.bridge.totals import add_up, load_totals
from syncflow_core.settings import Settings
from syncflow_dagster.api.families import metrics_of
from syncflow_dagster.api.problems import described
from syncflow_dagster.api.requests import Viewer, database_of, settings_of

router = APIRouter(prefix="/metrics", tags=["metrics"])
EXAMPLE = 'syncflow_rows_total{entity="order_lines",outcome="inserted"} 2718.0\n'


class BridgeCollector(Collector):
    """Reads every metric from the bridge database.

    Args:
        database: Where it is.
        settings: How many slices and slots there are.
    """

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database, self._settings = database, settings

    def collect(self) -> Iterator[Metric]:
        """All metrics, as they are now.

        Raises:
            UnavailableError: The bridge database is away.
        """
        with self._database.begin() as connection:
            add_up(connection)
        with self._database.begin() as connection:
            totals = load_totals(connection)
            gauges = load_gauges(
                connection, slices=self._settings.slices, slots=self._settings.connections
            )
        yield from metrics_of(totals, gauges, version("syncflow"))


@router.get(
    "",
    operation_id="get_metrics",
    response_class=PlainTextResponse,
    responses={
        200: {
            "description": "Prometheus's text form, or OpenMetrics where `Accept` asks for it.",
            "content": {
                "text/plain": {"example": EXAMPLE},
                "application/openmetrics-text": {"example": f"{EXAMPLE}# EOF\n"},
            },
        },
        **described(503),
    },
)
def get_metrics(request: Request, _caller: Viewer) -> Response:
    """Tell Prometheus what was done, what waits and how long things take."""
    registry = CollectorRegistry()
    registry.register(BridgeCollector(database_of(request), settings_of(request)))
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(registry), media_type=content_type)
