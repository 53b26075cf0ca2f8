"""Convolutions in bfloat16, on processors that compute in it."""

from __future__ import annotations

import platform

import torch

X86 = ("x86_64", "AMD64")


def has_bfloat16(device_type: str) -> bool:
    """Return whether torch computes in bfloat16 there faster than in float32.

    On a CPU without AVX-512 torch's reference code takes 30 times as long. With AVX-512 alone oneDNN emulates it, which
    takes twice as long as float32 (measured on the audio networks of an avatar).
    """
    if device_type != "cpu":
        return True
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    return platform.machine() not in X86 or has_bfloat16_instructions()


def has_bfloat16_instructions() -> bool:
    """Return whether an x86 CPU has AVX512_BF16 or AMX."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def mixed_precision(device_type: str = "cpu") -> torch.autocast:
    """Return the context of a forward pass in bfloat16; in float32 on a CPU without it."""
    return torch.autocast(device_type, torch.bfloat16, enabled=has_bfloat16(device_type))
