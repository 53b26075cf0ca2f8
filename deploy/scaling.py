"""How many instances: registered with Application Auto Scaling, down to none where requests wait in a queue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from deploy.aws import Aws
from deploy.errors import CallFailed
from deploy.requests import VARIANT, Mode, Order

SERVICE = "application-autoscaling"
DIMENSION = "sagemaker:variant:DesiredInstanceCount"
BACKLOG_TARGET = 5.0  # requests that may wait for each instance: some minutes of work, as long as a start takes
REALTIME_TARGET = 20.0  # requests a minute for each instance: at 1 to 2 s each, half its time
SCALE_IN_COOLDOWN_S = 600  # an instance takes about as long to start: none is given up in haste
SCALE_OUT_COOLDOWN_S = 120
TRACKING, FROM_ZERO = "target-tracking", "from-zero"


@dataclass(frozen=True)
class Bounds:
    """How many instances at least and at most."""

    least: int
    most: int


def target_of(endpoint: str) -> dict[str, str]:
    """The endpoint's variant, as Application Auto Scaling calls it."""
    return {
        "ServiceNamespace": "sagemaker",
        "ResourceId": f"endpoint/{endpoint}/variant/{VARIANT}",
        "ScalableDimension": DIMENSION,
    }


def wake_alarm(endpoint: str) -> str:
    return f"{endpoint}-backlog-without-capacity"


def find_bounds(aws: Aws, endpoint: str) -> Bounds | None:
    """What is registered; None where nothing is."""
    wanted = target_of(endpoint)
    found = aws.call(
        SERVICE,
        "DescribeScalableTargets",
        ServiceNamespace=wanted["ServiceNamespace"],
        ResourceIds=[wanted["ResourceId"]],
        ScalableDimension=DIMENSION,
    )
    targets = found.get("ScalableTargets", [])
    return Bounds(targets[0]["MinCapacity"], targets[0]["MaxCapacity"]) if targets else None


def wire(aws: Aws, order: Order) -> None:
    """Scale as ordered; an order of a fixed number of instances registers nothing."""
    wire_bounds(aws, order.endpoint, order.mode, Bounds(order.min_capacity, order.max_capacity))


def wire_bounds(aws: Aws, endpoint: str, mode: Mode, bounds: Bounds) -> None:
    if bounds.least == bounds.most:
        return
    target = target_of(endpoint)
    aws.call(SERVICE, "RegisterScalableTarget", **target, MinCapacity=bounds.least, MaxCapacity=bounds.most)
    tracking = tracking_policy(endpoint, mode)
    aws.call(
        SERVICE,
        "PutScalingPolicy",
        **target,
        PolicyName=f"{endpoint}-{TRACKING}",
        PolicyType="TargetTrackingScaling",
        TargetTrackingScalingPolicyConfiguration=tracking,
    )
    if bounds.least == 0:
        wire_wake_up(aws, endpoint)


def tracking_policy(endpoint: str, mode: Mode) -> dict[str, Any]:
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


def wire_wake_up(aws: Aws, endpoint: str) -> None:
    """The first instance: a backlog for each of no instances is no number, and tracking it never starts one."""
    policy = aws.call(
        SERVICE,
        "PutScalingPolicy",
        **target_of(endpoint),
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
        AlarmName=wake_alarm(endpoint),
        AlarmDescription=f"Requests wait for {endpoint} and it has no instance: start one",
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
    )


def unwire(aws: Aws, endpoint: str) -> None:
    """Take the variant and its policies off; harmless where there are none."""
    try:
        aws.call(SERVICE, "DeregisterScalableTarget", **target_of(endpoint))
    except CallFailed as err:
        if err.code != "ObjectNotFoundException" and "no scalable target found" not in err.said.lower():
            raise
    delete_alarms(aws, [wake_alarm(endpoint)])


def delete_alarms(aws: Aws, names: list[str]) -> None:
    """One by one: among several, one that is not there keeps the others alive."""
    for name in names:
        try:
            aws.call("cloudwatch", "DeleteAlarms", AlarmNames=[name])
        except CallFailed as err:
            if err.code != "ResourceNotFound":
                raise
