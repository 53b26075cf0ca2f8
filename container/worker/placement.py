"""Where workers run: how many of them, on which GPU, with how many threads and requests at a time."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from inference.backends.device import CGROUP, count_usable_cores, driver_version
from inference.backends.threads import THREADS
from inference.settings import Settings, visible_gpus, wanted_threads

# A worker that reads three-second clips, with the process that decodes them; see docs/benchmarks.md. Lip sync of a
# video of 1280x720 takes twice as much for a while.
WORKER_BYTES = 1 << 30
SERVER_BYTES = 1 << 30  # for the server process, live avatars and bodies on their way
MAX_WORKERS = 64
GPU_LANES = 4  # requests that a worker on a GPU runs at a time; never measured on one
VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"
GPU_NODE = re.compile(r"nvidia(\d+)")  # in /dev, one for each GPU of the container


@dataclass(frozen=True)
class Machine:
    """What workers share.

    gpus: as CUDA_VISIBLE_DEVICES names them; empty without a GPU, or if they can't be listed (`has_gpu`).
    """

    n_cores: int
    memory_bytes: int
    has_gpu: bool = False
    gpus: tuple[str, ...] = ()

    @classmethod
    def inspect(cls, settings: Settings, env: Mapping[str, str] | None = None) -> Machine:
        """Inspect this machine, or the part of it that its container may use, without loading CUDA."""
        has_gpu = settings.device == "cuda" or (settings.device == "auto" and driver_version() is not None)
        gpus = list_gpus(visible_gpus(env)) if has_gpu else ()
        return cls(count_usable_cores(), memory_limit(), has_gpu, gpus)


@dataclass(frozen=True)
class Placement:
    """The place of one worker, which its successors take if it dies.

    n_lanes: requests that it runs at a time. environment: variables of the process, set before it loads any library.
    """

    n_lanes: int = 1
    environment: dict[str, str] = field(default_factory=dict)


def place_workers(settings: Settings, machine: Machine, env: Mapping[str, str] | None = None) -> list[Placement]:
    """Return the places of all workers: worker i on GPU i modulo their number; on a CPU the cores are divided."""
    n_workers = count_workers(machine) if settings.workers == "auto" else settings.workers
    automatic = GPU_LANES if machine.has_gpu else 1
    n_lanes = automatic if settings.requests_per_worker == "auto" else settings.requests_per_worker
    threads = {}
    if settings.threads is not None:
        threads[THREADS] = str(settings.threads)
    elif n_workers > 1 and not machine.has_gpu and wanted_threads(env) is None:
        threads[THREADS] = str(max(machine.n_cores // n_workers, 1))
    gpus = machine.gpus
    return [
        Placement(n_lanes, threads | ({VISIBLE_GPUS: gpus[i % len(gpus)]} if gpus else {})) for i in range(n_workers)
    ]


def count_workers(machine: Machine) -> int:
    """Return how many workers suit the machine: one a GPU, or one a core, if there is enough memory for them.

    More than one on a GPU would take turns there, each with its own copy of the weights.
    """
    wanted = max(len(machine.gpus), 1) if machine.has_gpu else machine.n_cores
    return max(min(wanted, (machine.memory_bytes - SERVER_BYTES) // WORKER_BYTES, MAX_WORKERS), 1)


def list_gpus(visible: str | None, devices: Path = Path("/dev")) -> tuple[str, ...]:
    """Return the GPUs that CUDA may use, as CUDA_VISIBLE_DEVICES names them. visible: that variable, if it is set."""
    if visible is not None:
        return tuple(name.strip() for name in visible.split(",") if name.strip() not in ("", "-1"))
    found = [match[1] for path in devices.iterdir() if (match := GPU_NODE.fullmatch(path.name))]
    return tuple(str(i) for i in range(len(found)))


def memory_limit(cgroup: Path = CGROUP) -> int:
    """Return the bytes of memory of the machine, or of the container. Source: memory.max of the kernel's cgroup v2."""
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        limit = (cgroup / "memory.max").read_text().strip()
    except OSError:
        return physical
    return min(int(limit), physical) if limit.isdecimal() else physical
