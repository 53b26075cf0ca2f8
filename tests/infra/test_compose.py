"""The files for Docker Compose, against the settings and the Dockerfile. Their schema is held by `make check-stack`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from inference.settings import Settings

ROOT = Path(__file__).parents[2]
COMPOSE, GPU = (ROOT / "infra" / name for name in ("compose.yaml", "compose.gpu.yaml"))
DOCKERFILE = (ROOT / "container" / "Dockerfile").read_text()
OURS = ("server", "worker")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """Return the file with every variable at its default."""
    text = re.sub(r"\$\{\w+:-(\w*)\}", r"\1", COMPOSE.read_text())
    assert "${" not in text
    found: dict[str, Any] = yaml.safe_load(text)
    return found


@pytest.mark.parametrize("name", OURS)
def test_the_environment_is_that_of_settings(compose: dict[str, Any], name: str):
    environment = {key: value or "" for key, value in compose["services"][name]["environment"].items()}
    settings = Settings.from_env(environment)
    assert settings.database_url == "postgresql://viseme@postgresql/viseme"
    assert settings.broker_url == "redis://redis:6379/0"
    assert settings.n_job_runners == 0 or name == "worker"
    [volume] = [one for one in compose["services"][name]["volumes"] if one.startswith("jobs:")]
    assert volume == f"jobs:{settings.job_storage}"  # one storage for all


def test_the_password_is_in_no_url(compose: dict[str, Any]):
    """tests/container/jobs/test_database.py shows that PostgreSQL's client takes it from PGPASSWORD."""
    assert COMPOSE.read_text().count("${POSTGRES_PASSWORD") == 2
    password = compose["services"]["postgresql"]["environment"]["POSTGRES_PASSWORD"]
    assert all(compose["services"][name]["environment"]["PGPASSWORD"] == password for name in OURS)


def test_hosts_in_urls_are_services(compose: dict[str, Any]):
    environment = compose["services"]["server"]["environment"]
    scraped = yaml.safe_load((ROOT / "infra" / "prometheus" / "prometheus.yml").read_text())["scrape_configs"][0]
    [target] = scraped["static_configs"][0]["targets"]
    assert target.split(":")[0] == environment["VISEME_ALLOWED_HOSTS"]
    hosts = [target.split(":")[0], "postgresql", "redis"]
    assert set(hosts) <= set(compose["services"])


def test_the_image_is_built_with_what_jobs_need(compose: dict[str, Any]):
    for name in OURS:
        arguments = compose["services"][name]["build"]["args"]
        assert arguments["EXTRAS"] == "celery,postgresql"
        assert all(f"ARG {argument}=" in DOCKERFILE for argument in arguments)
    assert compose["services"]["server"]["image"] == compose["services"]["worker"]["image"]


def test_images_have_versions_and_ports_are_open_to_this_machine_only(compose: dict[str, Any]):
    services = compose["services"] | yaml.safe_load(GPU.read_text())["services"]
    for service in services.values():
        assert re.search(r":\w", service.get("image", "viseme:x"))
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_files_that_are_mounted_exist(compose: dict[str, Any]):
    services = [*compose["services"].values(), *yaml.safe_load(GPU.read_text())["services"].values()]
    mounted = [one.split(":") for service in services for one in service.get("volumes", [])]
    for source, _, *_ in mounted:
        if source.startswith("."):
            assert (COMPOSE.parent / source).exists()
        else:
            assert source in compose["volumes"]
    targets = {target for _, target, *_ in mounted}
    assert compose["services"]["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] in targets


def test_a_server_that_is_stopped_may_end_what_it_runs(compose: dict[str, Any]):
    """25 s for requests, and a little for the rest."""
    assert all(int(compose["services"][name]["stop_grace_period"].removesuffix("s")) >= 35 for name in OURS)
