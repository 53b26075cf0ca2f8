"""Convolutions in bfloat16, on processors that compute in it."""

from __future__ import annotations

import torch


def has_bfloat16(device_type: str) -> bool:
    """Return whether torch computes in bfloat16 there. On other CPUs its reference code takes 30 times as long."""
    return device_type != "cpu" or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def mixed_precision(device_type: str = "cpu") -> torch.autocast:
    """Return the context of a forward pass in bfloat16; in float32 on a CPU without it."""
    return torch.autocast(device_type, torch.bfloat16, enabled=has_bfloat16(device_type))
