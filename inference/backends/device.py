"""Choice of the device that a model runs on, and of the precision."""

from __future__ import annotations

import math
import os
import re
import sys
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

from inference.backends.openvino_network import has_bf16
from inference.backends.torch_import import has_torch
from inference.errors import DeviceUnavailable, InvalidRequest

DRIVER = Path("/proc/driver/nvidia/version")
# NVIDIA, its Jetson boards, WSL 2, AMD
GPU_DEVICES = (Path("/dev/nvidiactl"), Path("/dev/nvmap"), Path("/dev/dxg"), Path("/dev/kfd"))
CPUINFO = Path("/proc/cpuinfo")
CGROUP = Path("/sys/fs/cgroup")
CORE_SIBLINGS = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
INT8_FLAGS = {"avx512_vnni", "avx_vnni"}
DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", "f32", "f16", "bf16", "int8")
TENSORRT = "tensorrt"
ENGINES = ("auto", TENSORRT)
NEW_LINE = "\n"


@dataclass(frozen=True)
class Device:
    """A device and the precision of its matrix products; results are float32.

    name: cpu or cuda. precision: f32, f16, bf16 or int8; on a CPU also auto, until the weights are known:
    `resolve_auto_precision` replaces it. engine: of Wav2Lip and the U-Net, auto or tensorrt; see `tensorrt_network`.
    """

    name: str
    precision: str
    engine: str = "auto"


def choose_device(device: str = "auto", precision: str = "auto", engine: str = "auto") -> Device:
    """Choose the device; `auto` is a GPU if there is one, and f16 on it.

    Raises: InvalidRequest if a name does not exist or the device does not support the precision. DeviceUnavailable if
    torch cannot use the GPU that was requested or that the machine has: falling back to the CPU of a GPU machine
    silently would be slow and expensive.
    """
    check_choice("device", device, DEVICES)
    check_choice("precision", precision, PRECISIONS)
    check_choice("engine", engine, ENGINES)
    use_gpu = device == "cuda" or (device == "auto" and may_have_gpu() and (has_cuda() or driver_version() is not None))
    if use_gpu and (fault := gpu_fault()) is not None:
        reason = "device cuda was requested" if device == "cuda" else "this machine has a GPU"
        raise DeviceUnavailable(f"{reason}, but {fault}; install a matching pair, or choose the device cpu")
    name = "cuda" if use_gpu else "cpu"
    if name == "cuda":
        return Device(name, check_gpu_precision(precision), engine)
    return Device(name, check_cpu_precision(precision), engine)


def check_gpu_precision(precision: str) -> str:
    if precision == "int8":
        raise InvalidRequest("precision int8 needs a CPU; on a GPU expected auto, f32, f16 or bf16")
    return "f16" if precision == "auto" else precision


def check_cpu_precision(precision: str) -> str:
    if precision == "f16":
        raise InvalidRequest("precision f16 needs a GPU; on a CPU expected auto, f32, bf16 or int8")
    if precision == "bf16" and not has_bf16():
        raise InvalidRequest("precision bf16: this CPU does not support it; expected auto, f32 or int8")
    return precision


def resolve_auto_precision(device: Device, *recorded: str) -> Device:
    """Return the device with its precision resolved.

    recorded: precisions that were measured to work well with the weights, best first. `auto` becomes the first that the
    CPU supports, or f32.
    """
    if device.precision != "auto":
        return device
    has = {"bf16": has_bf16, "int8": has_int8}
    return replace(device, precision=next((name for name in recorded if name not in has or has[name]()), "f32"))


def has_int8(cpuinfo: Path = CPUINFO) -> bool:
    """Return whether this CPU accumulates int8 products in 32 bits; older ones use 16 bits, with other results."""
    try:
        return bool(INT8_FLAGS & set(cpuinfo.read_text().split()))
    except OSError:
        return False


def count_threads(wanted: int | None = None) -> int:
    """Return the number of threads for one call: torch's, or what it would choose if it is not imported.

    wanted: None for the physical cores that this process may use.
    """
    if "torch" in sys.modules:
        import torch  # waits for another thread that is importing it

        return torch.get_num_threads()
    return wanted or count_usable_cores()


def count_usable_cores() -> int:
    """Return the number of physical cores that this process may use, within the quota of its container."""
    return min(count_cores(), cpu_quota())


def cpu_quota(cgroup: Path = CGROUP) -> int:
    """Return the cores that the container's quota amounts to, rounded up. Source: cpu.max of the kernel's cgroup v2."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        return sys.maxsize
    return max(math.ceil(int(quota) / int(period)), 1) if quota.isdecimal() else sys.maxsize


def count_cores() -> int:
    """Return the number of physical cores that this process may use."""
    return len({core_of(cpu) for cpu in os.sched_getaffinity(0)})


def core_of(cpu: int) -> str:
    """Return a name that the threads of a physical core share."""
    try:
        return Path(CORE_SIBLINGS.format(cpu)).read_text()
    except OSError:  # a kernel or a sandbox without it
        return str(cpu)


def may_have_gpu() -> bool:
    """Return whether to import torch to find out if there is a GPU: without a driver torch can't find one."""
    return "torch" in sys.modules or driver_version() is not None or any(path.exists() for path in GPU_DEVICES)


def has_cuda() -> bool:
    if not has_torch():
        return False
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an old driver: `gpu_fault` reports it as an error
        return torch.cuda.is_available()


def gpu_fault() -> str | None:
    """Return why torch cannot use the GPU, with both versions; None if it can.

    This adds two numbers on the GPU: torch reports GPUs as available even if it has no kernels for them.
    """
    if not has_torch():
        return f"torch is not installed, as in Viseme's image for CPUs (NVIDIA driver: {driver_version() or 'none'})"
    import torch

    reason = ""
    if has_cuda():
        try:
            run_on_gpu()
        except RuntimeError as err:  # for example no kernel image, out of memory, exclusive use
            reason = f": {str(err).partition(NEW_LINE)[0]}"
        else:
            return None
    torch_build = f"torch {torch.__version__} (built for {cuda_build(torch.version.cuda)})"
    return f"{torch_build} cannot use one (NVIDIA driver: {driver_version() or 'none'}){reason}"


def run_on_gpu() -> None:
    """Raise RuntimeError if the GPU cannot add two numbers."""
    import torch

    torch.ones(1, device="cuda").add_(1).item()


def describe_gpu() -> dict[str, str | None]:
    """Return the GPU's name, its driver's version and the CUDA version that torch was built for; None if missing."""
    driver = driver_version()
    if not may_have_gpu() or not has_torch():
        return {"gpu": None, "driver": driver, "torch_cuda": None}
    import torch

    name = torch.cuda.get_device_name() if has_cuda() else None
    return {"gpu": name, "driver": driver, "torch_cuda": torch.version.cuda if name or driver else None}


def driver_version(proc: Path = DRIVER) -> str | None:
    """Return the version of the running NVIDIA driver; None if there is none."""
    try:
        text = proc.read_text()
    except OSError:
        return None
    found = re.search(r"\b\d{3,}\.\d+(\.\d+)?\b", text)
    return found.group() if found else "unknown"


def cuda_build(cuda: str | None) -> str:
    return f"CUDA {cuda}" if cuda else "no CUDA"


def check_choice(option: str, found: str, expected: tuple[str, ...]) -> None:
    if found not in expected:
        raise InvalidRequest(f"{option} {found!r}: expected one of {', '.join(expected)}")
