"""The instance types of an endpoint: their hardware, and how many workers it carries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from deploy.errors import WrongRequest
from deploy.images import has_gpu

DEFAULT_TYPE = "ml.g5.xlarge"
MAX_TYPES = 5  # SageMaker's limit for the instance pools of one variant
# What one worker of the stock image takes, rounded up: a minute of video is 0.4 GiB (docs/benchmarks.md); torch, CUDA
# and a checkpoint of full size take more. On a GPU this has not been measured.
WORKER_MEMORY_GIB = 2
WORKER_GPU_MEMORY_GIB = 3
SYSTEM_MEMORY_GIB = 2  # for the system, and for the server in front of the workers
# A worker on a GPU keeps about one CPU busy, which decodes videos and finds faces. Without a GPU the networks run on
# the CPU, too.
CPUS_PER_WORKER = {"gpu": 1, "cpu": 2}
MAX_WORKERS = 64  # inference/settings.py
REQUESTS_PER_GPU_WORKER = 4  # docs/configuration.md, VISEME_REQUESTS_PER_WORKER


@dataclass(frozen=True)
class Hardware:
    """Of one instance. gpu_memory_gib: of its first GPU, the only one that the workers use; 0 without one."""

    cpus: int
    memory_gib: int
    gpu_memory_gib: int = 0


# Family: GiB of memory per CPU, and of the GPU, rounded down. Source: EC2's own description (DescribeInstanceTypes) as
# moto 5.2.5 contains it, November 2026; a test compares all of this.
FAMILIES = {
    "c5": (2, 0),
    "c6i": (2, 0),
    "c7i": (2, 0),
    "m5": (4, 0),
    "m6i": (4, 0),
    "m7i": (4, 0),
    "g4dn": (4, 16),
    "g5": (4, 22),
    "g6": (4, 22),
    "g6e": (8, 44),
}
SIZES = {"large": 2, "xlarge": 4, "2xlarge": 8, "4xlarge": 16, "8xlarge": 32, "12xlarge": 48, "16xlarge": 64}
# Families with a local NVMe disk, which is encrypted by its own hardware instead of a KMS key.
LOCAL_DISK_FAMILIES = (
    "c5d",
    "c6id",
    "g4dn",
    "g5",
    "g6",
    "g6e",
    "m5d",
    "m6id",
    "p3dn",
    "p4d",
    "p4de",
    "p5",
    "p5e",
    "p5en",
    "r5d",
)


def find_hardware(instance_type: str) -> Hardware | None:
    """Return the hardware of an instance type; None if it is not in the table."""
    _, family, size = instance_type.split(".")
    if family not in FAMILIES or size not in SIZES:
        return None
    gib_per_cpu, gpu_memory_gib = FAMILIES[family]
    return Hardware(SIZES[size], SIZES[size] * gib_per_cpu, gpu_memory_gib)


def count_workers(instance_types: Sequence[str]) -> int:
    """Return how many workers each of these instance types carries; 1 if one of them is not in the table."""
    return min(count_workers_of(find_hardware(one)) for one in instance_types)


def count_workers_of(hardware: Hardware | None) -> int:
    """Return how many workers fit into CPUs, memory and GPU memory: at least 1."""
    if hardware is None:
        return 1
    bounds = [(hardware.memory_gib - SYSTEM_MEMORY_GIB) // WORKER_MEMORY_GIB, MAX_WORKERS]
    if hardware.gpu_memory_gib:
        # One CPU is left for the server, which receives bodies and starts the processes that decode.
        bounds += [hardware.cpus // CPUS_PER_WORKER["gpu"] - 1, hardware.gpu_memory_gib // WORKER_GPU_MEMORY_GIB]
    else:
        bounds.append(hardware.cpus // CPUS_PER_WORKER["cpu"])
    return max(1, min(bounds))


def count_concurrent_requests(instance_types: Sequence[str]) -> int:
    """Return how many requests Viseme's own image runs at once on each of these types, with `auto` workers.

    It has one worker on a GPU, which runs four; without one, a worker on each core, as far as memory allows.
    """
    return min(count_concurrent_requests_of(find_hardware(one)) for one in instance_types)


def count_concurrent_requests_of(hardware: Hardware | None) -> int:
    if hardware is None:
        return 1
    if hardware.gpu_memory_gib:
        return REQUESTS_PER_GPU_WORKER
    return min(hardware.cpus, hardware.memory_gib - 1)


def split_types(text: str) -> tuple[str, ...]:
    """Split "a,b,c" into instance types, in the order in which SageMaker tries them.

    Raises: WrongRequest if one is not a SageMaker type, occurs twice, or has a GPU while another has none: image and
    machine image are chosen for all of them.
    """
    found = tuple(part.strip() for part in text.split(","))
    if not all(found):
        raise WrongRequest(
            f"--instance-type {text}: expected types separated by commas, such as ml.g5.xlarge,ml.g6.xlarge"
        )
    kinds = {has_gpu(one) for one in found}
    if len(found) > MAX_TYPES:
        raise WrongRequest(f"--instance-type {text}: {len(found)} types; SageMaker takes at most {MAX_TYPES}")
    if len(set(found)) < len(found):
        raise WrongRequest(f"--instance-type {text}: a type occurs twice")
    if len(kinds) > 1:
        raise WrongRequest(f"--instance-type {text}: some have a GPU and some have none; they share one image")
    return found


def has_local_disk(instance_type: str) -> bool:
    return instance_type.split(".")[1] in LOCAL_DISK_FAMILIES
