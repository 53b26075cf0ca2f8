"""deploy.endpoint --update: what is not given stays as the running version has it, and the command says so."""

from __future__ import annotations

from typing import Any

import boto3
import pytest
from support.endpoint_calls import IMAGE, NAMED, NEW, NOW, OLD, REGION, ROLE, describe, expect_running

from deploy import endpoint
from deploy.endpoint import main
from deploy.running_version import RunningVersion

UPDATE = ["--endpoint-name", "viseme", "--role-arn", ROLE, "--region", REGION, "--update"]
OURS = [*UPDATE, "--image-uri", IMAGE, "--no-smoke-test"]
KEY, OTHER_KEY = "alias/videos", "alias/other"
VPC = {"Subnets": ["subnet-1", "subnet-2"], "SecurityGroupIds": ["sg-1"]}
CAPTURE = {
    "InitialSamplingPercentage": 5,
    "DestinationS3Uri": "s3://my-videos/capture",
    "CaptureOptions": [{"CaptureMode": "Input"}],
}
TAGS = [{"Key": "team", "Value": "speech"}, {"Key": "a=b", "Value": "c"}]


class Recorder:
    """AWS with an endpoint that has what an organisation demands; it notes each request. Source: botocore's model."""

    def __init__(self, config: dict[str, Any], model: dict[str, Any], found: dict[str, Any] | None = None) -> None:
        variant = {"VariantName": "AllTraffic", "ModelName": OLD} | config.pop("variant", {})
        container = {"Image": IMAGE, "Environment": {}} | model.pop("container", {})
        self.answers: dict[str, Any] = {
            "DescribeEndpoint": describe(**(found or {})),
            "DescribeEndpointConfig": {
                "EndpointConfigName": OLD,
                "CreationTime": NOW,
                "EndpointConfigArn": "arn",
                "ProductionVariants": [variant],
                **config,
            },
            "DescribeModel": {"ModelName": OLD, "ExecutionRoleArn": ROLE, "PrimaryContainer": container, **model},
            "ListTags": {"Tags": TAGS},
        }
        self.requests: dict[str, dict[str, Any]] = {}

    def call(self, service: str, operation: str, **parameters: Any) -> dict[str, Any]:
        self.requests.setdefault(operation, parameters)
        if operation == "UpdateEndpoint":
            self.answers["DescribeEndpoint"] |= {"EndpointConfigName": parameters["EndpointConfigName"]}
        return self.answers.get(operation, {})


@pytest.fixture
def update(monkeypatch: pytest.MonkeyPatch):
    def run(aws: Recorder, *flags: str) -> dict[str, dict[str, Any]]:
        monkeypatch.setattr(endpoint, "BotoAws", lambda region: aws)
        monkeypatch.setattr(endpoint, "build_archive", lambda path, *_, **__: path.write_bytes(b"an archive"))
        assert main([*OURS, *flags]) == 0
        return aws.requests

    return run


def demanding() -> Recorder:
    config = {
        "KmsKeyId": KEY,
        "DataCaptureConfig": CAPTURE,
        "EnableNetworkIsolation": False,
        "variant": {
            "InstancePools": [
                {"InstanceType": "ml.m6i.xlarge", "Priority": 2},
                {"InstanceType": "ml.c7i.xlarge", "Priority": 1},
            ],
            "InitialVariantWeight": 1.0,
            "RoutingConfig": {"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"},
            "ContainerStartupHealthCheckTimeoutInSeconds": 1800,
        },
    }
    return Recorder(config, {"VpcConfig": VPC, "EnableNetworkIsolation": True})


def test_an_update_keeps_what_is_not_given(update, capsys: pytest.CaptureFixture[str]):
    requests = update(demanding())
    model, config = requests["CreateModel"], requests["CreateEndpointConfig"]
    assert (model["VpcConfig"], model["EnableNetworkIsolation"]) == (VPC, True)
    assert model["Tags"] == config["Tags"] == TAGS
    assert (config["KmsKeyId"], config["DataCaptureConfig"]) == (KEY, CAPTURE)
    assert config.keys() == {"EndpointConfigName", "ProductionVariants", "KmsKeyId", "DataCaptureConfig", "Tags"}
    [variant] = config["ProductionVariants"]
    assert [one["InstanceType"] for one in variant["InstancePools"]] == ["ml.c7i.xlarge", "ml.m6i.xlarge"]
    assert variant["RoutingConfig"] == {"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"}
    assert variant["ContainerStartupHealthCheckTimeoutInSeconds"] == 1800
    assert variant["ModelName"] == NEW
    assert (
        f"viseme: kept from {OLD}: --instance-type ml.c7i.xlarge,ml.m6i.xlarge; --subnet subnet-1 --subnet subnet-2 "
        f"--security-group sg-1; --kms-key {KEY}; --network-isolation; --tag team=speech --tag a=b=c; "
        "DataCaptureConfig, RoutingConfig, ContainerStartupHealthCheckTimeoutInSeconds\n"
    ) in capsys.readouterr().err


def test_what_is_given_counts(update, tmp_path, capsys: pytest.CaptureFixture[str]):
    patch = tmp_path / "patch.json"
    patch.write_text('{"DataCaptureConfig": null, "ProductionVariants": [{"RoutingConfig": null}]}')
    flags = ["--subnet", "subnet-9", "--security-group", "sg-9", "--kms-key", OTHER_KEY, "--no-network-isolation"]
    flags += ["--tag", "team=vision", "--instance-type", "ml.c6i.xlarge", "--endpoint-config-json", str(patch)]
    requests = update(demanding(), *flags)
    model, config = requests["CreateModel"], requests["CreateEndpointConfig"]
    assert model["VpcConfig"] == {"Subnets": ["subnet-9"], "SecurityGroupIds": ["sg-9"]}
    assert "EnableNetworkIsolation" not in model
    assert (config["KmsKeyId"], config.get("DataCaptureConfig")) == (OTHER_KEY, None)
    [variant] = config["ProductionVariants"]
    assert (variant["InstanceType"], variant.get("RoutingConfig")) == ("ml.c6i.xlarge", None)
    assert model["Tags"] == [{"Key": "team", "Value": "vision"}, {"Key": "a=b", "Value": "c"}]
    assert "--subnet" not in capsys.readouterr().err


def test_none_takes_a_demand_away(update):
    requests = update(demanding(), "--subnet", "none", "--security-group", "none", "--kms-key", "none")
    assert "VpcConfig" not in requests["CreateModel"]
    assert "KmsKeyId" not in requests["CreateEndpointConfig"]


def test_a_key_that_a_patch_removed_from_the_volumes_stays_with_the_answers(update):
    output = {"S3OutputPath": "s3://b/r/", "S3FailurePath": "s3://b/f/", "KmsKeyId": KEY}
    found = {"AsyncInferenceConfig": {"OutputConfig": output}}
    config = {"variant": {"InstanceType": "ml.g5.xlarge"}, **found}
    requests = update(Recorder(config, {}, found), "--mode", "async")
    created = requests["CreateEndpointConfig"]
    assert "KmsKeyId" not in created
    assert created["AsyncInferenceConfig"]["OutputConfig"] == output


def test_a_serverless_endpoint_keeps_its_size(update):
    found = {"ProductionVariants": [{"VariantName": "AllTraffic", "CurrentServerlessConfig": {"MemorySizeInMB": 3072}}]}
    config = {"variant": {"ServerlessConfig": {"MemorySizeInMB": 3072, "MaxConcurrency": 9}}}
    requests = update(Recorder(config, {}, found), "--mode", "serverless", "--memory-mb", "4096")
    [variant] = requests["CreateEndpointConfig"]["ProductionVariants"]
    assert variant["ServerlessConfig"] == {"MemorySizeInMB": 4096, "MaxConcurrency": 9}


def test_an_isolated_version_is_not_replaced_by_one_that_fetches(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    aws = demanding()
    monkeypatch.setattr(endpoint, "BotoAws", lambda region: aws)
    assert main([*OURS, "--weights", "hub"]) == 2
    assert "--network-isolation: the container cannot fetch VISEME_WEIGHTS=hub" in capsys.readouterr().err
    assert "CreateModel" not in aws.requests


def test_it_warns_of_an_image_and_variables_that_are_lost(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    variables = {"HF_TOKEN": "s3cret", "VISEME_DEADLINE_S": "50", "SAGEMAKER_MODEL_SERVER_WORKERS": "2"}
    config = {"variant": {"InstanceType": "ml.c7i.xlarge"}}
    aws = Recorder(config, {"container": {"Environment": variables}})
    monkeypatch.setattr(endpoint, "BotoAws", lambda region: aws)
    monkeypatch.setattr(endpoint, "build_archive", lambda path, *_, **__: path.write_bytes(b"an archive"))
    assert main([*UPDATE, "--no-smoke-test", "--env", "VISEME_DEADLINE_S=40"]) == 0
    err = capsys.readouterr().err
    assert f"warning: {OLD} has the image {IMAGE}, the new version the stock image; --image-uri names another" in err
    assert f"warning: {OLD} has the variables HF_TOKEN, the new version not; --env sets them again" in err
    assert "s3cret" not in err
    container = aws.requests["CreateModel"]["PrimaryContainer"]
    assert "-cpu-" in container["Image"]  # the stock image for the instance type that stays


def test_a_refused_description_changes_nothing(script, capsys: pytest.CaptureFixture[str]):
    """Without it the new version could leave the VPC unnoticed."""
    script.expect("sagemaker", "DescribeEndpoint", NAMED, describe())
    wanted = {"ServiceNamespace": "sagemaker", "ScalableDimension": "sagemaker:variant:DesiredInstanceCount"}
    wanted["ResourceIds"] = ["endpoint/viseme/variant/AllTraffic"]
    script.expect("application-autoscaling", "DescribeScalableTargets", wanted, {"ScalableTargets": []})
    script.refuse("sagemaker", "DescribeEndpointConfig", "AccessDeniedException", "no")
    assert main(OURS) == 1
    script.done()
    assert "permission: " in capsys.readouterr().err


def test_the_descriptions_are_those_of_aws(script):
    """botocore validates the answers by AWS's model."""
    expect_running(script, (1, 2), TAGS, {"KmsKeyId": KEY, "DataCaptureConfig": CAPTURE}, VpcConfig=VPC)
    running = RunningVersion.find(script.aws, describe())
    script.done()
    assert (running.kms_key, running.instance_types, running.name) == (KEY, ["ml.g5.xlarge"], OLD)
    assert running.further_config() == {"DataCaptureConfig": CAPTURE}


def test_over_moto(moto):
    sagemaker = boto3.client("sagemaker", region_name=REGION)
    sagemaker.create_model(ModelName=OLD, ExecutionRoleArn=ROLE, PrimaryContainer={"Image": IMAGE}, VpcConfig=VPC)
    variant = {"VariantName": "AllTraffic", "ModelName": OLD, "InstanceType": "ml.c5.xlarge", "InitialInstanceCount": 1}
    sagemaker.create_endpoint_config(
        EndpointConfigName=OLD, ProductionVariants=[variant], KmsKeyId=KEY, DataCaptureConfig=CAPTURE
    )
    sagemaker.create_endpoint(EndpointName="viseme", EndpointConfigName=OLD, Tags=TAGS)
    assert main([*OURS, "--in-place"]) == 0  # moto has no UpdateEndpoint
    config = sagemaker.describe_endpoint_config(EndpointConfigName=NEW)
    assert (config["KmsKeyId"], config["DataCaptureConfig"]) == (KEY, CAPTURE)
    assert config["ProductionVariants"][0]["InstanceType"] == "ml.c5.xlarge"
    assert sagemaker.describe_model(ModelName=NEW)["VpcConfig"] == VPC
    assert sagemaker.list_tags(ResourceArn=config["EndpointConfigArn"])["Tags"] == TAGS
