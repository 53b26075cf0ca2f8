"""The calls to AWS that creating and updating an endpoint makes, as a script expects them."""

from __future__ import annotations

from datetime import UTC, datetime

REGION = "us-east-1"
ACCOUNT = "123456789012"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/SageMaker"
IMAGE = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/viseme:1.0"
NEW, OLD = "viseme-v20261120131500", "viseme-v20261101000000"
# The five arguments in the documentation.
FIVE = ["--endpoint-name", "viseme", "--role-arn", ROLE, "--instance-type", "ml.g5.xlarge", "--region", REGION]
OURS = [*FIVE, "--image-uri", IMAGE]
TARGET = {
    "ServiceNamespace": "sagemaker",
    "ResourceId": "endpoint/viseme/variant/AllTraffic",
    "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
}
NOW = datetime(2026, 11, 20, tzinfo=UTC)
MADE_AT_MS = int(datetime(2026, 11, 20, 13, 15, tzinfo=UTC).timestamp() * 1000)  # the time in NEW
NAMED = {"EndpointName": "viseme"}
ALL_AT_ONCE = {"Type": "ALL_AT_ONCE"}
CANARY = {"Type": "CANARY", "CanarySize": {"Type": "INSTANCE_COUNT", "Value": 1}}


def describe(status="InService", config=OLD, n_instances=1, **more) -> dict:
    """Return an answer of DescribeEndpoint."""
    return {
        "EndpointName": "viseme",
        "EndpointArn": f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:endpoint/viseme",
        "EndpointConfigName": config,
        "EndpointStatus": status,
        "ProductionVariants": [{"VariantName": "AllTraffic", "CurrentInstanceCount": n_instances}],
        "CreationTime": NOW,
        "LastModifiedTime": NOW,
        **more,
    }


def model_request() -> dict:
    return {
        "ModelName": NEW,
        "ExecutionRoleArn": ROLE,
        "PrimaryContainer": {"Image": IMAGE, "Environment": {"SAGEMAKER_MODEL_SERVER_WORKERS": "auto"}},
    }


def config_request(n_instances=1, **more) -> dict:
    variant = {
        "VariantName": "AllTraffic",
        "ModelName": NEW,
        "InstanceType": "ml.g5.xlarge",
        "InitialInstanceCount": n_instances,
        "ContainerStartupHealthCheckTimeoutInSeconds": 900,
        "ModelDataDownloadTimeoutInSeconds": 600,
        "InferenceAmiVersion": "al2023-ami-sagemaker-inference-gpu-4-1",
    }
    return {"EndpointConfigName": NEW, "ProductionVariants": [variant], **more}


def expect_missing(script) -> None:
    script.refuse("sagemaker", "DescribeEndpoint", "ValidationException", 'Could not find endpoint "viseme".', NAMED)


def expect_prepare(script, tags: list[dict] | None = None, **config) -> None:
    own = {"Tags": tags} if tags else {}
    config = config | own
    script.expect(
        "sagemaker", "CreateModel", model_request() | own, {"ModelArn": "arn:aws:sagemaker:us-east-1:1:model/x"}
    )
    arn = "arn:aws:sagemaker:us-east-1:1:endpoint-config/x"
    script.expect("sagemaker", "CreateEndpointConfig", config_request(**config), {"EndpointConfigArn": arn})


def expect_discard(script, name: str = NEW) -> None:
    script.expect("sagemaker", "DeleteEndpointConfig", {"EndpointConfigName": name})
    script.expect("sagemaker", "DeleteModel", {"ModelName": name})


def expect_create(script, **config) -> None:
    expect_missing(script)
    expect_prepare(script, **config)
    expect_log_group(script)
    arn = "arn:aws:sagemaker:us-east-1:1:endpoint/viseme"
    script.expect("sagemaker", "CreateEndpoint", NAMED | {"EndpointConfigName": NEW}, {"EndpointArn": arn})


def expect_log_group(script) -> None:
    group = {"logGroupName": "/aws/sagemaker/Endpoints/viseme"}
    script.expect("logs", "CreateLogGroup", group)
    script.expect("logs", "PutRetentionPolicy", group | {"retentionInDays": 30})


def expect_log(script, *lines: str) -> None:
    group = "/aws/sagemaker/Endpoints/viseme"
    streams = {"logGroupName": group, "orderBy": "LastEventTime", "descending": True, "limit": 20}
    old = {"logStreamName": "AllTraffic/i-0", "creationTime": MADE_AT_MS - 3_600_000}
    new = {"logStreamName": "AllTraffic/i-1", "creationTime": MADE_AT_MS + 200_000}
    script.expect("logs", "DescribeLogStreams", streams, {"logStreams": [old, new]})
    events = {"logGroupName": group, "logStreamName": "AllTraffic/i-1", "limit": 20, "startFromHead": False}
    script.expect("logs", "GetLogEvents", events, {"events": [{"message": f"{line}\n"} for line in lines]})


def async_config() -> dict:
    home = f"s3://sagemaker-us-east-1-{ACCOUNT}/viseme/viseme"
    output = {
        "S3OutputPath": f"{home}/results/",
        "S3FailurePath": f"{home}/failures/",
        "NotificationConfig": {
            "SuccessTopic": "arn:aws:sns:us-east-1:1:ok",
            "ErrorTopic": "arn:aws:sns:us-east-1:1:bad",
        },
    }
    return {"ClientConfig": {"MaxConcurrentInvocationsPerInstance": 4}, "OutputConfig": output}


def expect_scale_to_zero(script, most: int) -> None:
    service = "application-autoscaling"
    script.expect(service, "RegisterScalableTarget", TARGET | {"MinCapacity": 0, "MaxCapacity": most})
    dimensions = [{"Name": "EndpointName", "Value": "viseme"}]
    backlog = {
        "MetricName": "ApproximateBacklogSizePerInstance",
        "Namespace": "AWS/SageMaker",
        "Dimensions": dimensions,
        "Statistic": "Average",
    }
    tracking = {
        "TargetValue": 5.0,
        "CustomizedMetricSpecification": backlog,
        "ScaleInCooldown": 600,
        "ScaleOutCooldown": 120,
    }
    named = TARGET | {"PolicyName": "viseme-target-tracking", "PolicyType": "TargetTrackingScaling"}
    answer = {"PolicyARN": "arn:tracking", "Alarms": []}
    script.expect(service, "PutScalingPolicy", named | {"TargetTrackingScalingPolicyConfiguration": tracking}, answer)
    step = {
        "AdjustmentType": "ChangeInCapacity",
        "MetricAggregationType": "Average",
        "Cooldown": 120,
        "StepAdjustments": [{"MetricIntervalLowerBound": 0.0, "ScalingAdjustment": 1}],
    }
    named = TARGET | {"PolicyName": "viseme-from-zero", "PolicyType": "StepScaling"}
    answer = {"PolicyARN": "arn:from-zero", "Alarms": []}
    script.expect(service, "PutScalingPolicy", named | {"StepScalingPolicyConfiguration": step}, answer)
    alarm = {
        "AlarmName": "viseme-backlog-without-capacity",
        "AlarmDescription": "Requests are waiting for viseme, which has no instance: start one",
        "Namespace": "AWS/SageMaker",
        "MetricName": "HasBacklogWithoutCapacity",
        "Dimensions": dimensions,
        "Statistic": "Average",
        "Period": 60,
        "EvaluationPeriods": 2,
        "Threshold": 1.0,
        "ComparisonOperator": "GreaterThanOrEqualToThreshold",
        "TreatMissingData": "missing",
        "AlarmActions": ["arn:from-zero"],
    }
    script.expect("cloudwatch", "PutMetricAlarm", alarm)


def expect_scaling(script, least: int, most: int) -> None:
    """Expect real-time scaling by requests per instance."""
    service = "application-autoscaling"
    script.expect(service, "RegisterScalableTarget", TARGET | {"MinCapacity": least, "MaxCapacity": most})
    tracking = {
        "TargetValue": 20.0,
        "PredefinedMetricSpecification": {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"},
        "ScaleInCooldown": 600,
        "ScaleOutCooldown": 120,
    }
    named = TARGET | {"PolicyName": "viseme-target-tracking", "PolicyType": "TargetTrackingScaling"}
    policy = named | {"TargetTrackingScalingPolicyConfiguration": tracking}
    script.expect(service, "PutScalingPolicy", policy, {"PolicyARN": "arn:t", "Alarms": []})


def alarm(what: str, metric: str, threshold: float, **statistic: str) -> dict:
    dimensions = [{"Name": "EndpointName", "Value": "viseme"}, {"Name": "VariantName", "Value": "AllTraffic"}]
    return {
        "AlarmName": f"viseme-rollback-{what}",
        "AlarmDescription": "Rolls back an update of viseme while it is deployed",
        "Namespace": "AWS/SageMaker",
        "MetricName": metric,
        "Dimensions": dimensions,
        "Period": 60,
        "EvaluationPeriods": 1,
        "Threshold": threshold,
        "ComparisonOperator": "GreaterThanOrEqualToThreshold",
        "TreatMissingData": "notBreaching",
        **statistic,
    }


def expect_alarms(script) -> None:
    """Expect the rollback alarms of a real-time endpoint."""
    script.expect("cloudwatch", "PutMetricAlarm", alarm("5xx", "Invocation5XXErrors", 1, Statistic="Sum"))
    script.expect("cloudwatch", "PutMetricAlarm", alarm("latency", "ModelLatency", 50_000_000, ExtendedStatistic="p90"))


def expect_scalable(script, bounds: tuple[int, int] | None) -> None:
    """Expect a request for the scaling bounds; None: the endpoint does not scale."""
    targets = []
    if bounds:
        dates = {"CreationTime": 0, "RoleARN": "arn:role"}
        targets = [TARGET | {"MinCapacity": bounds[0], "MaxCapacity": bounds[1]} | dates]
    wanted = {
        "ServiceNamespace": "sagemaker",
        "ResourceIds": [TARGET["ResourceId"]],
        "ScalableDimension": TARGET["ScalableDimension"],
    }
    script.expect("application-autoscaling", "DescribeScalableTargets", wanted, {"ScalableTargets": targets})


def expect_running(
    script, bounds: tuple[int, int] | None = None, tags: list[dict] | None = None, config: dict | None = None, **model
) -> None:
    """Expect requests for what an update keeps. config, model: further fields of the two descriptions."""
    expect_scalable(script, bounds)
    arn = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:endpoint"
    variant = {"VariantName": "AllTraffic", "ModelName": OLD, "InstanceType": "ml.g5.xlarge", "InitialInstanceCount": 1}
    described = {
        "EndpointConfigName": OLD,
        "EndpointConfigArn": f"{arn}-config/x",
        "CreationTime": NOW,
        "ProductionVariants": [variant],
    }
    script.expect("sagemaker", "DescribeEndpointConfig", {"EndpointConfigName": OLD}, described | (config or {}))
    script.expect("sagemaker", "DescribeModel", {"ModelName": OLD}, described_model(OLD) | model)
    script.expect("sagemaker", "ListTags", {"ResourceArn": f"{arn}/viseme"}, {"Tags": tags or []})


def expect_update(script, traffic: dict, bounds: tuple[int, int] | None = None, n_instances: int = 1, **more) -> None:
    expect_running(script, bounds)
    expect_prepare(script, n_instances=n_instances)
    expect_alarms(script)
    if bounds:
        script.expect("application-autoscaling", "DeregisterScalableTarget", TARGET)
        script.expect("cloudwatch", "DeleteAlarms", {"AlarmNames": ["viseme-backlog-without-capacity"]})
    expect_update_call(script, traffic, ["viseme-rollback-5xx", "viseme-rollback-latency"], **more)


def expect_update_call(script, traffic: dict, alarms: list[str], **more) -> None:
    request = {
        **NAMED,
        "EndpointConfigName": NEW,
        "RetainAllVariantProperties": True,
        "DeploymentConfig": {
            "BlueGreenUpdatePolicy": {
                "TrafficRoutingConfiguration": traffic | {"WaitIntervalInSeconds": 300},
                "TerminationWaitInSeconds": 300,
                "MaximumExecutionTimeoutInSeconds": 3600,
            },
            "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": name} for name in alarms]},
        },
        **more,
    }
    script.expect(
        "sagemaker", "UpdateEndpoint", request, {"EndpointArn": "arn:aws:sagemaker:us-east-1:1:endpoint/viseme"}
    )


def expect_clean(script) -> None:
    """Expect two pages; similar names, and the version in use, are left alone."""
    wanted = {"NameContains": "viseme-v", "MaxResults": 100}

    def configs(*names: str) -> list[dict]:
        arn = "arn:aws:sagemaker:us-east-1:1:endpoint-config/x"
        return [{"EndpointConfigName": name, "EndpointConfigArn": arn, "CreationTime": NOW} for name in names]

    answer = {"EndpointConfigs": configs(NEW, "my-viseme-v20261101000000"), "NextToken": "more"}
    script.expect("sagemaker", "ListEndpointConfigs", wanted, answer)
    answer = {"EndpointConfigs": configs(OLD, "viseme-video", "viseme-v1")}
    script.expect("sagemaker", "ListEndpointConfigs", wanted | {"NextToken": "more"}, answer)
    arn = "arn:aws:sagemaker:us-east-1:1:model/x"
    models = [{"ModelName": name, "ModelArn": arn, "CreationTime": NOW} for name in (NEW, OLD)]
    script.expect("sagemaker", "ListModels", wanted, {"Models": models})
    script.expect("sagemaker", "DescribeModel", {"ModelName": OLD}, described_model(OLD))
    expect_discard(script, OLD)


def described_model(name: str, model_data: str | None = None) -> dict:
    """Return an answer of DescribeModel."""
    container = {"Image": IMAGE} | ({"ModelDataUrl": model_data} if model_data else {})
    arn = "arn:aws:sagemaker:us-east-1:1:model/x"
    found = {"ModelName": name, "PrimaryContainer": container, "ExecutionRoleArn": ROLE}
    return found | {"CreationTime": NOW, "ModelArn": arn}
