"""Wav2Lip checkpoints like upstream's, but small.

Their weights are random: the mouths they generate mean nothing.
"""

from __future__ import annotations

import io
import wave
from pathlib import Path

import numpy as np
import torch

from inference.dimensions.wav2lip import Wav2LipWidths
from inference.models import Wav2Lip
from support.golden_weights import seeded_state

NARROW = Wav2LipWidths((4, 6, 8, 10, 12, 14, 16), (3, 5, 7, 9, 11), (13, 12, 10, 8, 6, 5, 4), 7)
RATE = 16000


def write_checkpoints(folder: Path) -> list[Path]:
    """Write two checkpoints in upstream's formats, both with optimizer state.

    One is an old pickle with `module.` before each name, the other a zip without the prefix.
    """
    paths = []
    for name, prefix, gain, as_zip in (("wav2lip", "module.", 0.9, False), ("wav2lip_gan", "", 1.3, True)):
        state = {f"{prefix}{key}": value for key, value in seeded_state(Wav2Lip(NARROW), gain).items()}
        whole = {"state_dict": state, "optimizer": {"state": {}}, "global_step": 3, "global_epoch": 1}
        path = folder / f"{name}.pth"
        torch.save(whole, path, _use_new_zipfile_serialization=as_zip)
        paths.append(path)
    return paths


def voice(seconds: float) -> bytes:
    """Return a WAV file of a pulsating tone."""
    t = np.arange(round(seconds * RATE)) / RATE
    samples = (9000 * np.sin(2 * np.pi * 180 * t) * np.sin(2 * np.pi * 2 * t) ** 2).astype(np.int16)
    return as_wav(samples)


def as_wav(samples: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as out:
        out.setparams((1, 2, RATE, 0, "NONE", ""))
        out.writeframes(samples.tobytes())
    return buffer.getvalue()
