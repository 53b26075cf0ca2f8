"""What organisations demand: each option reaches every call that it concerns."""

from __future__ import annotations

import json

import boto3
import pytest
from support.endpoint_calls import FIVE, NEW, OURS, REGION

from deploy import endpoint
from deploy.endpoint import main

TAGS = ["--tag", "team=vision + speech", "--tag", "cost-centre=42"]
TAG_LIST = [{"Key": "team", "Value": "vision + speech"}, {"Key": "cost-centre", "Value": "42"}]
VPC = ["--subnet", "subnet-0a1", "--subnet", "subnet-0b2", "--security-group", "sg-0c3"]
KEY = "arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"


def dry_run(capsys: pytest.CaptureFixture[str], *flags: str) -> tuple[list[dict], str]:
    assert main([*flags, "--dry-run"]) == 0
    printed = capsys.readouterr()
    return [json.loads(line) for line in printed.out.splitlines()], printed.err


def parameters(lines: list[dict], operation: str) -> list[dict]:
    return [one["parameters"] for one in lines if one["operation"] == operation]


def test_every_resource_is_tagged(capsys: pytest.CaptureFixture[str]):
    lines, _ = dry_run(capsys, *FIVE, "--mode", "async", "--max-capacity", "2", *TAGS)
    for operation in ("CreateModel", "CreateEndpointConfig", "CreateEndpoint", "PutMetricAlarm"):
        found = parameters(lines, operation)
        assert found
        assert all(one["Tags"] == TAG_LIST for one in found)
    as_mapping = {"team": "vision + speech", "cost-centre": "42"}
    assert parameters(lines, "CreateLogGroup")[0]["tags"] == as_mapping
    assert parameters(lines, "RegisterScalableTarget")[0]["Tags"] == as_mapping
    uploads = parameters(lines, "PutObject")
    assert len(uploads) == 3  # the archive, and the two requests of the smoke test
    assert {one["Tagging"] for one in uploads} == {"team=vision+%2B+speech&cost-centre=42"}


def test_an_update_tags_the_endpoint_that_exists(capsys: pytest.CaptureFixture[str]):
    lines, _ = dry_run(capsys, *OURS, "--update", *TAGS)
    [added] = parameters(lines, "AddTags")
    assert added == {"ResourceArn": "arn:aws:sagemaker:us-east-1:000000000000:endpoint/viseme", "Tags": TAG_LIST}
    assert all(one["Tags"] == TAG_LIST for one in parameters(lines, "PutMetricAlarm"))


def test_objects_take_ten_tags_at_most(capsys: pytest.CaptureFixture[str]):
    many = [word for i in range(11) for word in ("--tag", f"k{i}=v")]
    lines, _ = dry_run(capsys, *FIVE, *many)
    assert len(parameters(lines, "CreateModel")[0]["Tags"]) == 11
    assert "Tagging" not in parameters(lines, "PutObject")[0]


def test_the_tags_arrive(moto, monkeypatch: pytest.MonkeyPatch):
    """Moto keeps them by its own reading of AWS's calls."""
    monkeypatch.setattr(endpoint, "build_archive", lambda path, *_, **__: path.write_bytes(b"an archive"))
    assert main([*FIVE, "--no-smoke-test", *TAGS]) == 0
    sagemaker, s3 = (boto3.client(name, region_name=REGION) for name in ("sagemaker", "s3"))
    arns = [sagemaker.describe_endpoint(EndpointName="viseme")["EndpointArn"]]
    arns.append(sagemaker.describe_endpoint_config(EndpointConfigName=NEW)["EndpointConfigArn"])
    arns.append(sagemaker.describe_model(ModelName=NEW)["ModelArn"])
    assert [sagemaker.list_tags(ResourceArn=arn)["Tags"] for arn in arns] == [TAG_LIST] * 3
    bucket, key = "sagemaker-us-east-1-123456789012", "viseme/viseme/v20261120131500/model.tar.gz"
    tags = s3.get_object_tagging(Bucket=bucket, Key=key)["TagSet"]
    assert sorted(tags, key=str) == sorted(TAG_LIST, key=str)


def test_the_containers_vpc_and_isolation(capsys: pytest.CaptureFixture[str]):
    lines, err = dry_run(capsys, *FIVE, *VPC, "--network-isolation")
    [model] = parameters(lines, "CreateModel")
    assert model["VpcConfig"] == {"Subnets": ["subnet-0a1", "subnet-0b2"], "SecurityGroupIds": ["sg-0c3"]}
    assert model["EnableNetworkIsolation"] is True
    assert model["PrimaryContainer"]["Environment"]["PYTHONPATH"] == "/opt/ml/model/code/lib"
    assert "cannot read videos in S3" in err
    lines, _ = dry_run(capsys, *OURS, "--network-isolation")
    assert "PYTHONPATH" not in parameters(lines, "CreateModel")[0]["PrimaryContainer"]["Environment"]


def test_the_key_encrypts_volumes_answers_and_objects(capsys: pytest.CaptureFixture[str]):
    flags = [*FIVE, "--instance-type", "ml.c7i.xlarge", "--mode", "async", "--kms-key", KEY]
    lines, err = dry_run(capsys, *flags)
    [config] = parameters(lines, "CreateEndpointConfig")
    assert config["KmsKeyId"] == KEY
    assert config["AsyncInferenceConfig"]["OutputConfig"]["KmsKeyId"] == KEY
    for upload in parameters(lines, "PutObject"):
        assert (upload["ServerSideEncryption"], upload["SSEKMSKeyId"]) == ("aws:kms", KEY)
    assert "NVMe" not in err


def test_a_local_disk_has_a_key_of_its_own(capsys: pytest.CaptureFixture[str]):
    _, err = dry_run(capsys, *OURS, "--kms-key", KEY)
    assert "--kms-key does not encrypt the local NVMe disk of ml.g5.xlarge" in err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--tag", "team"], "--tag team: expected KEY=VALUE"),
        (["--tag", "=x"], "expected KEY=VALUE"),
        (["--tag", "a=b*"], "expected KEY=VALUE"),
        (["--tag", "aws:x=y"], "AWS keeps keys that begin with aws:"),
        (["--tag", "a=b", "--tag", "a=c"], "the key a is given twice"),
        ([word for i in range(51) for word in ("--tag", f"k{i}=v")], "51 tags; expected at most 50"),
        (["--subnet", "subnet-1"], "--subnet and --security-group: SageMaker takes both or neither"),
        (["--subnet", "vpc-1", "--security-group", "sg-1"], "--subnet vpc-1: expected an ID such as subnet-0123abcd"),
        (
            ["--subnet", "subnet-1", *(word for i in range(6) for word in ("--security-group", f"sg-{i}"))],
            "--security-group: 6 given; SageMaker takes at most 5",
        ),
        (["--kms-key", "a key"], "--kms-key a key: expected a key's ID, ARN or alias"),
        (["--network-isolation", "--weights", "hub"], "the container cannot fetch VISEME_WEIGHTS=hub; pack files"),
        (["--network-isolation", "--env", "HF_MODEL_ID=a/b"], "the container cannot fetch HF_MODEL_ID=a/b"),
        (["--network-isolation", "--landmarks", "dlib"], "the container cannot fetch VISEME_LANDMARKS=dlib"),
        (["--network-isolation", "--checkpoint", "s3://b/wav2lip.pth"], "cannot fetch VISEME_CHECKPOINTS=s3://b"),
        (["--in-place"], "--in-place: requires --update"),
    ],
)
def test_the_callers_mistakes(capsys: pytest.CaptureFixture[str], flags: list[str], message: str):
    assert main([*OURS, *flags]) == 2
    assert message in capsys.readouterr().err
