import os
import subprocess
import sys
from pathlib import Path

import dagster as dg

from syncflow_core.entity import Entity, ParentRef
from syncflow_dagster.definitions import build
from syncflow_dagster.sandbox import demo_entities

FRESH = """
import dagster as dg
from syncflow_dagster.definitions import defs
dg.Definitions.validate_loadable(defs.load_fn())
print("loads")
"""
STAGES = ["fetch", "normalize", "identity", "delta", "resolve", "push"]


def test_every_entity_is_an_asset_with_its_six_ops_and_its_jobs() -> None:
    definitions = build(demo_entities(), 7)
    dg.Definitions.validate_loadable(definitions)

    graph = definitions.resolve_asset_graph()
    names = {entity.name for entity in demo_entities()}

    assert {key.to_user_string() for key in graph.executable_asset_keys} == names
    job = definitions.resolve_job_def("sync_orders")
    assert [str(handle) for handle in job.get_subset().graph.node_names()] == ["orders"]
    assert {node.name for node in job.graph.node_named("orders").definition.nodes} == set(STAGES)
    assert {job.name for job in definitions.resolve_all_job_defs()} >= {"sync_all", "sync_stock"}


def test_lineage_goes_from_the_source_and_from_parent_to_child_by_the_same_slice_to_the_hub() -> (
    None
):
    graph = build(demo_entities(), 7).resolve_asset_graph()

    lines = graph.get(dg.AssetKey(["order_lines"]))

    parents = {key.to_user_string() for key in lines.parent_keys}
    assert parents == {"apismith/order_lines", "orders", "parts"}
    assert dg.AssetKey(["schedulehub", "order_lines"]) in lines.child_keys
    assert lines.partitions_def is not None
    assert lines.partitions_def.get_partition_keys() == [f"slice-{n}" for n in range(1, 8)]


def test_a_cycle_is_cut_out_of_the_lineage() -> None:
    entities = [
        Entity(
            name="departments", parents={"manager": ParentRef(entity="employees", key={"id": "m"})}
        ),
        Entity(
            name="employees", parents={"dept": ParentRef(entity="departments", key={"id": "d"})}
        ),
    ]

    graph = build(entities, 7).resolve_asset_graph()

    parents = [len(graph.get(dg.AssetKey([entity.name])).parent_keys) for entity in entities]
    assert sorted(parents) == [1, 2]  # the source, and one of the other


def test_definitions_load_in_a_fresh_interpreter_with_an_empty_environment(tmp_path: Path) -> None:
    loaded = subprocess.run(
        [
            sys.executable,
            "-c",
            FRESH,
        ],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert loaded.returncode == 0, loaded.stderr
    assert loaded.stdout.splitlines()[-1] == "loads"
