"""Chooses the container image, and the machine image with the NVIDIA driver under it.

The table and the tags were taken from the public image tables of the SageMaker Python SDK
(`image_uri_config`) and of Hugging Face's documentation in November 2026. None of these images
has been pulled yet.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from deploy.errors import WrongRequest

STOCK_REPOSITORY = "huggingface-pytorch-inference"
# The newest combination in SageMaker's SDK 2.257. The image contains the toolkit that runs `code/`.
STOCK_PYTORCH, STOCK_TRANSFORMERS, STOCK_PYTHON = "2.6.0", "4.51.3", "py312"
STOCK_TAGS = {
    "gpu": f"{STOCK_PYTORCH}-transformers{STOCK_TRANSFORMERS}-gpu-{STOCK_PYTHON}-cu124-ubuntu22.04",
    "cpu": f"{STOCK_PYTORCH}-transformers{STOCK_TRANSFORMERS}-cpu-{STOCK_PYTHON}-ubuntu22.04",
}

# The account whose registry a region pulls from: most share one, newer and separate regions have their own.
COMMON_ACCOUNT = "763104351884"
ACCOUNTS = {
    "us-east-1": COMMON_ACCOUNT,
    "us-east-2": COMMON_ACCOUNT,
    "us-west-1": COMMON_ACCOUNT,
    "us-west-2": COMMON_ACCOUNT,
    "ca-central-1": COMMON_ACCOUNT,
    "sa-east-1": COMMON_ACCOUNT,
    "eu-central-1": COMMON_ACCOUNT,
    "eu-north-1": COMMON_ACCOUNT,
    "eu-west-1": COMMON_ACCOUNT,
    "eu-west-2": COMMON_ACCOUNT,
    "eu-west-3": COMMON_ACCOUNT,
    "ap-northeast-1": COMMON_ACCOUNT,
    "ap-northeast-2": COMMON_ACCOUNT,
    "ap-south-1": COMMON_ACCOUNT,
    "ap-southeast-1": COMMON_ACCOUNT,
    "ap-southeast-2": COMMON_ACCOUNT,
    "af-south-1": "626614931356",
    "ap-east-1": "871362719292",
    "ap-northeast-3": "364406365360",
    "ap-south-2": "772153158452",
    "ap-southeast-3": "907027046896",
    "ap-southeast-4": "457447274322",
    "ap-southeast-5": "550225433462",
    "ap-southeast-7": "590183813437",
    "ca-west-1": "204538143572",
    "cn-north-1": "727897471807",
    "cn-northwest-1": "727897471807",
    "eu-central-2": "380420809688",
    "eu-south-1": "692866216735",
    "eu-south-2": "503227376785",
    "il-central-1": "780543022126",
    "me-central-1": "914824155844",
    "me-south-1": "217643126080",
    "mx-central-1": "637423239942",
    "us-gov-east-1": "446045086412",
    "us-gov-west-1": "442386744353",
}


@dataclass(frozen=True)
class Ami:
    """A SageMaker machine image: its NVIDIA driver, and the newest CUDA version which that driver runs."""

    name: str
    driver: int
    cuda: tuple[int, int]


# Oldest first. By default ml.g5 gets driver 470 (CUDA 11.4), under which a newer torch hangs or runs on the CPU.
AMIS = (
    Ami("al2-ami-sagemaker-inference-gpu-2", 535, (12, 2)),
    Ami("al2-ami-sagemaker-inference-gpu-2-1", 535, (12, 2)),
    Ami("al2-ami-sagemaker-inference-gpu-3-1", 550, (12, 4)),
    Ami("al2023-ami-sagemaker-inference-gpu-4-1", 580, (13, 0)),
)
# Of Viseme's image: torch 2.13 from the public index. A version in the image's tag overrides it.
DEFAULT_CUDA = (13, 0)
CUDA_TAG_PATTERN = re.compile(r"[:\-_.]cu(?:da)?(\d{2})\.?(\d)(?=\D|$)")
GPU_FAMILY_PATTERN = re.compile(r"ml\.(g\d|p\d)")
INSTANCE_TYPE_PATTERN = re.compile(r"ml\.[a-z0-9-]+\.[a-z0-9-]+")


def has_gpu(instance_type: str) -> bool:
    """Return whether the instance type has an NVIDIA GPU. Raises: WrongRequest if it is not a SageMaker type."""
    if not INSTANCE_TYPE_PATTERN.fullmatch(instance_type):
        raise WrongRequest(f"--instance-type {instance_type}: expected a SageMaker type such as ml.g5.xlarge")
    return GPU_FAMILY_PATTERN.match(instance_type) is not None


def stock_image(region: str, instance_type: str) -> str:
    """Return the region's Hugging Face PyTorch inference image, for GPU or CPU as the instance type needs.

    Raises: WrongRequest if the region is not in the table.
    """
    account = ACCOUNTS.get(region)
    if account is None:
        raise WrongRequest(
            f"--region {region}: no Hugging Face image is known in this region; build an image for --image-uri"
        )
    domain = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    tag = STOCK_TAGS["gpu" if has_gpu(instance_type) else "cpu"]
    return f"{account}.dkr.ecr.{region}.{domain}/{STOCK_REPOSITORY}:{tag}"


def is_stock_image(image_uri: str) -> bool:
    return image_uri.partition("/")[2].startswith(f"{STOCK_REPOSITORY}:")


def choose_ami(image_uri: str, instance_type: str) -> str | None:
    """Return the oldest machine image whose driver runs the image's CUDA; None if the instance has no GPU.

    The CUDA version is read from the image's tag (cu124: 12.4); a tag without one is treated as Viseme's own image.
    Raises: WrongRequest if no known driver is new enough.
    """
    if not has_gpu(instance_type):
        return None
    required = cuda_in_tag(image_uri) or DEFAULT_CUDA
    # The -1 images do not mount their CUDA libraries into the container.
    fitting = [ami for ami in AMIS if ami.cuda >= needed_cuda(required) and ami.name.endswith("-1")]
    if not fitting:
        newest = AMIS[-1]
        raise WrongRequest(
            f"{image_uri}: needs CUDA {format_version(required)}; the newest known driver ({newest.driver}) runs "
            f"{format_version(newest.cuda)}; choose a newer machine image with --inference-ami-version"
        )
    return fitting[0].name


def needed_cuda(required: tuple[int, int]) -> tuple[int, int]:
    """Return the CUDA version that the driver must run for an image of this version.

    That is the image's own version, since code compiled at run time needs it, or the newest one of its major version
    that a driver in the table runs: a driver runs all newer minor versions, and containers of CUDA 12.9 were found to
    hang in Creating under the machine image for CUDA 13 (aws/deep-learning-containers, pull request 6187).
    """
    newest = max((ami.cuda for ami in AMIS if ami.cuda[0] == required[0]), default=required)
    return min(required, newest)


def ami_warning(name: str, image_uri: str) -> str | None:
    """Return a warning if a machine image's driver is too old for the container image; None if not, or unknown."""
    required = cuda_in_tag(image_uri) or DEFAULT_CUDA
    known = next((ami for ami in AMIS if ami.name == name), None)
    if known is None or known.cuda >= needed_cuda(required):
        return None
    return (
        f"{name} has NVIDIA driver {known.driver}, which runs CUDA {format_version(known.cuda)}; the image needs CUDA "
        f"{format_version(required)} and may hang in Creating or run on the CPU"
    )


def cuda_in_tag(image_uri: str) -> tuple[int, int] | None:
    """Return the CUDA version in an image's tag; None if there is none."""
    tag = image_uri.rpartition("/")[2]
    found = CUDA_TAG_PATTERN.search(tag)
    return (int(found[1]), int(found[2])) if found else None


def format_version(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"
