from __future__ import annotations

from container.http.metrics import RENDER_INTERVAL_S, Metrics


def test_metrics_are_rendered_a_few_times_a_second():
    now = 0.0
    metrics = Metrics(lambda: now)
    metrics.count("invocations", "200", 0.1)
    first = metrics.render()
    assert b'viseme_requests_total{route="invocations",status="200"} 1.0' in first
    metrics.count("invocations", "200", 0.1)
    assert metrics.render() is first
    now += RENDER_INTERVAL_S
    assert b'viseme_requests_total{route="invocations",status="200"} 2.0' in metrics.render()
