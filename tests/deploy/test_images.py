"""Image and driver choices, with expected values worked out by hand."""

from __future__ import annotations

import pytest

from deploy.errors import WrongRequest
from deploy.images import AMIS, ami_warning, choose_ami, cuda_in_tag, has_gpu, stock_image

GPU_3, GPU_4 = "al2-ami-sagemaker-inference-gpu-3-1", "al2023-ami-sagemaker-inference-gpu-4-1"


@pytest.mark.parametrize(
    ("image", "cuda"),
    [
        ("1.dkr.ecr.us-east-1.amazonaws.com/huggingface-pytorch-inference:2.6.0-gpu-py312-cu124-ubuntu22.04", (12, 4)),
        ("r/viseme:1.0-cu130", (13, 0)),
        ("r/viseme:cuda12.8", (12, 8)),
        ("r/viseme:1.0", None),
        ("r/viseme-cu1:latest", None),
        ("r/occult:1", None),
    ],
)
def test_cuda_in_tag(image: str, cuda: tuple[int, int] | None):
    assert cuda_in_tag(image) == cuda


@pytest.mark.parametrize(
    ("image", "instance", "ami"),
    [
        ("r/v:1", "ml.g5.xlarge", GPU_4),  # Viseme's image: torch 2.13 needs CUDA 13
        ("r/v:1-cu124", "ml.g5.xlarge", GPU_3),
        ("r/v:1-cu126", "ml.g6.xlarge", GPU_3),  # the newest driver of CUDA 12
        ("r/v:1-cu129", "ml.g5.xlarge", GPU_3),
        ("r/v:1-cu130", "ml.g5.xlarge", GPU_4),
        ("r/v:1-cu132", "ml.g5.xlarge", GPU_4),
        ("r/v:1-cu118", "ml.p4d.24xlarge", "al2-ami-sagemaker-inference-gpu-2-1"),
        ("r/v:1-cu124", "ml.m5.xlarge", None),
        ("r/v:1", "ml.c7i.2xlarge", None),
    ],
)
def test_the_oldest_sufficient_driver(image: str, instance: str, ami: str | None):
    assert choose_ami(image, instance) == ami


def test_a_major_version_without_a_driver():
    with pytest.raises(WrongRequest, match=r"needs CUDA 14\.0; the newest known driver \(580\) runs 13\.0"):
        choose_ami("r/v:1-cu140", "ml.g5.xlarge")


def test_a_driver_is_too_old_by_what_would_be_chosen():
    assert ami_warning(GPU_3, "r/v:1-cu129") is None
    assert "runs CUDA 12.2; the image needs CUDA 12.4" in str(
        ami_warning("al2-ami-sagemaker-inference-gpu-2-1", "r:cu124")
    )
    assert "the image needs CUDA 13.0" in str(ami_warning(GPU_3, "r/v:1"))


def test_sagemaker_has_these_machine_images():
    from botocore.session import Session

    shape = Session().get_service_model("sagemaker").shape_for("ProductionVariantInferenceAmiVersion")
    assert {ami.name for ami in AMIS} == {name for name in shape.enum if "gpu" in name}


def test_regions_have_accounts_of_their_own():
    assert stock_image("us-west-2", "ml.m5.xlarge") == (
        "763104351884.dkr.ecr.us-west-2.amazonaws.com/huggingface-pytorch-inference:"
        "2.6.0-transformers4.51.3-cpu-py312-ubuntu22.04"
    )
    assert stock_image("eu-south-1", "ml.g5.xlarge").startswith("692866216735.dkr.ecr.eu-south-1.amazonaws.com/")
    assert stock_image("cn-north-1", "ml.g4dn.xlarge").startswith("727897471807.dkr.ecr.cn-north-1.amazonaws.com.cn/")


def test_has_gpu():
    assert has_gpu("ml.g4dn.xlarge")
    assert has_gpu("ml.p5.48xlarge")
    assert not has_gpu("ml.m5.large")
    with pytest.raises(WrongRequest, match="expected a SageMaker type"):
        has_gpu("g5.xlarge")
