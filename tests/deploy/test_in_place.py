"""--update --in-place: for a quota of one instance, the old version goes before the new one comes."""

from __future__ import annotations

import boto3
import pytest
from support.endpoint_calls import (
    NAMED,
    NEW,
    OLD,
    OURS,
    REGION,
    TARGET,
    describe,
    expect_clean,
    expect_discard,
    expect_log,
    expect_missing,
    expect_prepare,
    expect_running,
    expect_scaling,
)

from deploy import endpoint
from deploy.endpoint import main
from deploy.errors import RequestFailed
from deploy.in_place import QUOTA_ATTEMPTS

IN_PLACE = [*OURS, "--no-smoke-test", "--update", "--in-place"]
ARN = "arn:aws:sagemaker:us-east-1:123456789012:endpoint/viseme"
LIMIT = "The account-level service limit 'ml.g5.xlarge for endpoint usage' is 1 Instances, with 1 in use"


def expect_start(script, config: str, tags: list[dict] | None = None) -> None:
    expect_missing(script)
    request = NAMED | {"EndpointConfigName": config} | ({"Tags": tags} if tags else {})
    script.expect("sagemaker", "CreateEndpoint", request, {"EndpointArn": ARN})


def expect_deletion(script, bounds: tuple[int, int] | None = None, tags: list[dict] | None = None) -> None:
    """Expect the calls up to the deletion of the old version."""
    script.expect("sagemaker", "DescribeEndpoint", NAMED, describe())
    expect_running(script, bounds, tags)
    expect_prepare(script, tags=[tag for tag in tags or [] if not tag["Key"].startswith("aws:")])
    if bounds:
        script.expect("application-autoscaling", "DeregisterScalableTarget", TARGET)
        script.expect("cloudwatch", "DeleteAlarms", {"AlarmNames": ["viseme-backlog-without-capacity"]})
    script.expect("sagemaker", "DeleteEndpoint", NAMED)
    script.expect("sagemaker", "DescribeEndpoint", NAMED, describe("Deleting"))


def test_the_old_version_is_deleted_first(script, capsys: pytest.CaptureFixture[str]):
    expect_deletion(script, bounds=(1, 2))
    expect_start(script, NEW)
    script.expect("sagemaker", "DescribeEndpoint", NAMED, describe("InService", NEW))
    expect_scaling(script, 1, 2)
    expect_clean(script)
    assert main(IN_PLACE) == 0
    script.done()
    assert f"viseme: answers nothing until {NEW} is in service" in capsys.readouterr().err


def test_the_endpoint_keeps_its_tags(script):
    own = [{"Key": "team", "Value": "speech"}, {"Key": "aws:cloudformation:stack-name", "Value": "x"}]
    expect_deletion(script, tags=own)
    expect_start(script, NEW, [{"Key": "team", "Value": "speech"}])
    script.expect("sagemaker", "DescribeEndpoint", NAMED, describe("InService", NEW))
    expect_clean(script)
    assert main(IN_PLACE) == 0
    script.done()


def test_the_quota_is_free_a_moment_later(script):
    expect_deletion(script)
    expect_missing(script)
    for _ in range(2):
        script.refuse("sagemaker", "CreateEndpoint", "ResourceLimitExceeded", LIMIT)
    script.expect("sagemaker", "CreateEndpoint", NAMED | {"EndpointConfigName": NEW}, {"EndpointArn": ARN})
    script.expect("sagemaker", "DescribeEndpoint", NAMED, describe("InService", NEW))
    expect_clean(script)
    assert main(IN_PLACE) == 0
    script.done()


def test_a_failed_version_is_replaced_by_the_old_one(script, capsys: pytest.CaptureFixture[str]):
    expect_deletion(script, bounds=(1, 2))
    expect_start(script, NEW)
    failed = describe("Failed", NEW, FailureReason="The primary container did not pass the ping health check.")
    script.expect("sagemaker", "DescribeEndpoint", NAMED, failed)
    expect_log(script, "KeyError: 'x'")
    script.expect("sagemaker", "DescribeEndpoint", NAMED, failed)
    script.expect("sagemaker", "DeleteEndpoint", NAMED)
    expect_start(script, OLD)
    script.expect("sagemaker", "DescribeEndpoint", NAMED, describe("InService", OLD))
    expect_scaling(script, 1, 2)
    expect_discard(script)
    assert main(IN_PLACE) == 1
    script.done()
    err = capsys.readouterr().err
    assert "KeyError: 'x'" in err
    assert f"the update to {NEW} was undone; {OLD} serves again" in err


def test_wrong_answers_bring_the_old_version_back(script, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        raise RequestFailed("500: no")

    monkeypatch.setattr(endpoint, "choose_check", lambda *_: fail)
    expect_deletion(script)
    expect_start(script, NEW)
    for _ in range(2):
        script.expect("sagemaker", "DescribeEndpoint", NAMED, describe("InService", NEW))
    script.expect("sagemaker", "DeleteEndpoint", NAMED)
    expect_start(script, OLD)
    script.expect("sagemaker", "DescribeEndpoint", NAMED, describe("InService", OLD))
    expect_discard(script)
    assert main(IN_PLACE) == 1
    script.done()


def test_a_refused_deletion_changes_nothing(script):
    script.expect("sagemaker", "DescribeEndpoint", NAMED, describe())
    expect_running(script, (1, 2))
    expect_prepare(script)
    script.expect("application-autoscaling", "DeregisterScalableTarget", TARGET)
    script.expect("cloudwatch", "DeleteAlarms", {"AlarmNames": ["viseme-backlog-without-capacity"]})
    script.refuse("sagemaker", "DeleteEndpoint", "AccessDeniedException", "no")
    expect_scaling(script, 1, 2)
    expect_discard(script)
    assert main(IN_PLACE) == 1
    script.done()


def test_if_neither_version_can_be_started_it_says_how(script, capsys: pytest.CaptureFixture[str]):
    expect_deletion(script)
    for _ in range(2):
        expect_missing(script)
        for _ in range(QUOTA_ATTEMPTS):
            script.refuse("sagemaker", "CreateEndpoint", "ResourceLimitExceeded", LIMIT)
        expect_missing(script)
    assert main(IN_PLACE) == 1
    err = capsys.readouterr().err
    assert f"{OLD} could not be restored: quota: " in err
    assert f"aws sagemaker create-endpoint --endpoint-name viseme --endpoint-config-name {OLD}" in err


def test_from_one_version_to_the_next(moto):
    """The same over moto, from a first deployment."""
    sagemaker = boto3.client("sagemaker", region_name=REGION)
    sagemaker.create_model(ModelName=OLD, ExecutionRoleArn="arn:aws:iam::123456789012:role/X", PrimaryContainer={})
    variant = {"VariantName": "AllTraffic", "ModelName": OLD, "InstanceType": "ml.g5.xlarge", "InitialInstanceCount": 1}
    sagemaker.create_endpoint_config(EndpointConfigName=OLD, ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName="viseme", EndpointConfigName=OLD)
    assert main(IN_PLACE) == 0
    assert sagemaker.describe_endpoint(EndpointName="viseme")["EndpointConfigName"] == NEW
    assert [one["ModelName"] for one in sagemaker.list_models()["Models"]] == [NEW]
    assert [one["EndpointConfigName"] for one in sagemaker.list_endpoint_configs()["EndpointConfigs"]] == [NEW]
