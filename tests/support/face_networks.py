"""A narrow Wav2Lip and an S3FD with random weights, and inputs for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from inference.models import S3FD, Wav2Lip
from support.golden_weights import seeded_state, uniform
from support.small_wav2lip import NARROW


def make_wav2lip() -> Wav2Lip:
    module = Wav2Lip(NARROW).eval()
    module.load_state_dict(seeded_state(module, 0.9))
    return module


def make_s3fd() -> S3FD:
    module = S3FD().eval()
    module.load_state_dict(seeded_state(module))
    return module


def save_networks(folder: Path, wav2lip: Wav2Lip, s3fd: S3FD) -> dict[str, Path]:
    """Write both as torch files in upstream's forms, and return their paths by name."""
    torch.save({"state_dict": {f"module.{k}": v for k, v in wav2lip.state_dict().items()}}, folder / "wav2lip.pth")
    torch.save(s3fd.state_dict(), folder / "s3fd.pth")
    return {name: folder / f"{name}.pth" for name in ("wav2lip", "s3fd")}


def wav2lip_inputs(n: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Return audio (n, 1, 80, 16) and faces (n, 6, 96, 96) with a masked lower half."""
    audio, face = uniform("wav2lip.audio", (n, 1, 80, 16)) * 8 - 4, uniform("wav2lip.face", (n, 6, 96, 96))
    face[:, :3, 48:] = 0
    return audio, face


def s3fd_input(height: int, width: int) -> np.ndarray:
    return (uniform("image", (1, 3, height, width)) * 255 - 110).astype(np.float32)


def run_module(module: torch.nn.Module, *inputs: np.ndarray) -> list[np.ndarray]:
    """Run a module and return its outputs as a list."""
    with torch.inference_mode():
        found = module(*map(torch.from_numpy, inputs))
    return [one.numpy() for one in (found if isinstance(found, tuple) else (found,))]
