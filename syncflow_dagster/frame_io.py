"""How one op's hand-over reaches the next: a few bytes that refer to staged frames, and lie beside them.

Belongs here: writing and reading ``Staged``.
Does not belong here: the frames themselves (``syncflow_core.frames``).

A run that is taken up again from a failed op reads what the run left that it continues.

Source: dagster.md 3; design.md, "The way of a record" 2.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
import msgspec
from pydantic import PrivateAttr

from syncflow_core.errors import SyncFlowError
from syncflow_core.frames import HANDOVER
from syncflow_core.places import Place, place_of
from syncflow_core.settings import read_settings
from syncflow_core.stages.work import Staged
from syncflow_dagster.failures import told_to_dagster


class FrameIOManager(dg.ConfigurableIOManager):
    """Keeps each op's ``Staged`` as JSON in the place of the frames, under ``handover``."""

    _place: Place | None = PrivateAttr(default=None)

    @property
    def place(self) -> Place:
        """Where the hand-over lies, one a run."""
        if self._place is None:
            self._place = place_of(read_settings().frames_path)
        return self._place

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        """Write the hand-over, whole or not at all; an op that ends a graph hands over nothing."""
        if obj is None:
            return
        with _told():
            self.place.put(_name(context), msgspec.json.encode(obj))

    def load_input(self, context: dg.InputContext) -> Staged:
        """Read what the op before handed over."""
        if context.upstream_output is None:
            raise SyncFlowError("an op was started without the one before it")
        name = _name(context.upstream_output)
        with _told():
            try:
                return msgspec.json.decode(self.place.get(name), type=Staged)
            except FileNotFoundError as error:
                raise SyncFlowError(
                    f"hand-over {name.rpartition('/')[2]} of an earlier run is gone: start the sync from "
                    "its first op"
                ) from error


@contextmanager
def _told() -> Iterator[None]:
    """Say in Dagster's words why there is no hand-over: the batch is closed with them (``resources``)."""
    with told_to_dagster():
        try:
            yield
        except OSError as error:
            raise SyncFlowError(f"hand-over: {error}") from error


def _name(context: dg.OutputContext) -> str:
    run, *step = context.get_identifier()
    return f"{HANDOVER}/{run}/{'-'.join(step)}.json"
