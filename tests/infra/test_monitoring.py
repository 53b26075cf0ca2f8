"""The dashboard and the alerts, against what servers report on GET /metrics and the real Prometheus."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from bench.backing_servers import free_port
from container.http.metrics import Metrics

INFRA = Path(__file__).parents[2] / "infra"
ALERTS, DASHBOARD = INFRA / "prometheus" / "alerts.yml", INFRA / "grafana" / "viseme.json"
PROMTOOL, PROMETHEUS = shutil.which("promtool"), shutil.which("prometheus")
WITHOUT_PROMETHEUS = "Prometheus is not installed (Debian's package prometheus)"
PATIENCE_S = 60.0  # only a guard against hanging
SUFFIXES = re.compile(r"_(bucket|count|sum)$")
# Of https://github.com/NVIDIA/dcgm-exporter, etc/default-counters.csv.
DCGM = {"DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_FB_USED"}


def panels() -> list[dict[str, Any]]:
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


def queries() -> list[str]:
    return [target["expr"] for panel in panels() for target in panel["targets"]]


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def filled_metrics() -> Metrics:
    metrics = Metrics()
    metrics.count("invocations", "200", 0.5)
    metrics.measure_memory([])
    return metrics


def reported_names() -> set[str]:
    found = re.findall(r"^# TYPE (\S+)", filled_metrics().render().decode(), re.MULTILINE)
    return {name for name in found if not name.endswith("_created")}  # times at which counting began


def names_in(query: str) -> set[str]:
    return {SUFFIXES.sub("", name) for name in re.findall(r"\b(?:viseme_[a-z_]+|DCGM_[A-Z_]+)\b", query)}


def test_every_metric_that_is_named_is_reported():
    named = set().union(*(names_in(query) for query in [*queries(), *(rule["expr"] for rule in rules())]))
    assert named - DCGM <= reported_names()


def test_every_metric_that_is_reported_is_shown():
    assert reported_names() <= set().union(*map(names_in, queries()))


def test_panels_do_not_overlap():
    cells = [
        (x, y)
        for panel in json.loads(DASHBOARD.read_text())["panels"]
        for at in [panel["gridPos"]]
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


def test_the_dashboard_is_provisioned_with_the_source_that_it_names():
    provisioning = INFRA / "grafana" / "provisioning" / "datasources" / "prometheus.yml"
    [source] = yaml.safe_load(provisioning.read_text())["datasources"]
    assert {panel["datasource"]["uid"] for panel in panels()} == {source["uid"]}


@pytest.mark.skipif(PROMTOOL is None, reason=WITHOUT_PROMETHEUS)
def test_alerts_fire_when_they_should():
    command = [str(PROMTOOL), "test", "rules", str(Path(__file__).with_name("alerts_test.yml"))]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
    tested = set(re.findall(r"alertname: (\w+)", Path(command[-1]).read_text()))
    assert tested == {rule["alert"] for rule in rules()}


@pytest.mark.skipif(PROMTOOL is None, reason=WITHOUT_PROMETHEUS)
def test_prometheus_accepts_its_configuration():
    config = INFRA / "prometheus" / "prometheus.yml"
    command = [str(PROMTOOL), "check", "config", "--syntax-only", str(config)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
    assert config.parent / yaml.safe_load(config.read_text())["rule_files"][0] == ALERTS


@pytest.fixture(scope="module")
def metrics_port() -> Iterator[int]:
    """Serve the metrics of a server that has answered a request."""
    text = filled_metrics().render()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_args: Any) -> None:
            """Print nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def prometheus(metrics_port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of a Prometheus that has scraped those metrics twice, by the project's rules."""
    if PROMETHEUS is None:
        pytest.skip(WITHOUT_PROMETHEUS)
    folder, port = tmp_path_factory.mktemp("prometheus"), free_port()
    config = {
        "global": {"scrape_interval": "500ms", "evaluation_interval": "1s"},
        "rule_files": [str(ALERTS)],
        "scrape_configs": [{"job_name": "viseme", "static_configs": [{"targets": [f"127.0.0.1:{metrics_port}"]}]}],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    command = [PROMETHEUS, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], stderr=log, stdout=log)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
            wait_for_samples(client, process)
            yield client
    finally:
        process.terminate()
        process.wait()


def wait_for_samples(client: httpx.Client, process: subprocess.Popen[bytes]) -> None:
    give_up = time.monotonic() + PATIENCE_S
    while True:
        assert process.poll() is None
        assert time.monotonic() < give_up
        with contextlib.suppress(httpx.TransportError):  # it does not listen yet
            response = client.get("/api/v1/query", params={"query": "count_over_time(viseme_ready[1m])"})
            result = response.json()["data"]["result"] if response.is_success else []  # 503: it is starting
            if result and float(result[0]["value"][1]) >= 2:
                return
        time.sleep(0.1)


def test_prometheus_answers_the_queries_of_the_dashboard(prometheus: httpx.Client):
    for query in queries():
        filled = query.replace("$__rate_interval", "1m").replace("$instance", ".*")
        found = prometheus.get("/api/v1/query", params={"query": filled}).json()
        assert found["status"] == "success", found
        if not names_in(query) & DCGM:
            assert found["data"]["result"], query


def test_prometheus_evaluates_the_alerts(prometheus: httpx.Client):
    found = prometheus.get("/api/v1/rules").json()["data"]["groups"]
    assert {rule["name"] for group in found for rule in group["rules"]} == {rule["alert"] for rule in rules()}
    assert not [rule for group in found for rule in group["rules"] if rule.get("lastError")]
