"""The table of instance types, the number of workers, and several types for one endpoint."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import moto
import pytest
from support.endpoint_calls import OURS

from deploy.endpoint import main
from deploy.errors import WrongRequest
from deploy.instances import (
    FAMILIES,
    LOCAL_DISK_FAMILIES,
    SIZES,
    count_concurrent_requests,
    count_workers,
    find_hardware,
    has_local_disk,
    split_types,
)

# What EC2's DescribeInstanceTypes answered, as moto contains it.
EC2 = json.loads(gzip.decompress((Path(moto.__file__).parent / "ec2/resources/instance_types.json.gz").read_bytes()))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_hardware_is_as_ec2_describes_it(family: str):
    known = [size for size in SIZES if f"{family}.{size}" in EC2]
    assert "xlarge" in known
    for size in known:
        found, described = find_hardware(f"ml.{family}.{size}"), EC2[f"{family}.{size}"]
        [gpu] = described.get("GpuInfo", {}).get("Gpus", [{"MemoryInfo": {"SizeInMiB": 0}}])
        assert found is not None
        assert found.cpus == described["VCpuInfo"]["DefaultVCpus"]
        assert found.memory_gib == described["MemoryInfo"]["SizeInMiB"] / 1024
        assert found.gpu_memory_gib == gpu["MemoryInfo"]["SizeInMiB"] // 1024


def test_local_disks_are_as_ec2_describes_them():
    families = {name.partition(".")[0]: one["InstanceStorageSupported"] for name, one in EC2.items()}
    for family in {*FAMILIES, *LOCAL_DISK_FAMILIES}:
        assert has_local_disk(f"ml.{family}.xlarge") == families[family]


@pytest.mark.parametrize(
    ("types", "workers"),
    [
        (["ml.g5.xlarge"], 3),  # of 4 CPUs one is left
        (["ml.g5.2xlarge"], 7),
        (["ml.g5.16xlarge"], 7),  # by its GPU memory, 22 GiB
        (["ml.g4dn.xlarge"], 3),
        (["ml.c7i.large"], 1),
        (["ml.c7i.xlarge"], 2),
        (["ml.c7i.4xlarge"], 8),
        (["ml.g5.2xlarge", "ml.g4dn.xlarge"], 3),  # the configuration is one: each type must carry it
        (["ml.x9.xlarge"], 1),  # unknown
    ],
)
def test_workers_fit_into_cpus_and_memory(types: list[str], workers: int):
    assert count_workers(types) == workers


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ml.g5.xlarge,ml.c7i.xlarge", "some have a GPU and some have none"),
        ("ml.g5.xlarge,ml.g5.xlarge", "a type occurs twice"),
        ("ml.g5.xlarge,", "expected types separated by commas"),
        (",".join(f"ml.g5.{size}xlarge" for size in ("", 2, 4, 8, 12, 16)), "6 types; SageMaker takes at most 5"),
    ],
)
def test_types_that_do_not_go_together(text: str, message: str):
    with pytest.raises(WrongRequest, match=message):
        split_types(text)


@pytest.mark.parametrize(
    ("types", "requests"),
    [(["ml.g5.xlarge"], 4), (["ml.c7i.xlarge"], 4), (["ml.c7i.large"], 2), (["ml.x9.xlarge", "ml.g5.xlarge"], 1)],
)
def test_visemes_image_counts_its_workers_itself(types: list[str], requests: int):
    assert count_concurrent_requests(types) == requests


def dry_run(capsys: pytest.CaptureFixture[str], *flags: str) -> dict[str, dict]:
    assert main([*flags, "--dry-run"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return {line["operation"]: line["parameters"] for line in lines}


def test_several_types_are_pools_by_priority(capsys: pytest.CaptureFixture[str]):
    calls = dry_run(capsys, *OURS, "--instance-type", "ml.g5.xlarge, ml.g6.xlarge,ml.g4dn.xlarge")
    [variant] = calls["CreateEndpointConfig"]["ProductionVariants"]
    assert variant["InstancePools"] == [
        {"InstanceType": "ml.g5.xlarge", "Priority": 1},
        {"InstanceType": "ml.g6.xlarge", "Priority": 2},
        {"InstanceType": "ml.g4dn.xlarge", "Priority": 3},
    ]
    assert "InstanceType" not in variant
    assert variant["InferenceAmiVersion"] == "al2023-ami-sagemaker-inference-gpu-4-1"


def test_the_stock_images_server_gets_a_number(capsys: pytest.CaptureFixture[str]):
    """Its server knows no `auto`; the queue has 8 places per worker."""
    flags = [*OURS[:-2], "--instance-type", "ml.g5.xlarge", "--env", "SAGEMAKER_MODEL_SERVER_WORKERS=auto"]
    environment = dry_run(capsys, *flags)["CreateModel"]["PrimaryContainer"]["Environment"]
    assert environment["SAGEMAKER_MODEL_SERVER_WORKERS"] == "3"
    assert environment["MMS_JOB_QUEUE_SIZE"] == "24"


def test_the_default_type_comes_with_a_hint(capsys: pytest.CaptureFixture[str]):
    without_type = [*OURS[:4], *OURS[6:]]
    assert "--instance-type" not in without_type
    assert main([*without_type, "--dry-run"]) == 0
    assert "hint: the instance is an ml.g5.xlarge; lip reading is mostly work of the CPU" in capsys.readouterr().err
    assert main([*OURS, "--dry-run"]) == 0
    assert "hint" not in capsys.readouterr().err
