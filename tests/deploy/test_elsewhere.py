"""Dagster's configuration for Docker, Kubernetes and Celery: what Dagster and Kubernetes make of it."""

import importlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose import CONTAINER_HOME, ROOT, VARIABLES, read
from dagster._config import process_config, resolve_to_config_type
from dagster._core.instance.config import dagster_instance_config
from dagster_celery.app import app
from dagster_celery.cli import get_validated_config
from dagster_k8s.models import k8s_model_from_dict, k8s_snake_case_dict
from kubernetes import client

from syncflow_dagster.partitions import LOCATION

OPERATIONS = ROOT / "docs/operations"
VARIANTS = ["docker", "kubernetes", "celery"]
KINDS = {
    "PersistentVolumeClaim": client.V1PersistentVolumeClaim,
    "Job": client.V1Job,
    "Deployment": client.V1Deployment,
    "Service": client.V1Service,
}


def model(kind: Any, given: dict[str, Any]) -> Any:
    """Kubernetes' own; raises for a key, at any depth, that it does not know."""
    return k8s_model_from_dict(kind, k8s_snake_case_dict(kind, given))


def loaded(path: Path) -> dict[str, Any]:
    return dict(yaml.safe_load(path.read_text("utf-8")))


@pytest.mark.parametrize("name", VARIANTS)
def test_dagster_takes_the_instance_of(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("SYNCFLOW_IMAGE", "SYNCFLOW_CELERY_BROKER", "SYNCFLOW_CELERY_BACKEND"):
        monkeypatch.setenv(variable, "memory://")
    config, _ = dagster_instance_config(str(OPERATIONS / name))  # raises where it is not taken

    launcher = config["run_launcher"]
    kind = getattr(importlib.import_module(launcher["module"]), launcher["class"])
    taken = process_config(resolve_to_config_type(kind.config_type()), launcher["config"])

    assert taken.success, taken.errors


def test_launcher_and_worker_of_celery_meet_in_one_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNCFLOW_CELERY_BROKER", "memory://")
    monkeypatch.setenv("SYNCFLOW_CELERY_BACKEND", "cache+memory://")
    worker = get_validated_config(str(OPERATIONS / "celery/worker.yaml"))
    launcher = loaded(OPERATIONS / "celery/dagster.yaml")["run_launcher"]["config"]

    assert (worker["broker"], worker["backend"]) == ("memory://", "cache+memory://")
    assert [queue.name for queue in app.conf.task_queues] == [launcher["default_queue"]]


@pytest.mark.parametrize("name", VARIANTS)
def test_nothing_but_the_run_launcher_differs_from_dagster_yaml(name: str) -> None:
    variant = loaded(OPERATIONS / name / "dagster.yaml")

    assert variant.pop("run_launcher")
    assert variant == loaded(ROOT / "dagster.yaml")


def test_a_run_in_a_container_has_the_volume_and_the_settings_of_the_code_location() -> None:
    compose = read(VARIABLES)
    code = compose.services["code"]
    config = loaded(OPERATIONS / "docker/dagster.yaml")["run_launcher"]["config"]
    given = {name for name, value in code.environment.items() if value is not None}
    # of where the code location is, and of links alone
    needless = {"SYNCFLOW_CODE_HOST", "SYNCFLOW_CODE_PORT", "SYNCFLOW_API_URL"}

    assert set(config["env_vars"]) == given - needless
    assert config["container_kwargs"]["volumes"] == [f"{compose.name}_home:{CONTAINER_HOME}"]
    assert set(config["networks"]) == {f"{compose.name}_{name}" for name in code.networks}


def test_kubernetes_takes_what_the_chart_is_given() -> None:
    values = loaded(OPERATIONS / "kubernetes/values.yaml")
    pods = [
        *values["dagster-user-deployments"]["deployments"],
        values["dagsterWebserver"],
        values["dagsterDaemon"],
    ]

    for manifest in values["extraManifests"]:
        model(KINDS[manifest["kind"]], manifest)
    for pod in pods:
        assert model(client.V1PodSecurityContext, pod["podSecurityContext"]).run_as_non_root
        assert model(client.V1SecurityContext, pod["securityContext"]).read_only_root_filesystem
        for volume in pod["volumes"]:
            model(client.V1Volume, volume)
        mounts = {m["name"]: m["mountPath"] for m in pod["volumeMounts"]}
        assert mounts == {"home": CONTAINER_HOME, "tmp": "/tmp"}  # noqa: S108  # the containers' own


def test_the_chart_is_given_what_the_other_files_say() -> None:
    values = loaded(OPERATIONS / "kubernetes/values.yaml")
    instance = loaded(ROOT / "dagster.yaml")
    (code,) = values["dagster-user-deployments"]["deployments"]
    command = read(VARIABLES).services["code"].command
    runs, pools = values["concurrency"]["runs"], values["concurrency"]["pools"]

    assert code["name"] == LOCATION
    assert command is not None
    assert code["codeServerArgs"] == command[command.index("-m") :]
    assert runs["maxConcurrentRuns"] == instance["concurrency"]["runs"]["max_concurrent_runs"]
    assert runs["tagConcurrencyLimits"] == instance["concurrency"]["runs"]["tag_concurrency_limits"]
    assert pools["granularity"] == instance["concurrency"]["pools"]["granularity"]
    assert pools["defaultLimit"] == instance["concurrency"]["pools"]["default_limit"]
    assert (
        values["dagsterDaemon"]["runRetries"]["maxRetries"]
        == instance["run_retries"]["max_retries"]
    )
