"""What the jobs of one op share: which entities, an order for each, failures told at the end.

Belongs here: turning a launchpad's choice into orders.
Does not belong here: what is ordered (``planning``, ``reconciling``), the assets' own ops (``ops``).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import dagster as dg
import msgspec

from syncflow_core.bridge import batches
from syncflow_core.bridge.entities import load_entities, load_registered
from syncflow_core.bridge.identifiers import new_uid
from syncflow_core.entity import Entity
from syncflow_core.errors import SyncFlowError
from syncflow_core.parents import Lineage
from syncflow_core.parents import lineage as lineage_of
from syncflow_core.stages.work import Connections, Order
from syncflow_dagster.choices import Mode, refuse_unknown
from syncflow_dagster.clock import utc_now


def declared(connections: Connections) -> tuple[list[Entity], Lineage]:
    """The enabled entities, and their order."""
    with connections.database.begin() as connection:
        entities = load_entities(connection)
    return entities, lineage_of(entities)


def chosen(
    connections: Connections, names: Sequence[str], entities: Sequence[Entity], lineage: Lineage
) -> list[str]:
    """The entities of these names, all without any, parents first.

    Raises:
        ConfigError: A name that is no enabled entity's.
    """
    refuse_unknown(names, entities, connections.database)
    return [name for name in lineage.order if not names or name in names]


def order_for(
    context: dg.OpExecutionContext,
    connections: Connections,
    name: str,
    lineage: Lineage,
    wait_s: float,
    kind: batches.Kind = "full",
) -> Order:
    """An order for one entity, its batch of this kind written down as pending."""
    asked = Order(
        entity=name,
        batch=new_uid(),
        run_id=context.run_id,
        wait_s=wait_s,
        deferred=lineage.deferred_of(name),
    )
    with connections.database.begin() as connection:
        batches.open_batch(
            connection,
            uid=asked.batch,
            entity=name,
            entity_version=load_registered(connection, [name], enabled=None)[0].version,
            kind=kind,
            now=utc_now(),
            status="pending",
            dagster_run_id=asked.run_id,
        )
    return asked


def dry_run(order: Order, mode: Mode, numbers: tuple[int, ...] = (), of: int = 1) -> Order:
    """The order as one that only makes a plan: of these slices *of* so many, or of all rows."""
    kind = None if mode == "auto" else mode
    return msgspec.structs.replace(order, dry_run=True, kind=kind, slices=numbers, of=of)


@contextmanager
def telling_last() -> Iterator[Callable[[], Any]]:
    """Let each block of the inner context fail by itself; the first failure is raised at the end."""
    failures: list[SyncFlowError | dg.Failure] = []

    @contextmanager
    def attempt() -> Iterator[None]:
        try:
            yield
        except (SyncFlowError, dg.Failure) as error:
            failures.append(error)

    yield attempt
    if failures:
        raise failures[0]
