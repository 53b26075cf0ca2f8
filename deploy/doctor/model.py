"""An endpoint's image, the driver under it, and its archive."""

from __future__ import annotations

from collections.abc import Iterator

from deploy.aws_requests import AUTO_WORKERS, WORKERS_VARIABLE
from deploy.doctor.findings import Finding, failure, not_checked, ok, warning
from deploy.doctor.read_only_aws import ReadOnlyAws
from deploy.doctor.version import EndpointVersion
from deploy.errors import CallFailed
from deploy.image_manifest import NOT_FOUND, EcrImage, read_manifest
from deploy.images import STOCK_REPOSITORY, ami_warning, has_gpu
from deploy.storage import split_uri

IMAGE, DRIVER, MODEL_DATA, SERVER = "image", "driver", "model data", "server settings"
RESPONSE_SIZE = "MMS_MAX_RESPONSE_SIZE"  # of the stock image's server, whose default is 6.5 MB
MISSING_OBJECT_CODES = ("404", "NoSuchKey", "NotFound", "NoSuchBucket")


def check_image(aws: ReadOnlyAws, version: EndpointVersion) -> Iterator[Finding]:
    """Read the image's manifest: new instances pull it. Raises: CallFailed, DeployError."""
    version.require_model()
    uri, image = version.image_uri, EcrImage.parse(version.image_uri)
    if image is None:
        yield not_checked(IMAGE, f"{uri} is not in ECR")
        return
    try:
        manifest = read_manifest(aws, image)
    except CallFailed as err:
        if err.code not in NOT_FOUND:
            raise
        yield failure(IMAGE, f"{uri}: {err.code}", "push it again: new instances cannot start without it")
        return
    size = "" if manifest.n_bytes is None else f", {manifest.n_bytes / 1e9:.1f} GB compressed"
    if manifest.fault:
        yield failure(IMAGE, f"{uri}: {manifest.fault}", "then run python -m deploy.endpoint --update")
    else:
        yield ok(IMAGE, f"{manifest.media_type}{size}")


def check_driver(_aws: ReadOnlyAws, version: EndpointVersion) -> Iterator[Finding]:
    """Compare the driver of the machine image with the CUDA of the container's. Raises: DeployError."""
    version.require_model()
    if not any(has_gpu(one) for one in version.instance_types):
        yield ok(DRIVER, "none is needed: no instance has a GPU")
        return
    ami = version.variant.get("InferenceAmiVersion")
    fix = "python -m deploy.endpoint --update chooses a machine image that fits"
    if not ami:
        yield warning(DRIVER, "no machine image is chosen, and the default's driver may be too old", fix)
        return
    fault = ami_warning(ami, version.image_uri)
    yield failure(DRIVER, fault, fix) if fault else ok(DRIVER, ami)


def check_model_data(aws: ReadOnlyAws, version: EndpointVersion) -> Iterator[Finding]:
    """Look for the archive in S3: new instances download it. Raises: CallFailed, DeployError."""
    version.require_model()
    uri = version.model_data
    if not uri:
        yield ok(MODEL_DATA, "none: all is in the image")
        return
    bucket, key = split_uri(uri)
    try:
        found = aws.call("s3", "HeadObject", Bucket=bucket, Key=key)
    except CallFailed as err:
        if err.code not in MISSING_OBJECT_CODES:
            raise
        yield failure(MODEL_DATA, f"{uri} does not exist", "deploy again: new instances cannot start without it")
        return
    yield ok(MODEL_DATA, f"{uri}, {found['ContentLength'] / 1e6:.1f} MB")


def check_server(_aws: ReadOnlyAws, version: EndpointVersion) -> Iterator[Finding]:
    """Check the settings of the container's server against the endpoint's. Raises: DeployError."""
    version.require_model()
    environment = version.container.get("Environment", {})
    fix = "python -m deploy.endpoint --update sets it"
    faults = []
    if f"/{STOCK_REPOSITORY}:" in version.image_uri and RESPONSE_SIZE not in environment:
        faults.append(warning(SERVER, f"{RESPONSE_SIZE} is not set: answers over 6.5 MB are lost", fix))
    workers = environment.get(WORKERS_VARIABLE, "1")
    n_at_once = version.async_config.get("ClientConfig", {}).get("MaxConcurrentInvocationsPerInstance")
    if n_at_once is not None and workers.isdecimal() and n_at_once < int(workers):
        found = f"SageMaker sends {n_at_once} asynchronous requests at once to {workers} workers"
        faults.append(warning(SERVER, found, f"the others are idle: {fix}"))
    shown = "as many workers as the container counts" if workers == AUTO_WORKERS else f"{workers} workers"
    yield from faults or [ok(SERVER, f"{shown} in each container")]
