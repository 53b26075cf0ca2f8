"""Autoscaling: registers the endpoint with Application Auto Scaling, down to zero if requests wait in a queue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from deploy.aws import Aws
from deploy.aws_requests import VARIANT, DeploymentSpec, Mode
from deploy.errors import CallFailed

SERVICE = "application-autoscaling"
DIMENSION = "sagemaker:variant:DesiredInstanceCount"
BACKLOG_TARGET = 5.0  # queued requests per instance: some minutes of work, about as long as a start takes
REALTIME_TARGET = 20.0  # requests a minute per instance: at 1 to 2 s each, half its time
SCALE_IN_COOLDOWN_S = 600  # about as long as an instance takes to start, so none is stopped in haste
SCALE_OUT_COOLDOWN_S = 120
TARGET_TRACKING, FROM_ZERO = "target-tracking", "from-zero"


@dataclass(frozen=True)
class CapacityBounds:
    """The smallest and the largest number of instances."""

    minimum: int
    maximum: int


def scalable_target(endpoint: str) -> dict[str, str]:
    """Return the identifiers of the endpoint's variant in Application Auto Scaling."""
    return {
        "ServiceNamespace": "sagemaker",
        "ResourceId": f"endpoint/{endpoint}/variant/{VARIANT}",
        "ScalableDimension": DIMENSION,
    }


def backlog_alarm_name(endpoint: str) -> str:
    return f"{endpoint}-backlog-without-capacity"


def find_bounds(aws: Aws, endpoint: str) -> CapacityBounds | None:
    """Return the registered bounds; None if the endpoint does not scale."""
    target = scalable_target(endpoint)
    found = aws.call(
        SERVICE,
        "DescribeScalableTargets",
        ServiceNamespace=target["ServiceNamespace"],
        ResourceIds=[target["ResourceId"]],
        ScalableDimension=DIMENSION,
    )
    targets = found.get("ScalableTargets", [])
    return CapacityBounds(targets[0]["MinCapacity"], targets[0]["MaxCapacity"]) if targets else None


def enable_autoscaling(aws: Aws, spec: DeploymentSpec) -> None:
    """Scale as specified; a fixed number of instances registers nothing."""
    register_bounds(aws, spec, CapacityBounds(spec.min_capacity, spec.max_capacity))


def register_bounds(aws: Aws, spec: DeploymentSpec, bounds: CapacityBounds) -> None:
    """Scale the endpoint between other bounds than its own, such as those that it had before."""
    if bounds.minimum == bounds.maximum:
        return
    target = scalable_target(spec.endpoint)
    limits = {"MinCapacity": bounds.minimum, "MaxCapacity": bounds.maximum}
    tags = {"Tags": dict(spec.governance.tags)} if spec.governance.tags else {}
    aws.call(SERVICE, "RegisterScalableTarget", **target, **limits, **tags)
    aws.call(
        SERVICE,
        "PutScalingPolicy",
        **target,
        PolicyName=f"{spec.endpoint}-{TARGET_TRACKING}",
        PolicyType="TargetTrackingScaling",
        TargetTrackingScalingPolicyConfiguration=target_tracking_config(spec.endpoint, spec.mode),
    )
    if bounds.minimum == 0:
        enable_scaling_from_zero(aws, spec)


def target_tracking_config(endpoint: str, mode: Mode) -> dict[str, Any]:
    cooldowns = {"ScaleInCooldown": SCALE_IN_COOLDOWN_S, "ScaleOutCooldown": SCALE_OUT_COOLDOWN_S}
    if mode == "realtime":
        metric = {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"}
        return {"TargetValue": REALTIME_TARGET, "PredefinedMetricSpecification": metric, **cooldowns}
    backlog = {
        "MetricName": "ApproximateBacklogSizePerInstance",
        "Namespace": "AWS/SageMaker",
        "Dimensions": [{"Name": "EndpointName", "Value": endpoint}],
        "Statistic": "Average",
    }
    return {"TargetValue": BACKLOG_TARGET, "CustomizedMetricSpecification": backlog, **cooldowns}


def enable_scaling_from_zero(aws: Aws, spec: DeploymentSpec) -> None:
    """Start the first instance by an alarm.

    With no instance the backlog per instance is undefined, so target tracking alone would never start one.
    """
    endpoint = spec.endpoint
    policy = aws.call(
        SERVICE,
        "PutScalingPolicy",
        **scalable_target(endpoint),
        PolicyName=f"{endpoint}-{FROM_ZERO}",
        PolicyType="StepScaling",
        StepScalingPolicyConfiguration={
            "AdjustmentType": "ChangeInCapacity",
            "MetricAggregationType": "Average",
            "Cooldown": SCALE_OUT_COOLDOWN_S,
            "StepAdjustments": [{"MetricIntervalLowerBound": 0.0, "ScalingAdjustment": 1}],
        },
    )
    aws.call(
        "cloudwatch",
        "PutMetricAlarm",
        AlarmName=backlog_alarm_name(endpoint),
        AlarmDescription=f"Requests are waiting for {endpoint}, which has no instance: start one",
        Namespace="AWS/SageMaker",
        MetricName="HasBacklogWithoutCapacity",
        Dimensions=[{"Name": "EndpointName", "Value": endpoint}],
        Statistic="Average",
        Period=60,
        EvaluationPeriods=2,
        Threshold=1.0,
        ComparisonOperator="GreaterThanOrEqualToThreshold",
        TreatMissingData="missing",
        AlarmActions=[policy["PolicyARN"]],
        **spec.governance.tagging(),
    )


def disable_autoscaling(aws: Aws, endpoint: str) -> None:
    """Deregister the variant and its policies; do nothing if there are none."""
    try:
        aws.call(SERVICE, "DeregisterScalableTarget", **scalable_target(endpoint))
    except CallFailed as err:
        if err.code != "ObjectNotFoundException" and "no scalable target found" not in err.aws_message.lower():
            raise
    delete_alarms(aws, [backlog_alarm_name(endpoint)])


def delete_alarms(aws: Aws, names: list[str]) -> None:
    """Delete alarms one by one: if one of several in a call does not exist, none is deleted."""
    for name in names:
        try:
            aws.call("cloudwatch", "DeleteAlarms", AlarmNames=[name])
        except CallFailed as err:
            if err.code != "ResourceNotFound":
                raise
