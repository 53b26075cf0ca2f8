"""deploy.huggingface_model makes the same calls as deploy.endpoint, with SageMaker's own SDK."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from deploy import huggingface_model
from deploy.images import ACCOUNTS, STOCK_PYTORCH, STOCK_TRANSFORMERS

ROOT = Path(__file__).parents[2]
ROLE = "arn:aws:iam::123456789012:role/SageMaker"
ARGUMENTS = ["--endpoint-name", "viseme", "--role-arn", ROLE, "--region", "eu-west-1"]
ARGUMENTS += ["--model-data", "s3://models/viseme/model.tar.gz"]
VERSION = "viseme-v20261120131500"
LOG_CALLS = ("CreateLogGroup", "PutRetentionPolicy")


def record(python: Path, folder: Path, module: str, *arguments: str) -> dict[str, dict[str, Any]]:
    """Return the calls that a command makes, by operation. Each creating call is made once; two requests are sent."""
    calls = folder / f"{module}.json"
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    env |= {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_EC2_METADATA_DISABLED": "true"}
    command = [str(python), str(Path(__file__).with_name("sdk_run.py")), str(calls), module, *ARGUMENTS, *arguments]
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=env, cwd=folder, timeout=120)
    assert run.returncode == 0, run.stderr
    assert "in service" in run.stderr
    made = json.loads(calls.read_text())
    of_log = LOG_CALLS if module == "deploy.endpoint" else ()  # the SDK makes none
    assert [one["operation"] for one in made] == [
        "DescribeEndpoint",
        "CreateModel",
        "CreateEndpointConfig",
        *of_log,
        "CreateEndpoint",
        "DescribeEndpoint",
        "InvokeEndpoint",
        "InvokeEndpoint",
        "FilterLogEvents",
    ]
    return {one["operation"]: one["parameters"] for one in made}


@pytest.mark.parametrize("instance_type", ["ml.g5.xlarge", "ml.m5.xlarge"])
def test_its_calls_equal_those_of_the_boto3_path(sdk_python: Path, tmp_path: Path, instance_type: str):
    arguments = ["--instance-type", instance_type, "--env", "VISEME_QUEUE_SIZE=4"]
    ours = record(sdk_python, tmp_path, "deploy.endpoint", *arguments)
    theirs = record(sdk_python, tmp_path, "deploy.huggingface_model", *arguments)
    # Differences that the SDK introduces, all harmless. Everything else must be equal.
    expected = {name: one for name, one in copy.deepcopy(ours).items() if name not in LOG_CALLS}
    environment = expected["CreateModel"]["PrimaryContainer"]["Environment"]
    environment |= {"SAGEMAKER_CONTAINER_LOG_LEVEL": "20", "SAGEMAKER_REGION": "eu-west-1"}
    expected["CreateEndpointConfig"]["ProductionVariants"][0]["InitialVariantWeight"] = 1  # AWS's default
    expected["CreateEndpointConfig"]["EndpointConfigName"] = "viseme"  # the SDK names it after the endpoint
    expected["CreateEndpoint"] |= {"EndpointConfigName": "viseme", "Tags": []}
    assert theirs == expected
    # Guard against both being empty.
    [variant] = theirs["CreateEndpointConfig"]["ProductionVariants"]
    assert (variant["ModelName"], variant["ContainerStartupHealthCheckTimeoutInSeconds"]) == (VERSION, 900)
    assert ("InferenceAmiVersion" in variant) == (instance_type == "ml.g5.xlarge")
    assert theirs["CreateModel"]["PrimaryContainer"]["ModelDataUrl"] == "s3://models/viseme/model.tar.gz"


def test_the_sdk_has_the_same_images(sdk_python: Path):
    """Compare regions and accounts of the stock image with the SDK's own table, without isolated regions."""
    [table] = sdk_python.parents[1].glob("lib/python*/site-packages/sagemaker/image_uri_config/huggingface.json")
    versions = json.loads(table.read_text())["inference"]["versions"]
    assert list(versions)[-1] == STOCK_TRANSFORMERS
    theirs = versions[STOCK_TRANSFORMERS][f"pytorch{STOCK_PYTORCH}"]["registries"]
    theirs = {region: account for region, account in theirs.items() if not region.startswith("us-iso")}
    assert len(theirs) > 25
    assert {region: ACCOUNTS.get(region) for region in theirs} == theirs


def test_the_extra_can_be_installed_beside_ours(sdk_python: Path, tmp_path: Path):
    """Resolve it with requirements.txt, without changing anything pinned there."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run"]
    command += [
        "--report",
        str(tmp_path / "report.json"),
        "-r",
        str(ROOT / "requirements.txt"),
        *extras["sagemaker-sdk"],
    ]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert run.returncode == 0, run.stderr
    found = json.loads((tmp_path / "report.json").read_text())["install"]
    chosen = {one["metadata"]["name"].lower(): one["metadata"]["version"] for one in found}
    pinned = set(re.findall(r"^([\w-]+)==", (ROOT / "requirements.txt").read_text(), re.MULTILINE))
    assert "torch" in pinned
    assert not pinned & set(chosen)
    assert chosen["sagemaker"].startswith("2.")


@pytest.mark.parametrize("missing", ["sagemaker", "sagemaker.huggingface"])
def test_without_the_sdk_or_with_its_third_version(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], missing: str
):
    monkeypatch.setitem(sys.modules, "sagemaker", type(sys)("sagemaker"))
    monkeypatch.setitem(sys.modules, missing, None)
    assert huggingface_model.main(ARGUMENTS) == 2
    assert "pip install '.[sagemaker-sdk]'" in (err := capsys.readouterr().err)
    assert len(err.splitlines()) == 1


def test_an_existing_endpoint_is_not_created_again(
    script, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(huggingface_model, "import_sdk", lambda: None)
    monkeypatch.setattr(huggingface_model, "BotoAws", lambda region: script.aws)
    found = {"EndpointName": "viseme", "EndpointArn": "arn:aws:sagemaker:eu-west-1:1:endpoint/x"}
    dates = {"CreationTime": 0, "LastModifiedTime": 0}
    script.expect(
        "sagemaker", "DescribeEndpoint", {"EndpointName": "viseme"}, found | dates | {"EndpointStatus": "Failed"}
    )
    assert huggingface_model.main(ARGUMENTS) == 2
    assert "already exists (Failed)" in capsys.readouterr().err
