"""What `bench.gpu_check` measures of one network in one batch: time, memory, transfers, and how busy the GPU is."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile

from inference.backends.openvino_network import Array

N_ROUNDS = 5  # timed repetitions
MIB = 1 << 20
Interval = tuple[float, float]  # microseconds
Call = Callable[[], Sequence[Array]]


@dataclass(frozen=True)
class Transfer:
    """Copies between the memories of the CPU and the GPU."""

    n_bytes: int
    ms: float


@dataclass(frozen=True)
class Peak:
    """Peak memory of the GPU, weights included: of tensors, and what torch reserved for them."""

    allocated_mib: float
    reserved_mib: float


@dataclass(frozen=True)
class Occupation:
    """How much of a call, from its first kernel to the end of its last, the GPU works, and the gaps between."""

    busy: float  # 0..1
    gap_ms: float
    n_kernels: int


def reset_memory(device: str) -> None:
    """Free what earlier networks left, and forget their peak."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def read_peak(device: str) -> Peak | None:
    """Return the peak since `reset_memory`; None for a CPU, whose memory torch does not count."""
    if device != "cuda":
        return None
    return Peak(torch.cuda.max_memory_allocated() / MIB, torch.cuda.max_memory_reserved() / MIB)


def synchronize(device: str) -> None:
    """Wait until the GPU has done its work."""
    if device == "cuda":
        torch.cuda.synchronize()


def measure_ms(call: Callable[[], object]) -> float:
    """Return the median milliseconds of a call that waits for its result."""
    times = []
    for _ in range(N_ROUNDS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1000 * float(np.median(times))


def measure_upload(arrays: Sequence[Array], device: str) -> Transfer:
    """Copy arrays to the device, from memory that can be paged out, as networks do."""

    def copy() -> None:
        for one in arrays:
            torch.from_numpy(one).to(device, copy=True)
        synchronize(device)

    return Transfer(sum(one.nbytes for one in arrays), measure_ms(copy))


def measure_download(arrays: Sequence[Array], device: str) -> Transfer:
    """Copy arrays of these shapes from the device."""
    tensors = [torch.from_numpy(np.ascontiguousarray(one)).to(device) for one in arrays]
    synchronize(device)

    def copy() -> None:
        for one in tensors:
            one.to("cpu", copy=True)

    return Transfer(sum(one.nbytes for one in arrays), measure_ms(copy))


def measure_occupation(call: Call, device: str) -> Occupation | None:
    """Record one call by torch's profiler. Returns: None if it recorded nothing on the device."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device == "cuda" else [])]
    with profile(activities=activities, acc_events=True) as profiler:
        call()
        synchronize(device)
    events: Sequence[FunctionEvent] = profiler.events() or ()
    found = [one for one in events if one.device_type.name == device.upper()]
    return occupation_of([(one.time_range.start, one.time_range.end) for one in found])


def occupation_of(intervals: Sequence[Interval]) -> Occupation | None:
    """Return how much of their span intervals cover; they may overlap. None without any."""
    if not intervals:
        return None
    busy, until = 0.0, min(intervals)[0]
    first = until
    for start, end in sorted(intervals):
        busy += max(0.0, end - max(start, until))
        until = max(until, end)
    span = until - first
    return Occupation(busy / span if span else 1.0, (span - busy) / 1000, len(intervals))
