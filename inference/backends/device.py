"""Which device a model runs on, and in which precision."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

from inference.backends.openvino import has_bf16
from inference.errors import DeviceUnavailable, InvalidRequest

DRIVER = Path("/proc/driver/nvidia/version")
CPUINFO = Path("/proc/cpuinfo")
INT8_FLAGS = {"avx512_vnni", "avx_vnni"}
DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", "f32", "f16", "bf16", "int8")
NEW_LINE = "\n"


@dataclass(frozen=True)
class Device:
    """name: cpu or cuda. precision: f32, f16, bf16 or int8, of the matrix products; results are float32.

    On a CPU auto, too, until it is known which weights will run: `settle` says what that is.
    """

    name: str
    precision: str


def choose_device(device: str = "auto", precision: str = "auto") -> Device:
    """Settle what `auto` means on this machine: a GPU where there is one, and f16 on it.

    Raises: InvalidRequest for a name that does not exist or a precision that the device has not.
    DeviceUnavailable when cuda is asked for, or a GPU is there, and torch cannot use it: to run on
    the CPU of a GPU machine in silence would be slow and dear.
    """
    check_choice("device", device, DEVICES)
    check_choice("precision", precision, PRECISIONS)
    is_wanted = device == "cuda" or (device == "auto" and (has_cuda() or driver_version() is not None))
    if is_wanted and (fault := find_fault()) is not None:
        why = "device cuda was asked for" if device == "cuda" else "this machine has a GPU"
        raise DeviceUnavailable(f"{why}, but {fault}; install a matching pair, or choose the device cpu")
    name = "cuda" if is_wanted else "cpu"
    if name == "cuda":
        return Device(name, check_gpu_precision(precision))
    return Device(name, check_cpu_precision(precision))


def check_gpu_precision(precision: str) -> str:
    if precision == "int8":
        raise InvalidRequest("precision int8 needs a CPU; on a GPU expected auto, f32, f16 or bf16")
    return "f16" if precision == "auto" else precision


def check_cpu_precision(precision: str) -> str:
    if precision == "f16":
        raise InvalidRequest("precision f16 needs a GPU; on a CPU expected auto, f32, bf16 or int8")
    if precision == "bf16" and not has_bf16():
        raise InvalidRequest("precision bf16: this CPU does not compute in it; expected auto, f32 or int8")
    return precision


def settle(device: Device, *recorded: str) -> Device:
    """The same with `auto` become what was measured to be good for the weights, the best first; f32 where the CPU
    has none of that.
    """
    if device.precision != "auto":
        return device
    has = {"bf16": has_bf16, "int8": has_int8}
    return replace(device, precision=next((name for name in recorded if name not in has or has[name]()), "f32"))


def has_int8(cpuinfo: Path = CPUINFO) -> bool:
    """Whether this CPU adds products of int8 without overflow: older ones do it in 16 bits, with other results."""
    try:
        return bool(INT8_FLAGS & set(cpuinfo.read_text().split()))
    except OSError:
        return False


def has_cuda() -> bool:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an old driver: `find_fault` says it, as an error
        return torch.cuda.is_available()


def find_fault() -> str | None:
    """Why torch cannot use a GPU here, naming both versions; None where it can.

    Found out by a sum on the GPU: torch counts cards as available that it has no kernels for.
    """
    import torch

    reason = ""
    if has_cuda():
        try:
            run_on_gpu()
        except RuntimeError as err:  # of several kinds: no kernel image, out of memory, exclusive use
            reason = f": {str(err).partition(NEW_LINE)[0]}"
        else:
            return None
    torch_is = f"torch {torch.__version__} (built for {built_for(torch.version.cuda)})"
    return f"{torch_is} cannot use one (NVIDIA driver: {driver_version() or 'none'}){reason}"


def run_on_gpu() -> None:
    """Raises: RuntimeError where the GPU cannot add two numbers."""
    import torch

    torch.ones(1, device="cuda").add_(1).item()


def describe_gpu() -> dict[str, str | None]:
    """The GPU's name, its driver's version and the CUDA that torch was built for; None each where there is none."""
    import torch

    driver = driver_version()
    name = torch.cuda.get_device_name() if has_cuda() else None
    return {"gpu": name, "driver": driver, "torch_cuda": torch.version.cuda if name or driver else None}


def driver_version(proc: Path = DRIVER) -> str | None:
    """The version of the NVIDIA driver that this machine runs; None where it runs none."""
    try:
        text = proc.read_text()
    except OSError:
        return None
    found = re.search(r"\b\d{3,}\.\d+(\.\d+)?\b", text)
    return found.group() if found else "unknown"


def built_for(cuda: str | None) -> str:
    return f"CUDA {cuda}" if cuda else "no CUDA at all"


def check_choice(what: str, found: str, expected: tuple[str, ...]) -> None:
    if found not in expected:
        raise InvalidRequest(f"{what} {found!r}: expected one of {', '.join(expected)}")
