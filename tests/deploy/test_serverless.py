"""Serverless endpoints: what AWS documents for them, and nothing that it excludes."""

from __future__ import annotations

import json

import pytest
from support.endpoint_calls import IMAGE, NAMED, NEW, OLD, ROLE, describe

from deploy.endpoint import main

SERVERLESS = ["--endpoint-name", "viseme", "--role-arn", ROLE, "--image-uri", IMAGE, "--mode", "serverless"]


def dry_run(capsys: pytest.CaptureFixture[str], *flags: str) -> list[dict]:
    assert main([*SERVERLESS, *flags, "--dry-run"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_it_has_no_instances(capsys: pytest.CaptureFixture[str]):
    lines = dry_run(capsys, "--memory-mb", "4096", "--max-concurrency", "20")
    [config] = [one["parameters"] for one in lines if one["operation"] == "CreateEndpointConfig"]
    [variant] = config["ProductionVariants"]
    assert variant == {
        "VariantName": "AllTraffic",
        "ModelName": variant["ModelName"],
        "ServerlessConfig": {"MemorySizeInMB": 4096, "MaxConcurrency": 20},
    }
    [model] = [one["parameters"] for one in lines if one["operation"] == "CreateModel"]
    assert model["PrimaryContainer"]["Environment"] == {"SAGEMAKER_MODEL_SERVER_WORKERS": "1"}
    made = [one["operation"] for one in lines]
    assert made.count("InvokeEndpoint") == 2  # the smoke test works as in real time
    assert "RegisterScalableTarget" not in made


def test_an_update_has_no_second_fleet(capsys: pytest.CaptureFixture[str]):
    lines = dry_run(capsys, "--update")
    [update] = [one["parameters"] for one in lines if one["operation"] == "UpdateEndpoint"]
    assert set(update) == {"EndpointName", "EndpointConfigName"}
    assert "PutMetricAlarm" not in [one["operation"] for one in lines]


def test_an_endpoint_with_instances_does_not_become_serverless(script, capsys: pytest.CaptureFixture[str]):
    script.expect("sagemaker", "DescribeEndpoint", NAMED, describe())
    assert main([*SERVERLESS, "--update"]) == 2
    assert "viseme: is realtime and cannot become serverless" in capsys.readouterr().err
    size = {"MemorySizeInMB": 6144, "MaxConcurrency": 5}
    variants = [{"VariantName": "AllTraffic", "CurrentServerlessConfig": size}]
    script.expect("sagemaker", "DescribeEndpoint", NAMED, describe(ProductionVariants=variants))
    assert main([*SERVERLESS[:-2], "--update"]) == 2
    assert "viseme: is serverless and cannot become realtime" in capsys.readouterr().err
    assert NEW != OLD


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--instance-type", "ml.c7i.xlarge"], "--instance-type: a serverless endpoint has no instances"),
        (["--min-capacity", "0"], "--min-capacity"),
        (["--subnet", "subnet-1", "--security-group", "sg-1"], "SageMaker excludes a VPC and network isolation"),
        (["--network-isolation"], "SageMaker excludes a VPC and network isolation"),
        (["--async-output", "s3://videos/results"], "--async-output: requires --mode async"),
        (["--max-concurrency", "201"], "--max-concurrency 201: expected 1 to 200"),
        (["--update", "--in-place"], "--in-place: a serverless endpoint has no instances"),
    ],
)
def test_what_aws_excludes(capsys: pytest.CaptureFixture[str], flags: list[str], message: str):
    assert main([*SERVERLESS, *flags]) == 2
    assert message in capsys.readouterr().err


def test_it_needs_the_image_for_cpus(capsys: pytest.CaptureFixture[str]):
    assert main([*SERVERLESS[:4], "--mode", "serverless"]) == 2
    assert "--mode serverless: needs --image-uri" in capsys.readouterr().err


def test_its_options_need_the_mode(capsys: pytest.CaptureFixture[str]):
    assert main([*SERVERLESS[:-2], "--memory-mb", "2048"]) == 2
    assert "--memory-mb: requires --mode serverless" in capsys.readouterr().err
