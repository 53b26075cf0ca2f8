"""The manifest of an image in ECR: SageMaker refuses OCI's, which Docker pushes by default.

Source: aws/amazon-sagemaker-feedback issue 180 (an OCI manifest) and mlflow/mlflow issue 13834 (an OCI index), with
CreateModel's message: "Unsupported manifest media type application/vnd.oci.image.manifest.v1+json for image ...".
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from deploy.aws import Answer, Aws
from deploy.errors import CallFailed, DeployError, WrongRequest

ECR_IMAGE = re.compile(
    r"(?P<account>\d{12})\.dkr\.ecr(?:-fips)?\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(?:\.cn)?"
    r"/(?P<repository>[a-z0-9._/-]+?)(?::(?P<tag>[\w.-]{1,128}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
# Asking for all of them, so that ECR returns the manifest as it is stored.
MEDIA_TYPES = (DOCKER_MANIFEST, DOCKER_LIST, OCI_MANIFEST, OCI_INDEX)
REFUSED = (OCI_MANIFEST, OCI_INDEX)
NOT_FOUND = ("RepositoryNotFoundException", "ImageNotFound")
MAX_MANIFEST_BYTES = 4 << 20  # of ECR, for any manifest


@dataclass(frozen=True)
class EcrImage:
    """An image in ECR, as its URI names it. tag, digest: None if it names none."""

    account: str
    region: str
    repository: str
    tag: str | None
    digest: str | None

    @classmethod
    def parse(cls, uri: str) -> EcrImage | None:
        """Return the parts of a URI; None if it is not one of ECR."""
        found = ECR_IMAGE.fullmatch(uri)
        return cls(**found.groupdict()) if found else None

    @property
    def image_id(self) -> dict[str, str]:
        """What ECR calls an image by."""
        return {"imageDigest": self.digest} if self.digest else {"imageTag": self.tag or "latest"}


@dataclass(frozen=True)
class ImageManifest:
    """What ECR has under a tag. n_bytes: of the layers, compressed; None for a list of manifests."""

    media_type: str
    n_bytes: int | None

    @property
    def fault(self) -> str | None:
        """What makes SageMaker refuse the image; None if nothing is known to."""
        if self.media_type not in REFUSED:
            return None
        return (
            f"its manifest is {self.media_type}, which SageMaker refuses; expected {DOCKER_MANIFEST}: push it with "
            "python -m deploy.image, or build it with docker buildx build --platform linux/amd64 --provenance=false "
            "--sbom=false --output type=image,name=URI,push=true,oci-mediatypes=false"
        )


def read_manifest(aws: Aws, image: EcrImage) -> ImageManifest:
    """Read an image's manifest. Raises: CallFailed; DeployError if there is no such image."""
    answer = aws.call(
        "ecr",
        "BatchGetImage",
        registryId=image.account,
        repositoryName=image.repository,
        imageIds=[image.image_id],
        acceptedMediaTypes=list(MEDIA_TYPES),
    )
    if answer.get("failures"):
        failure = answer["failures"][0]
        code, reason = str(failure.get("failureCode", "")), str(failure.get("failureReason", ""))
        name = f"{image.repository} {' '.join(image.image_id.values())}"
        raise CallFailed(f"image: ecr BatchGetImage: {name} in {image.region}: {code}: {reason}", code, reason)
    if not answer.get("images"):
        raise DeployError(f"ecr BatchGetImage: neither an image nor a failure for {image.repository}")
    return parse_manifest(answer["images"][0])


def parse_manifest(found: Answer) -> ImageManifest:
    """Parse an image of BatchGetImage's answer. Raises: DeployError if its manifest is not JSON."""
    text = str(found.get("imageManifest", ""))
    try:
        contents = json.loads(text) if len(text) <= MAX_MANIFEST_BYTES else None
    except ValueError:
        contents = None
    if not isinstance(contents, dict):
        raise DeployError(f"ecr BatchGetImage: a manifest of {len(text)} characters; expected a JSON object")
    media_type = str(found.get("imageManifestMediaType") or contents.get("mediaType") or "without a media type")
    layers = contents.get("layers")
    sizes = [int(layer["size"]) for layer in layers] if isinstance(layers, list) else None
    return ImageManifest(media_type, sum(sizes) if sizes is not None else None)


def canned_image() -> Answer:
    """Return an answer of BatchGetImage with an image that SageMaker accepts: what a dry run assumes."""
    return {"images": [{"imageManifest": "{}", "imageManifestMediaType": DOCKER_MANIFEST}]}


def check_image(aws: Aws, uri: str, region: str) -> str | None:
    """Look at an image before a model is created with it: CreateModel's own message names no remedy.

    Images outside ECR are not looked at. Returns: a warning if the image cannot be looked at, None if all is well.
    Raises: WrongRequest if SageMaker would refuse the image, it does not exist, or is in another region.
    """
    image = EcrImage.parse(uri)
    if image is None:
        return None
    if image.region != region:
        raise WrongRequest(
            f"--image-uri {uri}: is in {image.region}; expected an image in {region}, the endpoint's region"
        )
    try:
        manifest = read_manifest(aws, image)
    except CallFailed as err:
        if err.code in NOT_FOUND:
            raise WrongRequest(f"--image-uri {uri}: no such image: {err}") from err
        return (
            f"the image's manifest was not checked: {err}"  # the endpoint's role may be allowed what the caller is not
        )
    if manifest.fault:
        raise WrongRequest(f"--image-uri {uri}: {manifest.fault}")
    return None
