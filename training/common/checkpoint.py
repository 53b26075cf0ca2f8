"""What a run keeps: its state, to go on from, and the weights that it makes. Both are replaced in one move."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor


def save_state(run: Path, state: Mapping[str, Any]) -> None:
    """Everything needed to go on; a kill leaves the old or the new."""
    path = run / "checkpoint.pt"
    torch.save(dict(state), path.with_suffix(".partial"))
    os.replace(path.with_suffix(".partial"), path)


def load_state(run: Path) -> dict[str, Any] | None:
    """What `save_state` kept there last; None where a run begins."""
    path = run / "checkpoint.pt"
    if not path.is_file():
        return None
    state: dict[str, Any] = torch.load(path, weights_only=True)
    return state


def write_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """As safetensors, readable by everybody."""
    partial = path.with_suffix(".partial")
    save_file(dict(tensors), partial)
    partial.chmod(0o644)  # save_file leaves it to its owner alone
    os.replace(partial, path)
