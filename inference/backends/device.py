"""Which device a model runs on, and in which precision."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from inference.errors import DeviceUnavailable, InvalidRequest

DRIVER = Path("/proc/driver/nvidia/version")
DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", "f32", "f16", "bf16")


@dataclass(frozen=True)
class Device:
    """name: cpu or cuda. precision: f32, f16 or bf16, of the matrix products; results are float32."""

    name: str
    precision: str


def choose_device(device: str = "auto", precision: str = "auto") -> Device:
    """Settle what `auto` means on this machine: a GPU where there is one; f32 on both.

    Raises: InvalidRequest for a name that does not exist or f16 on a CPU. DeviceUnavailable when
    cuda is asked for, or a GPU is there, and torch cannot use it: to run on the CPU of a GPU machine
    in silence would be slow and dear.
    """
    import torch

    check_choice("device", device, DEVICES)
    check_choice("precision", precision, PRECISIONS)
    has_cuda = torch.cuda.is_available()
    driver = driver_version()
    if not has_cuda and (device == "cuda" or (device == "auto" and driver)):
        why = "device cuda was asked for" if device == "cuda" else "this machine has a GPU"
        raise DeviceUnavailable(
            f"{why}, but torch {torch.__version__} (built for {built_for(torch.version.cuda)}) cannot use one "
            f"(NVIDIA driver: {driver or 'none'}); install a matching pair, or choose the device cpu"
        )
    name = ("cuda" if has_cuda else "cpu") if device == "auto" else device
    if precision == "f16" and name == "cpu":
        raise InvalidRequest("precision f16 needs a GPU; on a CPU expected auto, f32 or bf16")
    return Device(name, "f32" if precision == "auto" else precision)


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
