"""What is to be deployed, and the AWS request bodies for it. Pure: nothing here calls AWS."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, Literal

from deploy.config_patch import apply_patch
from deploy.errors import WrongRequest
from deploy.governance import Governance

Mode = Literal["realtime", "async", "serverless"]
Request = dict[str, Any]

# The name that SageMaker's own SDK and console give: an update must use the name of the endpoint's variant.
VARIANT = "AllTraffic"
WORKERS_VARIABLE = "SAGEMAKER_MODEL_SERVER_WORKERS"
AUTO_WORKERS = "auto"  # Viseme's own image counts what it finds
# The stock image installs code/requirements.txt (about 100 MB) before its first /ping; loading takes seconds.
HEALTH_CHECK_TIMEOUT_S = 900
DOWNLOAD_TIMEOUT_S = 600
BAKE_S = 300  # alarms watch the new instances this long before the old ones are terminated
UPDATE_TIMEOUT_S = 3600
MAX_NAME_LENGTH = 63  # SageMaker's limit for resource names
VERSION_PATTERN = re.compile(r"v\d{14}")
ROLLBACK_ALARMS = ("failures", "5xx", "latency")
NAME_PATTERN = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9])*")
ROLE_ARN_PATTERN = re.compile(r"arn:aws[a-z-]*:iam::(\d{12}):role/\S+")


@dataclass(frozen=True)
class AsyncPaths:
    """S3 folders for asynchronous answers and errors, and the SNS topics that are notified."""

    output: str
    failure: str
    success_topic: str | None = None
    error_topic: str | None = None


@dataclass(frozen=True)
class ServerlessSize:
    """Of one container, and how many of them may run at once, each with one request."""

    memory_mb: int
    max_concurrency: int


@dataclass(frozen=True)
class DeploymentSpec:
    """One version of an endpoint.

    version: "v" and the UTC time, to the second: part of the names of its model and its configuration.
    ami: the machine image under the container; None: SageMaker's default.
    async_paths, serverless: None for a real-time endpoint; it is asynchronous or serverless with one of them.
    instance_types: in the order in which SageMaker tries them; empty if serverless.
    concurrency: requests that each container runs at once; an asynchronous endpoint gets as many.
    config_patches: what is merged into the request for CreateEndpointConfig in the end, in this order.
    log_days: how long CloudWatch keeps its logs; None: a new log group's default, and an existing one's own.
    """

    endpoint: str
    role_arn: str
    region: str
    instance_types: tuple[str, ...]
    image_uri: str
    version: str
    min_capacity: int
    max_capacity: int
    concurrency: int = 1
    ami: str | None = None
    model_data: str | None = None
    async_paths: AsyncPaths | None = None
    serverless: ServerlessSize | None = None
    governance: Governance = field(default_factory=Governance)
    config_patches: tuple[Mapping[str, Any], ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    log_days: int | None = None

    def __post_init__(self) -> None:
        check_name(self.endpoint)
        if not ROLE_ARN_PATTERN.fullmatch(self.role_arn):
            raise WrongRequest(f"--role-arn {self.role_arn}: expected arn:aws:iam::123456789012:role/NAME")
        check_capacity(self.min_capacity, self.max_capacity, self.mode)

    @property
    def mode(self) -> Mode:
        if self.serverless:
            return "serverless"
        return "async" if self.async_paths else "realtime"

    @property
    def name(self) -> str:
        """Name of the model and of the configuration."""
        return f"{self.endpoint}-{self.version}"


def check_name(endpoint: str) -> None:
    """Raise WrongRequest if SageMaker would not accept the names of the endpoint's versions."""
    max_length = MAX_NAME_LENGTH - len("-v20261120131500")
    if not NAME_PATTERN.fullmatch(endpoint) or len(endpoint) > max_length:
        raise WrongRequest(
            f"--endpoint-name {endpoint}: expected letters, digits and inner hyphens, at most {max_length} characters"
        )


def check_capacity(minimum: int, maximum: int, mode: Mode) -> None:
    """Raise WrongRequest if an endpoint of that mode cannot scale between these numbers of instances."""
    if minimum == 0 and mode == "realtime":
        raise WrongRequest(
            "--min-capacity 0: a real-time endpoint cannot scale to zero; --mode async can, and starts an instance "
            "when a request arrives"
        )
    if not 0 <= minimum <= maximum or maximum == 0:
        raise WrongRequest(
            f"--min-capacity {minimum} --max-capacity {maximum}: expected 0 <= min <= max, and max at least 1"
        )


def account_of(role_arn: str) -> str:
    """Return the ID of the role's account, in which everything is deployed. Raises: WrongRequest."""
    found = ROLE_ARN_PATTERN.fullmatch(role_arn)
    if not found:
        raise WrongRequest(f"--role-arn {role_arn}: expected arn:aws:iam::123456789012:role/NAME")
    return found[1]


def is_version_of(name: str, endpoint: str) -> bool:
    """Return whether a model or configuration is a version of exactly this endpoint, created by this tool."""
    return name.startswith(f"{endpoint}-") and VERSION_PATTERN.fullmatch(name.removeprefix(f"{endpoint}-")) is not None


def archive_key(endpoint: str, version: str) -> str:
    """Return the S3 key of one version's archive."""
    return f"viseme/{endpoint}/{version}/model.tar.gz"


def is_archive_of(uri: str, endpoint: str, name: str) -> bool:
    """Return whether the archive was uploaded by this tool for that version, not supplied by the user."""
    key = uri.removeprefix("s3://").partition("/")[2]
    return is_version_of(name, endpoint) and key == archive_key(endpoint, name.removeprefix(f"{endpoint}-"))


def initial_instance_count(spec: DeploymentSpec, n_running: int) -> int:
    """Return how many instances a version starts with: as many as run now, within its bounds.

    Never zero, even if it may scale to zero later: its health could not be checked.
    """
    return min(max(n_running, spec.min_capacity, 1), spec.max_capacity)


def model_request(spec: DeploymentSpec) -> Request:
    container: Request = {"Image": spec.image_uri, "Environment": dict(spec.environment)}
    if spec.model_data:
        container["ModelDataUrl"] = spec.model_data
    request = {"ModelName": spec.name, "ExecutionRoleArn": spec.role_arn, "PrimaryContainer": container}
    return request | spec.governance.model_parameters()


def config_request(spec: DeploymentSpec, n_running: int = 0) -> Request:
    """n_running: instances that an existing endpoint has now. Raises: WrongRequest for an impossible patch."""
    variant = {"VariantName": VARIANT, "ModelName": spec.name}
    variant |= serverless_variant(spec.serverless) if spec.serverless else instance_variant(spec, n_running)
    request: Request = {"EndpointConfigName": spec.name, "ProductionVariants": [variant]}
    if spec.async_paths:
        request["AsyncInferenceConfig"] = async_config(spec.async_paths, spec.concurrency, spec.governance.kms_key)
    if spec.governance.kms_key:
        request["KmsKeyId"] = spec.governance.kms_key
    return reduce(apply_patch, spec.config_patches, request | spec.governance.tagging())


def serverless_variant(size: ServerlessSize) -> Request:
    return {"ServerlessConfig": {"MemorySizeInMB": size.memory_mb, "MaxConcurrency": size.max_concurrency}}


def instance_variant(spec: DeploymentSpec, n_running: int) -> Request:
    """Return what a variant with instances has; several types are pools, of which the first is tried first."""
    variant: Request = {
        "InitialInstanceCount": initial_instance_count(spec, n_running),
        "ContainerStartupHealthCheckTimeoutInSeconds": HEALTH_CHECK_TIMEOUT_S,
        "ModelDataDownloadTimeoutInSeconds": DOWNLOAD_TIMEOUT_S,
    }
    if len(spec.instance_types) == 1:
        variant["InstanceType"] = spec.instance_types[0]
    else:
        pools = enumerate(spec.instance_types, start=1)
        variant["InstancePools"] = [{"InstanceType": name, "Priority": priority} for priority, name in pools]
    if spec.ami:
        variant["InferenceAmiVersion"] = spec.ami
    return variant


def endpoint_request(spec: DeploymentSpec) -> Request:
    """Return the request for CreateEndpoint."""
    return {"EndpointName": spec.endpoint, "EndpointConfigName": spec.name} | spec.governance.tagging()


def async_config(paths: AsyncPaths, concurrency: int, kms_key: str | None) -> Request:
    output: Request = {"S3OutputPath": paths.output, "S3FailurePath": paths.failure}
    if kms_key:
        output["KmsKeyId"] = kms_key
    topics = {"SuccessTopic": paths.success_topic, "ErrorTopic": paths.error_topic}
    given = {name: topic for name, topic in topics.items() if topic}
    if given:
        output["NotificationConfig"] = given
    return {"ClientConfig": {"MaxConcurrentInvocationsPerInstance": concurrency}, "OutputConfig": output}


def update_request(spec: DeploymentSpec, n_running: int) -> Request:
    """Return the request for an update from n_running instances.

    Their number is retained if the new bounds allow it; variant weights are always retained.
    """
    if spec.serverless:  # as AWS documents it: there are no instances to keep, and no second fleet
        return {"EndpointName": spec.endpoint, "EndpointConfigName": spec.name}
    n_initial = initial_instance_count(spec, n_running)
    request: Request = {
        "EndpointName": spec.endpoint,
        "EndpointConfigName": spec.name,
        "RetainAllVariantProperties": True,
        "DeploymentConfig": {
            "BlueGreenUpdatePolicy": {
                "TrafficRoutingConfiguration": traffic_routing(min(n_running, n_initial)),
                "TerminationWaitInSeconds": BAKE_S,
                "MaximumExecutionTimeoutInSeconds": UPDATE_TIMEOUT_S,
            },
            "AutoRollbackConfiguration": {
                "Alarms": [{"AlarmName": alarm["AlarmName"]} for alarm in rollback_alarms(spec)]
            },
        },
    }
    if n_initial != n_running:
        request["ExcludeRetainedVariantProperties"] = [{"VariantPropertyType": "DesiredInstanceCount"}]
    return request


def restore_request(spec: DeploymentSpec, config: str, n_running: int) -> Request:
    """Return the request that takes the endpoint from this version back to an older configuration.

    n_running: how many instances the older version had. If the number changed, that of its configuration is used.
    """
    request: Request = {"EndpointName": spec.endpoint, "EndpointConfigName": config}
    if spec.serverless:
        return request
    request["RetainAllVariantProperties"] = True
    if initial_instance_count(spec, n_running) != n_running:
        request["ExcludeRetainedVariantProperties"] = [{"VariantPropertyType": "DesiredInstanceCount"}]
    return request


def traffic_routing(n_instances: int) -> Request:
    """Return a canary of one instance, or all at once if there is no second: a canary may be half the fleet at most."""
    if n_instances < 2:
        return {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": BAKE_S}
    return {
        "Type": "CANARY",
        "CanarySize": {"Type": "INSTANCE_COUNT", "Value": 1},
        "WaitIntervalInSeconds": BAKE_S,
    }


def rollback_alarms(spec: DeploymentSpec) -> list[Request]:
    """Return the alarms that roll an update back: failed requests and, in real time, requests near the time limit."""
    if spec.serverless:
        return []
    # These metrics exist for a variant only; those of the queue (`scaling`) exist for the whole endpoint only.
    variant = [{"Name": "EndpointName", "Value": spec.endpoint}, {"Name": "VariantName", "Value": VARIANT}]
    if spec.mode == "async":
        return [make_alarm(spec, "failures", "InvocationFailures", variant, threshold=1, Statistic="Sum")]
    slow_us = 50_000_000  # ModelLatency is in microseconds; SageMaker gives up at 60 s
    return [
        make_alarm(spec, "5xx", "Invocation5XXErrors", variant, threshold=1, Statistic="Sum"),
        make_alarm(spec, "latency", "ModelLatency", variant, threshold=slow_us, ExtendedStatistic="p90"),
    ]


def rollback_alarm_name(endpoint: str, kind: str) -> str:
    return f"{endpoint}-rollback-{kind}"


def make_alarm(
    spec: DeploymentSpec, kind: str, metric: str, dimensions: list[Request], threshold: float, **statistic: str
) -> Request:
    return {
        "AlarmName": rollback_alarm_name(spec.endpoint, kind),
        "AlarmDescription": f"Rolls back an update of {spec.endpoint} while it is deployed",
        "Namespace": "AWS/SageMaker",
        "MetricName": metric,
        "Dimensions": dimensions,
        "Period": 60,
        "EvaluationPeriods": 1,
        "Threshold": threshold,
        "ComparisonOperator": "GreaterThanOrEqualToThreshold",
        "TreatMissingData": "notBreaching",  # no requests means no failures
        **spec.governance.tagging(),
        **statistic,
    }
