"""Whether torch is installed: the image for CPUs has none, as OpenVINO runs everything there."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec

from inference.errors import DeviceUnavailable


@cache
def has_torch() -> bool:
    """Return whether torch can be imported, without importing it, which takes a second."""
    return find_spec("torch") is not None


def require_torch(purpose: str) -> None:
    """Raise DeviceUnavailable naming the purpose, if torch is not installed."""
    if not has_torch():
        raise DeviceUnavailable(f"{purpose} needs torch, which is not installed here, as in Viseme's image for CPUs")
