"""What an op gets of a run's resources, beside what Dagster itself would give it."""

import importlib.util
from types import ModuleType
from typing import Any

import pytest
from dagster._config.pythonic_config import IAttachDifferentObjectToOpContext
from dagster._core.definitions import scoped_resources_builder as in_use
from dagster._core.errors import DagsterUnknownResourceError

from syncflow_dagster.scopes import gather_by_known_classes


class Stood(IAttachDifferentObjectToOpContext):
    """A resource in whose place ops get something else."""

    def get_object_to_set_on_execution_context(self) -> object:
        return "what ops get"


GIVEN = {"two": 2, "one": 1, "stood": Stood(), "none": None}


def dagsters_own() -> ModuleType:
    """Dagster's module once more, as it is before anything changes it."""
    spec = importlib.util.find_spec(in_use.__name__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def gathered(module: ModuleType, required: set[str] | None, *, generators: bool) -> dict[str, Any]:
    """All that can be asked of what one of the two gathers."""
    found = module.ScopedResourcesBuilder(GIVEN, generators).build(required)
    with pytest.raises(DagsterUnknownResourceError, match="unknown"):
        found.unknown  # noqa: B018  # it is asked for
    return {
        "shown": {name: getattr(found, name, "nothing") for name in GIVEN},
        "dictionary": {**found._asdict()},
        "original": found.original_resource_dict,
        "resources": isinstance(found, module.Resources),
        "generators": isinstance(found, module.IContainsGenerator),
    }


@pytest.mark.parametrize("generators", [False, True])
@pytest.mark.parametrize(
    "required", [None, set(), {"one"}, {"one", "two", "stood"}, {"none"}, {"one", "not there"}]
)
def test_an_op_gets_what_dagster_itself_would_give_it(
    required: set[str] | None, *, generators: bool
) -> None:
    gather_by_known_classes()

    ours = gathered(in_use, required, generators=generators)

    assert in_use.ScopedResourcesBuilder.build.__module__ == "syncflow_dagster.scopes"
    assert ours == gathered(dagsters_own(), required, generators=generators)


def test_two_runs_share_the_class_and_no_resource() -> None:
    gather_by_known_classes()

    first, second = (
        in_use.ScopedResourcesBuilder({"one": value}).build({"one"}) for value in ("a", "b")
    )

    assert type(first) is type(second)
    assert [dict(found.original_resource_dict) for found in (first, second)] == [
        {"one": "a"},
        {"one": "b"},
    ]
