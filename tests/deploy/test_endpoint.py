"""deploy.endpoint: the exact calls it makes, and its messages when AWS refuses one."""

from __future__ import annotations

import json
from pathlib import Path

import boto3
import pytest
from support.endpoint_calls import (
    ACCOUNT,
    ALL_AT_ONCE,
    CANARY,
    FIVE,
    IMAGE,
    NAMED,
    NEW,
    NOW,
    OLD,
    OURS,
    REGION,
    ROLE,
    TARGET,
    alarm,
    async_config,
    describe,
    described_model,
    expect_alarms,
    expect_clean,
    expect_create,
    expect_discard,
    expect_log,
    expect_log_group,
    expect_missing,
    expect_prepare,
    expect_running,
    expect_scale_to_zero,
    expect_scaling,
    expect_update,
    expect_update_call,
    model_request,
)

from deploy import endpoint, waiting
from deploy.aws import BotoAws
from deploy.diagnostics import DRIVER
from deploy.endpoint import main
from deploy.errors import CallFailed, DeployError
from deploy.smoke_test import CLIP
from deploy.versions import ROLE_ATTEMPTS, delete_old_versions
from deploy.waiting import WaitPolicy

UNTESTED = [*OURS, "--no-smoke-test"]  # test_smoke_test.py tests the requests that follow


def no_archive(path: Path, *_: object, **__: object) -> None:
    path.write_bytes(b"an archive")


# Creating


def test_from_clone_to_endpoint_by_the_documented_command(moto, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(endpoint, "build_archive", no_archive)
    assert main([*FIVE, "--no-smoke-test"]) == 0  # moto takes no binary body
    sagemaker, s3 = (boto3.client(name, region_name=REGION) for name in ("sagemaker", "s3"))
    assert sagemaker.describe_endpoint(EndpointName="viseme")["EndpointConfigName"] == NEW
    (variant,) = sagemaker.describe_endpoint_config(EndpointConfigName=NEW)["ProductionVariants"]
    assert variant["InferenceAmiVersion"] == "al2-ami-sagemaker-inference-gpu-3-1"  # the stock image has CUDA 12.4
    container = sagemaker.describe_model(ModelName=NEW)["PrimaryContainer"]
    assert container["Image"] == (
        "763104351884.dkr.ecr.us-east-1.amazonaws.com/huggingface-pytorch-inference:"
        "2.6.0-transformers4.51.3-gpu-py312-cu124-ubuntu22.04"
    )
    assert container["Environment"]["SAGEMAKER_PROGRAM"] == "viseme_entry.py"
    bucket, _, key = container["ModelDataUrl"].removeprefix("s3://").partition("/")
    assert bucket == f"sagemaker-us-east-1-{ACCOUNT}"
    assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == b"an archive"
    blocked = s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]
    assert set(blocked.values()) == {True}


def test_create_with_our_image(script):
    expect_create(script)
    script.expect("sagemaker", "DescribeEndpoint", NAMED, describe("Creating", NEW))
    script.expect("sagemaker", "DescribeEndpoint", NAMED, describe("InService", NEW))
    assert main(UNTESTED) == 0
    script.done()


def test_async_goes_down_to_zero_and_comes_back(script):
    bucket = f"sagemaker-us-east-1-{ACCOUNT}"
    script.expect("s3", "HeadBucket", {"Bucket": bucket, "ExpectedBucketOwner": ACCOUNT})
    expect_create(script, AsyncInferenceConfig=async_config())
    script.expect("sagemaker", "DescribeEndpoint", NAMED, describe("InService", NEW))
    expect_scale_to_zero(script, most=3)
    topics = ["--success-topic", "arn:aws:sns:us-east-1:1:ok", "--error-topic", "arn:aws:sns:us-east-1:1:bad"]
    assert main([*UNTESTED, "--mode", "async", "--min-capacity", "0", "--max-capacity", "3", *topics]) == 0
    script.done()


def test_realtime_scales_between_its_bounds(script):
    expect_create(script)
    script.expect("sagemaker", "DescribeEndpoint", NAMED, describe("InService", NEW))
    expect_scaling(script, 1, 4)
    assert main([*UNTESTED, "--max-capacity", "4"]) == 0
    script.done()


# Updating


@pytest.mark.parametrize(
    ("n_instances", "traffic", "more"),
    [
        (0, ALL_AT_ONCE, {"ExcludeRetainedVariantProperties": [{"VariantPropertyType": "DesiredInstanceCount"}]}),
        (1, ALL_AT_ONCE, {}),
        (2, CANARY, {}),
    ],
)
def test_update_keeps_what_was_scaled_and_cleans_up(script, n_instances: int, traffic: dict, more: dict):
    script.expect("sagemaker", "DescribeEndpoint", NAMED, describe(n_instances=n_instances))
    expect_update(script, traffic, n_instances=max(1, n_instances), **more)
    script.expect("sagemaker", "DescribeEndpoint", NAMED, describe("Updating"))
    script.expect("sagemaker", "DescribeEndpoint", NAMED, describe("InService", NEW))
    expect_clean(script)
    assert main([*UNTESTED, "--update"]) == 0
    script.done()


def test_a_rollback_restores_everything(script, capsys: pytest.CaptureFixture[str]):
    script.expect("sagemaker", "DescribeEndpoint", NAMED, describe(n_instances=2))
    expect_update(script, CANARY, n_instances=2)
    script.expect("sagemaker", "DescribeEndpoint", NAMED, describe("Updating"))
    reason = "Alarm viseme-rollback-5xx was tripped"
    script.expect("sagemaker", "DescribeEndpoint", NAMED, describe("InService", OLD, FailureReason=reason))
    expect_log(script, "worker died", "worker died again")
    expect_discard(script)
    assert main([*UNTESTED, "--update"]) == 1
    script.done()
    err = capsys.readouterr().err
    assert f"the update to {NEW} was rolled back; {OLD} still serves: {reason}" in err
    assert "  worker died\n  worker died again" in err


def test_a_rollback_restores_scaling(script):
    script.expect("sagemaker", "DescribeEndpoint", NAMED, describe(n_instances=1))
    expect_update(script, ALL_AT_ONCE, bounds=(1, 2))
    script.expect("sagemaker", "DescribeEndpoint", NAMED, describe("InService", OLD))
    script.refuse("logs", "DescribeLogStreams", "ResourceNotFoundException")
    expect_scaling(script, 1, 2)
    expect_discard(script)
    assert main([*UNTESTED, "--update"]) == 1
    script.done()


def test_an_update_that_hangs_reports_that_scaling_is_off(script, capsys: pytest.CaptureFixture[str]):
    script.expect("sagemaker", "DescribeEndpoint", NAMED, describe())
    expect_update(script, ALL_AT_ONCE, bounds=(1, 2))
    found = describe("UpdateRollbackFailed", FailureReason="no capacity to go back")
    script.expect("sagemaker", "DescribeEndpoint", NAMED, found)
    script.refuse("logs", "DescribeLogStreams", "ResourceNotFoundException")
    assert main([*UNTESTED, "--update"]) == 1
    script.done()  # nothing is deleted that may yet be in use
    err = capsys.readouterr().err
    assert "viseme: UpdateRollbackFailed: no capacity to go back" in err
    assert "scaling between 1 and 2 instances is off; --update --min-capacity 1 --max-capacity 2 restores it" in err


def test_a_refused_status_request_during_an_update_changes_nothing(script, capsys: pytest.CaptureFixture[str]):
    """The update may still succeed on AWS: its configuration is in use."""
    script.expect("sagemaker", "DescribeEndpoint", NAMED, describe())
    expect_update(script, ALL_AT_ONCE, bounds=(1, 2))
    script.refuse("sagemaker", "DescribeEndpoint", "ExpiredTokenException", "The security token is expired")
    assert main([*UNTESTED, "--update"]) == 1
    script.done()
    err = capsys.readouterr().err
    assert "credentials: " in err
    assert "restores it" in err


def test_a_refused_update_restores_everything(script):
    script.expect("sagemaker", "DescribeEndpoint", NAMED, describe(n_instances=2))
    expect_running(script, (1, 2))
    expect_prepare(script, n_instances=2)
    expect_alarms(script)
    script.expect("application-autoscaling", "DeregisterScalableTarget", TARGET)
    script.expect("cloudwatch", "DeleteAlarms", {"AlarmNames": ["viseme-backlog-without-capacity"]})
    script.refuse("sagemaker", "UpdateEndpoint", "ResourceLimitExceeded", "limit")
    expect_scaling(script, 1, 2)
    expect_discard(script)
    assert main([*UNTESTED, "--update"]) == 1
    script.done()


@pytest.mark.parametrize(
    ("flags", "n_now", "registered", "n_fleet", "wanted"),
    [
        ([], 3, (1, 4), 3, (1, 4)),  # omitted arguments stay
        ([], 3, None, 3, None),  # also a fixed number
        (["--max-capacity", "2"], 3, (1, 4), 2, (1, 2)),
        (["--min-capacity", "5"], 3, (1, 4), 5, None),
        (["--min-capacity", "2"], 1, None, 2, None),
        (["--max-capacity", "4"], 1, None, 1, (1, 4)),
    ],
)
def test_an_update_keeps_how_it_scales(script, flags, n_now, registered, n_fleet, wanted):
    script.expect("sagemaker", "DescribeEndpoint", NAMED, describe(n_instances=n_now))
    exclude = {"ExcludeRetainedVariantProperties": [{"VariantPropertyType": "DesiredInstanceCount"}]}
    traffic = CANARY if min(n_now, n_fleet) > 1 else ALL_AT_ONCE
    expect_update(script, traffic, registered, n_fleet, **({} if n_fleet == n_now else exclude))
    script.expect("sagemaker", "DescribeEndpoint", NAMED, describe("InService", NEW))
    if wanted:
        expect_scaling(script, *wanted)
    expect_clean(script)
    assert main([*UNTESTED, "--update", *flags]) == 0
    script.done()


def test_an_asynchronous_update_keeps_its_paths_and_topics(script):
    """Update from zero instances: it starts with one, all at once, and may scale to zero again."""
    current = async_config()["OutputConfig"] | {
        "S3OutputPath": "s3://videos/results/",
        "S3FailurePath": "s3://videos/bad/",
    }
    found = describe(n_instances=0, AsyncInferenceConfig={"OutputConfig": current})
    script.expect("sagemaker", "DescribeEndpoint", NAMED, found)
    expect_running(script, (0, 3))
    kept = async_config() | {"OutputConfig": current | {"S3FailurePath": "s3://videos/failures/"}}
    expect_prepare(script, AsyncInferenceConfig=kept)
    script.expect("cloudwatch", "PutMetricAlarm", alarm("failures", "InvocationFailures", 1, Statistic="Sum"))
    script.expect("application-autoscaling", "DeregisterScalableTarget", TARGET)
    script.expect("cloudwatch", "DeleteAlarms", {"AlarmNames": ["viseme-backlog-without-capacity"]})
    exclude = {"ExcludeRetainedVariantProperties": [{"VariantPropertyType": "DesiredInstanceCount"}]}
    expect_update_call(script, ALL_AT_ONCE, ["viseme-rollback-failures"], **exclude)
    script.expect("sagemaker", "DescribeEndpoint", NAMED, describe("InService", NEW))
    expect_scale_to_zero(script, most=3)
    expect_clean(script)
    assert main([*UNTESTED, "--update", "--mode", "async", "--async-failure", "s3://videos/failures/"]) == 0
    script.done()


# Archives of old versions


def archive_of(name: str) -> str:
    return f"s3://models/viseme/viseme/{name.removeprefix('viseme-')}/model.tar.gz"


@pytest.mark.parametrize(
    ("old", "of_others", "is_removed"),
    [
        (archive_of(OLD), [], True),
        (archive_of(OLD), [archive_of(OLD)], False),  # the new version uses it, by --model-data for example
        (archive_of(OLD), ["s3://models/viseme/viseme/"], False),  # a model may name a folder
        ("s3://models/mine.tar.gz", [], False),
        (archive_of(NEW), [], False),  # another version's
        (None, [], False),
    ],
)
def test_an_old_versions_archive_is_deleted_unless_in_use(
    moto, capsys: pytest.CaptureFixture[str], old, of_others, is_removed
):
    s3, sagemaker = (boto3.client(name, region_name=REGION) for name in ("s3", "sagemaker"))
    s3.create_bucket(Bucket="models")
    for uri in {archive_of(OLD), archive_of(NEW), "s3://models/mine.tar.gz"}:
        s3.put_object(Bucket="models", Key=uri.removeprefix("s3://models/"), Body=b"archive")
    for name, uri in [(OLD, old), (NEW, None), *((f"other-{i}", uri) for i, uri in enumerate(of_others))]:
        container = {"Image": IMAGE} | ({"ModelDataUrl": uri} if uri else {})
        sagemaker.create_model(ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer=container)
    delete_old_versions(BotoAws(REGION), "viseme", WaitPolicy(), keep=NEW)
    left = {one["Key"] for one in s3.list_objects_v2(Bucket="models")["Contents"]}
    assert (archive_of(OLD).removeprefix("s3://models/") not in left) == is_removed
    assert {"mine.tar.gz", archive_of(NEW).removeprefix("s3://models/")} <= left
    assert {one["ModelName"] for one in sagemaker.list_models()["Models"]} >= {NEW}
    assert capsys.readouterr().err == ""


def test_an_archive_stays_if_its_use_cannot_be_determined(script, capsys: pytest.CaptureFixture[str]):
    wanted = {"NameContains": "viseme-v", "MaxResults": 100}
    arn = "arn:aws:sagemaker:us-east-1:1:model/x"
    script.expect("sagemaker", "ListEndpointConfigs", wanted, {"EndpointConfigs": []})
    models = {"Models": [{"ModelName": OLD, "ModelArn": arn, "CreationTime": NOW}]}
    script.expect("sagemaker", "ListModels", wanted, models)
    script.expect("sagemaker", "DescribeModel", {"ModelName": OLD}, described_model(OLD, archive_of(OLD)))
    expect_discard(script, OLD)
    script.refuse("sagemaker", "ListModels", "AccessDeniedException", "no", {"MaxResults": 100})
    assert delete_old_versions(script.aws, "viseme", WaitPolicy()) == 1
    script.done()
    assert f"warning: {archive_of(OLD)}: not deleted: permission: " in capsys.readouterr().err


def test_deleting_removes_the_archive_and_keeps_answers(moto, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(endpoint, "build_archive", no_archive)
    assert main([*FIVE, "--bucket", "models", "--no-smoke-test"]) == 0
    s3 = boto3.client("s3", region_name=REGION)
    [archive] = s3.list_objects_v2(Bucket="models")["Contents"]
    assert archive["Key"] == archive_of(NEW).removeprefix("s3://models/")
    s3.put_object(Bucket="models", Key="viseme/viseme/results/1.out", Body=b"answer")
    assert main(["--endpoint-name", "viseme", "--delete"]) == 0
    assert [one["Key"] for one in s3.list_objects_v2(Bucket="models")["Contents"]] == ["viseme/viseme/results/1.out"]


@pytest.mark.parametrize("refused", ["CreateModel", "CreateEndpointConfig", "CreateEndpoint"])
def test_a_creation_that_is_refused_leaves_no_archive(moto, monkeypatch: pytest.MonkeyPatch, refused: str):
    monkeypatch.setattr(endpoint, "build_archive", no_archive)
    call = BotoAws.call

    def refuse(aws: BotoAws, service: str, operation: str, **parameters) -> dict:
        if operation == refused:
            raise CallFailed("no", "ResourceLimitExceeded")
        return call(aws, service, operation, **parameters)

    monkeypatch.setattr(BotoAws, "call", refuse)
    assert main([*FIVE, "--bucket", "models"]) == 1
    s3, sagemaker = (boto3.client(name, region_name=REGION) for name in ("s3", "sagemaker"))
    assert s3.list_objects_v2(Bucket="models")["KeyCount"] == 0
    assert sagemaker.list_models()["Models"] == []
    assert sagemaker.list_endpoint_configs()["EndpointConfigs"] == []


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (None, "no such endpoint in this region; omit --update"),
        (describe("Updating"), "is Updating; only an endpoint that is InService"),
        (
            describe(AsyncInferenceConfig={"OutputConfig": {"S3OutputPath": "s3://b/r/"}}),
            "is async and cannot become realtime: pass --mode async",
        ),
        (
            describe(ProductionVariants=[{"VariantName": "blue", "CurrentInstanceCount": 1}]),
            "its variants are named blue; expected only AllTraffic",
        ),
    ],
)
def test_endpoints_that_cannot_be_updated(script, capsys: pytest.CaptureFixture[str], found: dict | None, message: str):
    if found is None:
        expect_missing(script)
    else:
        script.expect("sagemaker", "DescribeEndpoint", NAMED, found)
    assert main([*UNTESTED, "--update"]) == 2
    script.done()
    assert message in capsys.readouterr().err


# Deleting


def test_delete_removes_everything(moto):
    assert main(UNTESTED) == 0
    assert main(["--endpoint-name", "viseme", "--delete"]) == 0
    sagemaker = boto3.client("sagemaker", region_name=REGION)
    assert sagemaker.list_endpoints()["Endpoints"] == []
    assert sagemaker.list_endpoint_configs()["EndpointConfigs"] == []
    assert sagemaker.list_models()["Models"] == []


def test_delete_an_asynchronous_one(moto):
    folders = ["--async-output", "s3://videos/results", "--async-failure", "s3://videos/failures"]
    assert main([*UNTESTED, "--mode", "async", *folders]) == 0
    scaling, cloudwatch = (boto3.client(name, region_name=REGION) for name in ("application-autoscaling", "cloudwatch"))
    (target,) = scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]
    assert (target["MinCapacity"], target["MaxCapacity"]) == (0, 1)
    (alarm,) = cloudwatch.describe_alarms(AlarmNames=["viseme-backlog-without-capacity"])["MetricAlarms"]
    policies = scaling.describe_scaling_policies(ServiceNamespace="sagemaker")["ScalingPolicies"]
    assert alarm["AlarmActions"][0] in {policy["PolicyARN"] for policy in policies}
    assert {policy["PolicyType"] for policy in policies} == {"StepScaling", "TargetTrackingScaling"}
    assert main(["--endpoint-name", "viseme", "--delete"]) == 0
    assert scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"] == []
    assert cloudwatch.describe_alarms(AlarmNames=["viseme-backlog-without-capacity"])["MetricAlarms"] == []


def test_delete_a_missing_endpoint(moto, capsys: pytest.CaptureFixture[str]):
    assert main(["--endpoint-name", "viseme", "--delete"]) == 2
    assert "no such endpoint in this region" in capsys.readouterr().err


# Dry runs


def dry_run(capsys: pytest.CaptureFixture[str], *flags: str) -> list[dict]:
    assert main([*flags, "--dry-run"]) == 0
    printed = capsys.readouterr()
    assert printed.err.startswith("dry run: ")
    assert "in service" not in printed.err
    lines = [json.loads(line) for line in printed.out.splitlines()]
    assert all(set(line) == {"service", "operation", "parameters"} for line in lines)
    return lines


def test_dry_run_prints_the_calls_of_a_run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    lines = dry_run(capsys, *FIVE)
    assert [line["operation"] for line in lines] == [
        "DescribeEndpoint",
        "HeadBucket",
        "PutObject",
        "CreateModel",
        "CreateEndpointConfig",
        "CreateLogGroup",
        "PutRetentionPolicy",
        "CreateEndpoint",
        "DescribeEndpoint",
        "InvokeEndpoint",
        "InvokeEndpoint",
        "FilterLogEvents",
    ]
    assert lines[2]["parameters"]["Body"] == "<contents of model.tar.gz>"
    assert lines[9]["parameters"]["Body"] == f"<{CLIP.stat().st_size} bytes>"


def test_dry_run_of_an_update_and_a_deletion(capsys: pytest.CaptureFixture[str]):
    lines = dry_run(capsys, *UNTESTED, "--update", "--mode", "async", "--min-capacity", "0")
    assert [line["operation"] for line in lines if line["service"] != "s3"] == [
        "DescribeEndpoint",
        "DescribeScalableTargets",
        "DescribeEndpointConfig",
        "DescribeModel",
        "ListTags",
        "CreateModel",
        "CreateEndpointConfig",
        "PutMetricAlarm",
        "UpdateEndpoint",
        "DescribeEndpoint",
        "RegisterScalableTarget",
        "PutScalingPolicy",
        "PutScalingPolicy",
        "PutMetricAlarm",
        "ListEndpointConfigs",
        "ListModels",
        "DescribeModel",
        "DeleteEndpointConfig",
        "DeleteModel",
        "ListModels",
    ]
    in_s3 = [line for line in lines if line["service"] == "s3"]
    assert [line["operation"] for line in in_s3] == ["HeadBucket", "DeleteObject"]
    assert in_s3[1]["parameters"]["Bucket"] == f"sagemaker-us-east-1-{ACCOUNT}"
    lines = dry_run(capsys, "--endpoint-name", "viseme", "--delete")
    assert "DeleteEndpoint" in [line["operation"] for line in lines]


def test_dry_run_rejects_invalid_parameters(capsys: pytest.CaptureFixture[str]):
    aws = endpoint.DryRunAws(None, {})
    with pytest.raises(DeployError, match="Nmae"):
        aws.call("sagemaker", "DescribeEndpoint", EndpointName="x", Nmae="y")


# Wrong arguments


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--min-capacity", "0"], "--min-capacity 0: a real-time endpoint cannot scale to zero; --mode async"),
        (["--max-capacity", "0"], "--max-capacity 0: expected 0 <= min <= max, and max at least 1"),
        (["--min-capacity", "3", "--max-capacity", "2"], "expected 0 <= min <= max"),
        (["--role-arn", "SageMaker"], "--role-arn SageMaker: expected arn:aws:iam::"),
        (["--instance-type", "g5.xlarge"], "--instance-type g5.xlarge: expected a SageMaker type"),
        (["--endpoint-name", "a_b"], "--endpoint-name a_b: expected letters"),
        (["--endpoint-name", "a" * 48], "at most 47"),
        (["--region", "moon-west-1"], "--region moon-west-1: no Hugging Face image is known in this region"),
        (["--model-data", "model.tar.gz"], "--model-data model.tar.gz: expected s3://"),
        (["--success-topic", "arn:x"], "--success-topic: requires --mode async"),
        (["--mode", "async", "--async-output", "results"], "results: expected s3://BUCKET/PREFIX"),
        (["--env", "A"], "--env A: expected KEY=VALUE"),
        (["--env", "SAGEMAKER_MODEL_SERVER_WORKERS=no"], "SAGEMAKER_MODEL_SERVER_WORKERS=no: expected 1 to 99"),
        (["--inference-ami-version", "gpu 9"], "--inference-ami-version gpu 9: expected such as al2023-ami"),
        (["--image-uri", ""], "--image-uri: is empty"),  # a variable of the shell that is not set
        (["--image-uri", "x/viseme:1-cu140"], "needs CUDA 14.0; the newest known driver (580) runs 13.0"),
    ],
)
def test_the_callers_mistakes(capsys: pytest.CaptureFixture[str], flags: list[str], message: str):
    assert main([*FIVE, *flags]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.splitlines()) == 1


def test_a_role_is_needed(capsys: pytest.CaptureFixture[str]):
    assert main(["--endpoint-name", "viseme"]) == 2
    assert "--role-arn: missing" in capsys.readouterr().err


def test_an_existing_endpoint_is_not_created_again(script, capsys: pytest.CaptureFixture[str]):
    script.expect("sagemaker", "DescribeEndpoint", NAMED, describe("Failed"))
    assert main(UNTESTED) == 2
    assert "already exists (Failed); --update changes it, --delete removes it" in capsys.readouterr().err


# Calls that AWS refuses


@pytest.mark.parametrize(
    ("code", "message", "cause"),
    [
        ("ValidationException", f"Could not assume role {ROLE}. Please ensure that the role exists", "role: "),
        ("ValidationException", f"Could not assume role {ROLE}-image. Please ensure that it exists", "role: "),
        (
            "ValidationException",
            "Could not access model data at s3://b/k. Please ensure that the role exists and that its trust "
            'relationship policy allows the action "sts:AssumeRole". Also ensure it has "s3:GetObject" permissions',
            "model data: ",
        ),
        ("ValidationException", f"Requested image {IMAGE} not found", "image: "),
        ("ValidationException", "Could not find model data at s3://b/k.tar.gz.", "model data: "),
        ("AccessDeniedException", "User x is not authorized to perform: sagemaker:CreateModel", "permission: "),
        ("AccessDeniedException", "User x is not authorized to perform: iam:PassRole on resource", "role: "),
        ("ExpiredTokenException", "The security token included in the request is expired", "credentials: "),
    ],
)
def test_a_refused_model(script, capsys: pytest.CaptureFixture[str], code: str, message: str, cause: str):
    expect_missing(script)
    is_new_role = message.startswith("Could not assume role")
    for _ in range(ROLE_ATTEMPTS if is_new_role else 1):
        script.refuse("sagemaker", "CreateModel", code, message)
    assert main(UNTESTED) == 1
    script.done()
    err = capsys.readouterr().err
    assert ("the role cannot be assumed yet" in err) == is_new_role
    assert f"deploy.endpoint: {cause}sagemaker CreateModel: {code}: {message}\n" in err
    assert len(err.splitlines()) == (3 if is_new_role else 2)  # the last is the advice


def test_a_role_that_is_known_a_moment_later(script, capsys: pytest.CaptureFixture[str]):
    expect_missing(script)
    for _ in range(2):
        script.refuse("sagemaker", "CreateModel", "ValidationException", f"Could not assume role {ROLE}.")
    expect_prepare(script)
    expect_log_group(script)
    created = {"EndpointArn": "arn:aws:sagemaker:us-east-1:1:endpoint/viseme"}
    script.expect("sagemaker", "CreateEndpoint", NAMED | {"EndpointConfigName": NEW}, created)
    script.expect("sagemaker", "DescribeEndpoint", NAMED, describe("InService", NEW))
    assert main(UNTESTED) == 0
    script.done()
    assert capsys.readouterr().err.count("the role cannot be assumed yet") == 1


def test_no_quota_leaves_nothing_behind(script, capsys: pytest.CaptureFixture[str]):
    expect_missing(script)
    expect_prepare(script)
    expect_log_group(script)
    message = "The account-level service limit 'ml.g5.xlarge for endpoint usage' is 0 Instances"
    script.refuse("sagemaker", "CreateEndpoint", "ResourceLimitExceeded", message)
    expect_discard(script)
    assert main(UNTESTED) == 1
    script.done()
    assert "quota: " in (err := capsys.readouterr().err)
    assert "Service Quotas" in err


def test_a_refused_configuration_deletes_its_model(script):
    expect_missing(script)
    script.expect("sagemaker", "CreateModel", model_request(), {"ModelArn": "arn:aws:sagemaker:us-east-1:1:model/x"})
    script.refuse("sagemaker", "CreateEndpointConfig", "ValidationException", "no")
    script.expect("sagemaker", "DeleteModel", {"ModelName": NEW})
    assert main(UNTESTED) == 1
    script.done()


def test_the_containers_own_driver_error_is_recognised():
    from inference.backends.device import gpu_fault

    fault = gpu_fault()
    if fault is None:
        pytest.skip("torch can use a GPU here")
    assert DRIVER.pattern.search(fault)


@pytest.mark.parametrize(
    ("reason", "log", "cause"),
    [
        ("The primary container did not pass the ping health check.", ["Traceback", "KeyError"], "health check: "),
        (
            "The primary container did not pass the ping health check.",
            ["The NVIDIA driver on your system is too old (found version 11040)"],
            "driver: ",
        ),
        (
            "The primary container did not pass the ping health check.",
            ["this machine has a GPU, but torch 2.13.0 (built for CUDA 13.0) cannot use one (NVIDIA driver: 470.57)"],
            "driver: ",
        ),
        ("The repository does not grant ecr:BatchGetImage; image pull failed", [], "image: "),
        ("Unable to provision requested ML compute capacity due to InsufficientInstanceCapacity", [], "capacity: "),
        ("Failed to download model data", [], "model data: "),
    ],
)
def test_a_failed_endpoint(script, capsys: pytest.CaptureFixture[str], reason: str, log: list[str], cause: str):
    expect_create(script)
    script.expect("sagemaker", "DescribeEndpoint", NAMED, describe("Failed", NEW, FailureReason=reason))
    if log:
        expect_log(script, *log)
    else:
        script.refuse("logs", "DescribeLogStreams", "ResourceNotFoundException")
    assert main(UNTESTED) == 1
    script.done()
    err = capsys.readouterr().err
    assert f"deploy.endpoint: {cause}viseme: Failed: {reason}" in err
    assert all(f"\n  {line}\n" in err for line in log)
    assert ("no log lines: the container never started" in err) == (not log)
    assert "--delete removes it" in err


def test_an_unreadable_log_does_not_hide_the_failure(script, capsys: pytest.CaptureFixture[str]):
    expect_create(script)
    script.expect("sagemaker", "DescribeEndpoint", NAMED, describe("Failed", NEW, FailureReason="it just did"))
    script.refuse("logs", "DescribeLogStreams", "AccessDeniedException")
    assert main(UNTESTED) == 1
    err = capsys.readouterr().err
    assert "viseme: Failed: it just did" in err
    assert "(the log cannot be read: AccessDeniedException)" in err


def test_a_container_that_hangs(script, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    times = iter(range(0, 100, 4))
    monkeypatch.setattr(
        endpoint, "WaitPolicy", lambda: WaitPolicy(timeout_s=5, sleep=lambda _: None, clock=lambda: next(times))
    )
    expect_create(script)
    for _ in range(2):
        script.expect("sagemaker", "DescribeEndpoint", NAMED, describe("Creating", NEW))
    expect_log(script, "The NVIDIA driver on your system is too old (found version 11040)")
    assert main(UNTESTED) == 1
    script.done()
    err = capsys.readouterr().err
    assert "viseme: Creating (4 s)" in err
    assert "driver: viseme: still Creating after 8 s" in err
    assert "\n  The NVIDIA driver on your system is too old (found version 11040)\n" in err


def test_waiting_reports_the_time(script, capsys: pytest.CaptureFixture[str]):
    times = iter(range(0, 1000, 20))
    wait_policy = WaitPolicy(sleep=lambda _: None, clock=lambda: next(times))
    for status in ["Creating"] * 5 + ["InService"]:
        script.expect("sagemaker", "DescribeEndpoint", NAMED, describe(status, NEW))
    waiting.wait_until_in_service(script.aws, "viseme", NEW, wait_policy)
    assert capsys.readouterr().err.splitlines() == [
        "viseme: Creating (20 s)",
        "viseme: Creating (80 s)",
        f"viseme: in service with {NEW}",
    ]


def test_without_credentials(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    assert main(UNTESTED) == 1
    assert "Unable to locate credentials" in capsys.readouterr().err


def test_a_bucket_elsewhere(script, capsys: pytest.CaptureFixture[str]):
    expect_missing(script)
    script.refuse("s3", "HeadBucket", "301", "Moved Permanently")
    assert main([*FIVE, "--bucket", "far"]) == 2
    assert "the bucket far is not in us-east-1: name one there with --bucket" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("ami", "warned"),
    [
        ("al2-ami-sagemaker-inference-gpu-2", True),
        ("al2023-ami-sagemaker-inference-gpu-4-1", False),
        ("al2030-ami-sagemaker-inference-gpu-9", False),  # a newer one
    ],
)
def test_a_machine_image_by_name(capsys: pytest.CaptureFixture[str], ami: str, warned: bool):
    assert main([*UNTESTED, "--inference-ami-version", ami, "--dry-run"]) == 0
    printed = capsys.readouterr()
    assert ("has NVIDIA driver 535, which runs CUDA 12.2; the image needs CUDA 13.0" in printed.err) == warned
    [config] = [one for one in map(json.loads, printed.out.splitlines()) if one["operation"] == "CreateEndpointConfig"]
    assert config["parameters"]["ProductionVariants"][0]["InferenceAmiVersion"] == ami


def test_async_sends_as_many_at_once_as_there_are_workers(capsys: pytest.CaptureFixture[str]):
    arguments = [*UNTESTED, "--mode", "async", "--env", "SAGEMAKER_MODEL_SERVER_WORKERS=3", "--dry-run"]
    assert main(arguments) == 0
    lines = map(json.loads, capsys.readouterr().out.splitlines())
    [config] = [one["parameters"] for one in lines if one["operation"] == "CreateEndpointConfig"]
    assert config["AsyncInferenceConfig"]["ClientConfig"] == {"MaxConcurrentInvocationsPerInstance": 12}  # four each


def test_a_bucket_of_another_account(script, capsys: pytest.CaptureFixture[str]):
    expect_missing(script)
    script.refuse("s3", "HeadBucket", "403", "Forbidden")
    assert main(FIVE) == 2
    assert "is not yours" in capsys.readouterr().err
