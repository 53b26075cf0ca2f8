"""What is to be deployed, and the requests it comes to. Pure: nothing here calls AWS."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from deploy.errors import WrongRequest

Mode = Literal["realtime", "async"]
Request = dict[str, Any]

# As SageMaker's own SDK and console call it: an update needs the name that the endpoint's variant has.
VARIANT = "AllTraffic"
WORKERS_SETTING = "SAGEMAKER_MODEL_SERVER_WORKERS"
WORKERS = 1  # processes that run models, in one container; async sends no more requests at once
# The stock image installs code/requirements.txt (about 100 MB) before its first /ping; loading takes seconds.
HEALTH_CHECK_TIMEOUT_S = 900
DOWNLOAD_TIMEOUT_S = 600
BAKE_S = 300  # the alarms watch the new fleet this long before the old one goes
UPDATE_TIMEOUT_S = 3600
MAX_NAME = 63  # of SageMaker's names
VERSION = re.compile(r"v\d{14}")
ROLLBACK_ALARMS = ("failures", "5xx", "latency")
NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9])*")
ROLE_ARN = re.compile(r"arn:aws[a-z-]*:iam::(\d{12}):role/\S+")


@dataclass(frozen=True)
class AsyncPaths:
    """Where asynchronous answers go, and who is told."""

    output: str
    failure: str
    success_topic: str | None = None
    error_topic: str | None = None


@dataclass(frozen=True)
class Order:
    """One deployment, as asked for.

    version: "v" and the UTC time, to the second: part of the names of its model and its configuration.
    ami: the machine image under the container; None: SageMaker's default.
    """

    endpoint: str
    role_arn: str
    instance_type: str
    image_uri: str
    version: str
    min_capacity: int
    max_capacity: int
    ami: str | None = None
    model_data: str | None = None
    paths: AsyncPaths | None = None
    environment: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_name(self.endpoint)
        if not ROLE_ARN.fullmatch(self.role_arn):
            raise WrongRequest(f"--role-arn {self.role_arn}: expected arn:aws:iam::123456789012:role/NAME")
        check_capacity(self.min_capacity, self.max_capacity, self.mode)
        if not re.fullmatch(r"[1-9]\d?", self.environment.get(WORKERS_SETTING, str(WORKERS))):
            raise WrongRequest(f"--env {WORKERS_SETTING}={self.environment[WORKERS_SETTING]}: expected 1 to 99")

    @property
    def n_workers(self) -> int:
        """Processes that run models, in each container."""
        return int(self.environment.get(WORKERS_SETTING, WORKERS))

    @property
    def mode(self) -> Mode:
        return "async" if self.paths else "realtime"

    @property
    def name(self) -> str:
        """Of the model and of the configuration."""
        return f"{self.endpoint}-{self.version}"


def check_name(endpoint: str) -> None:
    """Raises: WrongRequest where versions of it would not be names of SageMaker's."""
    longest = MAX_NAME - len("-v20261120131500")
    if not NAME.fullmatch(endpoint) or len(endpoint) > longest:
        raise WrongRequest(
            f"--endpoint-name {endpoint}: expected letters, digits and inner hyphens, at most {longest} in all"
        )


def check_capacity(least: int, most: int, mode: Mode) -> None:
    if least == 0 and mode == "realtime":
        raise WrongRequest(
            "--min-capacity 0: a real-time endpoint cannot go down to no instance; --mode async can, and starts one "
            "when a request comes"
        )
    if not 0 <= least <= most or most == 0:
        raise WrongRequest(
            f"--min-capacity {least} --max-capacity {most}: expected 0 <= min <= max, and max at least 1"
        )


def account_of(role_arn: str) -> str:
    """The account that the role, and so all the rest, belongs to."""
    found = ROLE_ARN.fullmatch(role_arn)
    if not found:
        raise WrongRequest(f"--role-arn {role_arn}: expected arn:aws:iam::123456789012:role/NAME")
    return found[1]


def is_version_of(name: str, endpoint: str) -> bool:
    """Whether a model or configuration was made here for that endpoint, and not for one that is called alike."""
    return name.startswith(f"{endpoint}-") and VERSION.fullmatch(name.removeprefix(f"{endpoint}-")) is not None


def archive_key(endpoint: str, version: str) -> str:
    """Where the archive of one version lies, in whichever bucket."""
    return f"viseme/{endpoint}/{version}/model.tar.gz"


def is_archive_of(uri: str, endpoint: str, name: str) -> bool:
    """Whether it was put there for that version, and not named by somebody who had it already."""
    key = uri.removeprefix("s3://").partition("/")[2]
    return is_version_of(name, endpoint) and key == archive_key(endpoint, name.removeprefix(f"{endpoint}-"))


def count_fleet(order: Order, n_now: int) -> int:
    """How many instances a version starts with: as many as run now, within its bounds.

    Never none, though it may be scaled to none later: its health would not be known.
    """
    return min(max(n_now, order.min_capacity, 1), order.max_capacity)


def model_request(order: Order) -> Request:
    container: Request = {"Image": order.image_uri, "Environment": dict(order.environment)}
    if order.model_data:
        container["ModelDataUrl"] = order.model_data
    return {"ModelName": order.name, "ExecutionRoleArn": order.role_arn, "PrimaryContainer": container}


def config_request(order: Order, n_now: int = 0) -> Request:
    """n_now: how many instances the endpoint has, where it is there."""
    variant: Request = {
        "VariantName": VARIANT,
        "ModelName": order.name,
        "InstanceType": order.instance_type,
        "InitialInstanceCount": count_fleet(order, n_now),
        "ContainerStartupHealthCheckTimeoutInSeconds": HEALTH_CHECK_TIMEOUT_S,
        "ModelDataDownloadTimeoutInSeconds": DOWNLOAD_TIMEOUT_S,
    }
    if order.ami:
        variant["InferenceAmiVersion"] = order.ami
    request: Request = {"EndpointConfigName": order.name, "ProductionVariants": [variant]}
    if order.paths:
        request["AsyncInferenceConfig"] = async_config(order.paths, order.n_workers)
    return request


def async_config(paths: AsyncPaths, n_workers: int) -> Request:
    output: Request = {"S3OutputPath": paths.output, "S3FailurePath": paths.failure}
    topics = {"SuccessTopic": paths.success_topic, "ErrorTopic": paths.error_topic}
    given = {name: topic for name, topic in topics.items() if topic}
    if given:
        output["NotificationConfig"] = given
    return {"ClientConfig": {"MaxConcurrentInvocationsPerInstance": n_workers}, "OutputConfig": output}


def update_request(order: Order, n_now: int) -> Request:
    """From as many instances as run now. Their number stays, where the bounds allow it; weights do always."""
    n_fleet = count_fleet(order, n_now)
    request: Request = {
        "EndpointName": order.endpoint,
        "EndpointConfigName": order.name,
        "RetainAllVariantProperties": True,
        "DeploymentConfig": {
            "BlueGreenUpdatePolicy": {
                "TrafficRoutingConfiguration": traffic(min(n_now, n_fleet)),
                "TerminationWaitInSeconds": BAKE_S,
                "MaximumExecutionTimeoutInSeconds": UPDATE_TIMEOUT_S,
            },
            "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": one["AlarmName"]} for one in alarms(order)]},
        },
    }
    if n_fleet != n_now:
        request["ExcludeRetainedVariantProperties"] = [{"VariantPropertyType": "DesiredInstanceCount"}]
    return request


def traffic(n_instances: int) -> Request:
    """One instance of the new fleet first, where there are two or more; a canary is half the fleet at most."""
    if n_instances < 2:
        return {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": BAKE_S}
    return {
        "Type": "CANARY",
        "CanarySize": {"Type": "INSTANCE_COUNT", "Value": 1},
        "WaitIntervalInSeconds": BAKE_S,
    }


def alarms(order: Order) -> list[Request]:
    """The alarms that take an update back: failed requests, and in real time those near their limit."""
    endpoint = {"Name": "EndpointName", "Value": order.endpoint}
    variant = [endpoint, {"Name": "VariantName", "Value": VARIANT}]
    if order.mode == "async":
        return [alarm(order, "failures", "InvocationFailures", [endpoint], threshold=1, Statistic="Sum")]
    slow_us = 50_000_000  # ModelLatency is in microseconds; SageMaker gives up at 60 s
    return [
        alarm(order, "5xx", "Invocation5XXErrors", variant, threshold=1, Statistic="Sum"),
        alarm(order, "latency", "ModelLatency", variant, threshold=slow_us, ExtendedStatistic="p90"),
    ]


def alarm_name(endpoint: str, what: str) -> str:
    return f"{endpoint}-rollback-{what}"


def alarm(
    order: Order, what: str, metric: str, dimensions: list[Request], threshold: float, **statistic: str
) -> Request:
    return {
        "AlarmName": alarm_name(order.endpoint, what),
        "AlarmDescription": f"Takes an update of {order.endpoint} back while it is rolled out",
        "Namespace": "AWS/SageMaker",
        "MetricName": metric,
        "Dimensions": dimensions,
        "Period": 60,
        "EvaluationPeriods": 1,
        "Threshold": threshold,
        "ComparisonOperator": "GreaterThanOrEqualToThreshold",
        "TreatMissingData": "notBreaching",  # no requests are no failures
        **statistic,
    }
