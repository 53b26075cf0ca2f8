"""Which image, and which driver under it.

The table and the tags were taken from the public image tables of the SageMaker Python SDK
(`image_uri_config`) and of Hugging Face's documentation in November 2026. Nobody here has pulled
any of these images.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from deploy.errors import WrongRequest

STOCK_REPOSITORY = "huggingface-pytorch-inference"
# The newest that SageMaker's SDK 2.257 knows by these three. It has the toolkit that runs `code/`.
STOCK_PYTORCH, STOCK_TRANSFORMERS, STOCK_PYTHON = "2.6.0", "4.51.3", "py312"
STOCK_TAGS = {
    "gpu": f"{STOCK_PYTORCH}-transformers{STOCK_TRANSFORMERS}-gpu-{STOCK_PYTHON}-cu124-ubuntu22.04",
    "cpu": f"{STOCK_PYTORCH}-transformers{STOCK_TRANSFORMERS}-cpu-{STOCK_PYTHON}-ubuntu22.04",
}

# Whose registry a region pulls from: most share one account, newer and separate regions have their own.
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
    """A machine image of SageMaker's: the NVIDIA driver, and the newest CUDA that it carries."""

    name: str
    driver: int
    cuda: tuple[int, int]


# Oldest first. Without any, ml.g5 gets driver 470 (CUDA 11.4), under which a newer torch hangs or runs on the CPU.
AMIS = (
    Ami("al2-ami-sagemaker-inference-gpu-2", 535, (12, 2)),
    Ami("al2-ami-sagemaker-inference-gpu-2-1", 535, (12, 2)),
    Ami("al2-ami-sagemaker-inference-gpu-3-1", 550, (12, 4)),
    Ami("al2023-ami-sagemaker-inference-gpu-4-1", 580, (13, 0)),
)
OUR_CUDA = (13, 0)  # torch 2.13 from the public index; an image whose tag says otherwise is believed
CUDA_IN_TAG = re.compile(r"[:\-_.]cu(?:da)?(\d{2})\.?(\d)(?=\D|$)")
GPU_FAMILIES = re.compile(r"ml\.(g\d|p\d)")
INSTANCE_TYPE = re.compile(r"ml\.[a-z0-9-]+\.[a-z0-9-]+")


def has_gpu(instance_type: str) -> bool:
    """Raises: WrongRequest for what is no instance type of SageMaker's."""
    if not INSTANCE_TYPE.fullmatch(instance_type):
        raise WrongRequest(f"--instance-type {instance_type}: expected one of SageMaker's, such as ml.g5.xlarge")
    return GPU_FAMILIES.match(instance_type) is not None


def stock_image(region: str, instance_type: str) -> str:
    """The Hugging Face PyTorch inference image of that region, for a GPU where the instance has one.

    Raises: WrongRequest for a region that the table does not hold.
    """
    account = ACCOUNTS.get(region)
    if account is None:
        raise WrongRequest(
            f"--region {region}: no Hugging Face image is known there; build ours and name it with --image-uri"
        )
    domain = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    tag = STOCK_TAGS["gpu" if has_gpu(instance_type) else "cpu"]
    return f"{account}.dkr.ecr.{region}.{domain}/{STOCK_REPOSITORY}:{tag}"


def choose_ami(image_uri: str, instance_type: str) -> str | None:
    """The oldest machine image whose driver runs the image's CUDA; None where there is no GPU.

    The image's CUDA is read from its tag (cu124: 12.4); a tag that says nothing is taken for our own image.
    Raises: WrongRequest where no known driver is new enough.
    """
    if not has_gpu(instance_type):
        return None
    wanted = cuda_of(image_uri) or OUR_CUDA
    # Within a major version older drivers run newer CUDA, but for what is compiled at run time: so at least the
    # image's own minor version is asked for. The -1 images mount no CUDA libraries of theirs into the container.
    fitting = [ami for ami in AMIS if ami.cuda >= wanted and ami.name.endswith("-1")]
    if not fitting:
        newest = AMIS[-1]
        raise WrongRequest(
            f"{image_uri}: needs CUDA {dotted(wanted)}; the newest known driver ({newest.driver}) runs "
            f"{dotted(newest.cuda)}; name a newer one with --inference-ami-version"
        )
    return fitting[0].name


def doubt_ami(name: str, image_uri: str) -> str | None:
    """What speaks against a machine image that was asked for by name; None where nothing is known against it."""
    wanted = cuda_of(image_uri) or OUR_CUDA
    known = next((ami for ami in AMIS if ami.name == name), None)
    if known is None or known.cuda >= wanted:
        return None
    return (
        f"{name} has NVIDIA driver {known.driver}, which runs CUDA {dotted(known.cuda)}; the image is one of CUDA "
        f"{dotted(wanted)} and may hang in Creating or run on the CPU"
    )


def cuda_of(image_uri: str) -> tuple[int, int] | None:
    """The CUDA version that an image's tag names."""
    tag = image_uri.rpartition("/")[2]
    found = CUDA_IN_TAG.search(tag)
    return (int(found[1]), int(found[2])) if found else None


def dotted(cuda: tuple[int, int]) -> str:
    return f"{cuda[0]}.{cuda[1]}"
