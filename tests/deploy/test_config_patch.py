"""--endpoint-config-json: the rule of RFC 7396, and what it may not change."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.endpoint_calls import OURS

from deploy.config_patch import merge
from deploy.endpoint import main


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [  # from RFC 7396, appendix A
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ],
)
def test_merging(target: object, patch: object, result: object):
    assert merge(target, patch) == result


@pytest.fixture
def patched(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Return a function: what a dry run with a patch exits with, prints, and configures."""

    def run(patch: object, *flags: str) -> tuple[int, str, dict]:
        path = tmp_path / "patch.json"
        path.write_text(patch if isinstance(patch, str) else json.dumps(patch))
        status = main([*OURS, "--endpoint-config-json", str(path), *flags, "--dry-run"])
        printed = capsys.readouterr()
        lines = [json.loads(line) for line in printed.out.splitlines()]
        configs = [one["parameters"] for one in lines if one["operation"] == "CreateEndpointConfig"]
        return status, printed.err, configs[0] if configs else {}

    return run


def test_it_is_merged_last(patched):
    capture = {
        "InitialSamplingPercentage": 10,
        "DestinationS3Uri": "s3://videos/capture",
        "CaptureOptions": [{"CaptureMode": "Input"}],
    }
    routing = {"RoutingConfig": {"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"}, "VolumeSizeInGB": 50}
    patch = {"DataCaptureConfig": capture, "KmsKeyId": None}
    patch["ProductionVariants"] = [routing | {"ModelDataDownloadTimeoutInSeconds": None, "InitialInstanceCount": 2}]
    status, _, config = patched(patch, "--kms-key", "alias/viseme")
    assert status == 0
    assert config["DataCaptureConfig"] == capture
    assert "KmsKeyId" not in config  # removed, although an option sets it
    [variant] = config["ProductionVariants"]
    assert routing.items() <= variant.items()
    assert variant["InitialInstanceCount"] == 2
    assert "ModelDataDownloadTimeoutInSeconds" not in variant
    assert variant["InstanceType"] == "ml.g5.xlarge"  # untouched


@pytest.mark.parametrize(
    ("patch", "message"),
    [
        ("{", "not JSON"),
        ("[]", "expected a JSON object of at most 1048576 bytes"),
        ({"EndpointConfigName": "x"}, "EndpointConfigName: this name is the command's own"),
        ({"ProductionVariants": [{"VariantName": "x"}]}, "VariantName: this name is the command's own"),
        ({"ProductionVariants": [{}, {}]}, "expected a list with one object"),
        ({"AsyncInferenceConfig": {"OutputConfig": {}}}, "are chosen by --mode"),
        ({"ProductionVariants": [{"ServerlessConfig": {}}]}, "are chosen by --mode"),
        ({"KmsKeyIdd": "x"}, "KmsKeyIdd"),  # botocore's model has no such parameter
        ({"ProductionVariants": [{"VolumeSizeInGB": "50"}]}, "VolumeSizeInGB"),
        ({"ProductionVariants": [{"InitialInstanceCount": 0}]}, "InitialInstanceCount"),
    ],
)
def test_what_is_refused_before_any_call(patched, patch: object, message: str):
    status, err, config = patched(patch)
    assert status == 2
    assert message in err
    assert config == {}


def test_a_file_that_does_not_exist(capsys: pytest.CaptureFixture[str]):
    assert main([*OURS, "--endpoint-config-json", "/nonexistent.json"]) == 2
    assert "/nonexistent.json: No such file" in capsys.readouterr().err
