"""The queries of the Grafana dashboard, answered by a Prometheus that watched a bench."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx

DASHBOARD = Path(__file__).parents[1] / "infra" / "grafana" / "viseme.json"
# What Grafana puts in place of its variables: all servers, and at least four scrapes.
VARIABLES = {"$instance": ".*", "$__rate_interval": "30s"}
STEP_S = 5
OTHER_EXPORTERS = ("DCGM_",)  # prefixes of metrics that Viseme's servers do not report


class PanelQuery(NamedTuple):
    """A query of a panel, with Grafana's variables filled in."""

    title: str
    expression: str

    @property
    def is_ours(self) -> bool:
        return not self.expression.startswith(OTHER_EXPORTERS)


def panel_queries() -> list[PanelQuery]:
    """Return every query of the dashboard."""
    panels = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
    return [PanelQuery(panel["title"], fill(one["expr"])) for panel in panels for one in panel.get("targets", [])]


def fill(expression: str) -> str:
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    return expression


def largest_values(prometheus_url: str, start: float, end: float) -> Iterator[tuple[PanelQuery, float | None]]:
    """Yield each query with its largest value between two times, None if it has none.

    Raises: httpx.HTTPError if Prometheus does not answer, or rejects a query.
    """
    with httpx.Client(base_url=prometheus_url, timeout=30) as client:
        for query in panel_queries():
            given: dict[str, str | float] = {"query": query.expression, "start": start, "end": end, "step": STEP_S}
            response = client.get("/api/v1/query_range", params=given).raise_for_status()
            series = response.json()["data"]["result"]
            values = [float(value) for one in series for _, value in one["values"]]
            yield query, max((value for value in values if math.isfinite(value)), default=None)
