"""Runtimes behind one call: a network takes one array per input and returns one per output."""

from inference.backends.device import DEVICES, PRECISIONS, Device, choose_device, has_int8, resolve_auto_precision
from inference.backends.openvino_network import OpenVinoNetwork
from inference.backends.torch_network import TorchNetwork

__all__ = [
    "DEVICES",
    "PRECISIONS",
    "Device",
    "OpenVinoNetwork",
    "TorchNetwork",
    "choose_device",
    "has_int8",
    "resolve_auto_precision",
]
