"""Files of a run: the checkpoint to resume from, and the weights. Each is replaced atomically."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from inference.atomic_write import atomic_file


def save_checkpoint(run: Path, state: Mapping[str, Any]) -> None:
    """Write everything needed to resume a run to its folder."""
    with atomic_file(run / "checkpoint.pt") as partial:
        torch.save(dict(state), partial)


def load_checkpoint(run: Path, device: torch.device | str = "cpu") -> dict[str, Any] | None:
    """Return the last state that `save_checkpoint` wrote; None if the run has no checkpoint yet."""
    path = run / "checkpoint.pt"
    if not path.is_file():
        return None
    state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    return state


def write_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors as safetensors, readable by every user."""
    with atomic_file(path, mode=0o644) as partial:  # save_file makes it readable by the owner only
        save_file(dict(tensors), partial)


def write_half_precision(network: nn.Module, path: Path) -> None:
    """Write a network's tensors as safetensors: float16, except for integers such as the counters of batch norms."""
    tensors = {
        name: (value.half() if value.is_floating_point() else value).detach().cpu().contiguous()
        for name, value in network.state_dict().items()
    }
    write_tensors(tensors, path)
