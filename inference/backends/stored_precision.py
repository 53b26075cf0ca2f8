"""Checks of device and precision that every network stored as an OpenVINO model shares."""

from __future__ import annotations

from inference.backends.device import Device
from inference.errors import InvalidRequest


def check_on_cpu(label: str, device: Device) -> None:
    """Raise InvalidRequest if an OpenVINO model is to run on a device that is not a CPU."""
    if device.name != "cpu":
        raise InvalidRequest(f"{label}: an OpenVINO model runs on a CPU, not on {device.name}; choose device cpu")


def check_stored_precision(label: str, device: Device, *, is_int8: bool) -> None:
    """Raise InvalidRequest if the precision of the device is not one that the stored model can run in.

    is_int8: the stored model is quantised. An int8 model runs in int8 only, any other model in any other precision.
    """
    if is_int8 != (device.precision == "int8"):
        have, expected = ("", "auto or int8") if is_int8 else ("not ", "auto, f32 or bf16")
        raise InvalidRequest(f"{label}: is {have}quantised to int8; expected precision {expected}")


def not_quantised(label: str, option: str) -> InvalidRequest:
    """Return the error for weights that int8 needs to be converted first. option: the CLI option that takes them."""
    return InvalidRequest(
        f"precision int8: the weights {label} are not quantised; 'viseme weights convert {label} "
        f"--to openvino --precision int8 -o DIR' quantises them, and '{option} DIR' loads the result"
    )
