"""Every alarm and scaling metric, of deploy and of the template, is one that AWS publishes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deploy.dev.template import load_template
from deploy.endpoint import main
from deploy.metrics import WatchedMetric, documented_metrics, find_fault

ROOT = Path(__file__).parents[2]
COMMAND = ["--endpoint-name", "viseme", "--role-arn", "arn:aws:iam::123456789012:role/SageMaker"]
COMMAND += ["--image-uri", "123456789012.dkr.ecr.us-east-1.amazonaws.com/viseme:1.0", "--update", "--dry-run"]
MODES = {"IsAsync": "async", "IsRealtime": "realtime"}


def watched_by_deploy(capsys: pytest.CaptureFixture[str], mode: str, *flags: str) -> list[WatchedMetric]:
    """Return what an update watches: its rollback alarms, and the metrics that it scales by."""
    assert main([*COMMAND, "--mode", mode, *flags]) == 0
    found = []
    for line in map(json.loads, capsys.readouterr().out.splitlines()):
        given = line["parameters"]
        tracked = given.get("TargetTrackingScalingPolicyConfiguration", {}).get("CustomizedMetricSpecification")
        if line["operation"] == "PutMetricAlarm" or tracked:
            metric = tracked or given
            names = [one["Name"] for one in metric["Dimensions"]]
            statistic = metric.get("Statistic") or metric["ExtendedStatistic"]
            found.append(WatchedMetric(metric["Namespace"], metric["MetricName"], frozenset(names), statistic, mode))
    return found


@pytest.mark.parametrize(
    ("mode", "metrics"),
    [
        ("realtime", ["Invocation5XXErrors", "ModelLatency"]),
        ("async", ["InvocationFailures", "ApproximateBacklogSizePerInstance", "HasBacklogWithoutCapacity"]),
    ],
)
def test_deploy_watches_metrics_that_exist(capsys: pytest.CaptureFixture[str], mode: str, metrics: list[str]):
    least = "0" if mode == "async" else "1"
    found = watched_by_deploy(capsys, mode, "--min-capacity", least, "--max-capacity", "3")
    assert [one.metric for one in found] == metrics
    assert {one.metric: fault for one in found if (fault := find_fault(one))} == {}


def watched_by_template() -> dict[str, WatchedMetric]:
    found = {}
    for name, one in load_template(ROOT / "infra" / "template.yaml")["Resources"].items():
        if one["Type"] == "AWS::CloudWatch::Alarm":
            given = one["Properties"]
            names = frozenset(dimension["Name"] for dimension in given["Dimensions"])
            statistic = given.get("Statistic") or given["ExtendedStatistic"]
            mode = MODES.get(one.get("Condition"))
            found[name] = WatchedMetric(given["Namespace"], given["MetricName"], names, statistic, mode)
    return found


def test_the_template_watches_metrics_that_exist():
    found = watched_by_template()
    assert len(found) == 5
    assert {name: fault for name, one in found.items() if (fault := find_fault(one))} == {}


@pytest.mark.parametrize(
    ("metric", "dimensions", "statistic", "mode", "fault"),
    [
        ("InvocationFailures", "EndpointName", "Sum", "async", "published with EndpointName VariantName"),
        ("HasBacklogWithoutCapacity", "EndpointName VariantName", "Average", "async", "published with EndpointName,"),
        ("Invocations", "EndpointName VariantName", "Sum", "async", "published for realtime endpoints, not async"),
        ("InvocationFailures", "EndpointName VariantName", "p90", "async", "its statistics are Sum"),
        ("Invocation5xxErrors", "EndpointName VariantName", "Sum", "realtime", "no such metric"),
    ],
)
def test_a_metric_that_does_not_exist_is_found(metric: str, dimensions: str, statistic: str, mode: str, fault: str):
    found = find_fault(WatchedMetric("AWS/SageMaker", metric, frozenset(dimensions.split()), statistic, mode))
    assert found is not None
    assert found.startswith(fault)


def test_every_row_names_its_page():
    for row in documented_metrics():
        assert row["source"].startswith("https://docs.aws.amazon.com/"), row["metric"]
