"""The container's log in CloudWatch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import boto3
import pytest

from deploy.aws import BotoAws
from deploy.dev.events import Wakeup
from deploy.dev.log_publisher import LogPublisher, ServerLog
from deploy.dev.stack import REGION
from deploy.logs import LOG_GROUP_FOLDER


@pytest.fixture
def log() -> ServerLog:
    log = ServerLog()
    log.append("loading")
    log.append("ready", is_last_of_start=True)
    return log


@pytest.fixture
def published(moto: None, log: ServerLog) -> Callable[[], dict[str, list[str]]]:
    """Return what publishes, and returns all lines by the endpoint and the stream."""
    publisher = LogPublisher(BotoAws(REGION), log, Wakeup())

    def publish() -> dict[str, list[str]]:
        publisher.publish()
        logs, found = client("logs"), {}
        for group in logs.describe_log_groups()["logGroups"]:
            name = group["logGroupName"]
            for stream in logs.describe_log_streams(logGroupName=name)["logStreams"]:
                place = {"logGroupName": name, "logStreamName": stream["logStreamName"]}
                events = logs.get_log_events(**place, startFromHead=True)["events"]
                key = f"{name.removeprefix(LOG_GROUP_FOLDER)} {stream['logStreamName']}"
                found[key] = [event["message"] for event in events]
        return found

    return publish


def client(service: str) -> Any:
    return boto3.client(service, region_name=REGION)


def create_endpoint(name: str, version: str) -> None:
    sagemaker = client("sagemaker")
    role = "arn:aws:iam::123456789012:role/a"
    sagemaker.create_model(ModelName=version, ExecutionRoleArn=role, PrimaryContainer={"Image": "viseme"})
    variant = {"VariantName": "AllTraffic", "ModelName": version, "InitialInstanceCount": 1}
    sagemaker.create_endpoint_config(
        EndpointConfigName=version, ProductionVariants=[variant | {"InstanceType": "ml.g5.xlarge"}]
    )
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=version)


def test_each_endpoint_has_the_start_and_what_came_since(published, log: ServerLog):
    assert published() == {}
    create_endpoint("a", "a-1")
    log.append("")
    log.append("first")
    assert published() == {"a AllTraffic/a-1": ["loading", "ready", "first"]}
    create_endpoint("b", "b-1")
    log.append("second")
    found = published()
    assert found["a AllTraffic/a-1"][-1] == "second"
    assert found["b AllTraffic/b-1"] == ["loading", "ready", "second"]


def test_nothing_is_published_before_the_container_is_ready(moto: None):
    log = ServerLog()
    log.append("loading")
    create_endpoint("a", "a-1")
    LogPublisher(BotoAws(REGION), log, Wakeup()).publish()
    assert client("logs").describe_log_groups()["logGroups"] == []


def test_a_group_that_was_deleted_is_made_again(published, log: ServerLog):
    create_endpoint("a", "a-1")
    published()
    client("logs").delete_log_group(logGroupName=f"{LOG_GROUP_FOLDER}a")
    log.append("lost")
    assert published() == {}
    log.append("next")
    assert published()["a AllTraffic/a-1"] == ["loading", "ready", "next"]


def test_an_endpoint_that_is_made_again_with_an_old_version(published):
    create_endpoint("a", "a-1")
    published()
    sagemaker = client("sagemaker")
    sagemaker.delete_endpoint(EndpointName="a")
    published()
    sagemaker.create_endpoint(EndpointName="a", EndpointConfigName="a-1")
    assert published() == {"a AllTraffic/a-1": ["loading", "ready"] * 2}
