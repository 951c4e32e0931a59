"""How one op's hand-over reaches the next: a small file that refers to staged frames.

Belongs here: writing and reading ``Staged``.
Does not belong here: the frames themselves (``syncflow_core.frames``).

A run that is taken up again from a failed op reads the files of the run that it continues.

Source: dagster.md 3; design.md, "The way of a record" 2.
"""

from pathlib import Path

import dagster as dg
import msgspec

from syncflow_core.errors import SyncFlowError
from syncflow_core.frames import HANDOVER, FrameStore
from syncflow_core.private import make_folder, write_file
from syncflow_core.settings import read_settings
from syncflow_core.stages.work import Staged


class FrameIOManager(dg.ConfigurableIOManager):
    """Keeps each op's ``Staged`` as JSON under the frame store's ``handover`` folder."""

    def _path(self, context: dg.OutputContext) -> Path:
        run, *step = context.get_identifier()
        return (
            FrameStore(read_settings().frames_path).root
            / HANDOVER
            / run
            / ("-".join(step) + ".json")
        )

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        """Write the hand-over, whole or not at all; an op that ends a graph hands over nothing."""
        if obj is None:
            return
        path = self._path(context)
        make_folder(path.parent)
        write_file(path, msgspec.json.encode(obj))

    def load_input(self, context: dg.InputContext) -> Staged:
        """Read what the op before handed over."""
        if context.upstream_output is None:
            raise SyncFlowError("an op was started without the one before it")
        path = self._path(context.upstream_output)
        try:
            return msgspec.json.decode(path.read_bytes(), type=Staged)
        except FileNotFoundError as error:
            raise SyncFlowError(
                f"hand-over {path.name} of an earlier run is gone: start the sync from its first op"
            ) from error
