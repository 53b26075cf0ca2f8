"""Manifests in ECR. Source of what SageMaker refuses: see deploy/image_manifest.py.

moto's ECR stores what is put; it does not implement `acceptedMediaTypes`, which is checked with botocore's Stubber.
"""

from __future__ import annotations

import json

import boto3
import pytest

from deploy import endpoint
from deploy.aws import BotoAws
from deploy.diagnostics import find_cause
from deploy.errors import DeployError, WrongRequest
from deploy.image_manifest import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    MEDIA_TYPES,
    OCI_INDEX,
    OCI_MANIFEST,
    EcrImage,
    check_image,
    parse_manifest,
    read_manifest,
)

REGION = "us-east-1"
REGISTRY = "123456789012.dkr.ecr.us-east-1.amazonaws.com"  # of moto's account
URI = f"{REGISTRY}/viseme:1.0"
DIGEST = "sha256:" + "0123456789abcdef" * 4


def manifest(media_type: str) -> str:
    """Return a manifest with two layers of 300 and 45 bytes."""
    layers = [{"mediaType": "layer", "size": size, "digest": DIGEST} for size in (300, 45)]
    config = {"mediaType": "config", "size": 7, "digest": DIGEST}
    return json.dumps({"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": layers})


def put(media_type: str) -> None:
    ecr = boto3.client("ecr", region_name=REGION)
    ecr.create_repository(repositoryName="viseme")
    text = manifest(media_type)
    ecr.put_image(repositoryName="viseme", imageManifest=text, imageManifestMediaType=media_type, imageTag="1.0")


@pytest.mark.parametrize(
    ("uri", "found"),
    [
        (URI, EcrImage("123456789012", REGION, "viseme", "1.0", None)),
        (f"{REGISTRY}/team/viseme", EcrImage("123456789012", REGION, "team/viseme", None, None)),
        (f"{REGISTRY}/viseme@{DIGEST}", EcrImage("123456789012", REGION, "viseme", None, DIGEST)),
        (
            f"123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn/v:1.0-gpu@{DIGEST}",
            EcrImage("123456789012", "cn-north-1", "v", "1.0-gpu", DIGEST),
        ),
        ("registry.example.com/viseme:1.0", None),
        (f"x{URI}", None),
        (f"{REGISTRY}/", None),
    ],
)
def test_an_image_s_uri(uri: str, found: EcrImage | None):
    assert EcrImage.parse(uri) == found


@pytest.mark.usefixtures("moto")
def test_docker_s_manifest_is_accepted():
    put(DOCKER_MANIFEST)
    assert check_image(BotoAws(REGION), URI, REGION) is None
    image = EcrImage.parse(URI)
    assert image is not None
    found = read_manifest(BotoAws(REGION), image)
    assert (found.media_type, found.n_bytes, found.fault) == (DOCKER_MANIFEST, 345, None)


@pytest.mark.usefixtures("moto")
@pytest.mark.parametrize("media_type", [OCI_MANIFEST, OCI_INDEX])
def test_oci_s_manifests_are_refused(media_type: str):
    put(media_type)
    with pytest.raises(WrongRequest, match=r"--provenance=false") as caught:
        check_image(BotoAws(REGION), URI, REGION)
    assert f"its manifest is {media_type}, which SageMaker refuses; expected {DOCKER_MANIFEST}" in str(caught.value)
    assert "python -m deploy.image" in str(caught.value)


@pytest.mark.usefixtures("moto")
def test_an_image_that_does_not_exist():
    with pytest.raises(WrongRequest, match=r"no such image: .*RepositoryNotFoundException"):
        check_image(BotoAws(REGION), URI, REGION)
    put(DOCKER_MANIFEST)
    with pytest.raises(WrongRequest, match=r"no such image: .*viseme 2\.0 in us-east-1: ImageNotFound"):
        check_image(BotoAws(REGION), f"{REGISTRY}/viseme:2.0", REGION)


def test_another_region_is_refused_without_a_call(script):
    with pytest.raises(WrongRequest, match="is in us-east-1; expected an image in eu-west-1"):
        check_image(script.aws, URI, "eu-west-1")


def test_images_elsewhere_are_not_looked_at(script):
    assert check_image(script.aws, "registry.example.com/viseme:1", REGION) is None


def test_all_media_types_are_accepted(script):
    """Otherwise ECR may convert a manifest to another type than the one that is stored."""
    script.expect(
        "ecr",
        "BatchGetImage",
        {
            "registryId": "123456789012",
            "repositoryName": "viseme",
            "imageIds": [{"imageDigest": DIGEST}],
            "acceptedMediaTypes": list(MEDIA_TYPES),
        },
        {"images": [{"imageManifest": manifest(DOCKER_LIST), "imageManifestMediaType": DOCKER_LIST}]},
    )
    assert check_image(script.aws, f"{REGISTRY}/viseme@{DIGEST}", REGION) is None
    script.done()


def test_a_caller_who_may_not_look_is_warned(script):
    script.refuse("ecr", "BatchGetImage", "AccessDeniedException", "not authorized to perform: ecr:BatchGetImage")
    warning = check_image(script.aws, URI, REGION)
    assert warning is not None
    assert warning.startswith("the image's manifest was not checked: permission: ecr BatchGetImage")


@pytest.mark.parametrize("text", ["", "{", "[]", " " * ((4 << 20) + 1)])
def test_a_manifest_that_is_none(text: str):
    with pytest.raises(DeployError, match="expected a JSON object"):
        parse_manifest({"imageManifest": text})


def test_a_list_of_manifests_has_no_size():
    found = parse_manifest({"imageManifest": json.dumps({"mediaType": DOCKER_LIST, "manifests": []})})
    assert (found.media_type, found.n_bytes) == (DOCKER_LIST, None)


def test_createmodel_s_own_message_is_recognised():
    """Its words as in aws/amazon-sagemaker-feedback issue 180."""
    cause = find_cause(
        f"Unsupported manifest media type {OCI_MANIFEST} for image {URI}. Ensure that valid manifest ..."
    )
    assert cause is not None
    assert cause.name == "manifest"
    assert "deploy.image" in cause.advice


ENDPOINT = ["--endpoint-name", "viseme", "--role-arn", "arn:aws:iam::123456789012:role/SageMaker", "--region", REGION]


@pytest.mark.usefixtures("moto")
@pytest.mark.parametrize("update", [[], ["--update"]])
def test_an_endpoint_is_not_created_with_such_an_image(monkeypatch, capsys, update: list[str]):
    monkeypatch.setattr(endpoint, "check_image", check_image)
    put(OCI_INDEX)
    assert endpoint.main([*ENDPOINT, "--image-uri", URI, *update]) == 2
    assert f"--image-uri {URI}: its manifest is {OCI_INDEX}" in capsys.readouterr().err
    assert boto3.client("sagemaker", region_name=REGION).list_models()["Models"] == []


def test_a_dry_run_looks_first(monkeypatch, capsys):
    monkeypatch.setattr(endpoint, "check_image", check_image)
    assert endpoint.main([*ENDPOINT, "--image-uri", URI, "--dry-run"]) == 0
    calls = [json.loads(line)["operation"] for line in capsys.readouterr().out.splitlines()]
    assert calls.index("BatchGetImage") < calls.index("CreateModel")
