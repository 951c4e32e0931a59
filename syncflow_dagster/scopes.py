"""What an op is given of a run's resources: its class is made once, not some forty times for each entity.

Belongs here: how Dagster gathers the resources that an op, an input or an output asks for.
Does not belong here: the resources (``resources``).

Dagster makes a class, with the resources' names as its attributes, whenever it gathers them; a class costs
a hundred times what an object does, and the interpreter forgets what it knew of all others.

Source: dagster 1.13, ``_core/definitions/scoped_resources_builder.py``, ``ScopedResourcesBuilder.build``;
docs/decisions/0022-classes-of-resources.md.
"""

from collections import namedtuple
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from functools import cache
from typing import Any, cast

from dagster._config.pythonic_config import IAttachDifferentObjectToOpContext
from dagster._core.definitions.scoped_resources_builder import (
    IContainsGenerator,
    Resources,
    ScopedResourcesBuilder,
)


def gather_by_known_classes() -> None:
    """Have this process gather resources so."""
    ScopedResourcesBuilder.build = _gather  # type: ignore[method-assign]


def _gather(
    self: ScopedResourcesBuilder, required_resource_keys: AbstractSet[str] | None
) -> Resources:
    """Those of the resources that are required, each as an attribute of its name."""
    there = self.resource_instance_dict
    given = {key: there[key] for key in sorted(required_resource_keys or ()) if key in there}
    shown = {
        key: value.get_object_to_set_on_execution_context()
        if isinstance(value, IAttachDifferentObjectToOpContext)
        else value
        for key, value in given.items()
    }
    gathered = _class_of(tuple(shown), generators=self.contains_generator)(**shown)
    gathered.__dict__["given"] = given
    return cast("Resources", gathered)


@cache
def _class_of(names: tuple[str, ...], *, generators: bool) -> type[Any]:
    """A named tuple of these names, as Dagster makes it."""

    def original_resource_dict(self: Any) -> Mapping[str, object]:  # noqa: ANN401  # an object of this class
        return cast("Mapping[str, object]", self.__dict__["given"])

    bases = (namedtuple("_ScopedResources", names), Resources)  # noqa: PYI024  # its names are known here alone
    marked = (*bases, IContainsGenerator) if generators else bases
    return type(
        "_ScopedResources", marked, {"original_resource_dict": property(original_resource_dict)}
    )
