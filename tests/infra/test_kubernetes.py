"""The Kubernetes manifests, against the settings, the routes and the database. Their schemas: `make check-stack`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import text

from container.jobs.database import open_database
from container.jobs.records import JobState
from container.jobs.schema import jobs
from inference.settings import Settings

FOLDER = Path(__file__).parents[2] / "infra" / "kubernetes"
OVERLAYS = ("cpu", "gpu")


def load(path: Path) -> list[dict[str, Any]]:
    return [one for one in yaml.safe_load_all(path.read_text()) if one]


def objects(overlay: str) -> list[dict[str, Any]]:
    """Return what an overlay applies. Neither it nor the base changes an object but for names of images."""
    found = []
    for folder in (FOLDER / "base", FOLDER / "overlays" / overlay):
        [kustomization] = load(folder / "kustomization.yaml")
        assert set(kustomization) <= {"apiVersion", "kind", "resources", "configMapGenerator", "images"}
        for name in kustomization["resources"]:
            if (folder / name).is_dir():
                assert (folder / name).resolve() == FOLDER / "base"
            else:
                found += load(folder / name)
    return found


def of_kind(overlay: str, kind: str) -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one for one in objects(overlay) if one["kind"] == kind}


def pod(deployment: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = deployment["spec"]["template"]["spec"]
    return found


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_file_is_applied_once(overlay: str):
    names = [(one["kind"], one["metadata"]["name"]) for one in objects(overlay)]
    assert max(Counter(names).values()) == 1
    listed = {path.name for path in (FOLDER / "base").glob("*.yaml")} - {"kustomization.yaml"}
    assert listed == set(load(FOLDER / "base" / "kustomization.yaml")[0]["resources"])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_environment_is_that_of_settings(overlay: str):
    shared = dict(line.split("=", 1) for line in (FOLDER / "base" / "settings.env").read_text().splitlines())
    secret = {"database-url": "postgresql://u:p@h/n", "broker-url": "redis://h:6379/0", "token": "t"}
    for deployment in of_kind(overlay, "Deployment").values():
        [container] = pod(deployment)["containers"]
        of_secret = [one for one in container["env"] if "valueFrom" in one]
        own = {one["name"]: secret[one["valueFrom"]["secretKeyRef"]["key"]] for one in of_secret}
        settings = Settings.from_env(shared | own)
        assert settings.database_url
        assert settings.broker_url
        assert settings.job_storage


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_variables_of_services_are_not_taken_for_settings(overlay: str):
    """Kubernetes adds VISEME_SERVICE_HOST, VISEME_PORT and others for the service `viseme`."""
    assert all(pod(one)["enableServiceLinks"] is False for one in of_kind(overlay, "Deployment").values())


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_are_selected_by_their_labels(overlay: str):
    of_pods = {}
    for name, one in of_kind(overlay, "Deployment").items():
        labels = one["spec"]["template"]["metadata"]["labels"]
        assert one["spec"]["selector"]["matchLabels"].items() <= labels.items()
        of_pods[name] = labels
    selectors = [one["spec"]["selector"] for one in of_kind(overlay, "Service").values()]
    selectors += [one["spec"]["selector"]["matchLabels"] for one in of_kind(overlay, "PodDisruptionBudget").values()]
    selectors += [one["spec"]["podSelector"]["matchLabels"] for one in of_kind(overlay, "NetworkPolicy").values()]
    for selector in selectors:
        assert any(selector.items() <= labels.items() for labels in of_pods.values()), selector
    for kind in ("HorizontalPodAutoscaler", "ScaledObject"):
        assert all(one["spec"]["scaleTargetRef"]["name"] in of_pods for one in of_kind(overlay, kind).values())


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_run_without_root_and_with_time_to_end(overlay: str):
    for deployment in of_kind(overlay, "Deployment").values():
        found = pod(deployment)
        assert found["securityContext"]["runAsNonRoot"]
        assert found["terminationGracePeriodSeconds"] >= 35
        [container] = found["containers"]
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert not container["securityContext"]["allowPrivilegeEscalation"]
        assert [one["mountPath"] for one in container["volumeMounts"]] == ["/tmp"]


def test_each_gpu_worker_has_one_gpu():
    [container] = pod(of_kind("gpu", "Deployment")["viseme-worker"])["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert "nvidia.com/gpu" not in str(of_kind("cpu", "Deployment"))


def test_servers_see_no_gpu():
    """A pod that requests no GPU may get all if its image asks for them. Source: README of NVIDIA's device plugin."""
    [container] = pod(of_kind("gpu", "Deployment")["viseme-server"])["containers"]
    assert {"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"} in container["env"]
    assert "NVIDIA_VISIBLE_DEVICES=all" in (FOLDER.parents[1] / "container" / "Dockerfile").read_text()


def test_workers_are_counted_by_the_jobs_on_record(tmp_path: Path):
    [scaled] = of_kind("cpu", "ScaledObject").values()
    query = next(one["metadata"]["query"] for one in scaled["spec"]["triggers"] if one["type"] == "postgresql")
    values = {
        column.name: 0 if column.type.python_type in (int, float) else [] if str(column.type) == "JSON" else "x"
        for column in jobs.columns
        if not column.nullable and column.name not in ("number", "id", "state")
    }
    engine = open_database(None, tmp_path)
    with engine.begin() as db:
        for i, state in enumerate(JobState):
            db.execute(jobs.insert().values(values | {"id": f"{i:032x}", "state": state}))
        assert db.scalar(text(query)) == sum(not state.is_final for state in JobState)
    engine.dispose()


def test_busy_workers_are_not_ended_because_others_are_idle():
    [scaled] = of_kind("cpu", "ScaledObject").values()
    behavior = scaled["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    assert behavior["scaleDown"] == {"selectPolicy": "Disabled"}
    assert scaled["spec"]["minReplicaCount"] == 0  # by KEDA itself, once there are no jobs


def test_the_authentication_is_of_the_secret_that_pods_read():
    [scaled] = of_kind("cpu", "ScaledObject").values()
    named = {one["authenticationRef"]["name"] for one in scaled["spec"]["triggers"] if "authenticationRef" in one}
    authentications = of_kind("cpu", "TriggerAuthentication")
    assert named == set(authentications)
    [parameter] = authentications["viseme-database"]["spec"]["secretTargetRef"]
    [container] = pod(of_kind("cpu", "Deployment")["viseme-server"])["containers"]
    assert {"name": parameter["name"], "key": parameter["key"]} in [
        one["valueFrom"]["secretKeyRef"] for one in container["env"] if "valueFrom" in one
    ]
