"""Runtimes behind one call: a network takes one array per input and returns one per output.

`torch_network` and `cuda_graph` are not imported here: torch takes a second to import.
"""

from inference.backends.device import (
    DEVICES,
    PRECISIONS,
    TENSORRT,
    Device,
    choose_device,
    has_int8,
    resolve_auto_precision,
)
from inference.backends.openvino_network import GraphRecipe, OpenVinoNetwork

__all__ = [
    "DEVICES",
    "PRECISIONS",
    "TENSORRT",
    "Device",
    "GraphRecipe",
    "OpenVinoNetwork",
    "choose_device",
    "has_int8",
    "resolve_auto_precision",
]
