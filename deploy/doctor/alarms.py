"""An endpoint's alarms and autoscaling: whether the metrics that they watch exist."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from deploy.aws import Answer
from deploy.doctor.findings import Finding, failure, ok, warning
from deploy.doctor.read_only_aws import ReadOnlyAws
from deploy.doctor.version import EndpointVersion
from deploy.metrics import WatchedMetric, find_fault, is_documented
from deploy.scaling import SERVICE, TARGET_TRACKING, CapacityBounds, find_bounds, scalable_target

ALARMS, SCALING = "alarms", "autoscaling"
NAMESPACE = "AWS/SageMaker"
N_PAGES = 50  # of 100 alarms
METRIC_FIX = (
    "AWS publishes nothing there, so it never rings: make it again, such as by python -m deploy.endpoint --update"
)
UNKNOWN_FIX = "look for it in 'Metrics for monitoring SageMaker AI with CloudWatch'"


def check_alarms(aws: ReadOnlyAws, version: EndpointVersion) -> Iterator[Finding]:
    """Compare each alarm on the endpoint, and those that roll its updates back, with AWS's documentation.

    Raises: CallFailed.
    """
    every = {
        one["AlarmName"]: one
        for one in aws.pages(
            "cloudwatch", "DescribeAlarms", "MetricAlarms", N_PAGES, AlarmTypes=["MetricAlarm"], MaxRecords=100
        )
    }
    rollback = version.found.get("LastDeploymentConfig", {}).get("AutoRollbackConfiguration", {}).get("Alarms", [])
    names = {one["AlarmName"] for one in rollback}
    watching = {name: one for name, one in every.items() if name in names or is_of(one, version.endpoint)}
    findings = [finding for one in watching.values() for finding in faults_of(one, version)]
    findings += [
        failure(ALARMS, f"{name} does not exist, and an update is to be rolled back by it", "update the endpoint again")
        for name in sorted(names - every.keys())
    ]
    yield from findings
    if not watching:
        yield warning(ALARMS, "none watches this endpoint", "infra/template.yaml has some; --update makes its own")
    elif not findings:
        yield ok(ALARMS, f"{len(watching)} on metrics that AWS publishes: {', '.join(sorted(watching))}")


def is_of(alarm: Answer, endpoint: str) -> bool:
    return {"Name": "EndpointName", "Value": endpoint} in alarm.get("Dimensions", [])


def faults_of(alarm: Answer, version: EndpointVersion) -> Iterator[Finding]:
    """Yield what is wrong with an alarm, and whether it rings."""
    name = alarm["AlarmName"]
    watched = watched_by(alarm, version)
    is_known = is_documented(watched.namespace, watched.metric)
    if not is_known and watched.namespace == NAMESPACE:  # of other namespaces nothing is known
        yield warning(ALARMS, f"{name} watches {watched.metric}, which is none of those known here", UNKNOWN_FIX)
    fault = (find_fault(watched) if is_known else None) or fault_of_variant(alarm, version)
    if fault:
        yield failure(ALARMS, f"{name} watches {watched.metric}: {fault}", METRIC_FIX)
    if not alarm.get("ActionsEnabled", True):
        yield warning(ALARMS, f"the actions of {name} are switched off", "aws cloudwatch enable-alarm-actions")
    if alarm.get("StateValue") == "ALARM" and not only_scales(alarm):
        yield warning(ALARMS, f"{name} rings: {alarm.get('StateReason', 'no reason')}")


def only_scales(alarm: Answer) -> bool:
    """Return whether an alarm does nothing but autoscaling: then it rings at each endpoint that has little to do."""
    actions = alarm.get("AlarmActions", [])
    return bool(actions) and all(":autoscaling:" in one for one in actions)


def watched_by(alarm: Answer, version: EndpointVersion) -> WatchedMetric:
    names = frozenset(one["Name"] for one in alarm.get("Dimensions", []))
    statistic = alarm.get("Statistic") or alarm.get("ExtendedStatistic") or ""
    mode = None if version.mode == "serverless" else version.mode  # whose metrics the table does not list apart
    return WatchedMetric(alarm.get("Namespace", ""), alarm.get("MetricName", ""), names, statistic, mode)


def fault_of_variant(alarm: Answer, version: EndpointVersion) -> str | None:
    """Return what is wrong with the values of an alarm's dimensions; None if nothing is."""
    values = {one["Name"]: one["Value"] for one in alarm.get("Dimensions", [])}
    endpoint, variant = values.get("EndpointName"), values.get("VariantName")
    if endpoint not in (None, version.endpoint):
        return f"of the endpoint {endpoint}"
    if variant is not None and version.variant_names and variant not in version.variant_names:
        return f"of the variant {variant}; the endpoint has {', '.join(sorted(version.variant_names))}"
    return None


def check_scaling(aws: ReadOnlyAws, version: EndpointVersion) -> Iterator[Finding]:
    """Check that what scales the endpoint can do so. Raises: CallFailed."""
    bounds = find_bounds(aws, version.endpoint)
    if bounds is None:
        yield ok(SCALING, f"none: {version.n_running} instances")
        return
    target = scalable_target(version.endpoint)
    policies = list(aws.pages(SERVICE, "DescribeScalingPolicies", "ScalingPolicies", 5, **target))
    faults = [fault for one in policies if (fault := fault_of_policy(one, version))]
    faults += missing_policies(policies, bounds)
    shown = f"{bounds.minimum} to {bounds.maximum} instances, {version.n_running} now"
    if faults:
        fix = "python -m deploy.endpoint --update --min-capacity MIN --max-capacity MAX makes the policies again"
        yield failure(SCALING, f"{shown}: {'; '.join(faults)}", fix)
    else:
        yield ok(SCALING, f"{shown}, by {', '.join(one['PolicyName'] for one in policies)}")


def fault_of_policy(policy: dict[str, Any], version: EndpointVersion) -> str | None:
    """Return why a target-tracking policy does nothing; None if it works."""
    tracked = policy.get("TargetTrackingScalingPolicyConfiguration", {}).get("CustomizedMetricSpecification")
    if not tracked or "MetricName" not in tracked:  # a predefined metric, or metric mathematics
        return None
    fault = find_fault(watched_by(tracked, version))
    return f"{policy['PolicyName']} tracks {tracked['MetricName']}: {fault}" if fault else None


def missing_policies(policies: list[dict[str, Any]], bounds: CapacityBounds) -> Iterator[str]:
    types = {one["PolicyType"] for one in policies}
    if "TargetTrackingScaling" not in types:
        yield f"no {TARGET_TRACKING} policy, so nothing adds or removes instances"
    if bounds.minimum == 0:
        steps = [one for one in policies if one["PolicyType"] == "StepScaling"]
        if not steps:
            yield "no step policy, so nothing starts the first instance"
        elif not any(one.get("Alarms") for one in steps):
            yield f"no alarm calls {steps[0]['PolicyName']}, so nothing starts the first instance"
